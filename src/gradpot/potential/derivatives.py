"""Check that derivatives are the gradient of the value and do not leak between samples.

Both are tested in float64 by moving inputs. A sample's value and derivative must not depend on the
other samples of its batch (batch norm in training mode breaks this), and the derivative must agree
with finite differences of the value.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.geometry import N_ELEMENTS
from gradpot.graph.graph import from_atoms, join
from gradpot.models.base import Model
from gradpot.potential.potential import Potential

if TYPE_CHECKING:
    from ase import Atoms

# relative errors that rounding and finite differences leave in float64
LEAK, ERROR = 1e-9, 1e-5
# Å: displacements that show which samples interact, and those of finite differences
SHIFT, STEP = 0.05, 1e-4
# random directions of finite differences for each sample
N_DIRECTIONS = 3
# inputs of each sample -> value of each sample, derivative of the sum of values by each input
Evaluate = Callable[[list[Tensor]], tuple[Tensor, list[Tensor]]]


class Derivatives(NamedTuple):
    """What `check_derivatives` found; `print` shows it as a report."""

    leak: float
    """largest change of a sample's value or derivative when another sample moves, relative to the
    change of a value when its own sample moves, or to the largest derivative"""
    leak_from: int
    """the sample that moved"""
    leak_to: int
    """the sample that changed"""
    noise: float
    """largest change between two calls with the same inputs, relative like `leak`"""
    error: float
    """largest difference between derivative and finite differences along random directions,
    relative to the largest rms or directional derivative"""
    error_at: int
    """the sample with that error"""
    n_samples: int
    training_norms: tuple[str, ...] = ()
    """dotted names of norms that use statistics of the batch, as batch norm does in training"""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong."""
        found = []
        if not self.noise <= LEAK:
            found.append(
                f"two calls with the same inputs differ by {self.noise:.1e} (relative): is there "
                "dropout or other randomness? Do not trust the rest of this report"
            )
        if not self.leak <= LEAK:
            norms = ", ".join(self.training_norms)
            found.append(
                f"sample {self.leak_to} depends on sample {self.leak_from} of its batch: its value "
                f"or derivative changes by {self.leak:.1e} (relative) when that one moves"
                + (f"; in training mode: {norms}" if norms else "")
            )
        if not self.error <= ERROR:
            found.append(
                f"the derivative or forces of sample {self.error_at} are not the gradient of the "
                f"values: finite differences disagree by {self.error:.1e} (relative)"
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
    """Check that the derivatives of each sample are right and depend on that sample alone.

    Args:
        function: a `Potential` or a `Model`, for structures. Or anything that maps a tensor
            [n_samples, ...] to values [n_samples, ...], which autograd then differentiates, or to
            a pair of values and *forces* (minus the derivative, in the shape of the inputs). A
            module is copied to float64 in the mode that it is in: call `.train()` first to see
            what training does. A function must accept float64.
        inputs: two samples or more, or ASE structures.

    Raises:
        InputError: there are fewer than two samples, or values do not have a row for each.
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
        if isinstance(function, Model):
            function = Potential(function, dict.fromkeys(range(1, N_ELEMENTS), 0.0))
        if not isinstance(function, Potential):
            raise InputError(
                f"function is a {type(function).__name__}; for structures give a gradpot.Model or "
                "a Potential, or give a tensor as inputs"
            )
        evaluate = _of_structures(function, inputs)
        shift, step = SHIFT, STEP
    if len(samples) < 2:
        raise InputError(f"there is {len(samples)} sample; give two or more, to see leaks")
    random = torch.Generator().manual_seed(0)
    at_rest = evaluate(samples)
    leak = _leak(evaluate, samples, at_rest, shift, random)
    error = _error(evaluate, samples, at_rest[1], step, random)
    norms = [
        name
        for name, module in (function.named_modules() if isinstance(function, nn.Module) else ())
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (module.training or not module.track_running_stats)
    ]
    return Derivatives(*leak, *error, len(samples), tuple(norms))


def _leak(
    evaluate: Evaluate, samples: list[Tensor], at_rest: tuple, shift: float, random: torch.Generator
) -> tuple[float, int, int, float]:
    """Move one sample after the other; return the first four fields of `Derivatives`."""
    n = len(samples)
    value_change, gradient_change = torch.zeros(n, n), torch.zeros(n, n)
    for j in range(n):
        moved = list(samples)
        moved[j] = samples[j] + shift * _direction(samples[j], random) * samples[j].numel() ** 0.5
        value_change[j], gradient_change[j] = _changes(evaluate(moved), at_rest)
    own = value_change.diagonal().max()
    steepest = torch.tensor(max(gradient.abs().max().item() for gradient in at_rest[1]))

    def relative(values: Tensor, gradients: Tensor) -> Tensor:
        return torch.maximum(_ratio(values, own), _ratio(gradients, steepest))

    leaks = relative(value_change, gradient_change).fill_diagonal_(0)
    noise = relative(*_changes(evaluate(samples), at_rest)).max().item()
    j, i = divmod(int(leaks.argmax()), n)
    return leaks[j, i].item(), j, i, noise


def _error(
    evaluate: Evaluate,
    samples: list[Tensor],
    gradients: list[Tensor],
    step: float,
    random: torch.Generator,
) -> tuple[float, int]:
    """Largest relative error against differences of fourth order, and its sample."""
    size = max(gradient.square().mean().sqrt().item() for gradient in gradients)
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
            gap = abs(expected - (gradients[i] * direction).sum().item())
            size = max(size, abs(expected))
            gaps[i] = max(gaps[i].item(), gap) if gap == gap else torch.nan
    errors = _ratio(gaps, torch.tensor(size))
    return errors.max().item(), int(errors.argmax())


def _of_tensors(function: Callable[[Tensor], Any]) -> Evaluate:
    def evaluate(samples: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        with torch.enable_grad():
            x = torch.stack(samples).requires_grad_()
            out = function(x)
            values, forces = out if isinstance(out, tuple) else (out, None)
            if values.shape[:1] != x.shape[:1]:
                raise InputError(
                    f"values have shape {list(values.shape)} for {x.shape[0]} samples; expected a "
                    "row for each sample, not their sum or mean"
                )
            if forces is not None and forces.shape != x.shape:
                raise InputError(
                    f"forces have shape {list(forces.shape)}; expected that of the inputs, "
                    f"{list(x.shape)}"
                )
            if forces is not None:
                gradient = -forces
            elif values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), x, materialize_grads=True)
            else:
                gradient = torch.zeros_like(x)
        return values.detach().reshape(len(samples), -1), list(gradient.detach().unbind(0))

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


def _changes(one: tuple, other: tuple) -> tuple[Tensor, Tensor]:
    """Largest change of each sample's value, and of its derivative."""
    values = (one[0] - other[0]).abs().amax(dim=1)
    gradients = torch.stack([(a - b).abs().max() for a, b in zip(one[1], other[1], strict=True)])
    return values.cpu(), gradients.cpu()


def _ratio(change: Tensor, size: Tensor) -> Tensor:
    """change/size, and 0 where both are 0."""
    return torch.where(change == 0, 0.0, change / size)


def _direction(like: Tensor, random: torch.Generator) -> Tensor:
    x = torch.randn(like.shape, generator=random, dtype=torch.float64)
    return (x / x.norm()).to(like.device)
