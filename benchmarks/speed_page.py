"""Write the measured tables and figures into benchmarks/speed.md.

    python benchmarks/speed_page.py

The page is written by hand, except between `<!-- NAME -->` and `<!-- end -->`. This script makes
those parts, only from the newest rows in results/.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from accuracy import plot as accuracy_figure

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "speed.md"
OURS = "gradpot"
KEYS = ("kind", "system", "batch", "threads", "peer", "model", "mode", "flush")
PLACE = ("kind", "system", "batch", "flush")
GROWTH_KEYS = ("model", "system", "mode", "threads")
ACCURACY_KEYS = ("name", "molecule", "budget_cpu_min", "seed", "schedule")
RECORDED = ("products_ms", "fused_ms", "around_ms")
Row = dict
STEP, ETHANOL, ASPIRIN = ("train", "aspirin", 32), ("call", "ethanol", 1), ("call", "aspirin", 1)
WATER = ("call", "water", 1)
# our model, the step or call, the peers, whether denormals are flushed, smallest ratio of times
TARGETS = [
    ("schnet-128x6", STEP, ["pyg"], True, 5),
    ("schnet-128x6", STEP, ["pyg"], False, 15),
    ("painn-128x3", STEP, ["schnetpack"], True, 4),
    ("dimenet++", ("train", "ethanol", 10), ["pyg"], True, 5),
    ("schnet-128x6", ETHANOL, ["pyg", "schnetpack"], True, 10),
    ("schnet-128x6", ASPIRIN, ["pyg", "schnetpack"], True, 10),
    ("painn-128x3", ETHANOL, ["schnetpack"], True, 10),
    ("painn-128x3", ASPIRIN, ["schnetpack"], True, 10),
    ("schnet-128x6", WATER, ["pyg", "schnetpack", "nequip", "mace", "torchmdnet"], True, 6),
    ("painn-128x3", WATER, ["pyg", "schnetpack", "nequip", "mace", "torchmdnet"], True, 6),
]
# largest force MAE on the test frames after 20 CPU minutes, in meV/Å; smallest ratio of the best
# peer's error to ours
ERROR_AT_20, TIMES_BETTER = {"ethanol": 7.5, "aspirin": 15.0}, 2.0
# two system sizes, and the largest ratio of their costs per atom
GROWTH_BETWEEN, GROWTH_MOST = (1536, 12288), 1.25


def newest(name: str, keys: tuple[str, ...]) -> list[Row]:
    """The last row for each value of `keys`, in the order of the file."""
    path = RESULTS / name
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[tuple, Row] = {}
    for row in map(json.loads, lines):
        found.pop(key := tuple(row.get(k) for k in keys), None)
        found[key] = row
    return list(found.values())


def table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def entrant(row: Row) -> str:
    mode = "" if row["mode"] == "eager" else f", {row['mode']}"
    return f"{row['peer']} {row.get('version') or ''} {row['model']}{mode}".replace("  ", " ")


def comparisons(kind: str) -> str:
    """A table for each system, batch and number of threads."""
    rows = [row for row in newest("speed.jsonl", KEYS) if row["kind"] == kind]
    titles = dict.fromkeys((row["system"], row["batch"], row["threads"]) for row in rows)
    parts = []
    for title in titles:
        mine = [r for r in rows if (r["system"], r["batch"], r["threads"]) == title]
        batch = f" × {title[1]}" if kind == "train" else ""
        threads = "one thread" if title[2] == 1 else f"{title[2]} threads"
        parts.append(f"**{title[0]}{batch}, {threads}**\n\n{comparison(mine)}")
    return "\n\n".join(parts)


def comparison(rows: list[Row]) -> str:
    head = ["", "CPU ms, flushed", "wall ms (quartiles)", "as shipped", "of GEMM rate", "peak MiB"]
    lines = []
    for name in dict.fromkeys(map(entrant, rows)):
        flushed, shipped = (
            next((r for r in rows if entrant(r) == name and r.get("flush") == flush), None)
            for flush in (True, False)
        )
        if flushed is None or "failed" in flushed:
            reason = next((r["failed"] for r in rows if entrant(r) == name and "failed" in r), "")
            lines.append([name, "failed", reason.strip().splitlines()[-1][:90], "", "", ""])
            continue
        rate = flushed.get("matmul_gflops_per_cpu_s")
        lines.append(
            [
                name,
                f"{flushed['cpu_ms']:.2f}",
                "{wall_ms:.2f} ({wall_ms_q1:.2f}–{wall_ms_q3:.2f})".format(**flushed),
                f"{shipped['cpu_ms']:.2f}" if shipped else "",
                f"{rate / flushed['gemm_gflops_per_cpu_s']:.0%}" if rate else "",
                f"{flushed['peak_MiB']:.0f}",
            ]
        )
    return table(head, lines)


def targets() -> str:
    """Targets and results, by median CPU time."""
    rows = [r for r in newest("speed.jsonl", KEYS) if "failed" not in r and r["threads"] == 1]
    lines = []
    for model, (kind, system, batch), peers, flush, least in TARGETS:
        place = (kind, system, batch, flush)
        here = [r for r in rows if tuple(r[k] for k in PLACE) == place]
        ours = [r["cpu_ms"] for r in here if (r["peer"], r["model"]) == (OURS, model)]
        theirs = [r["cpu_ms"] for r in here if r["peer"] in peers and fair(model, r, system)]
        if ours and theirs:
            ratio = min(theirs) / min(ours)
            verdict = "met" if ratio >= least else f"missed by {1 - ratio / least:.0%}"
            what = f"{model}, {kind}, {system}" + (f" × {batch}" if kind == "train" else "")
            whom = f"{' or '.join(peers)}, {'flushed' if flush else 'as shipped'}"
            figures = f"{min(ours):.2f}", f"{min(theirs):.2f}", f"{ratio:.1f}", least, verdict
            lines.append([what, whom, *figures])
    return table(["", "against", "ours, CPU ms", "theirs", "ratio", "target", ""], lines)


def fair(model: str, row: Row, system: str) -> bool:
    """Whether a peer's row is for the same network; for water all networks count."""
    return system == "water" or row["model"].startswith(model[:6])


