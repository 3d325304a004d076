"""Every wrong input gives one line and exit code 2, and no file changes."""

import json
import os
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from commands import TINY, contents, gradpot, process
from safetensors.numpy import save_file

from gradpot.data.catalog import catalog
from gradpot.potential.checkpoint import read_tensors, write_tensors
from gradpot.train.config import config, override
from gradpot.train.run import train

rng = np.random.default_rng(0)
R, F = rng.normal(size=(2, 20, 3, 3))
WATER = {"R": R, "z": [8, 1, 1], "E": rng.normal(size=20), "F": F}
SAID = {"r_unit": "Ang", "e_unit": "eV"}

TEXTS = {
    "notes.txt": "hello\nworld\n",
    "text.npz": "hello\n",
    "run.yaml": "train:\n  epochs: 3\n",
    "broken.toml": "[train\nepochs = 3\n",
    "twice.toml": "seed = 1\nseed = 2\n",
    "digits.toml": f"seed = {'9' * 5000}\n",
    "deep.toml": f"seed = {'[' * 3000}\n",
    "typo.toml": "[train]\nepoch = 3\n",
    "h2.xyz": "2\n\nH 0 0 0\nH 0 0 0.74\n",
    "gold.xyz": "2\n\nAu 0 0 0\nAu 0 0 2.5\n",
    "short.xyz": "9\n\nH 0 0 0\n",
    "endless.xyz": f"{'9' * 30}\n\nH 0 0 0\n",
    "mine.xyz": "3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0",
    "words.json": '{"train": [0, 1, "x"]}',
    "far.json": '{"train": [0, 1], "valid": [5000]}',
    "twice.json": '{"train": [0, 1], "valid": [1]}',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one good run and every kind of wrong file."""
    folder = tmp_path_factory.mktemp("place")
    train(config(override({}, TINY.split())), folder / "run", say=lambda line: None)
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    (folder / "latin.toml").write_bytes(b"# \xe5\nseed = 1\n")
    _write_arrays(folder)
    model = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(model[: len(model) // 2])
    save_file({"a": np.zeros(3)}, folder / "foreign.safetensors")
    tensors, header = read_tensors(folder / "run" / "model.safetensors")
    write_tensors(folder / "former.safetensors", tensors, header | {"format": 1})
    spoiled = tensors | {name: torch.full_like(x, torch.nan) for name, x in [*tensors.items()][:1]}
    write_tensors(folder / "spoiled.safetensors", spoiled, header)
    _write_folders(folder)
    return folder


def _write_arrays(folder):
    np.savez(folder / "water.npz", **WATER, **SAID)
    np.savez(folder / "unsaid.npz", **WATER)
    np.savez(folder / "bare.npz", R=R, z=[8, 1, 1], **SAID)
    np.savez(folder / "gold.npz", **{**WATER, "z": [79, 1, 1]}, **SAID)
    np.savez(folder / "other.npz", a=R)
    np.savez(folder / "objects.npz", **{**WATER, "R": np.array([R[0], None], dtype=object)}, **SAID)
    np.savez(folder / "shapes.npz", **{**WATER, "F": F[:, :2]}, **SAID)
    whole = (folder / "water.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name, keys in (("named", ("my_energy", "my_forces")), ("one", ("energy", "forces"))):
        columns = f"Properties=species:S:1:pos:R:3:{keys[1]}:R:3 {keys[0]}=-1.5"
        (folder / f"{name}.xyz").write_text(f"2\n{columns}\n" + "H 0 0 0 0 0 0\nH 0 0 1 0 0 0\n")
    (folder / "spoilt.npz").write_bytes(whole[:300] + b"\0" * 50 + whole[350:])


def _write_folders(folder):
    saved = (folder / "run" / "config.json").read_text()
    for name, text in {"cut": saved[:40], "changed": saved.replace("batch_size", "size")}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    (folder / "precious").mkdir()
    (folder / "precious" / "model.safetensors").write_text("not to be lost")
    (folder / "stale").mkdir()
    (folder / "stale" / "config.json").write_text(saved)
    (folder / "stale" / "split.json").write_text("[]")
    shutil.copytree(folder / "run", folder / "torn")
    state = (folder / "run" / "state.safetensors").read_bytes()
    (folder / "torn" / "state.safetensors").write_bytes(state[:-9])


MODEL = "run/model.safetensors"
STRESS = "--stress-key s --stress-unit kbar --stress-order voigt --stress-sign tension"
NEW = f"train {TINY} --out new"
LABEL = "--with gfn2-xtb --out new.xyz"

TABLE = [
    # commands and options
    ("bogus", r"No such command 'bogus'\. See: gradpot --help"),
    ("--bogus", r"No such option: --bogus"),
    ("data bogus", r"No such command 'bogus'\. See: gradpot data --help"),
    ("train --bogus", r"No such option: --bogus.* See: gradpot train --help"),
    ("train --out", r"Option '--out' requires an argument"),
    ("eval", r"Missing argument 'model'\. See: gradpot eval --help"),
    (f"eval {MODEL}", r"Missing argument 'file'"),
    (f"eval {MODEL} water.npz water.npz", r"unexpected extra argument"),
    (f"md {MODEL}", r"Missing argument 'structure'"),
    ("label h2.xyz --out new.xyz", r"Missing option '--with'"),
    ("label h2.xyz --with gfn2-xtb", r"Missing option '--out'"),
    ("data info", r"Missing argument 'file'"),
    ("data fetch", r"Missing argument 'name'"),
    ("data list everything", r"unexpected extra argument"),
    # the configuration file and KEY=VALUE
    ("train nosuch.toml", r"no such file or directory: nosuch\.toml"),
    ("train run", r"is a directory: run"),
    ("train run.yaml", r"run\.yaml is not TOML: .*line 1.*; write the settings in TOML"),
    ("train --config run.toml", r"--config \(did you mean gradpot train run\.toml\?\)"),
    ("train broken.toml", r"broken\.toml is not TOML: .*line 1"),
    ("train latin.toml", r"latin\.toml is not TOML: .*utf-8"),
    ("train typo.toml", r"key 'train\.epoch' \(did you mean train\.epochs\?\); known: epochs"),
    ("train notes.txt/run.toml", r"not a directory: notes\.txt/run\.toml"),
    ("train seed=1 typo.toml", r"'typo\.toml' is neither a file nor key=value, such as seed=1"),
    ("train =3", r"'=3' is neither a file nor key=value"),
    ("train trian.epochs=3", r"unknown key 'trian' \(did you mean train\?\); known: data"),
    ("train train=3", r"train is 3 but must be a table"),
    ("train seed.x=3", r"seed is \{'x': 3\} but must be a valid integer"),
    ("train train.epochs=0", r"train\.epochs is 0 but must be greater than or equal to 1"),
    ("train train.epochs=1.5", r"train\.epochs is 1\.5 but must be a valid integer"),
    ("train train.epochs=many", r"train\.epochs is 'many' but must be a valid integer"),
    ("train train.batch_size=0", r"train\.batch_size is 0 but must be greater than or equal to 1"),
    ("train train.batch_size=2.5", r"train\.batch_size is 2\.5 but must be a valid integer"),
    ("train train.learning_rate=-1", r"train\.learning_rate is -1 but must be greater than 0"),
    ("train train.learning_rate=nan", r"train\.learning_rate is nan but must be a finite number"),
    ("train train.max_minutes=inf", r"train\.max_minutes is inf but must be a finite number"),
    ("train train.max_minutes=0", r"train\.max_minutes is 0 but must be greater than 0"),
    ("train train.compile=maybe", r"train\.compile is 'maybe' but must be 'auto' or a valid bool"),
    ("train train.dtype=float16", r"train\.dtype is 'float16' but must be 'float32' or 'float64'"),
    ("train loss.penalty=l3", r"loss\.penalty is 'l3' but must be 'l1', 'l2' or 'huber'"),
    ("train loss.energy=-1", r"loss\.energy is -1 but must be greater than or equal to 0"),
    ("train loss.energy=0 loss.forces=0", r"loss: energy, forces and stress all have weight 0"),
    ("train rescale.mode=big", r"rescale\.mode is 'big' but must be 'none', 'offset', 'constant'"),
    ("train seed=-1", r"seed is -1 but must be greater than or equal to 0"),
    ("train seed=99999999999999999999", r"seed is 9{20} but must be less than"),
    # models
    (f"{NEW} --model mace", r"unknown model 'mace'; known: gaunt, schnet, painn"),
    (
        f"{NEW} --activation swish",
        r"unknown activation 'swish' \(did you mean silu\?\)",
    ),
    (f"{NEW} model.filter=linear", r"unknown filter 'linear' .*; known: spline, mlp"),
    (f"{NEW} model.filter=[1]", r"filter is \[1\] but must be a name"),
    (
        f"{NEW} model.hidden=3",
        r"argument of painn 'hidden' \(did you mean width\?\)",
    ),
    (f"{NEW} model.cutoff=0", r"cutoff is 0 Å but must be positive"),
    (f"{NEW} model.cutoff=-5.0", r"cutoff is -5\.0 Å but must be positive"),
    (f"{NEW} model.cutoff=1e300", r"cutoff is 1e\+300 but must be at most 100"),
    ("train --out new model.width=1000000000", r"width is 1000000000 but must be at most 10000"),
    ("train --out new model.n_layers=101", r"n_layers is 101 but must be at most 100"),
    (f"{NEW} model.activation=capped_irelu(1e300)", r"its number must be at most 1e\+06 in size"),
    (f"{NEW} model.activation=tent(nan)", r"its number must be at most 1e\+06 in size"),
    (f"{NEW} rescale.constant=1e300", r"rescale\.constant is 1e\+300 but must be 0 or, "),
    (f"{NEW} train.threads=100000", r"train\.threads is 100000 but must be less than or equal to"),
    (f"{NEW} seed={'9' * 5000}", r"seed cannot be read from '9999.*\.\.\.: Exceeds the limit"),
    (f"{NEW} seed={'[' * 3000}", r"seed cannot be read from '\[\[.*\.\.\.: "),
    (f"{NEW} seed=-1", r"seed is -1 but must be greater than or equal to 0"),
    (f"{NEW} seed=1e400", r"seed is inf but must be a finite number"),
    (f"{NEW} seed=true", r"seed is True but must be a number"),
    (f"{NEW} seed=1 seed=2", r"seed is given twice; leave one out"),
    ("train --data water.npz --data nosuch.npz", r"nosuch\.npz is neither a file nor the name"),
    ("train --data nosuch.npz --data water.npz", r"nosuch\.npz is neither a file nor the name"),
    ("train data.valid_file=water.npz data.n_valid=5", r"data\.n_valid and data\.valid_file"),
    ("train --model painn --model schnet", r"--model is given twice; leave one out"),
    ("train twice.toml", r"twice\.toml is not TOML: Cannot overwrite a value"),
    ("train digits.toml", r"digits\.toml is not TOML: Exceeds the limit"),
    ("train deep.toml", r"deep\.toml is not TOML: "),
    # what is typed is never ignored, and hints at what is meant
    ("train --epochs 10", r"No such option: --epochs \(did you mean train\.epochs=10\?\)\. See"),
    ("train --lr=1e-3", r"No such option: --lr \(did you mean train\.learning_rate=1e-3\?\)"),
    ("train --batch-size 4", r"No such option: --batch-size .*mean train\.batch_size=4\?\)"),
    ("train --cutoff 5", r"No such option: --cutoff \(did you mean model\.cutoff=5\?\)"),
    ("train --r-max", r"No such option: --r-max \(did you mean model\.cutoff=\.\.\.\?\)"),
    ("train --dataset x", r"No such option: --dataset \(did you mean --data\?\)"),
    ("train --debug", r"No such option: --debug \(write it first: gradpot --debug train \.\.\."),
    ("train ethanol", r"there is no file 'ethanol' \(did you mean --data ethanol\?\)"),
    ("train painn", r"there is no file 'painn' \(did you mean --model painn\?\)"),
    ("train epochs", r"there is no file 'epochs' \(did you mean train\.epochs=\.\.\.\?\)"),
    ("train epochs=5", r"unknown key 'epochs' \(did you mean train\.epochs\?\)"),
    ("train max_minutes=1", r"unknown key 'max_minutes' \(did you mean train\.max_minutes\?\)"),
    ("train --model PaiNNs", r"unknown model 'painns' \(did you mean painn\?\)"),
    (f"md {MODEL} H2O --temperature 300", r"--temperature \(did you mean --temperature-K\?\)"),
    (f"md {MODEL} H2O --resume", r"--resume \(did you mean --keep-velocities\?\)"),
    (f"md {MODEL} H2O --dt 1", r"No such option: --dt \(did you mean --timestep-fs\?\)"),
    (f"md {MODEL} H2O --thermostat nvt", r"--thermostat \(did you mean --ensemble\?\)"),
    ("label h2.xyz --method gfn2-xtb", r"No such option: --method \(did you mean --with\?\)"),
    ("trian", r"No such command 'trian' \(did you mean train\?\)\. See: gradpot --help"),
    ("evaluate", r"No such command 'evaluate' \(did you mean eval\?\)"),
    ("help", r"No such command 'help' \(did you mean --help\?\)"),
    ("data download", r"No such command 'download' \(did you mean fetch\?\)"),
    (f"{NEW} model.cutoff=nan", r"cutoff is nan but must be finite"),
    (f"{NEW} model.cutoff=inf", r"cutoff is inf but must be finite"),
    (f"{NEW} model.cutoff=five", r"cutoff is 'five' but must be a number"),
    (f"{NEW} model.cutoff=true", r"cutoff is True but must be a number"),
    ("train --out new model.width=0", r"width is 0 but must be at least 2"),
    ("train --out new model.width=1", r"width is 1 but must be at least 2"),
    ("train --out new model.width=8.0", r"width is 8\.0 but must be a whole number"),
    ("train --out new model.width=wide", r"width is 'wide' but must be a whole number"),
    ("train --out new model.n_layers=0", r"n_layers is 0 but must be at least 1"),
    (f"{NEW} --model schnet model.n_radial=1", r"n_radial is 1 but must be at least 2"),
    # data
    ("train --data nosuch.npz", r"nosuch\.npz is neither a file nor the name of a data set"),
    ("train --data rmd17:ethanoll", r"did you mean rmd17:ethanol"),
    ("train --data run", r"run is a folder; expected a file of structures"),
    ("train --data notes.txt", r"ASE cannot read notes\.txt because it does not know the format"),
    ("train --data endless.xyz", r"endless\.xyz: frame 0 ends after 1 of 999999999999999999 atoms"),
    ("train --data short.xyz", r"short\.xyz: frame 0 ends after 1 of 9 atoms"),
    ("train --data text.npz", r"text\.npz is damaged or not an npz file"),
    ("train --data cut.npz", r"cut\.npz is damaged or not an npz file"),
    ("train --data spoilt.npz", r"spoilt\.npz: array '\w+' is damaged"),
    ("train --data objects.npz", r"objects\.npz: array 'R' holds Python objects"),
    ("train --data other.npz", r"other\.npz has the arrays \['a'\]; expected one of rMD17"),
    ("train --data shapes.npz", r"F has shape \[20, 2, 3\]; expected \[20, 3, 3\] to match R"),
    ("train --data unsaid.npz", r"unsaid\.npz does not say .* add --energy-unit and --length-unit"),
    (
        "train --data unsaid.npz --energy-unit eV",
        r"does not say its length unit: add --length-unit",
    ),
    (
        "train --data unsaid.npz --energy-unit calory",
        r"unknown energy unit 'calory' \(did you mean kcal/mol\?\); known: ev",
    ),
    ("train --data unsaid.npz --length-unit inch", r"unknown length unit 'inch'; known: ang"),
    ("train --data water.npz --force-unit N", r"unknown force unit 'N'; write an energy unit over"),
    (
        "train --data water.npz --energy-unit kcal/mol",
        r"its energy unit is 'eV', but --energy-unit",
    ),
    (
        "train --data water.npz --stress-key s",
        r"missing: --stress-unit, --stress-order, --stress-s",
    ),
    (f"train --data water.npz {STRESS}", r"water\.npz has no stress 's'; it has \['E'"),
    (f"{NEW} --data water.npz loss.stress=1", r"no frame has a label for stress; leave it out"),
    (f"{NEW} --data bare.npz", r"no frame has a label for energy, forces"),
    (
        f"{NEW} --data named.xyz",
        r"add --energy-key NAME --forces-key NAME .*my_energy",
    ),
    (f"{NEW} --data one.xyz", r"training needs at least 2 frames.*; there is 1"),
    (
        "train --out new data.n_train=0",
        r"data\.n_train is 0 but must be greater than or",
    ),
    (
        "train --out new data.n_valid=5 data.n_train=9999",
        r"data\.n_train=9999 \+ data\.n_valid=5 is more than the",
    ),
    (f"{NEW} data.split=nosuch", r"data\.split is 'nosuch'; expected random, block or a JSON file"),
    (f"{NEW} data.split=run", r"data\.split is 'run'; expected random, block or a JSON file"),
    (f"{NEW} data.split=notes.txt", r"notes\.txt is not a split file"),
    (f"{NEW} data.split=words.json", r'words\.json must hold a list of frame numbers "train"'),
    (f"{NEW} data.split=far.json", r"far\.json names frame 5000; the data has frames 0 to"),
    (f"{NEW} data.split=twice.json", r"twice\.json names a frame twice"),
    (f"{NEW} rescale.mode=constant", r"rescale\.mode=constant needs rescale\.constant"),
    (
        f"{NEW} rescale.references={{Q=1.0}}",
        r"rescale\.references has 'Q', which is not an element",
    ),
    (f"{NEW} rescale.references={{H=1.0}}", r"no reference energy for C, O"),
    (f"{NEW} rescale.references={{H=nan}}", r"rescale\.references is .* but must be .*finite"),
    (f"{NEW} rescale.references=isolated", r"no reference energy for H, C, O: no frame of a singl"),
    (f"{NEW} rescale.references=nosuch", r"nosuch is neither a file .* set.*auto, none, isolated"),
    (f"{NEW} --device gpu --data water.npz", r"unknown device 'gpu'"),
    # the run folder
    (f"train {TINY} --out run", r"run already holds a run; choose another --out, or --resume it"),
    (f"train {TINY} --out precious", r"precious holds model\.safetensors but no config\.json"),
    (f"train {TINY} --out notes.txt", r"notes\.txt is a file; --out names a folder"),
    (f"train {TINY} --out notes.txt/new", r"not a directory: notes\.txt/new"),
    ("train --resume", r"--resume needs --out RUN"),
    ("train --resume --out nosuch", r"there is no run in nosuch; to begin one, give its --data"),
    ("train --resume --out notes.txt", r"there is no run in notes\.txt"),
    ("train --resume --out run seed=5", r"run was started with seed=0, not 5; only train\.epochs"),
    ("train --resume --out run model.width=9", r"was started with model\.width=8, not 9"),
    (
        "train --resume --out run --data water.npz",
        r"frames of water\.npz are not those that run was started with",
    ),
    ("train --resume --out cut", r"cut/config\.json is damaged, or of another version of gradpot"),
    ("train --resume --out changed", r"changed/config\.json is damaged.*unknown key 'train\.size'"),
    ("train --resume --out stale", r"stale/split\.json is damaged: content is \[\], but"),
    ("train --resume --out torn", r"torn/state\.safetensors is damaged or not a safetensors file"),
    # eval
    ("eval nosuch.safetensors water.npz", r"no such file: nosuch\.safetensors"),
    ("eval run water.npz", r"run is a folder; expected a file, such as its model\.safetensors"),
    (f"eval water.npz {MODEL}", r"MODEL comes first: give \S+ before water\.npz"),
    (f"data info {MODEL}", r"is weights, such as a gradpot model, not data"),
    ("eval notes.txt water.npz", r"notes\.txt is damaged or not a safetensors file"),
    ("eval cut.safetensors water.npz", r"cut\.safetensors is damaged or not a safetensors file"),
    ("eval foreign.safetensors water.npz", r"foreign\.safetensors was not written by gradpot"),
    ("eval run/state.safetensors water.npz", r"run/state\.safetensors is not a gradpot model"),
    (
        "eval former.safetensors water.npz",
        r"former\.safetensors was written by another version of gradpot, as format 1",
    ),
    ("eval spoiled.safetensors water.npz", r"spoiled\.safetensors has weights that are not finite"),
    ("eval some.pt2 water.npz", r"no such file: some\.pt2"),
    (f"eval {MODEL} nosuch.npz", r"nosuch\.npz is neither a file nor the name of a data set"),
    (f"eval {MODEL} unsaid.npz", r"unsaid\.npz does not say its energy and length unit"),
    (f"eval {MODEL} gold.npz", r"does not know Au; it was trained on H, C, O"),
    (f"eval {MODEL} bare.npz", r"bare\.npz has neither energies nor forces nor stress"),
    (f"eval {MODEL} water.npz --plot new.txt", r"cannot write new\.txt; its name must end in"),
    (f"eval {MODEL} water.npz --plot no/new.png", r"there is no folder no"),
    # md
    ("md nosuch.safetensors H2O", r"no such file: nosuch\.safetensors"),
    ("md run/state.safetensors H2O", r"run/state\.safetensors is not a gradpot model"),
    (f"md {MODEL} nosuch.xyz", r"there is no file 'nosuch\.xyz', and ASE knows no molecule"),
    (f"md {MODEL} run", r"run is a folder; expected a file of structures"),
    (f"md {MODEL} notes.txt", r"ASE cannot read notes\.txt"),
    (f"md {MODEL} short.xyz", r"short\.xyz: frame 0 ends after 1 of 9 atoms"),
    (f"md {MODEL} unsaid.npz", r"unsaid\.npz does not say its length unit"),
    (f"md {MODEL} gold.xyz", r"does not know Au; it was trained on H, C, O"),
    (f"md {MODEL} h2.xyz --index 5", r"h2\.xyz has no structures at index '5'"),
    (f"md {MODEL} h2.xyz --index x", r"bad index 'x'"),
    (f"md {MODEL} H2O --ensemble nvt", r"unknown ensemble 'nvt' \(did you mean langevin\?\)"),
    (
        f"md {MODEL} CH3CH2OH --ensemble npt",
        r"npt needs a cell that is periodic along all three axes",
    ),
    (f"md {MODEL} H2O --temperature-K hot", r"Invalid value for '--temperature-K'"),
    (f"md {MODEL} H2O --temperature-K -1", r"temperature_K is -1\.0 but must not be negative"),
    (f"md {MODEL} H2O --temperature-K nan", r"temperature_K is nan but must not be negative"),
    (f"md {MODEL} H2O --max-temperature-K 9", r"max_temperature_K is 9\.0 but must be above"),
    (f"md {MODEL} H2O --time-ps -1", r"time_ps is -1\.0 but must be positive"),
    (f"md {MODEL} H2O --timestep-fs 0", r"timestep_fs is 0\.0 but must be positive"),
    (f"md {MODEL} H2O --timestep-fs inf", r"timestep_fs is inf but must be positive"),
    (f"md {MODEL} H2O --seed 1.5", r"Invalid value for '--seed'"),
    (f"md {MODEL} H2O --threads 0", r"Invalid value for '--threads'"),
    (f"md {MODEL} H2O --dtype float16", r"unknown dtype 'float16' .*; known: float32, float64"),
    (f"md {MODEL} H2O --device abacus", r"unknown device 'abacus'; known: auto, cpu, cuda"),
    (f"eval {MODEL} ethanol --device cuda:99", r"(sees no cuda|no device cuda:99)"),
    (f"train {TINY} --device gpu", r"unknown device 'gpu'; known: auto, cpu, cuda"),
    (f"md {MODEL} H2O --keep-velocities", r"H2O has no momenta"),
    (f"md {MODEL} H2O --out notes.txt", r"notes\.txt is a file; --out names a folder"),
    (f"md {MODEL} H2O --out notes.txt/new", r"not a directory: notes\.txt/new"),
    # label
    ("label h2.xyz --with dft --out new.xyz", r"unknown reference method 'dft'; known: gfn2-xtb"),
    (f"label nosuch.xyz {LABEL}", r"no such file: nosuch\.xyz"),
    (f"label run {LABEL}", r"run is a folder; expected a file of structures"),
    (f"label notes.txt {LABEL}", r"ASE cannot read notes\.txt"),
    (f"label text.npz {LABEL}", r"text\.npz is damaged or not an npz file"),
    (f"label unsaid.npz {LABEL}", r"unsaid\.npz does not say its length unit"),
    (f"label h2.xyz {LABEL} --index 7", r"h2\.xyz has no structures at index '7'"),
    (f"label h2.xyz {LABEL} --length-unit inch", r"unknown length unit 'inch'"),
    ("label h2.xyz --with gfn2-xtb --out new.txt", r"cannot write new\.txt; its name must end"),
    ("label h2.xyz --with gfn2-xtb --out h2.xyz", r"--out h2\.xyz is the input itself"),
    ("label h2.xyz --with gfn2-xtb --out gold.xyz", r"frame 0 of gold\.xyz is not the structure"),
    ("label h2.xyz --with gfn2-xtb --out mine.xyz", r"mine\.xyz ends with an unfinished frame"),
    ("label h2.xyz --with gfn2-xtb --out water.npz", r"water\.npz exists already"),
    (
        "label h2.xyz --with gfn2-xtb --out notes.txt/a.xyz",
        r"no folder notes\.txt; create it",
    ),
    # data
    ("data info nosuch.npz", r"nosuch\.npz is neither a file nor the name of a data set"),
    ("data info run", r"run is a folder; expected a file of structures"),
    ("data info text.npz", r"text\.npz is damaged or not an npz file"),
    # with fixed bytes: the length of a model's header can look like the first line of an xyz
    ("data info foreign.safetensors", r"is weights, such as a gradpot model, not data"),
    ("data info unsaid.npz", r"unsaid\.npz does not say its energy and length unit"),
    ("data info water.npz --energy-unit kcal/mol", r"its energy unit is 'eV', but --energy-unit"),
    ("data info water.npz --stress-key s", r"missing: --stress-unit, --stress-order, --stress-s"),
    ("data fetch nosuch", r"no data set is called 'nosuch'; `gradpot data list` shows all"),
    ("data fetch rmd17:ethanol --to notes.txt", r"file exists: notes\.txt"),
]


@pytest.mark.filterwarnings("ignore::gradpot.potential.seen.UnseenWarning")
@pytest.mark.parametrize(("line", "message"), TABLE, ids=[line[:60] for line, _ in TABLE])
def test_wrong_input_gives_one_line_and_changes_no_file(monkeypatch, capsys, place, line, message):
    monkeypatch.chdir(place)
    before = contents(place)
    said = gradpot(monkeypatch, capsys, shlex.split(line))
    *notices, last = said.err.splitlines()
    assert said.code == 2
    assert said.out == ""
    assert re.match("error: .*" + message, last), last
    assert not any("error" in notice or "Traceback" in notice for notice in notices)
    assert contents(place) == before


@pytest.mark.parametrize("line", ["", "data"])
def test_no_command_shows_the_help(monkeypatch, capsys, line):
    said = gradpot(monkeypatch, capsys, line.split())
    assert said.code == 2
    assert "info" in said.out if line else "train" in said.out
    assert said.err == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden_folder(monkeypatch, capsys, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    out = str(tmp_path / "locked" / "run")
    said = gradpot(monkeypatch, capsys, ["train", *TINY.split(), "--out", out])
    assert said.code == 2
    assert f"error: permission denied: {out}" in said.err


def test_ctrl_c_leaves_no_traceback(monkeypatch, capsys):
    def ctrl_c():
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "entries", ctrl_c)
    assert gradpot(monkeypatch, capsys, ["data", "list"]) == (130, "", "")


def test_errors_of_a_real_process(place):
    said = process(["eval", "run/state.safetensors", "water.npz"], place)
    assert said.code == 2
    assert said.out == ""
    assert re.fullmatch("error: .* is not a gradpot model; .*\n", said.err)


def test_a_warning_is_one_line(tmp_path):
    keys = ["--activation", "relu", "--out", "run", "--json", "train.threads=1"]
    said = process(["train", *TINY.split(), *keys], tmp_path)
    assert said.code == 0
    warnings = [line for line in said.err.splitlines() if "relu" in line]
    assert set(warnings) == {
        "warning: activation 'relu': its derivative jumps, so forces are discontinuous; "
        "'irelu' is its integral"
    }
    assert "UserWarning" not in said.err
    assert json.loads(said.out)["model"]["activation"] == "relu"


def test_a_reader_that_closes_the_pipe(place):
    reading, writing = os.pipe()
    os.close(reading)
    said = process(["data", "list"], place, stdout=writing)
    os.close(writing)
    assert (said.code, said.err) == (1, "")
