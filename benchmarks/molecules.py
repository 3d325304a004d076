"""Measurements of docs/molecules.md: ethanol, with a potential and with its reference, GFN2-xTB.

    gradpot train --data ethanol --out RUN train.max_cpu_minutes=10   # the command of the page
    python benchmarks/molecules.py run RUN      # adds two rows to results/molecules.jsonl
    python benchmarks/molecules.py page         # writes the tables of docs/molecules.md

The page's Python code runs twice, on the potential and on tblite's GFN2-xTB, and a row stores the
values of its variables.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from accuracy import machine, read
from speed import RESULTS, append

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "molecules.md"
ROWS = RESULTS / "molecules.jsonl"
LOAD = ("from gradpot import Calculator", 'Calculator("RUN/model.safetensors", dtype="float64")')
REFERENCE = ("from tblite.ase import TBLite", 'TBLite(method="GFN2-xTB", verbosity=0)')

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def run(folder: Annotated[Path, typer.Argument(help="run folder of the page's command")]) -> None:
    """Run the page on a trained potential and on its reference, and append both rows."""
    results = json.loads((folder / "results.json").read_text())
    kept = ("train_cpu_s", "compile_cpu_s", "steps", "seed", "gradpot", "torch", "test")
    trained = {"machine": machine()} | {key: results[key] for key in kept}
    text = PAGE.read_text()
    model = text.replace("RUN/", f"{folder.resolve()}/")
    reference = text.replace(LOAD[0], REFERENCE[0]).replace(LOAD[1], REFERENCE[1])
    append(ROWS, [{"with": "gradpot"} | trained | values(model)])
    append(ROWS, [{"with": "GFN2-xTB"} | values(reference)])


def values(text: str) -> dict:
    """Run the code of a page in an empty folder; the values of its variables."""
    names: dict = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                exec(compile(block, PAGE.name, "exec"), names)
        finally:
            os.chdir(before)
    torsion = [names[key] for key in ("C1", "C2", "O", "H")]
    conformers = [
        {
            "angle": a.get_dihedral(*torsion),
            "meV": 1000 * (a.get_potential_energy() - names["lowest"]),
        }
        for a in (names["trans"], *names["gauche"])
    ]
    lists = {key: np.asarray(names[key], dtype=float).tolist() for key in ("torsion", "bond")}
    return {
        "conformers": conformers,
        "wavenumbers": [spectrum.tolist() for spectrum in names["spectra"]],
        "angles": names["angles"].tolist(),
        "lengths": list(names["lengths"]),
        **lists,
        "barrier_meV": float(names["barrier"]),
        "saddle": float(names["saddle"]),
    }


@app.command()
def page() -> None:
    """Write the tables into docs/molecules.md, from the newest rows."""
    newest = {row["with"]: row for row in read(ROWS)}
    ours, reference = newest["gradpot"], newest["GFN2-xTB"]
    text = PAGE.read_text()
    for mark, lines in (("molecules", table(ours, reference)), ("bond", bond(ours, reference))):
        between = re.compile(f"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
        text = between.sub(lambda m, t=lines: m[1] + "\n".join(t) + "\n" + m[2], text)
    PAGE.write_text(text)


def table(ours: dict, reference: dict) -> list[str]:
    """Conformers, vibrations, torsion and barrier, side by side."""
    both = ours, reference
    rows = [
        ("C-C-O-H in gauche", [f"{min(c['angle'] for c in r['conformers']):.1f}°" for r in both]),
        (
            "trans above gauche, meV",
            [f"{max(c['meV'] for c in r['conformers']):.1f}" for r in both],
        ),
        ("largest of the six zero modes, 1/cm", [f"{zero(r).max():.0f}" for r in both]),
    ]
    lowest = [", ".join(f"{value:.0f}" for value in modes(r)[1][:3]) for r in both]
    rows.append(("three lowest vibrations of gauche, 1/cm", lowest))
    rows.append(("O-H stretch of gauche, 1/cm", [f"{modes(r)[1][-1]:.0f}" for r in both]))
    highest = [max(r["torsion"]) for r in both]
    rows.append(("highest point of the torsion, meV", [f"{value:.1f}" for value in highest]))
    barriers = [f"{r['barrier_meV']:.1f} at {r['saddle']:.0f}°" for r in both]
    rows.append(("barrier from trans to gauche, meV", barriers))
    lines = ["| | gradpot | GFN2-xTB |", "|---|---|---|"]
    lines += [f"| {name} | {a} | {b} |" for name, (a, b) in rows]
    apart = np.abs(modes(ours) - modes(reference))
    scan = np.abs(np.subtract(ours["torsion"], reference["torsion"]))
    test = ours["test"]
    return [
        *lines,
        "",
        f"One potential, trained for {ours['train_cpu_s'] / 60:.0f} minutes on one core. Over "
        f"the 42 vibrations of trans and gauche, the mean difference is {apart.mean():.1f} 1/cm "
        f"and the largest {apart.max():.1f}. Along the torsion, the largest difference is "
        f"{scan.max():.1f} meV. On its test frames, the potential has errors of "
        f"{test['energy_mae_meV']:.2f} meV in the energy and "
        f"{test['forces_mae_meV_A']:.1f} meV/Å in the forces.",
    ]


def bond(ours: dict, reference: dict) -> list[str]:
    """Energy along the C-O bond."""
    lines = ["| C-O, Å | gradpot, eV | GFN2-xTB, eV |", "|---|---|---|"]
    return lines + [
        f"| {length:g} | {a:.2f} | {b:.2f} |"
        for length, a, b in zip(ours["lengths"], ours["bond"], reference["bond"], strict=True)
    ]


def zero(row: dict) -> np.ndarray:
    """The six wavenumbers nearest to zero of each conformer."""
    return np.sort(np.abs(row["wavenumbers"]), axis=1)[:, :6]


def modes(row: dict) -> np.ndarray:
    """The 21 vibrations of each conformer, in ascending order."""
    return np.array(
        [sorted(np.delete(w, np.argsort(np.abs(w))[:6])) for w in np.array(row["wavenumbers"])]
    )


if __name__ == "__main__":
    app()
