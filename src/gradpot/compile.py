"""Compile the whole gradient step: energy, forces, loss and the gradient of the loss.

`torch.compile` alone cannot differentiate twice. The step is therefore traced first, with both
derivatives in it and every size left open, and the trace, which is plain tensor code, is then
compiled. A compiled step and an eager one differ only in rounding.
"""

import os
import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from gradpot.data.dataset import Batch, Dataset, batch
from gradpot.graph import Graph, Properties

# (parameters, batch) -> loss and its gradient by each parameter
Gradients = Callable[[list[Tensor], Batch], tuple[Tensor, ...]]


def compiled(function: Gradients, parameters: list[Tensor], example: Batch) -> Gradients:
    """Trace `function` on an example and compile it for batches of every size.

    Args:
        example: see `example_batch`.

    Returns:
        A function that gives the same as `function`, for batches of two structures, two atoms
        and two pairs or more; smaller ones go to `function` itself, because the compiler takes
        sizes 0 and 1 for constants.
    """
    fast = torch.compile(trace(function, parameters, example), dynamic=True, fullgraph=True)

    @torch.no_grad()
    def step(parameters: list[Tensor], piece: Batch) -> tuple[Tensor, ...]:
        graph = piece.graph
        if min(graph.cell.shape[0], graph.numbers.shape[0], graph.pair_vec.shape[0]) < 2:
            with torch.enable_grad():
                return function(parameters, piece)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fast([p.detach() for p in parameters], *_tensors(piece))

    return step


def trace(
    function: Gradients, parameters: list[Tensor], example: Batch
) -> Callable[..., tuple[Tensor, ...]]:
    """`function` as tensor operations with open sizes, of parameters and a batch's tensors.

    Raises:
        Exception: whatever the tracer says of a model that asks a tensor for its values, counts
            with `len`, or branches on a size.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def plain(parameters: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        return function(parameters, _batch(tensors))

    tracer = make_fx(plain, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    return tracer(parameters, *_tensors(example))


def example_batch(data: Dataset, parameters: list[Tensor]) -> Batch:
    """A batch whose sizes are all different, and different from those of the parameters.

    A traced size that happens to equal another one would be taken for it.
    """
    taken = {size for p in parameters for size in p.shape} | {0, 1, 2, 3, 9}
    n_frames = data.cell.shape[0]
    for n_graphs in range(5, 200):
        piece = batch(data, torch.arange(n_graphs) % n_frames)
        graph = piece.graph
        n_pairs = graph.pair_vec.shape[0]
        sizes = [n_graphs, graph.numbers.shape[0], n_pairs, 2 * n_pairs]
        if len(set(sizes)) == len(sizes) and not taken.intersection(sizes):
            return piece
    raise RuntimeError("no batch of distinct sizes among 200; are there only isolated atoms?")


def has_compiler() -> bool:
    """Whether the C++ compiler that the compiled step needs is here."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _tensors(piece: Batch) -> tuple[Tensor, ...]:
    return (*piece.graph, *piece.labels)


def _batch(tensors: tuple[Tensor, ...]) -> Batch:
    n = len(Graph._fields)
    return Batch(Graph(*tensors[:n]), Properties(*tensors[n:]))
