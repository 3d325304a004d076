"""Compile the whole gradient step: energy, forces, loss and the gradient of the loss.

`torch.compile` alone cannot differentiate twice. The step is therefore traced first, with both
derivatives in it and every size left open, and the trace, which is plain tensor code, is then
compiled. A compiled step and an eager one differ only in rounding.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradpot.graph.dataset import Batch, Dataset, batch
from gradpot.graph.graph import Graph, Properties

# (weights, batch) -> loss, and its gradient by the weights
Gradients = Callable[[Tensor, Batch], tuple[Tensor, Tensor]]

OPTIONS: dict[str, Any] = {
    # a graph's indices are right by construction: do not test them for every pair and column
    "assert_indirect_indexing": False,
    # one library that needs no Python between its kernels, instead of sixty: compiled in two
    # thirds of the time; what calls the kernels is not worth optimizing
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}


def compiled(function: Gradients, weights: Tensor, example: Batch) -> Gradients:
    """Trace `function` on an example and compile it for batches of every size.

    Args:
        example: see `example_batch`.

    Returns:
        A function that gives the same as `function`, for batches of two structures, two atoms,
        two pairs and, where the model looks at them, two triplets or more; smaller ones go to
        `function` itself, because the compiler takes sizes 0 and 1 for constants.
    """
    traced = trace(function, weights, example)
    fast = torch.compile(traced, dynamic=True, fullgraph=True, options=available(OPTIONS))

    @torch.no_grad()
    def step(weights: Tensor, piece: Batch) -> tuple[Tensor, Tensor]:
        if min(_sizes(piece.graph)) < 2:
            return function(weights, piece)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fast(weights, *tensors(piece))

    # the compiler too takes equal sizes for one: what it is shown first has none
    step(weights, example)
    return step


def trace(
    function: Gradients, weights: Tensor, example: Batch
) -> Callable[..., tuple[Tensor, Tensor]]:
    """`function` as tensor operations with open sizes, of weights and a batch's tensors.

    Raises:
        Exception: whatever the tracer says of a model that asks a tensor for its values, counts
            with `len`, or branches on a size.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def plain(weights: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        return function(weights, _batch(tensors))

    tracer = make_fx(plain, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    return tracer(weights, *tensors(example))


def example_batch(data: Dataset, model: nn.Module) -> Batch:
    """A batch whose sizes are all different, and different from those of the model's parameters.

    A traced size that happens to equal another one would be taken for it.
    """
    taken = {size for p in model.parameters() for size in p.shape} | {0, 1, 2, 3, 9}
    n_frames = data.cell.shape[0]
    for n_graphs in range(5, 200):
        piece = batch(data, torch.arange(n_graphs) % n_frames)
        sizes = [*_sizes(piece.graph), piece.graph.edge_vec.shape[0]]
        if len(set(sizes)) == len(sizes) and not taken.intersection(sizes):
            return piece
    raise RuntimeError("no batch of distinct sizes among 200; are there only isolated atoms?")


def available(options: dict[str, Any]) -> dict[str, Any]:
    """Those options of the compiler that this version of torch has."""
    from torch._inductor import config

    known = config.get_config_copy()
    return {name: value for name, value in options.items() if name in known}


def has_compiler() -> bool:
    """Whether the C++ compiler that the compiled step needs is here."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _sizes(graph: Graph) -> list[int]:
    """Numbers of structures, atoms, pairs and, where they are known, triplets."""
    sizes = [graph.cell.shape[0], graph.numbers.shape[0], graph.pair_vec.shape[0]]
    return sizes if graph.triplets is None else [*sizes, graph.triplets.shape[1]]


def tensors(piece: Batch) -> tuple[Tensor, ...]:
    """Everything of a batch, in the order in which a traced step takes it."""
    return (*(tensor for tensor in piece.graph if tensor is not None), *piece.labels)


def _batch(tensors: tuple[Tensor, ...]) -> Batch:
    n = -len(Properties._fields)
    return Batch(Graph(*tensors[:n]), Properties(*tensors[n:]))