def growth_target() -> str:
    """Cost per atom in a small and a large system, for each model and mode."""
    rows = [r for r in newest("growth.jsonl", GROWTH_KEYS) if "failed" not in r]
    few, many = GROWTH_BETWEEN
    lines = []
    for label in dict.fromkeys((r["model"], r["mode"]) for r in rows):
        cost = {
            r["n_atoms"]: r["cpu_us_per_atom"] for r in rows if (r["model"], r["mode"]) == label
        }
        if few in cost and many in cost:
            ratio = cost[many] / cost[few]
            verdict = "met" if ratio <= GROWTH_MOST else f"missed by {ratio / GROWTH_MOST - 1:.0%}"
            lines.append([" ".join(label), *(f"{cost[n]:.0f}" for n in (few, many))])
            lines[-1] += [f"{ratio:.2f}", GROWTH_MOST, verdict]
    head = ["", *(f"µs per atom at {n:,}" for n in GROWTH_BETWEEN), "ratio", "at most", ""]
    return table(head, lines)


def error_targets() -> str:
    """Our best error and the best of the other packages, for each molecule and budget."""
    rows = [r for r in newest("accuracy.jsonl", ACCURACY_KEYS) if r.get("errors")]
    lines = []
    for case in sorted({(r["molecule"], r["budget_cpu_min"]) for r in rows}, reverse=True):
        here = [r for r in rows if (r["molecule"], r["budget_cpu_min"]) == case]
        ours = min((r for r in here if r["name"].startswith(OURS)), key=force_error, default=None)
        others = [r for r in here if not r["name"].startswith(OURS)]
        theirs = min(others, key=force_error, default=None)
        if not (ours and theirs):
            continue
        ratio = force_error(theirs) / force_error(ours)
        verdict = "met" if ratio >= TIMES_BETTER else f"missed by {1 - ratio / TIMES_BETTER:.0%}"
        cells = [f"{force_error(r):.1f}, {r['name']}" for r in (ours, theirs)]
        lines.append([case[0], f"{case[1]:g}", *cells, f"{ratio:.1f}", TIMES_BETTER, verdict])
    head = ["molecule", "CPU minutes", "ours, meV/Å", "best other package", "ratio", "at least", ""]
    return f"{table(head, lines)}\n\n{absolute(rows)}"


def absolute(rows: list[Row]) -> str:
    """Our best errors after 20 minutes, compared with the targets."""
    parts = []
    for molecule, most in ERROR_AT_20.items():
        found = [
            force_error(r)
            for r in rows
            if (r["molecule"], r["budget_cpu_min"]) == (molecule, 20) and r["name"].startswith(OURS)
        ]
        if found:
            verdict = "met" if min(found) <= most else f"missed by {min(found) / most - 1:.0%}"
            parts.append(f"{molecule} {min(found):.2f} meV/Å, at most {most:g}: {verdict}")
    return "After 20 CPU minutes: " + "; ".join(parts) + "." if parts else ""


