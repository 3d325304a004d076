"""Fuzz every target for some minutes of processor time, each in a process of its own.

python tests/fuzz/run.py --minutes 30 [TARGET ...]

A finding is an exception that is no refusal, a wrong value, a crash or a hang of the process, or an
example that takes too long or too much memory. Each is printed, and its input stays in a folder.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

# seconds and MiB of one example; the largest honest ones take a hundredth
LONGEST_S, MOST_MIB = 10.0, 1500
# seconds without a sign of life after which a process is ended
HANGS_S = 90
# address space of a process: a runaway allocation ends there, not the machine
ADDRESS_SPACE = 24 << 30
# examples between two looks at the clock
ROUND = 100
# kinds of findings of one target, after which it is given up
ENOUGH = 10


def child(name: str, cpu_s: float, seed: int, folder: Path) -> int:
    """Run rounds of one target until its time is over; return how many kinds of findings."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st
    from targets import TARGETS

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    target, found, count = TARGETS[name], set(), 0

    def one(data: st.DataObject) -> None:
        nonlocal count
        count += 1
        place = folder / "example"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        before, peak = time.process_time(), _peak_mib()
        try:
            target(data, place)
        finally:
            (folder / "count").write_text(f"{count}")
        took, more = time.process_time() - before, _peak_mib() - peak
        assert took < LONGEST_S, f"one example took {took:.1f} s"
        assert more < MOST_MIB, f"one example took {more:.0f} MiB"

    started = time.process_time()
    while time.process_time() - started < cpu_s and len(found) < ENOUGH:
        seed += 1
        run = settings(
            max_examples=ROUND, deadline=None, database=None, report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )(seeded(seed)(given(st.data())(one)))  # fmt: skip
        try:
            run()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            if kind not in found:
                found.add(kind)
                kept = folder / f"finding-{len(found)}-{seed}"
                shutil.copytree(folder / "example", kept, dirs_exist_ok=True)
                text = "".join(traceback.format_exception(error))
                (kept / "traceback.txt").write_text(text)
                print(f"{name}: {kind}: {str(error)[:300]!r}\n  input in {kept}", flush=True)
    return len(found)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parent(name: str, cpu_s: float, seed: int, root: Path) -> tuple[int, int]:
    """Run a target in processes until its time is over; return examples and findings."""
    folder = root / name
    folder.mkdir(parents=True)
    examples, findings, used = 0, 0, 0.0
    while used < cpu_s and findings < ENOUGH:
        (folder / "count").write_text("0")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ["--child", name, "--minutes", str((cpu_s - used) / 60), "--seed", str(seed)]
        command = [sys.executable, __file__, *words, "--folder", str(folder)]
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while run.poll() is None:
            time.sleep(1)
            if time.time() - (folder / "count").stat().st_mtime > HANGS_S:
                run.kill()
        errors = run.stderr.read() if run.stderr else ""
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        done = int((folder / "count").read_text() or 0)
        examples, seed = examples + done, seed + 1 + done // ROUND
        if 0 <= run.returncode <= ENOUGH:
            return examples, findings + run.returncode
        findings += 1
        kept = folder / f"crash-{findings}-{seed}"
        if (folder / "example").exists():
            shutil.move(folder / "example", kept)
        what = "hung" if run.returncode == -9 else f"ended by {run.returncode}"
        print(f"{name}: the process {what}; input in {kept}\n  {errors[-500:]}", flush=True)
    return examples, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--minutes", type=float, default=30.0, help="of processor time, each")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.child:
        sys.path.insert(0, str(Path(__file__).parent))
        sys.exit(child(chosen.child, 60 * chosen.minutes, chosen.seed, chosen.folder))

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from targets import TARGETS

    root = Path(tempfile.mkdtemp(prefix="gradpot-fuzz-"))
    total = 0
    for name in chosen.targets or TARGETS:
        began = time.monotonic()
        examples, findings = parent(name, 60 * chosen.minutes, chosen.seed, root)
        total += findings
        minutes = (time.monotonic() - began) / 60
        print(f"{name}: {examples} examples, {findings} findings, {minutes:.1f} min", flush=True)
    print(f"{total} findings{f', inputs in {root}' if total else ''}")
    if not total:
        shutil.rmtree(root)
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
