"""Compile a potential ahead of time: `Potential` → the file that `package` reads.

The energy and its gradient are traced together with open sizes, exported, and compiled by
AOTInductor.
"""

import copy
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx

import gradpot
from gradpot.compile import package
from gradpot.compile.package import FORMAT, SUFFIX, CompiledPotential, dtype_name, fingerprint, fits
from gradpot.compile.step import available, has_compiler
from gradpot.errors import InputError, RunError
from gradpot.graph.graph import Graph, both_ways, opposite
from gradpot.locks import locked
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
# the parts that this one cannot import (tests/test_imports.py): machine code depends on the rest
NOT_COMPILED = {"train", "md", "testing", "cli"}
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
        RunError: the compiler failed.
        Exception: from the tracer, if the model cannot be traced (`compile.step.trace`).
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InductorError

    if not has_compiler():
        raise InputError("compiling needs a C++ compiler: install g++, or name one in CXX")
    dtype = dtype or potential.dtype
    program = exported(potential, dtype)
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
    }
    options = available(EXPORT_OPTIONS)
    options["aot_inductor.metadata"] = {"gradpot": json.dumps(header)}
    options["post_grad_custom_post_pass"] = split_addmm
    with tempfile.TemporaryDirectory(prefix="gradpot-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finished = Path(folder) / f"potential{SUFFIX}"
        try:
            aoti_compile_and_package(program, package_path=str(finished), inductor_configs=options)
        except InductorError as error:
            raise RunError(f"compiling failed: {error}") from error
        write_bytes(path, finished.read_bytes())


def compiled_potential(potential: Potential, dtype: torch.dtype) -> CompiledPotential:
    """The potential as machine code, which is compiled now unless the cache has it.

    Raises:
        InputError, RunError: see `compile_potential`.
    """
    with tempfile.TemporaryDirectory(prefix="gradpot-") as folder:
        # what cannot be saved is not cached
        path = cache_file(potential, dtype) or Path(folder) / f"potential{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # another process may be compiling the same
        with locked(path, wait=True):
            if not fits(path, potential, dtype):
                compile_potential(potential, path, dtype)
        return CompiledPotential(path)


def find_compiled(
    potential: Potential, dtype: torch.dtype, beside: Path
) -> CompiledPotential | None:
    """The potential as machine code if that exists: in the file `beside`, or in the cache.

    Nothing is compiled. Files of other weights or for another machine are passed over.
    """
    for path in (beside, cache_file(potential, dtype)):
        if path is not None and fits(path, potential, dtype):
            return CompiledPotential(path)
    return None


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


def cache_file(potential: Potential, dtype: torch.dtype) -> Path | None:
    """Where the package of these weights, this code and this machine is cached.

    None if the potential cannot be saved.
    """
    import pooch

    weights = fingerprint(potential)
    if weights is None:
        return None
    code = code_digest(Path(gradpot.__file__).parent)
    made_from = [weights, str(dtype), package.machine(), code]
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    return Path(pooch.os_cache("gradpot")) / "compiled" / f"{name}{SUFFIX}"


def code_digest(home: Path) -> str:
    """Hash of the source files in `home`, the folder of gradpot, that machine code depends on.

    Editing one of them makes the cache stale. The parts in `NOT_COMPILED` are left out.
    """
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        if path.relative_to(home).parts[0] not in NOT_COMPILED:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _network(potential: Potential) -> Network:
    """`Potential.forward` as a function of tensors, which is what is compiled."""
    table, scale = potential.reference_table, potential.scale

    def network(numbers: Tensor, pair_index: Tensor, pair_vec: Tensor, *others: Tensor):
        batch, cell = others[:2]
        edges = both_ways(pair_index), opposite(pair_vec)
        raw = predict(potential.model, Graph(numbers, *edges, *others))
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
