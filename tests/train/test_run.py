"""Whole runs on twenty real frames: the loss falls, files are complete, kills leave no trace."""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import gradpot
from gradpot import Model
from gradpot.data.source import read
from gradpot.errors import InputError, RunError
from gradpot.locks import locked
from gradpot.potential.checkpoint import read_tensors
from gradpot.train.config import config, override, read_json
from gradpot.train.folder import metrics
from gradpot.train.loop import presented
from gradpot.train.loss import PENALTIES
from gradpot.train.optimizers import OPTIMIZERS
from gradpot.train.run import prepare, train
from gradpot.train.schedule import SCHEDULES

SMALL = [
    "data.n_train=20",
    "data.n_valid=10",
    "data.n_test=20",
    "model.width=16",
    "model.n_layers=1",
    "train.warmup_steps=5",
    "train.valid_every=2",
    "train.threads=1",
    "train.learning_rate=1e-2",
]


def silicon(data: Path) -> list[str]:
    """Six cells with stress to learn from."""
    return [
        f"data.file={data / 'mlearn_si' / 'si_test25.npz'}",
        "data.n_train=4",
        "data.n_valid=2",
        "data.stress_key=virial_stress",
        "data.stress_unit=kbar",
        "data.stress_order=vasp",
        "data.stress_sign=compression",
    ]


def settings(*keys: str):
    return config(override(override({}, SMALL), list(keys)))


