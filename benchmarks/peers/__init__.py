"""Adapters: each runs the same two tasks with one package, in its own environment.

An adapter is a module `NAME.py` of this folder. The Python of `.envs/NAME` runs it as
`python -P -m peers.worker NAME`; for `gradpot.py` it is the Python of the benchmark. It has

    VERSION: str                       of the package
    MODELS: dict                       models it can build
    MODES: dict[str, tuple[str, ...]]  for "train" and "call": ways to run, "eager" first

    training(model, frames, mode) -> (step, n_parameters)
        step() does one optimizer step with all `frames` as one batch whose graph exists already:
        forward, energy and force loss, backward, Adam; it returns the loss.
    calculator(model, frames, mode) -> (calculator, n_parameters)
        an ASE calculator of the package for structures like the first of `frames`.

Weights are random, from `SEED`; single precision; cutoff `CUTOFF`. If a package cannot do a task,
the adapter raises an error, whose message becomes part of the row.
"""

SEED = 0
CUTOFF = 5.0  # Å
LEARNING_RATE = 1e-4
