"""Write the tables and the figure of the studies into benchmarks/activations.md.

    python benchmarks/activations_page.py

This script makes the text between `<!-- NAME -->` and `<!-- end -->`, only from
results/activations.jsonl and results/physics.jsonl; `activation_kernels.py page` makes its part.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import speed_page
from accuracy import read
from activations import RATES, ROWS, STUDIES, TUNED, case_of, tuned
from physics import ROWS as PHYSICS

PAGE = Path(__file__).parent / "activations.md"
FIGURE = Path(__file__).parent / "results" / "activations.png"
STEPS = ("0.001", "0.0001")
NOTHING = "Not measured yet."
Row = dict
Key = Callable[[Row], object]


def table(head: list[str], lines: list[list]) -> str:
    """A Markdown table; empty if there are no lines."""
    return speed_page.table(head, lines) if lines else ""


def of_study(name: str, rows: list[Row]) -> list[Row]:
    """Rows of a study, in its order; the newest row of each case."""
    newest = {case_of(row): row for row in rows}
    return [newest[case] for case in dict.fromkeys(STUDIES[name](rows)) if case in newest]


def forces(row: Row) -> float:
    return row["test"]["forces_mae_meV_A"]


def cell(rows: list[Row]) -> str:
    """Force error (energy error); over several seeds, mean ± standard deviation."""
    good = [row for row in rows if row["test"]]
    if not good:
        return "failed" if rows else ""
    energy = mean(row["test"]["energy_mae_meV"] for row in good)
    spread = f" ± {stdev(map(forces, good)):.1f}" if len(good) > 1 else ""
    lost = f", {len(rows) - len(good)} failed" if len(good) < len(rows) else ""
    return f"{mean(map(forces, good)):.1f}{spread} ({energy:.1f}){lost}"


def grid(rows: list[Row], down: Key, across: Key, corner: str = "") -> str:
    """A table of cells."""
    columns = list(dict.fromkeys(map(across, rows)))
    lines = []
    for name in dict.fromkeys(map(down, rows)):
        mine = [row for row in rows if down(row) == name]
        cells = [cell([row for row in mine if across(row) == column]) for column in columns]
        lines.append([f"`{name}`", *cells])
    return table([corner, *map(str, columns)], lines)


def activation(row: Row) -> str:
    inside, output = row["activation"], row["output_activation"]
    return inside if output is None else f"{inside}, {output} in output blocks"


def rate(row: Row) -> str:
    return f"rate {row['learning_rate']:g}"


def where(row: Row) -> str:
    return f"{row['model']}, {row['system']}"


def rates(rows: list[Row]) -> str:
    """Validation errors of each rate, and the rate that `tuned` chooses."""
    found = of_study("rates", rows)
    lines = []
    heads = ["", "half the default", "default", "twice", "used"]
    for model, name, mine in groups(found):
        row_of = {r["learning_rate"]: r for r in mine}
        cells = [validation(row_of.get(r)) for r in RATES[model]]
        lines.append([f"{model} `{name}`", *cells, f"{tuned(rows, model, name):g}"])
    return table(heads, lines)


def validation(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['valid']['forces_mae_meV_A']:.1f}" if row["valid"] else "loss not finite"


def seeds(rows: list[Row]) -> str:
    """Test errors at equal steps and tuned rates, for three seeds."""
    lines = []
    for model, name, mine in groups(of_study("seeds", rows)):
        good = [row for row in mine if row["test"]]
        n = mine[0]["steps"] if good else 0
        within = f"{mean(row['test']['efwt'] for row in good):.0%}" if good else ""
        lines.append([f"{model} `{name}`", cell(mine), within, n, step_ms(good), len(mine)])
    return table(["", "forces (energy)", "EFwT", "steps", "CPU ms a step", "seeds"], lines)


def equal_time(rows: list[Row]) -> str:
    lines = []
    for model, name, mine in groups(of_study("equal_time", rows)):
        n_steps = round(mean(row["steps"] for row in mine if row["test"]))
        lines.append([f"{model} `{name}`", cell(mine), n_steps, len(mine)])
    return table(["", "forces (energy)", "steps", "seeds"], lines)


def groups(rows: list[Row]) -> Iterable[tuple[str, str, list[Row]]]:
    for model, name in dict.fromkeys((row["model"], row["activation"]) for row in rows):
        yield model, name, [r for r in rows if (r["model"], r["activation"]) == (model, name)]


def step_ms(rows: list[Row]) -> str:
    """The shortest time of all seeds, because disturbances only add time."""
    times = [1e3 * (row["train_cpu_s"] - row["compile_cpu_s"]) / row["steps"] for row in rows]
    return f"{min(times):.2f}" if times else ""


def norms(rows: list[Row]) -> str:
    return grid(
        of_study("norms", rows),
        lambda row: f"{row['model']} {row['activation']}",
        lambda row: f"norm {row['norm'] or 'none'}",
    )


def rescalings(rows: list[Row]) -> str:
    return grid(
        of_study("rescalings", rows),
        lambda row: f"{where(row)}, {row['activation']}",
        lambda row: row["rescale"],
    )


def defaults(rows: list[Row], study: str = "defaults") -> str:
    return grid(
        of_study(study, rows),
        lambda row: row["system"],
        lambda row: f"{rate(row)}, batch {row['batch_size']}",
    )


def physics(rows: list[Row]) -> str:
    """Energy drift, jumps of the force constant and frequencies, averaged over the seeds."""
    found = read(PHYSICS)
    kelvins = sorted({d["temperature_K"] for row in found for d in row["drift"]})
    heads = [f"drift {kelvin:g} K, meV/atom/ns (scatter, meV/atom)" for kelvin in kelvins]
    jumps = ["change of k at h = 10⁻³ Å", "at 10⁻⁴ Å, eV/Å²"]
    waves = ["change of frequencies with displacement, cm⁻¹", "error of the 874 cm⁻¹ mode"]
    lines = []
    for model, name, mine in groups(found):
        moving = [drifts([d for r in mine for d in r["drift"]], kelvin) for kelvin in kelvins]
        steps = [mean(row["stretch"][h]["largest_eV_A2"] for row in mine) for h in STEPS]
        change = mean(row["vibrations"]["largest_change_with_displacement_cm"] for row in mine)
        wrong = mean(abs(row["vibrations"]["mode_error_cm"]) for row in mine)
        figures = [*(f"{step:.3f}" for step in steps), f"{change:.1f}", f"{wrong:.1f}"]
        longest = max(d["time_ps"] for row in mine for d in row["drift"])
        lines.append([f"{model} `{name}`", f"{longest:.0f}", *moving, *figures, len(mine)])
    return table(["", "ps", *heads, *jumps, *waves, "seeds"], lines)


def drifts(found: list[Row], kelvin: float) -> str:
    mine = [d for d in found if d["temperature_K"] == kelvin]
    if not mine:
        return ""
    if blown := sum(d["blow_up"] is not None for d in mine):
        return f"{blown} of {len(mine)} blew up"
    slopes = ", ".join(f"{d['slope_meV_atom_ns']:+.1f}" for d in mine)
    return f"{slopes} ({mean(d['scatter_meV_atom'] for d in mine):.2f})"


def figure(rows: list[Row]) -> None:
    """Plot the test errors of forces at equal steps, one point per seed."""
    panels = plt.subplots(1, len(TUNED), figsize=(9, 3.6), layout="constrained")[1]
    for panel, model in zip(panels, TUNED):
        mine = [row for row in of_study("seeds", rows) if row["model"] == model and row["test"]]
        names = list(dict.fromkeys(row["activation"] for row in mine))
        for row in mine:
            panel.plot(names.index(row["activation"]), forces(row), "o", color="C0", alpha=0.7)
        panel.set(title=f"{model}, rMD17 ethanol", ylabel="force MAE, meV/Å")
        panel.set_xticks(range(len(names)), names)
        panel.grid(axis="y", alpha=0.3)
    plt.savefig(FIGURE, dpi=150)


PARTS: dict[str, Callable[[list[Row]], str]] = {
    "rates": rates,
    "seeds": seeds,
    "equal time": equal_time,
    "others": lambda rows: grid(
        of_study("others", rows), activation, lambda row: row["model"], "activation"
    ),
    "untuned": lambda rows: grid(
        of_study("untuned", rows), activation, lambda row: row["model"], "activation"
    ),
    "output blocks": lambda rows: grid(
        of_study("output_blocks", rows), activation, lambda row: row["model"], "activation"
    ),
    "mixed rates": lambda rows: grid(of_study("mixed_rates", rows), activation, rate, "activation"),
    "muon": lambda rows: grid(of_study("muon", rows), activation, rate, "activation"),
    "muon defaults": lambda rows: defaults(rows, "muon_defaults"),
    "systems": lambda rows: grid(of_study("systems", rows), activation, where, "activation"),
    "rescalings": rescalings,
    "norms": norms,
    "defaults": defaults,
    "physics": physics,
}


def main() -> None:
    rows, text = read(ROWS), PAGE.read_text()
    for name, part in PARTS.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda m, part=part: f"{m[1]}{part(rows) or NOTHING}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )
    PAGE.write_text(text)
    figure(rows)


if __name__ == "__main__":
    main()
