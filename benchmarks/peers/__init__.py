"""Adapters: each makes one package do the same two pieces of work, in its own environment.

An adapter is a module of this folder, `NAME.py`, run by the Python of `.envs/NAME` (`gradpot.py`:
by the Python that runs the benchmark) as `python -P -m peers.worker NAME`. It has

    VERSION: str                       of the package
    MODELS: dict                       models it can make
    MODES: dict[str, tuple[str, ...]]  for "train" and "call": ways to run, "eager" first

    training(model, frames, mode) -> (step, n_parameters)
        step() does one gradient step on all `frames` as one batch whose graph is made already:
        forward, energy and force loss, backward, Adam; it returns the loss.
    calculator(model, frames, mode) -> (calculator, n_parameters)
        an ASE calculator of the package for structures like the first of `frames`.

Weights are random, from `SEED`; single precision; cutoff `CUTOFF`. What a package cannot do raises;
the message becomes part of the row.
"""

SEED = 0
CUTOFF = 5.0  # Å
LEARNING_RATE = 1e-4
