"""Compile a potential ahead of time: `Potential` → the file that `package` reads.

The energy and its gradient are traced together with open sizes, exported, and compiled by
AOTInductor.
"""

import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx

import gradpot
from gradpot.compile import package
from gradpot.compile.package import FORMAT, SUFFIX, dtype_name, fingerprint
from gradpot.compile.private import keep_inductor_private
from gradpot.compile.step import available, has_compiler
from gradpot.errors import InputError, RunError
from gradpot.graph.graph import Graph, both_ways, opposite
from gradpot.nn.radial import tabulate
from gradpot.nn.segment import sum_by
from gradpot.potential.potential import Potential, predict
from gradpot.process import write_bytes

EXPORT_OPTIONS = {
    # sums over neighbors then need no locks
    "cpp.threads": 1,
    # only the instructions that `package.machine` names: the file runs wherever it is accepted
    "cpp.march": "",
    "cpp.enable_floating_point_contract_flag": "fast",
    # a graph's indices are right by construction: do not test them for every pair and column
    "assert_indirect_indexing": False,
}
# characters of a compiler's message
LONGEST_REASON = 300
# (numbers, pair_index, pair_vec, batch, cell) and, if the model looks at angles, triplets
# -> energy, forces, stress
Network = Callable[..., tuple[Tensor, ...]]


def compile_potential(
    potential: Potential, path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Compile a potential for the CPU into the file `path`, all or nothing.

    Args:
        potential: stays unchanged.
        dtype: of the network; None keeps that of the potential.

    Raises:
        InputError: there is no C++ compiler.
        RunError: the model cannot be traced (`compile.step.trace`), or the compiler failed.
    """
    from torch._inductor import aoti_compile_and_package

    if not has_compiler():
        raise InputError("compiling needs a C++ compiler: install g++, or name one in CXX")
    dtype = dtype or potential.dtype
    keep_inductor_private()
    header = {
        "format": FORMAT,
        "gradpot": gradpot.__version__,
        **package.machine(),
        "dtype": dtype_name(dtype),
        "cutoff": potential.cutoff,
        "scale": potential.scale,
        "uses_triplets": potential.uses_triplets,
        "direct": potential.direct,
        "references": {str(z): e for z, e in sorted(potential.references.items())},
        "fingerprint": fingerprint(potential),
        "seen": potential.seen and potential.seen.model_dump(),
        "repulsion": potential.repulsion and potential.repulsion.model_dump(),
    }
    options = available(EXPORT_OPTIONS)
    options["aot_inductor.metadata"] = {"gradpot": json.dumps(header)}
    options["post_grad_custom_post_pass"] = split_addmm
    with tempfile.TemporaryDirectory(prefix="gradpot-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finished = str(Path(folder) / f"potential{SUFFIX}")
        try:
            program = exported(potential, dtype)
            aoti_compile_and_package(program, package_path=finished, inductor_configs=options)
        except Exception as error:  # of many kinds, from the tracer, the compiler and the system
            raise RunError(f"compiling failed: {_reason(error)}") from error
        write_bytes(path, Path(finished).read_bytes())


def _reason(error: Exception) -> str:
    """What went wrong, without the compiler's command line and source, which fill pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line.lower() or "No space" in line]
    return (telling or lines or [type(error).__name__])[0][:LONGEST_REASON]


def exported(potential: Potential, dtype: torch.dtype) -> torch.export.ExportedProgram:
    """The potential as a program of tensors: open sizes, weights inside, radial filters tabulated.

    Raises:
        Exception: from the tracer, if the model cannot be traced (`compile.step.trace`).
    """
    from torch.export import Dim, export
    from torch.fx.experimental.proxy_tensor import make_fx

    potential = copy.deepcopy(potential).to("cpu", dtype).eval().requires_grad_(False)
    tabulate(potential)
    example = _example(potential, dtype)
    # `export` alone cannot see the gradient, which is part of the trace
    tracer = make_fx(_network(potential), tracing_mode="symbolic", _allow_non_fake_inputs=True)
    sizes = [{axis: Dim.DYNAMIC} for axis in (0, 1, 0, 0, 0, 1)]
    with torch.no_grad():
        return export(tracer(*example), example, dynamic_shapes=tuple(sizes[: len(example)]))


def split_addmm(graph: fx.Graph) -> None:
    """Split `addmm` into product and sum, so that the kernel that reads the sum adds the bias.

    `addmm` would copy the bias first.
    """
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
        if node.kwargs:
            continue
        bias, one, other = node.args
        with graph.inserting_before(node):
            product = graph.call_function(aten.mm.default, (one, other))
            total = graph.call_function(aten.add.Tensor, (product, bias))
        product.meta.update(node.meta)
        total.meta.update(node.meta)
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def _network(potential: Potential) -> Network:
    """`Potential.forward` as a function of tensors, which is what is compiled."""
    table, scale = potential.reference_table, potential.scale

    def network(numbers: Tensor, pair_index: Tensor, pair_vec: Tensor, *others: Tensor):
        batch, cell = others[:2]
        edges = both_ways(pair_index), opposite(pair_vec)
        raw = predict(potential.network, Graph(numbers, *edges, *others))
        reference = sum_by(table.index_select(0, numbers), batch, cell.shape[0])
        return reference + scale * raw.energy.double(), scale * raw.forces, scale * raw.stress

    return network


def _example(potential: Potential, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Inputs to trace with. No size occurs in the model: the tracer would confuse the two."""
    taken = {size for tensor in potential.state_dict().values() for size in tensor.shape}
    # 2n too: a graph has twice as many edges as pairs
    free = (n for n in range(5, 1000, 2) if not taken & {n, 2 * n})
    n_graphs, n_atoms, n_pairs, n_triplets = (next(free) for _ in range(4))
    center = torch.arange(n_pairs) % n_atoms
    edge = torch.arange(n_triplets) % n_pairs
    inputs = (
        torch.full((n_atoms,), min(potential.references)),
        torch.stack([center, (center + 1) % n_atoms]),
        torch.full((n_pairs, 3), 0.4 * potential.cutoff, dtype=dtype),
        torch.arange(n_atoms) % n_graphs,
        torch.eye(3, dtype=dtype).expand(n_graphs, 3, 3).contiguous(),
    )
    return (*inputs, torch.stack([edge, edge + 1])) if potential.uses_triplets else inputs
