"""Compile the whole gradient step: energy, forces, loss and the gradient of the loss.

`torch.compile` alone cannot differentiate twice. The step is therefore traced first, with both
derivatives in it and every size left open. The trace is plain tensor code, which goes to torch's
code generator directly: what `torch.compile` does before that takes a fourth of the time.
A compiled step and an eager one differ only in rounding.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradpot.compile.private import keep_inductor_private
from gradpot.graph.dataset import Batch, Dataset, batch
from gradpot.graph.graph import Graph, Properties

# (weights, batch) -> loss, and its gradient with respect to the weights
Gradients = Callable[[Tensor, Batch], tuple[Tensor, Tensor]]

STEP_OPTIONS: dict[str, Any] = {
    # a graph's indices are right by construction: do not test them for every pair and column
    "assert_indirect_indexing": False,
    # of the one library that holds all kernels; the code that calls them is not worth optimizing
    "cpp_wrapper": True,
    "cpp_wrapper_build_separate": True,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
# numbers of structures to try for an example
EXAMPLE_SIZES = range(5, 200)
# sizes in the code of models and graphs: axes, matrices, and those that the compiler fixes
FIXED_SIZES = {0, 1, 2, 3, 9}


def compile_step(function: Gradients, weights: Tensor, example: Batch) -> Gradients:
    """Trace `function` on an example and compile it for batches of every size.

    Args:
        example: see `example_batch`.

    Returns:
        A function with the results of `function`. Batches with fewer than two structures, atoms,
        pairs or (if the model uses them) triplets go to `function` itself, because the compiler
        treats sizes 0 and 1 as constants.

    Raises:
        Exception: from the tracer (see `trace`) or the compiler.
    """
    keep_inductor_private()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of torch
        fast = machine_code(trace(function, weights, example), [weights, *tensors(example)])

    @torch.no_grad()
    def step(weights: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if min(sizes(batch.graph)) < 2:
            return function(weights, batch)
        value, gradient = fast([weights, *tensors(batch)])
        return value, gradient

    return step


def machine_code(
    function: Callable[..., Sequence[Tensor]], example: list[Tensor]
) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """Compile plain tensor code for inputs of all sizes but 0 and 1.

    The code generator also chooses by size how to sum, but every choice is right for all sizes.

    Args:
        function: from `trace`.
        example: its inputs, with sizes that differ.

    Raises:
        Exception: from the tracer, the code generator or the C++ compiler.
    """
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx import GraphModule
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        # the code generator expects its own set of operations, and none in place
        out_of_place = torch.func.functionalize(function, remove="mutations")
        traced = make_fx(
            out_of_place,
            select_decomp_table(),
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(*example)
        inputs = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
        # without the tracer's own attributes, which could not be found again in the cache
        plain = GraphModule(traced, traced.graph)
        with config.patch(available(STEP_OPTIONS)), tracing(TracingContext(inputs[0].fake_mode)):
            return compile_fx_inner(plain, inputs, is_inference=True, cpp_wrapper=True)


def trace(
    function: Gradients, weights: Tensor, example: Batch
) -> Callable[..., tuple[Tensor, Tensor]]:
    """`function` as tensor operations with open sizes, of weights and a batch's tensors.

    Raises:
        Exception: from the tracer, if a model asks a tensor for its values, counts with `len`,
            or branches on a size.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    n_labels = len(Properties._fields)

    def plain(weights: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        graph, labels = Graph(*tensors[:-n_labels]), Properties(*tensors[-n_labels:])
        return function(weights, Batch(graph, labels))

    tracer = make_fx(plain, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    return tracer(weights, *tensors(example))


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """All tensors of a batch, in the order of a traced step's arguments."""
    return (*(tensor for tensor in batch.graph if tensor is not None), *batch.labels)


def sizes(graph: Graph) -> list[int]:
    """Numbers of structures, atoms, pairs and, if they are known, triplets."""
    known = [graph.cell.shape[0], graph.numbers.shape[0], graph.pair_vec.shape[0]]
    return known if graph.triplets is None else [*known, graph.triplets.shape[1]]


def example_batch(data: Dataset, model: nn.Module) -> Batch:
    """A batch whose sizes differ from each other and from those of the model's parameters.

    The tracer would mistake two equal sizes for one.

    Raises:
        RuntimeError: there is none, for example if all atoms are isolated.
    """
    taken = FIXED_SIZES.union(*(p.shape for p in model.parameters()))
    n_frames = data.cell.shape[0]
    for n_graphs in EXAMPLE_SIZES:
        example = batch(data, torch.arange(n_graphs) % n_frames)
        found = [*sizes(example.graph), example.graph.edge_vec.shape[0]]
        if len(set(found)) == len(found) and not taken.intersection(found):
            return example
    raise RuntimeError("found no batch of distinct sizes; are there only isolated atoms?")


def available(options: dict[str, Any]) -> dict[str, Any]:
    """The compiler options that this version of torch has."""
    from torch._inductor import config

    known = config.get_config_copy()
    return {name: value for name, value in options.items() if name in known}


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None
