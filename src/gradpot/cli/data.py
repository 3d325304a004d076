"""`gradpot data info`: what is in a file of structures, and what looks wrong with it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradpot.cli import (
    EnergyUnit,
    ForceUnit,
    Json,
    LengthUnit,
    StressKey,
    StressOrder,
    StressSign,
    StressUnit,
    data_app,
    stress_label,
)

if TYPE_CHECKING:
    from rich.console import Console


@data_app.command("info")
def info(
    file: Annotated[str, typer.Argument(help="labeled structures, or a name of `data list`")],
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    force_unit: ForceUnit = None,
    stress_key: StressKey = None,
    stress_unit: StressUnit = None,
    stress_order: StressOrder = None,
    stress_sign: StressSign = None,
    as_json: Json = False,
) -> None:
    """Show what is in a file, and what looks wrong with it."""
    stress = stress_label(stress_key, stress_unit, stress_order, stress_sign)

    from gradpot.data.checks import inspect
    from gradpot.data.source import read

    frames = read(file, energy_unit, length_unit, force_unit, stress)
    summary = {"file": file, **inspect(frames)}
    if as_json:
        print(json.dumps(summary, indent=1, allow_nan=False))
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    """A table for a person, then what the reader noticed, then what looks wrong."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(title=summary["file"], show_header=False, title_justify="left")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    for notice in summary["notices"]:
        console.print(f"- {notice}")
    _print_warnings(console, summary["warnings"])


def _print_warnings(console: "Console", warnings: list[str]) -> None:
    if not warnings:
        console.print("nothing looks wrong in what could be checked", style="green")
    for warning in warnings:
        console.print(f"warning: {warning}", style="bold red")


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line, in plain words."""
    forces, net = summary["forces_eV_A"], summary["net_force_eV_A"]
    agree = summary["consistency"]
    rows = [
        ("frames", f"{summary['frames']}, compositions: {summary['compositions']}"),
        ("atoms per frame", _span(summary["n_atoms"], "d")),
        ("elements", ", ".join(f"{e} {n}" for e, n in summary["elements"].items())),
        ("periodic", f"{summary['periodic_frames']} frames"),
        ("energy / eV", _span(summary["energy_eV"], ".4f")),
        ("energy per atom / eV", _span(summary["energy_per_atom_eV"], ".4f")),
        (
            "forces / eV/Å",
            f"rms of components {forces['rms']:.4g}, largest vector {forces['max']:.4g}"
            if forces
            else "none",
        ),
        ("net force / eV/Å", f"up to {net['max']:.2g} (frame {net['frame']})" if net else "none"),
        ("shortest distance / Å", _number(summary["shortest_distance_A"])),
        ("cell volume / Å³", _span(summary["cell_volume_A3"], ".1f")),
        ("duplicates", f"{summary['duplicates']} frames"),
        ("without label", ", ".join(f"{k} {n}" for k, n in summary["missing"].items())),
        ("energies and forces", f"{agree['verdict']}: {agree['text']}"),
    ]
    rows += _slope("  ΔE against −F·ΔR", agree)
    if summary["stress_consistency"]:
        agree = summary["stress_consistency"]
        rows.append(("energies and stress", f"{agree['verdict']}: {agree['text']}"))
        rows += _slope("  ΔE against V σ:ε", agree)
    return rows


def _slope(name: str, agree: dict[str, Any]) -> list[tuple[str, str]]:
    if "slope" not in agree:
        return []
    slope = f"slope {agree['slope']:.3g}, correlation {agree['correlation']:.3g}"
    return [(name, f"{slope}, {agree['n_pairs']} pairs {agree['distance']:.2g} Å apart")]


def _span(values: dict[str, float] | dict[str, int] | None, form: str) -> str:
    if values is None:
        return "none"
    low, high = format(values["min"], form), format(values["max"], form)
    spread = f" (std {values['std']:.4g})" if "std" in values and low != high else ""
    return (low if low == high else f"{low} to {high}") + spread


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
