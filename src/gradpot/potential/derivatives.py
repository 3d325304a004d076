"""Find derivatives that are wrong: of another sample's making, or not the gradient of the value.

Two facts are tested in float64, by moving inputs and looking at what changes: a sample's value and
derivative do not depend on the others of its batch (batch norm in training mode breaks this), and
the derivative is what finite differences of the value give.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.graph.graph import from_atoms, join
from gradpot.potential.potential import MAX_Z, Potential

if TYPE_CHECKING:
    from ase import Atoms

# what rounding and finite differences leave, as shares
LEAK, ERROR = 1e-9, 1e-5
# Å: how far atoms move to see who feels it, and to take differences
SHIFT, STEP = 0.05, 1e-4
N_DIRECTIONS = 3
# inputs of each sample -> value of each, derivative of the sum of all by each
Evaluate = Callable[[list[Tensor]], tuple[Tensor, list[Tensor]]]


class Derivatives(NamedTuple):
    """What `check_derivatives` found; printed, it is a report for a person."""

    leak: float
    """largest change of a sample's value or derivative when another sample moves, as a share of
    what its own move does to a value, or of the largest derivative"""
    leak_from: int
    """the sample that moved"""
    leak_to: int
    """the sample that felt it"""
    noise: float
    """largest change between two calls with the same inputs, as a share like `leak`"""
    error: float
    """largest difference between derivative and finite differences along random directions, as a
    share of the derivatives' root mean square"""
    error_at: int
    """the sample where it is"""
    n_samples: int
    training_norms: tuple[str, ...] = ()
    """dotted names of norms that use the statistics of the batch, as batch norm does in training"""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = []
        if not self.noise <= LEAK:
            found.append(
                f"two calls with the same inputs differ, by a share of {self.noise:.1e}: dropout, "
                "or other random numbers? The rest of this report means little"
            )
        if not self.leak <= LEAK:
            norms = ", ".join(self.training_norms)
            found.append(
                f"sample {self.leak_to} depends on sample {self.leak_from} of its batch: its value "
                f"or derivative changes, by a share of {self.leak:.1e}, when that one moves"
                + (f"; in training mode: {norms}" if norms else "")
            )
        if not self.error <= ERROR:
            found.append(
                f"derivative or forces of sample {self.error_at} are not the gradient of the "
                f"values: finite differences disagree by a share of {self.error:.1e}"
            )
        return found

    def __str__(self) -> str:
        facts = [
            f"samples                 {self.n_samples}",
            f"leak between samples    {self.leak:.1e}  (rounding: below {LEAK:.0e})",
            f"gradient − differences  {self.error:.1e}  (rounding: below {ERROR:.0e})",
        ]
        return "\n".join([*facts, *(f"- {text}" for text in self.problems or ["nothing is wrong"])])


def check_derivatives(
    function: Potential | nn.Module | Callable[[Tensor], Any], inputs: "Tensor | Sequence[Atoms]"
) -> Derivatives:
    """Check that the derivatives of each sample are right, and its own.

    Args:
        function: a `Potential`, or a model (`Graph` → atom energies), for structures; or anything
            that maps a tensor [n_samples, ...] to values [n_samples, ...], whose derivative then is
            what autograd says, or to a pair of values and *forces*, minus the derivative, in the
            shape of the inputs. A module is copied, in float64 and in the mode that it is in: to
            see what training does, call `.train()` before. A function has to take float64.
        inputs: a few samples, at least two; or ASE structures.

    Raises:
        InputError: fewer than two samples, or values that are not one row for each.
    """
    if isinstance(function, nn.Module):
        function = deepcopy(function).double()
    if isinstance(inputs, Tensor):
        samples = list(inputs.detach().double().unbind(0))
        evaluate = _of_tensors(function)
        size = inputs.double().std(correction=0).item() or 1.0
        shift, step = 0.1 * size, 1e-4 * size
    else:
        samples = [torch.from_numpy(atoms.positions).double() for atoms in inputs]
        evaluate = _of_structures(_potential(function), inputs)
        shift, step = SHIFT, STEP
    if len(samples) < 2:
        raise InputError(f"there is {len(samples)} sample; give two or more, to see if they mix")
    random = torch.Generator().manual_seed(0)
    at_rest = evaluate(samples)
    leak = _leak(evaluate, samples, at_rest, shift, random)
    error = _error(evaluate, samples, at_rest[1], step, random)
    norms = _norms_of_the_batch(function) if isinstance(function, nn.Module) else ()
    return Derivatives(*leak, *error, len(samples), norms)


