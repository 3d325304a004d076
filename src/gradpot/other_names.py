"""What other packages and papers call things, for the hints of error messages.

Each table has our name, and theirs in lower case. They are not aliases: nothing is accepted under
two names, but models and activations are in any case.
"""

from collections.abc import Mapping
from typing import Any


def by_their_name(table: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, names in table.items() for theirs in names.split()}


def in_lower_case(model: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments of a model: PaiNN is painn, SiLU is silu; `FILE.py:CLASS` stays."""
    keys = ("name", "activation", "output_activation")
    names = {key: model[key] for key in keys if isinstance(model.get(key), str)}
    return {**model, **{key: n if ".py:" in n else n.lower() for key, n in names.items()}}


UNITS = by_their_name(
    {
        "kcal/mol": "kcal kcalmol kcal_mol kcal/mole kcalpermol kilocalorie",
        "kj/mol": "kj kjmol kj_mol kj/mole kilojoule",
        "ev": "electronvolt electron_volt electronvolts",
        "au": "a.u. atomic",
        "hartree": "e_h hartrees",
        "bohr": "bohrs",
        "ang": "aa angstroem ångström ångstrom",
        "nm": "nanometer nanometre",
        "pm": "picometer picometre",
        "kbar": "kilobar kb",
    }
)

ACTIVATIONS = by_their_name(
    {
        "silu": "swish swish1 scaledsilu scaled_silu scaled_swish sigmoid-linear",
        "ssp": "shifted_softplus shiftedsoftplus shifted-softplus softplus_shifted",
        "irelu": "integrated_relu integral_relu int_relu",
        "squared_relu": "relu2 relu^2 relu_squared relusquared sqrelu",
        "leaky_irelu": "leaky_relu leakyrelu lrelu prelu",
        "elu": "selu celu",
    }
)

MODELS = by_their_name({"dimenet++": "dimenet", "gemnet-dt": "gemnet gemnet-t gemnet-oc"})

ARGUMENTS = by_their_name(
    {
        "cutoff": "r_max rmax rcut r_cut rc cutoff_radius radius max_radius cutoff_lower_upper",
        "width": "hidden hidden_channels hidden_dim hidden_size hidden_irreps channels features "
        "n_features num_features num_channels n_atom_basis embedding_dim emb_size dim "
        "atom_fea_len n_filters num_filters",
        "n_layers": "layers num_layers n_interactions num_interactions interactions num_blocks "
        "n_blocks n_conv depth",
        "n_radial": "n_rbf num_rbf rbf num_radial num_basis num_bessel n_bessel n_gaussians "
        "num_gaussians num_radial_basis radial_basis",
        "activation": "act act_fn activation_fn nonlinearity activation_function gate",
        "filter": "radial_type rbf_type",
        "name": "architecture arch representation",
    }
)

# of a training run; the arguments of models are added below
KEYS = by_their_name(
    {
        "train.epochs": "max_num_epochs max_epochs n_epochs num_epochs nepochs epoch",
        "train.max_minutes": "minutes max_time time_limit timeout walltime",
        "train.batch_size": "batch bs batchsize valid_batch_size train_batch_size",
        "train.learning_rate": "lr learning-rate learningrate init_lr initial_lr max_lr rate",
        "train.weight_decay": "wd l2",
        "train.optimizer": "optim opt",
        "train.schedule": "scheduler lr_scheduler lr_schedule",
        "train.warmup_steps": "warmup lr_warmup_steps warmup_epochs",
        "train.plateau_patience": "lr_patience scheduler_patience lr_scheduler_patience",
        "train.plateau_factor": "lr_factor lr_decay lr_scheduler_gamma gamma",
        "train.clip_norm": "clip clip_grad max_grad_norm gradient_clip_val grad_clip clip_value",
        "train.ema": "ema_decay ema_start use_ema",
        "train.early_stop": "patience early_stopping early_stopping_patience",
        "train.valid_every": "eval_interval val_every validate_every check_val_every_n_epoch",
        "train.save_every_s": "checkpoint_every save_interval",
        "train.dtype": "default_dtype precision float_precision",
        "train.threads": "num_threads n_threads nproc ncpu cores",
        "loss.energy": "energy_weight weight_energy e_weight energy_loss_weight",
        "loss.forces": "forces_weight force_weight weight_forces f_weight forces_loss_weight force",
        "loss.stress": "stress_weight weight_stress virial virials_weight virial_weight",
        "loss.penalty": "loss_fn criterion",
        "loss.huber_delta": "delta",
        "rescale.references": "e0s e0 atomic_energies atomref atomrefs atom_references "
        "per_species_energy_shifts isolated_atom_energies",
        "rescale.mode": "scaling rescaling normalize",
        "data.file": "dataset dataset_path data_path datapath train_file train_data path filename",
        "data.n_train": "num_train train_size ntrain",
        "data.n_valid": "num_val n_val num_valid val_size valid_size valid_fraction nvalid",
        "data.n_test": "num_test test_size ntest",
        "data.split": "split_file splits train_val_test_split",
        "seed": "random_seed rng_seed manual_seed",
    }
)
KEYS |= {theirs: f"model.{ours}" for theirs, ours in ARGUMENTS.items() if theirs not in KEYS}
KEYS |= {ours: f"model.{ours}" for ours in ("width", "n_layers", "n_radial", "norm", "filter")}
KEYS |= {ours: f"model.{ours}" for ours in ("cutoff", "activation", "vector_norm")}

# names that the configuration takes as values
CHOICES = by_their_name(
    {
        "l2": "mse mseloss mean_squared_error",
        "l1": "mae l1loss mean_absolute_error",
        "huber": "smooth_l1 smoothl1 huberloss",
        "plateau": "reducelronplateau reduce_lr_on_plateau",
        "cosine": "cosineannealinglr cosine_annealing onecycle",
        "constant": "none fixed",
        "float64": "double fp64 f64 64",
        "float32": "single float fp32 f32 32",
        "adamw": "sgd radam",
    }
)

ENSEMBLES = by_their_name(
    {
        "langevin": "nvt nvt-langevin canonical nose-hoover nosehoover berendsen csvr bussi",
        "nve": "verlet velocity-verlet velocityverlet microcanonical",
        "npt": "npt-mtk mtk nph barostat isobaric parrinello-rahman",
    }
)

COMMANDS = by_their_name(
    {
        "train": "fit run_train learn",
        "eval": "evaluate test predict score validate",
        "md": "dynamics run simulate nve nvt npt",
        "compile": "export deploy package create_lammps_model",
        "label": "reference xtb",
        "info": "show describe inspect check summary",
        "fetch": "download get pull",
        "list": "ls sets",
        "--help": "help usage",
    }
)

# options of commands, in our name: a name of theirs can mean another option in another command;
# for train, see KEYS
OPTIONS = {
    "--temperature-K": "temperature temp t temperature_k",
    "--time-ps": "time length duration ps total_time steps n_steps nsteps max_steps",
    "--timestep-fs": "timestep time_step dt step stepsize",
    "--ensemble": "thermostat integrator nve nvt npt",
    "--pressure-GPa": "pressure p press",
    "--friction-per-ps": "friction gamma damping",
    "--log-every-fs": "log_interval loginterval log_every",
    "--save-every-fs": "dump_every traj_interval save_every interval",
    "--with": "method theory calculator reference",
    "--out": "output o out_dir output_dir outdir folder save_dir work_dir results_dir to",
    "--to": "out output dir folder",
    "--data": "file input dataset train_file data_file",
    "--model": "arch architecture",
    "--resume": "restart restart_latest continue load",
    "--keep-velocities": "resume restart restart_latest continue checkpoint velocities momenta",
    "--json": "as_json machine",
    "--energy-unit": "energy_units units e_unit",
    "--length-unit": "length_units r_unit distance_unit",
    "--force-unit": "force_units forces_unit f_unit",
    "--device": "gpu cuda cpu",
}
