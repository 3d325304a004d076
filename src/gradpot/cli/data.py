"""`gradpot data info`: what a data file holds, and what looks wrong."""

from math import floor, log10
from typing import Any

from gradpot.cli import Json, data_app, print_json
from gradpot.cli.reading import DataFile, Reading, options

# of a number in double precision, after sums over many frames
ROUNDING = 1e-10


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
    forces, net, cell = (summary[k] for k in ("forces_eV_A", "net_force_eV_A", "cell_A_deg"))
    distance, stress = summary["shortest_distance_A"], summary["stress"]
    spread, isolated = summary["energy_without_atoms_std_eV"], summary["isolated_atoms"]
    rms = "rms of components"
    of_forces, of_stress = "none", ""
    if forces:
        of_forces = f"{rms} {_digits(forces['rms'], 4)}, largest vector {_digits(forces['max'], 4)}"
    if stress:
        gpa = _digits(stress["rms_GPa"], 3)
        of_stress = f"{rms} {_digits(stress['rms_meV_A3'], 4)} ({gpa} GPa)"
    of_net = net and f"up to {_digits(net['max'], 2)} (frame {net['frame']})"
    sizes, formulas = summary["n_atoms"], ", ".join(summary["formulas"])
    some_lack = {k: n for k, n in summary["missing"].items() if 0 < n < summary["frames"]}
    count = f"{summary['frames']}, compositions: {summary['compositions']}"
    rows = [
        ("frames", f"{count} ({formulas})" if formulas else count),
        ("atoms per frame", " to ".join(map(str, sorted(set(sizes.values()))))),
        ("elements", ", ".join(f"{e} {n}" for e, n in summary["elements"].items())),
        ("periodic", f"{summary['periodic_frames']} frames"),
        ("isolated atoms", f"{isolated}, which are set aside as references" if isolated else ""),
        ("energy / eV", _range(summary["energy_eV"], 4) or "none"),
        ("  less fitted atoms", "" if spread is None else f"std {_digits(spread, 4)}"),
        ("energy per atom / eV", _range(summary["energy_per_atom_eV"], 4)),
        ("forces / eV/Å", of_forces),
        ("stress / meV/Å³", of_stress),
        ("net force / eV/Å", of_net or ""),
        ("shortest distance / Å", "none" if distance is None else f"{distance:.3f}"),
        (
            "cell / Å, °",
            f"{' '.join(f'{x:.3f}' for x in cell[:3])}, {' '.join(f'{x:.1f}' for x in cell[3:])}"
            if cell
            else "",
        ),
        ("cell volume / Å³", _range(summary["cell_volume_A3"], 1)),
        ("duplicates", f"{summary['duplicates']} frames"),
        ("without label", ", ".join(f"{k} {n}" for k, n in some_lack.items())),
    ]
    rows = [row for row in rows if row[1]]
    labeled = summary["energy_eV"] or forces
    for label, difference, found in (
        ("energies and forces", "ΔE against −F·ΔR", labeled and summary["consistency"]),
        ("energies and stress", "ΔE against V σ:ε", summary["stress_consistency"]),
    ):
        if found:
            rows.append((label, f"{found['verdict']}: {found['text']}"))
        if found and "slope" in found:
            slope = f"slope {_digits(found['slope'], 3)}"
            slope += f", correlation {_digits(found['correlation'], 3)}"
            pairs = f"{found['n_pairs']} pairs {_digits(found['distance'], 2)} Å apart"
            rows.append((f"  {difference}", f"{slope}, {pairs}"))
    return rows


def _range(values: dict[str, float] | None, decimals: int) -> str:
    """From the lowest to the highest value, to three digits of the standard deviation.

    Args:
        decimals: if all values are the same.
    """
    if values is None:
        return ""
    low, high, std = (values[key] for key in ("min", "max", "std"))
    if std <= ROUNDING * max(abs(low), abs(high)):
        return f"{low:.{decimals}f}"
    shown = min(6, max(0, 2 - floor(log10(std))))
    return f"{low:.{shown}f} to {high:.{shown}f} (std {std:.{shown}f})"


def _digits(value: float, n: int) -> str:
    """A number to `n` digits, trailing zeros included; 0 for a rounding error."""
    return f"{value:#.{n}g}".rstrip(".") if abs(value) > ROUNDING else "0"