def _leak(
    evaluate: Evaluate, samples: list[Tensor], at_rest: tuple, shift: float, random: torch.Generator
) -> tuple[float, int, int, float]:
    """Move one sample after the other: the first four fields of `Derivatives`."""
    slopes = at_rest[1]
    n = len(samples)
    value_change, slope_change = torch.zeros(n, n), torch.zeros(n, n)
    for j in range(n):
        moved = list(samples)
        moved[j] = samples[j] + shift * _direction(samples[j], random) * samples[j].numel() ** 0.5
        value_change[j], slope_change[j] = _changes(evaluate(moved), at_rest)
    # what a sample's own move does to its value is the measure of what another's does
    own = value_change.diagonal().max()
    steepest = max(slope.abs().max().item() for slope in slopes)

    def share(of_values: Tensor, of_slopes: Tensor) -> Tensor:
        return torch.maximum(_ratio(of_values, own), _ratio(of_slopes, torch.tensor(steepest)))

    shares = share(value_change, slope_change).fill_diagonal_(0)
    noise = share(*_changes(evaluate(samples), at_rest)).max().item()
    j, i = divmod(int(shares.argmax()), n)
    return shares[j, i].item(), j, i, noise


def _error(
    evaluate: Evaluate,
    samples: list[Tensor],
    slopes: list[Tensor],
    step: float,
    random: torch.Generator,
) -> tuple[float, int]:
    """Derivatives against differences of fourth order, and the sample where they differ most."""
    size = max(slope.square().mean().sqrt().item() for slope in slopes)
    gaps = torch.zeros(len(samples))
    for i, sample in enumerate(samples):
        for _ in range(N_DIRECTIONS):
            direction = _direction(sample, random)

            def total(x: float, i: int = i, direction: Tensor = direction) -> float:
                moved = list(samples)
                moved[i] = samples[i] + x * direction
                return evaluate(moved)[0].sum().item()

            near, far = total(step) - total(-step), total(2 * step) - total(-2 * step)
            expected = (8 * near - far) / (12 * step)
            gap = abs(expected - (slopes[i] * direction).sum().item())
            size = max(size, abs(expected))
            gaps[i] = max(gaps[i].item(), gap) if gap == gap else torch.nan
    shares = _ratio(gaps, torch.tensor(size))
    return shares.max().item(), int(shares.argmax())


def _of_tensors(function: Callable[[Tensor], Any]) -> Evaluate:
    def evaluate(samples: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with torch.enable_grad():
            x = torch.stack(samples).requires_grad_()
            out = function(x)
            values, forces = out if isinstance(out, tuple) else (out, None)
            _check_shapes(values, forces, x)
            if forces is not None:
                slope = -forces
            elif values.requires_grad:
                (slope,) = torch.autograd.grad(values.sum(), x, materialize_grads=True)
            else:
                slope = torch.zeros_like(x)
        return values.detach().reshape(len(samples), -1), list(slope.detach().unbind(0))

    return evaluate


def _of_structures(potential: Potential, structures: "Sequence[Atoms]") -> Evaluate:
    sizes = [len(atoms) for atoms in structures]

    def evaluate(samples: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        graphs = []
        for atoms, positions in zip(structures, samples, strict=True):
            moved = atoms.copy()
            moved.positions = positions.numpy()
            graphs.append(from_atoms(moved, potential.cutoff, torch.float64))
        out = potential(join(graphs), stress=False)
        return out.energy[:, None], list((-out.forces).split(sizes))

    return evaluate


def _potential(function: Any) -> Potential:
    """A model's energies as they are."""
    if isinstance(function, Potential):
        return function
    if not isinstance(getattr(function, "cutoff", None), float | int):
        raise InputError(
            f"{type(function).__name__} has no .cutoff to make graphs of structures with; give a "
            "model (Graph → atom energies) or a Potential, or a tensor as inputs"
        )
    return Potential(function, dict.fromkeys(range(1, MAX_Z + 1), 0.0))


def _check_shapes(values: Tensor, forces: Tensor | None, x: Tensor) -> None:
    if values.shape[:1] != x.shape[:1]:
        raise InputError(
            f"values have shape {list(values.shape)} for {x.shape[0]} samples; expected a row for "
            "each, so not their sum or mean"
        )
    if forces is not None and forces.shape != x.shape:
        raise InputError(f"forces have shape {list(forces.shape)}, but inputs {list(x.shape)}")


def _changes(one: tuple, other: tuple) -> tuple[Tensor, Tensor]:
    """Largest change of each sample's value, and of its derivative."""
    values = (one[0] - other[0]).abs().amax(dim=1)
    slopes = torch.stack([(a - b).abs().max() for a, b in zip(one[1], other[1], strict=True)])
    return values.cpu(), slopes.cpu()


def _ratio(change: Tensor, size: Tensor) -> Tensor:
    """As a share; no change is no share of nothing."""
    return torch.where(change == 0, 0.0, change / size)


def _direction(like: Tensor, random: torch.Generator) -> Tensor:
    x = torch.randn(like.shape, generator=random, dtype=torch.float64)
    return (x / x.norm()).to(like.device)


def _norms_of_the_batch(module: nn.Module) -> tuple[str, ...]:
    kind = nn.modules.batchnorm._BatchNorm
    return tuple(
        name
        for name, m in module.named_modules()
        if isinstance(m, kind) and (m.training or not m.track_running_stats)
    )