def run(out: Path, *keys: str, resume: bool = False, **options) -> dict:
    return train(settings(*keys), out, resume, say=lambda line: None, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "ethanol"
    run(out, "train.epochs=20")
    return out


def test_loss_falls(finished):
    rows = metrics(finished)
    assert [row["epoch"] for row in rows] == list(range(2, 21, 2))
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    assert rows[-1]["valid"]["forces_mae_meV_A"] < 0.8 * rows[0]["valid"]["forces_mae_meV_A"]


def test_files(finished):
    expected = {
        "config.json",
        "split.json",
        "rescaling.json",
        "model.safetensors",
        "state.safetensors",
        "metrics.jsonl",
        "results.json",
        "learning_curve.png",
        "parity.png",
        "tensorboard",
        "log.txt",
    }
    assert expected == {path.name for path in finished.iterdir()}
    resolved = json.loads((finished / "config.json").read_text())
    assert resolved["model"]["cutoff"] == 5.0
    assert resolved["train"]["compile"] is False


def test_tensorboard(finished):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loader.EventAccumulator(str(finished / "tensorboard")).Reload()
    steps = [event.step for event in events.Scalars("valid/forces_mae_meV_A")]
    assert steps == [row["step"] for row in metrics(finished)]


def test_results(finished):
    results = json.loads((finished / "results.json").read_text())
    keys = {
        "energy_mae_meV",
        "energy_mae_meV_per_atom",
        "forces_mae_meV_A",
        "forces_rmse_meV_A",
        "efwt",
        "n_frames",
    }
    assert keys <= results["test"].keys()
    assert results["test"]["n_frames"] == 20
    assert results["test"]["energy_mae_meV"] > 0
    potential = gradpot.load(finished / "model.safetensors")
    assert results["n_parameters"] == sum(p.numel() for p in potential.parameters())
    assert results["train_cpu_s"] > 0


def test_the_kept_model_is_the_best(finished):
    rows = metrics(finished)
    kept = gradpot.potential.checkpoint.notes(finished / "model.safetensors")
    best = [row for row in rows if row["best"]][-1]
    assert kept["epoch"] == best["epoch"]
    results = json.loads((finished / "results.json").read_text())
    assert results["valid"]["forces_mae_meV_A"] == pytest.approx(
        best["valid"]["forces_mae_meV_A"], rel=1e-4
    )


def test_split_is_kept_by_index(finished):
    split = json.loads((finished / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "valid", "test")] == [20, 10, 20]
    assert not set(split["train"]) & set(split["test"])


def test_stress_alone_decides_which_model_is_kept(tmp_path, data):
    keys = (
        *silicon(data),
        "model.cutoff=3.5",
        "loss.stress=1",
        "loss.energy=0",
        "loss.forces=0",
    )
    run(tmp_path / "run", *keys, "train.epochs=8")
    rows = metrics(tmp_path / "run")
    errors = [row["valid"]["stress_mae_meV_A3"] for row in rows]
    assert [row["best"] for row in rows] == [
        e == min(errors[: i + 1]) for i, e in enumerate(errors)
    ]
    assert errors[-1] < errors[0]


def test_seeds(tmp_path, finished):
    run(tmp_path / "same", "train.epochs=20")
    run(tmp_path / "other", "train.epochs=20", "seed=1")
    assert_same_bits(tmp_path / "same", finished)
    one, other = (read_tensors(p / "model.safetensors")[0] for p in (finished, tmp_path / "other"))
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_a_run_is_not_overwritten(finished):
    before = (finished / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds a run; choose another --out, or --resume"):
        run(finished, "train.epochs=20")
    assert (finished / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_use_is_refused(tmp_path, resume):
    with locked(tmp_path), pytest.raises(InputError, match=r"is in use by process \d+ on"):
        run(tmp_path, "train.epochs=1", resume=resume)
    assert list(tmp_path.iterdir()) == []


def test_resume_wants_the_same_settings(finished):
    with pytest.raises(InputError, match=r"started with train\.batch_size=5, not 4"):
        run(finished, "train.epochs=20", "train.batch_size=4", resume=True)
    with pytest.raises(InputError, match=r"model\.width=16, not 8"):
        run(finished, "train.epochs=20", "model.width=8", resume=True)


def test_a_finished_run_can_be_made_longer(tmp_path):
    run(tmp_path / "run", "train.epochs=4")
    results = run(tmp_path / "run", "train.epochs=8", "train.compile=auto", resume=True)
    assert results["epochs"] == 8
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == [2, 4, 6, 8]


def test_other_data_is_not_resumed(tmp_path):
    file = embedded_copy(tmp_path / "data.npz")
    run(tmp_path / "run", f"data.file={file}", "train.epochs=2")
    embedded_copy(file, shift=0.1)
    with pytest.raises(InputError, match=r"are not those that .* was started with"):
        run(tmp_path / "run", f"data.file={file}", "train.epochs=4", resume=True)


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedules_and_optimizers(tmp_path, schedule, optimizer):
    keys = (f"train.schedule={schedule}", f"train.optimizer={optimizer}", "train.weight_decay=1e-6")
    run(tmp_path / "run", "train.epochs=6", "train.plateau_patience=1", *keys)
    rates = [row["learning_rate"] for row in metrics(tmp_path / "run")]
    assert (rates[-1] < 1e-6) == (schedule == "cosine")


def test_a_new_optimizer_schedule_or_penalty_is_one_entry(tmp_path, monkeypatch):
    def sgd(weights, _slots, weight_decay):
        return [torch.optim.SGD([weights], lr=1.0, weight_decay=weight_decay)]

    monkeypatch.setitem(OPTIMIZERS, "sgd", sgd)
    monkeypatch.setitem(SCHEDULES, "linear", lambda _state, done: 1.0 - done)
    monkeypatch.setitem(PENALTIES, "cosh", lambda x, delta: torch.cosh(x / delta) - 1.0)
    keys = ("train.optimizer=sgd", "train.schedule=linear", "loss.penalty=cosh")
    said: list[str] = []
    chosen = settings("train.epochs=4", "loss.huber_delta=5", *keys)
    train(chosen, tmp_path / "run", say=said.append)
    rates = [row["learning_rate"] for row in metrics(tmp_path / "run")]
    assert rates == pytest.approx([5e-3, 0])
    assert "optimizer sgd, learning rate 0.01, 5 frames a step" in said


@pytest.mark.parametrize("mode", ["none", "offset", "constant", "forces", "natural"])
def test_rescaling_modes_train(tmp_path, mode):
    keys = (f"rescale.mode={mode}", "rescale.constant=10", "rescale.references=least-squares")
    run(tmp_path / "run", "train.epochs=10", *keys)
    rows = metrics(tmp_path / "run")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_early_stop(tmp_path):
    results = run(
        tmp_path / "run", "train.epochs=500", "train.early_stop=1", "train.learning_rate=0.3"
    )
    assert results["epochs"] < 500


@pytest.mark.parametrize("key", ["max_minutes", "max_cpu_minutes"])
def test_time_budget(key, tmp_path):
    results = run(tmp_path / "run", f"train.{key}=0.02", "train.epochs=100000")
    assert 0 < results["steps"] < 200_000
    assert metrics(tmp_path / "run")[-1]["learning_rate"] < 1e-4


def test_a_run_whose_time_went_into_compiling_has_a_model_and_says_so(tmp_path, monkeypatch):
    module = importlib.import_module("gradpot.train.run")
    make_step = module.gradient_step

    def slow(task, state, say):
        state.count_compiling(3600.0, 3600.0)
        return make_step(task, state, say)

    monkeypatch.setattr(module, "gradient_step", slow)
    said: list[str] = []
    results = train(settings("train.max_cpu_minutes=0.1"), tmp_path / "run", say=said.append)
    assert (results["steps"], results["ended_too_soon"]) == (1, True)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "the time was up after 1 steps (3600 of 360" in said[-1]
    assert f"--out {tmp_path / 'run'} --resume train.max_cpu_minutes=..." in said[-1]
    said.clear()
    train(settings("train.max_cpu_minutes=0.1"), tmp_path / "run", True, say=said.append)
    assert any("it has reached train.max_cpu_minutes=0.1; to train more" in s for s in said)


def test_what_was_not_trained_or_hardly_is_said_in_the_end(tmp_path):
    said: list[str] = []
    train(settings("train.epochs=1", "loss.energy=0"), tmp_path / "run", say=said.append)
    assert any(s.startswith("this run: 1 epoch of ") for s in said)
    assert "note: energies were not trained (loss.energy=0): do not trust them" in said
    assert "too few to learn from" in said[-1]
    assert "--resume train.epochs=..." in said[-1]


def test_ctrl_c_after_the_last_step_says_what_is_done(tmp_path, monkeypatch):
    module = importlib.import_module("gradpot.train.run")
    measure, said = module.errors_of, []

    def interrupt(state, done, row):
        if done == 1:  # in the last step
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(module, "errors_of", measure)
        return measure(*arguments)

    monkeypatch.setattr(module, "errors_of", interrupted)
    chosen = settings("train.epochs=2")
    results = train(chosen, tmp_path / "run", say=said.append, watch=interrupt)
    assert results["epochs"] == 2
    assert said[-1].startswith("the training is finished and saved; its errors are being measured")
    assert (tmp_path / "run" / "results.json").exists()


def test_progress_of_a_run_that_goes_on_and_of_one_that_lost_patience(tmp_path):
    shares: list[float] = []

    def watch(state, done, row):
        shares.append(done)

    run(tmp_path / "run", "train.epochs=2", watch=watch)
    run(tmp_path / "run", "train.epochs=4", resume=True, watch=watch)
    assert shares == [n / 8 for n in range(0, 9, 1)] + [n / 16 for n in range(8, 17)]
    shares.clear()
    run(tmp_path / "run", "train.epochs=4", resume=True, watch=watch)
    assert shares == [1]
    shares.clear()
    keys = ("train.epochs=500", "train.early_stop=1", "train.learning_rate=0.3")
    run(tmp_path / "early", *keys, watch=watch)
    assert shares[-1] == 1
    assert shares[-2] < 0.5


@pytest.mark.parametrize(
    ("model", "width", "optimizer", "rate"),
    [
        ("painn", 16, "muon", 2.5e-3),
        ("painn", 128, "muon", 1.25e-3),
        ("dimenet++", 16, "muon", 2.5e-3),
        ("painn", 16, "adam", 5e-3),
        ("dimenet++", 16, "adamw", 2e-3),
    ],
)
def test_default_rate(model, width, optimizer, rate, tmp_path):
    keys = [key for key in SMALL if "learning_rate" not in key and "width" not in key]
    chosen = [f"model.name={model}", f"model.width={width}", f"train.optimizer={optimizer}"]
    tables = override(override({}, [*keys, "train.epochs=1"]), chosen)
    train(config(tables), tmp_path / "run", say=lambda line: None)
    assert read_json(tmp_path / "run" / "config.json").train.learning_rate == rate


def test_nonfinite_loss_stops_and_keeps_the_last_good_model(tmp_path):
    file = embedded_copy(tmp_path / "data.npz", bad_frame=7)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": list(range(20)), "valid": [20, 21], "test": [22]}))
    with pytest.raises(RunError, match=r"loss is (nan|inf) at step \d+, frames \[.*\b7\b.*\]"):
        run(
            tmp_path / "run",
            f"data.file={file}",
            f"data.split={split}",
            "train.epochs=2",
            "rescale.mode=offset",
            "loss.penalty=l2",
        )
    potential = gradpot.load(tmp_path / "run" / "model.safetensors")
    assert all(torch.isfinite(p).all() for p in potential.parameters())


@pytest.mark.parametrize(
    ("chosen", "remedy"),
    [
        ("model.activation=irelu", "set model.output_activation=irelu instead"),
        ("model.output_activation=irelu", "lower train.learning_rate"),
    ],
)
def test_a_lost_network_is_told_what_helps(tmp_path, chosen, remedy):
    """DimeNet++ with IReLU everywhere is lost at any rate; otherwise a lower rate helps."""
    kept = [key for key in SMALL if "learning_rate" not in key]
    keys = [chosen, "model.name=dimenet++", "train.learning_rate=1e9", "train.clip_norm=1e9"]
    tables = override({}, [*kept, *keys, "train.epochs=20"])
    with pytest.raises(RunError, match=rf"loss is .* at step .*{remedy}"):
        train(config(tables), tmp_path / "run", say=lambda line: None)


def test_data_that_look_wrong_are_reported(tmp_path):
    file, said = embedded_copy(tmp_path / "data.npz", sign=-1.0), []
    train(settings(f"data.file={file}", "train.epochs=1"), tmp_path / "flipped", say=said.append)
    assert any(line.startswith("warning: sign error: forces") for line in said)
    said.clear()
    keys = (
        "data.n_train=1400",
        "data.n_valid=100",
        "data.n_test=0",
        "train.epochs=1",
        "train.batch_size=1400",
    )
    train(settings(*keys), tmp_path / "all", say=said.append)
    warned = [line for line in said if line.startswith("warning")]
    assert all("too few to learn from" in line for line in warned), warned
    assert any("no frames are left for a test" in line for line in said)


@pytest.mark.parametrize("split", ["random", "block"])
def test_only_a_random_split_of_a_trajectory_is_warned_of(data, tmp_path, split):
    said: list[str] = []
    keys = (
        f"data.file={data / 'md17_ethanol_traj' / 'md17_ethanol_traj2000.npz'}",
        *("data.energy_unit=kcal/mol", "data.length_unit=Ang", f"data.split={split}"),
    )
    train(settings(*keys, "train.epochs=1"), tmp_path / split, say=said.append)
    assert any("steps of a trajectory" in line for line in said) == (split == "random")


def test_asked_for_labels_that_are_missing(tmp_path):
    file = tmp_path / "energies.npz"
    with np.load(embedded_copy(tmp_path / "data.npz")) as full:
        np.savez(file, **{key: full[key] for key in full.files if key != "F"})
    with pytest.raises(InputError, match="forces"):
        run(tmp_path / "run", f"data.file={file}", "train.epochs=2")
    assert not (tmp_path / "run").exists()
    run(
        tmp_path / "run",
        f"data.file={file}",
        "train.epochs=2",
        "loss.forces=0",
        "rescale.mode=offset",
    )


def test_ctrl_c_then_resume(tmp_path, finished):
    out = tmp_path / "run"

    def interrupt(state, done, row):
        if state.step == 13:
            os.kill(os.getpid(), signal.SIGINT)

    results = run(out, "train.epochs=20", watch=interrupt)
    assert results["stopped"] == signal.SIGINT
    run(out, "train.epochs=20", resume=True)
    assert_same_bits(out, finished)


@pytest.mark.parametrize(
    "keys",
    [
        ("model.name=cgcnn", "model.norm=batch"),
        ("model.name=forcenet", "model.norm=batch", "model.forces=direct"),
    ],
    ids=lambda keys: keys[0],
)
def test_batch_norm_and_rotations_resume_to_the_bit(tmp_path, keys):
    def interrupt(state, done, row):
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    keys = (*keys, "train.epochs=6")
    run(tmp_path / "whole", *keys)
    assert run(tmp_path / "parts", *keys, watch=interrupt)["stopped"] == signal.SIGINT
    run(tmp_path / "parts", *keys, resume=True)
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")
    rows = metrics(tmp_path / "whole")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    best = gradpot.load(tmp_path / "whole" / "model.safetensors")
    measured = [b for name, b in best.named_buffers() if name.endswith("variance")]
    assert measured
    assert all((variance != 1).any() for variance in measured)


def test_a_model_that_is_not_invariant_sees_its_frames_rotated(tmp_path):
    task, state = prepare(settings("model.name=forcenet"), read("ethanol"), tmp_path / "none")
    index, invariant = torch.tensor([0, 1]), gradpot.build("schnet")
    as_they_are, first, same, second = (
        presented(task, model, index, 0, position).graph.edge_vec
        for model, position in ((invariant, 0), *((state.model, p) for p in (0, 0, 1)))
    )
    assert torch.equal(first, same)
    assert (first - as_they_are).abs().max() > 0.1
    assert (first - second).abs().max() > 0.1
    torch.testing.assert_close(first.norm(dim=1), as_they_are.norm(dim=1))


def test_notices_about_forces(tmp_path):
    def notices(*keys: str) -> list[str]:
        said: list[str] = []
        name = "-".join(keys).replace("=", "-")
        train(settings("train.epochs=1", *keys), tmp_path / name, say=said.append)
        return [s for s in said if "batch norm" in s or "not conserve energy" in s]

    assert notices("model.name=cgcnn") == []
    assert len(notices("model.name=cgcnn", "model.norm=batch")) == 1
    assert notices("model.name=cgcnn", "model.norm=batch", "loss.forces=0") == []
    direct = ("model.name=forcenet", "model.norm=batch", "model.forces=direct")
    assert len(notices(*direct)) == 1


def test_a_cutoff_within_which_there_are_no_pairs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no two atoms of any training .*model\.cutoff=0\.1"):
        train(settings("train.epochs=1", "model.cutoff=0.1"), tmp_path / "run")


def test_direct_forces_have_no_stress_to_train(tmp_path, data):
    keys = (
        *silicon(data),
        "model.name=forcenet",
        "model.forces=direct",
        "loss.stress=1",
    )
    with pytest.raises(InputError, match=r"direct forces has no stress; set loss\.stress=0"):
        run(tmp_path / "run", *keys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # tests/test_kills.py kills more often
def test_kill_9_then_resume(tmp_path, finished):
    """A process killed at random moments ends with the same bits as one that was not."""
    killed(tmp_path / "run", finished, kills=2, seed=time.time_ns())


@pytest.mark.slow
def test_kill_9_many_times(tmp_path, finished):
    for trial in range(6):
        killed(tmp_path / f"run{trial}", finished, kills=5, seed=trial)


@pytest.mark.slow
def test_compiled_runs_resume_to_the_bit(tmp_path):
    keys = ("train.epochs=6", "train.compile=true")

    def interrupt(state, done, row):
        if state.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    run(tmp_path / "whole", *keys)
    assert run(tmp_path / "parts", *keys, watch=interrupt)["stopped"] == signal.SIGTERM
    run(tmp_path / "parts", *keys, resume=True)
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["schnet", "painn"])
def test_compiled_equals_eager(tmp_path, model):
    """Same frames, same seeds: the two differ only by rounding, which grows slowly."""
    keys = ("train.epochs=2", f"model.name={model}", "train.dtype=float64")
    run(tmp_path / "eager", *keys, "train.compile=false")
    run(tmp_path / "compiled", *keys, "train.compile=true")
    one, other = (
        read_tensors(tmp_path / p / "state.safetensors")[0] for p in ("eager", "compiled")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9)


def killed(out: Path, reference: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    keys = [*SMALL, "train.epochs=20", "train.save_every_s=0"]
    command = [sys.executable, "-m", "gradpot", "train", *keys, "--out", str(out), "--resume"]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(out / "state.safetensors", process)
        time.sleep(chance.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_bits(out, reference)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def assert_same_bits(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "state.safetensors"):
        a, b = (read_tensors(path / name)[0] for path in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    rows = [[row | {"seconds": 0} for row in metrics(path)] for path in (one, other)]
    assert rows[0] == rows[1]


def embedded_copy(
    path: Path, shift: float = 0.0, bad_frame: int | None = None, sign: float = 1.0
) -> Path:
    """A copy of the embedded set, with some labels changed."""
    from gradpot.data.catalog.catalog import locate

    with np.load(locate("ethanol")[0]) as full:
        arrays = {key: full[key] for key in full.files}
    arrays["E"], arrays["F"] = arrays["E"] + shift, sign * arrays["F"]
    if bad_frame is not None:
        arrays["F"][bad_frame] = 1e29
    np.savez(path, **arrays)
    return path


class Stubborn(Model):
    """Branches on a value, which no tracer can follow."""

    def __init__(self, cutoff: float = 3.0):
        super().__init__(cutoff)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, graph):
        bond = torch.exp(-self.weight * graph.pair_vec.square().sum(-1))
        if bond.sum().item() < 0:
            raise AssertionError
        return bond.new_zeros(graph.numbers.shape[0]).index_add(0, graph.pair_index[0], bond)


class Frozen(Stubborn):
    """Turns its number of atoms into a constant, which the tracer cannot see."""

    def forward(self, graph):
        bond = torch.exp(-self.weight * graph.pair_vec.square().sum(-1))
        sums = bond.new_zeros(graph.numbers.shape[0]).index_add(0, graph.pair_index[0], bond)
        return sums / int(graph.numbers.shape[0])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Stubborn, "GuardOnDataDependentSymNode"),
        pytest.param(Frozen, "the network turns a size into a constant", marks=pytest.mark.slow),
    ],
)
def test_a_step_that_cannot_be_compiled_is_run_as_it_is(tmp_path, monkeypatch, model, why):
    monkeypatch.setitem(gradpot.models.MODELS, "mine", model)
    keys = [key for key in SMALL if not key.startswith("model.")]
    said: list[str] = []
    chosen = config(
        override({}, [*keys, "model.name=mine", "train.epochs=2", "train.compile=true"])
    )
    results = train(chosen, tmp_path / "run", say=said.append)
    assert results["epochs"] == 2
    assert [s for s in said if why in s and "because compiling failed" in s], said


def test_a_network_with_cones_is_called_one(tmp_path):
    said: list[str] = []
    keys = ["model.vector_norm=published", "train.epochs=1", "data.n_train=5", "data.n_valid=2"]
    keys += ["model.width=8", "model.n_layers=1", "data.n_test=0"]
    train(config(override({}, keys)), tmp_path / "run", say=said.append)
    assert any("warning: the energy of this model has a cone" in line for line in said)
    with pytest.warns(UserWarning, match="cone"):
        gradpot.load(tmp_path / "run" / "model.safetensors")


def labeled(path, n_train: int, train: dict, rest: dict, numbers=(29, 29)) -> Path:
    """A file of dimers: the first frames with some labels, the others with other ones."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames, rng = [], np.random.default_rng(0)
    for i in range(12):
        atoms = Atoms(numbers, [[0, 0, 0], [0, 0, 2.2 + 0.2 * rng.random()]])
        every = {"energy": -1.0 - rng.random(), "forces": rng.normal(size=(2, 3))}
        wanted = train if i < n_train else rest
        atoms.calc = SinglePointCalculator(atoms, **{k: every[k] for k in wanted})
        frames.append(atoms)
    write(path, frames)
    return path


BLOCKS = ["data.split=block", "data.n_train=6", "data.n_valid=3", "train.epochs=1"]
BLOCKS += ["model.width=8", "model.n_layers=1"]
BOTH = ("energy", "forces")


@pytest.mark.parametrize(
    ("train_labels", "other_labels", "keys", "message"),
    [
        (("forces",), BOTH, [], "no training frame has a label for energy; leave it out"),
        (BOTH, ("energy",), ["loss.energy=0"], "no validation frame has a label for forces"),
    ],
)
def test_labels_count_where_they_are_used(tmp_path, train_labels, other_labels, keys, message):
    file = labeled(tmp_path / "a.extxyz", 6, train_labels, other_labels)
    settings = config(override({"data": {"file": str(file)}}, [*BLOCKS, *keys]))
    with pytest.raises(InputError, match=message):
        train(settings, tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_elements_that_no_training_frame_has_are_refused_with_given_references(tmp_path):
    file = labeled(tmp_path / "a.extxyz", 6, BOTH, BOTH)
    gold = labeled(tmp_path / "gold.extxyz", 6, BOTH, BOTH, numbers=(29, 79))
    file.write_text(file.read_text() + gold.read_text())
    tables = {"data": {"file": str(file)}, "rescale": {"references": {"Cu": -1.0, "Au": -2.0}}}
    with pytest.raises(InputError, match=r"no training frame has the elements \[79\]"):
        train(config(override(tables, BLOCKS)), tmp_path / "run", say=lambda line: None)


def test_cells_and_stress_belong_to_the_fingerprint():
    frames = read("ethanol").take(np.arange(3))
    other = frames._replace(stress=np.zeros_like(frames.stress))
    assert frames.has_fingerprint(frames.fingerprint())
    assert not other.has_fingerprint(frames.fingerprint())
    assert not frames._replace(cell=frames.cell + 9.0).has_fingerprint(frames.fingerprint())
