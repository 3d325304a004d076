"""`gradpot data info`: what a data file holds, and what looks wrong."""

from typing import Any

from gradpot.cli import Json, data_app, print_json
from gradpot.cli.reading import DataFile, Reading, options


@data_app.command("info")
@options(Reading)
def info(
    file: DataFile,
    *,
    reading: Reading,
    as_json: Json = False,
) -> None:
    """Summarize a data file and report what looks wrong.

    Example: gradpot data info my.extxyz --energy-unit eV --length-unit Ang
    """
    arguments = reading.arguments()  # may be wrong: check before slow imports

    from gradpot.data.checks import inspect
    from gradpot.data.source import read

    summary = {"file": file, **inspect(read(file, **arguments))}
    if as_json:
        print_json(summary, indent=1)
        return

    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(title=file, show_header=False, title_justify="left")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    for notice in summary["notices"]:
        console.print(f"- {notice}")
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", style="bold red")
    if not summary["warnings"]:
        console.print("found no problems in what could be checked", style="green")


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of each line of the table."""
    forces, net = summary["forces_eV_A"], summary["net_force_eV_A"]
    distance, stress = summary["shortest_distance_A"], summary["stress"]
    spread, isolated = summary["energy_without_atoms_std_eV"], summary["isolated_atoms"]
    rms = "rms of components"
    of_forces = forces and f"{rms} {forces['rms']:.4g}, largest vector {forces['max']:.4g}"
    of_stress = stress and f"{rms} {stress['rms_meV_A3']:.4g} ({stress['rms_GPa']:.3g} GPa)"
    rows = [
        ("frames", f"{summary['frames']}, compositions: {summary['compositions']}"),
        ("atoms per frame", _range(summary["n_atoms"], "d")),
        ("elements", ", ".join(f"{e} {n}" for e, n in summary["elements"].items())),
        ("periodic", f"{summary['periodic_frames']} frames"),
        ("isolated atoms", f"{isolated}, which are set aside as references" if isolated else ""),
        ("energy / eV", _range(summary["energy_eV"], ".4f")),
        ("  less fitted atoms", "" if spread is None else f"std {spread:.4g}"),
        ("energy per atom / eV", _range(summary["energy_per_atom_eV"], ".4f")),
        ("forces / eV/Å", of_forces or "none"),
        ("stress / meV/Å³", of_stress or ""),
        ("net force / eV/Å", f"up to {net['max']:.2g} (frame {net['frame']})" if net else "none"),
        ("shortest distance / Å", "none" if distance is None else f"{distance:.3f}"),
        ("cell volume / Å³", _range(summary["cell_volume_A3"], ".1f")),
        ("duplicates", f"{summary['duplicates']} frames"),
        ("without label", ", ".join(f"{k} {n}" for k, n in summary["missing"].items())),
    ]
    rows = [row for row in rows if row[1]]
    for label, difference, found in (
        ("energies and forces", "ΔE against −F·ΔR", summary["consistency"]),
        ("energies and stress", "ΔE against V σ:ε", summary["stress_consistency"]),
    ):
        if found:
            rows.append((label, f"{found['verdict']}: {found['text']}"))
        if found and "slope" in found:
            slope = f"slope {found['slope']:.3g}, correlation {found['correlation']:.3g}"
            pairs = f"{found['n_pairs']} pairs {found['distance']:.2g} Å apart"
            rows.append((f"  {difference}", f"{slope}, {pairs}"))
    return rows


def _range(values: dict[str, float] | dict[str, int] | None, form: str) -> str:
    if values is None:
        return "none"
    low, high = format(values["min"], form), format(values["max"], form)
    spread = f" (std {values['std']:.4g})" if "std" in values and low != high else ""
    return (low if low == high else f"{low} to {high}") + spread