def force_error(row: Row) -> float:
    return row["errors"]["forces_mae_meV_A"]


def shares() -> str:
    """Shares of the CPU time of our compiled steps and calls."""
    rows = newest("shares.jsonl", ("kind", "system", "model"))
    steps = [
        [
            f"{r['model']}, {r['system']} × {r['batch']}",
            f"{r['whole_ms']:.1f}",
            *(f"{r[key] / sum(r[k] for k in RECORDED):.0%}" for key in RECORDED),
            f"{r['floor_ms']:.1f}",
        ]
        for r in rows
        if r["kind"] == "train"
    ]
    calls = [
        [
            f"{r['model']}, {r['system']}",
            f"{r['whole_ms']:.2f}",
            f"{r['network_ms']:.2f}",
            f"{r['floor_ms']:.2f}",
            f"{r['weights_ms']:.2f}",
        ]
        for r in rows
        if r["kind"] == "call"
    ]
    head = ["training step, CPU ms", "total", "matrix products", "compiled kernels", "rest"]
    first = table([*head, "products at GEMM rate"], steps)
    head = ["call, CPU ms", "total", "network", "its products at GEMM rate", "weights read twice"]
    return f"{first}\n\n{table(head, calls)}"


def growth() -> str:
    rows = newest("growth.jsonl", GROWTH_KEYS)
    good = [row for row in rows if "failed" not in row]
    sizes = sorted({row["n_atoms"] for row in good})
    lines = []
    for label in dict.fromkeys((r["model"], r["mode"]) for r in good):
        mine = {r["n_atoms"]: r for r in good if (r["model"], r["mode"]) == label}
        for name, key in (("µs per atom", "cpu_us_per_atom"), ("peak MiB", "peak_MiB")):
            cells = [f"{mine[n][key]:.0f}" if n in mine else "" for n in sizes]
            lines.append([f"{' '.join(label)}, {name}", *cells])
    return table(["atoms", *sizes], lines)


def accuracy() -> str:
    rows = newest("accuracy.jsonl", ACCURACY_KEYS)
    good = [row for row in rows if row.get("errors")]
    budgets = sorted({row["budget_cpu_min"] for row in good})
    lines = []
    for key in dict.fromkeys((r["molecule"], r["name"], r["schedule"]) for r in good):
        mine = {
            r["budget_cpu_min"]: r for r in good if key == (r["molecule"], r["name"], r["schedule"])
        }
        cells = [accuracy_cell(mine[b]) if b in mine else "" for b in budgets]
        lines.append([*key, *cells])
    lines.sort(key=lambda line: line[:2])
    return table(["molecule", "model", "schedule", *(f"{b:g} min" for b in budgets)], lines)


def accuracy_cell(row: Row) -> str:
    errors = row["errors"]
    return f"{errors['forces_mae_meV_A']:.1f} ({errors['energy_mae_meV']:.1f})"


def growth_figure() -> None:
    rows = [r for r in newest("growth.jsonl", GROWTH_KEYS) if "failed" not in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for label in dict.fromkeys((r["model"], r["mode"]) for r in rows):
        mine = sorted(
            (r["n_atoms"], r["cpu_us_per_atom"], r["peak_MiB"])
            for r in rows
            if (r["model"], r["mode"]) == label
        )
        n_atoms, cost, memory = zip(*mine, strict=True)
        left.semilogx(n_atoms, cost, marker="o", label=" ".join(label))
        right.loglog(n_atoms, memory, marker="o")
    left.set(xlabel="atoms", ylabel="CPU µs per atom and call", ylim=(0, None))
    right.set(xlabel="atoms", ylabel="peak memory of the process, MiB")
    left.legend()
    figure.savefig(RESULTS / "growth.png", dpi=150)


PARTS: dict[str, Callable[[], str]] = {
    "targets": targets,
    "error targets": error_targets,
    "growth target": growth_target,
    "shares": shares,
    "train": lambda: comparisons("train"),
    "call": lambda: comparisons("call"),
    "growth": growth,
    "accuracy": accuracy,
}


def main() -> None:
    """Replace the measured parts of the page."""
    text = PAGE.read_text()
    for name, make in PARTS.items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- end -->", re.DOTALL)
        found = pattern.search(text)
        if not found:
            raise SystemExit(f"{PAGE} has no <!-- {name} --> ... <!-- end -->")
        before, after = found.span()
        text = f"{text[:before]}<!-- {name} -->\n{make()}\n<!-- end -->{text[after:]}"
    growth_figure()
    accuracy_figure(RESULTS / "accuracy.jsonl", RESULTS / "accuracy.png")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
