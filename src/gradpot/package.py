"""A potential compiled ahead of time: one `.pt2` file, the network in it as machine code.

The whole of "energy and its gradient" is traced with open sizes, exported, and compiled by
AOTInductor. Loading needs no compiler and no weights beside; it does need the same torch and the
same kind of processor. The file holds code that is run: load only files you trust.
"""

import copy
import hashlib
import json
import platform
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx, nn

from gradpot import __version__
from gradpot.checkpoint import write_bytes
from gradpot.compile import has_compiler
from gradpot.errors import InputError, RunError, unknown
from gradpot.graph import Graph, Properties, both_ways, find_triplets, opposite
from gradpot.nn.radial import tabulate
from gradpot.nn.segment import sum_by
from gradpot.potential import Potential, predict

FORMAT = 1
SUFFIX = ".pt2"
DTYPES = {"float32": torch.float32, "float64": torch.float64}
OPTIONS = {
    # sums over neighbors then need no locks
    "cpp.threads": 1,
    # no instructions but those of `_machine`, so that the file runs wherever it is accepted
    "cpp.march": "",
    "cpp.enable_floating_point_contract_flag": "fast",
    # a graph's indices are right by construction: do not test them for every pair and column
    "assert_indirect_indexing": False,
}
# (numbers, pair_index, pair_vec, batch, cell) and, where the model looks at angles, triplets
# -> energy, forces, stress
Network = Callable[..., tuple[Tensor, ...]]


class CompiledPotential(Potential):
    """A potential from a file written by `compile_potential`; the same up to rounding.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, not a package of gradpot, or made for another version of torch
            or another kind of processor.
    """

    def __init__(self, path: str | Path):
        header = read_header(path)
        _check_header(header, path)
        references = {int(z): e for z, e in header["references"].items()}
        super().__init__(nn.Identity(), references, header["scale"])
        self.header = header
        self._cutoff, self._dtype = header["cutoff"], DTYPES[header["dtype"]]
        self._uses_triplets = header.get("uses_triplets", False)
        self._run = _loaded(path)

    @property
    def cutoff(self) -> float:
        """Å."""
        return self._cutoff

    @property
    def uses_triplets(self) -> bool:
        """Whether the network looks at angles."""
        return self._uses_triplets

    @property
    def direct(self) -> bool:
        """Whether forces are predicted by themselves."""
        return self.header.get("direct", False)

    @property
    def dtype(self) -> torch.dtype:
        """In which the network computes."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return torch.device("cpu")

    def forward(self, graph: Graph, stress: bool = True) -> Properties:
        """Energy (float64) in eV, forces in eV/Å, stress in eV/Å³; NaN where not asked for."""
        n_graphs, empty = graph.cell.shape[0], graph.cell.new_zeros(1, 3, 3)
        pairs = graph.pair_index.contiguous(), graph.pair_vec
        cell = torch.cat([graph.cell, empty])
        energy, forces, strain = self.run(graph.numbers, *pairs, graph.batch, cell, graph.triplets)
        return Properties(
            energy=energy[:n_graphs],
            forces=forces,
            stress=strain[:n_graphs] if stress else torch.full_like(graph.cell, torch.nan),
        )

    def run(
        self,
        numbers: Int[Tensor, "n_atoms"],
        pair_index: Int[Tensor, "2 n_pairs"],
        pair_vec: Float[Tensor, "n_pairs 3"],
        batch: Int[Tensor, "n_atoms"],
        cell: Float[Tensor, "n_graphs 3 3"],
        triplets: Int[Tensor, "2 n_triplets"] | None = None,
    ) -> Properties:
        """The same without a `Graph`, for callers that count microseconds.

        Args:
            pair_index, pair_vec: as in `Graph`, contiguous, and finite.
            cell: of the structures, and zeros for one more, to which no atom belongs.
            triplets: as in `Graph`; found where they are needed and not given.
        """
        inputs = [numbers, pair_index, pair_vec, batch, cell]
        n_atoms = numbers.shape[0]
        if self._uses_triplets:
            if triplets is None:
                triplets = find_triplets(pair_index.flatten(), n_atoms)
            inputs.append(triplets)
        if n_atoms >= 2 and pair_vec.shape[0] >= 2 and inputs[-1].shape[-1] >= 2:
            return Properties(*self._run(inputs))
        padded = _padded(inputs[:5], min(self.references), self.cutoff)
        if self._uses_triplets:
            padded.append(find_triplets(padded[1].flatten(), n_atoms + 2))
        energy, forces, stress = self._run(padded)
        return Properties(energy, forces[:n_atoms], stress)

    def __deepcopy__(self, _memo: dict) -> "CompiledPotential":
        # nothing in it can be changed
        return self


def compile_potential(
    potential: Potential, path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Compile a potential for the CPU into the file `path`, whole or not at all.

    Args:
        dtype: of the network; None keeps that of the potential, which is not changed.

    Raises:
        InputError: no C++ compiler.
        RunError: the compiler failed.
        Exception: whatever the tracer says of a model that cannot be traced, see `compile`.
    """
    if not has_compiler():
        raise InputError("compiling needs a C++ compiler: install g++, or name one in CXX")
    path = Path(path)
    dtype = dtype or potential.dtype
    program = exported(potential, dtype)
    header = {
        "format": FORMAT,
        "gradpot": __version__,
        **_machine(),
        "dtype": dtype_name(dtype),
        "cutoff": potential.cutoff,
        "scale": potential.scale,
        "uses_triplets": potential.uses_triplets,
        "direct": potential.direct,
        "references": {str(z): e for z, e in sorted(potential.references.items())},
        "fingerprint": fingerprint(potential),
    }
    with tempfile.TemporaryDirectory(prefix="gradpot-") as folder:
        finished = Path(folder) / f"potential{SUFFIX}"
        _compile(program, finished, header)
        write_bytes(path, finished.read_bytes())


def exported(potential: Potential, dtype: torch.dtype) -> torch.export.ExportedProgram:
    """The potential as a program of tensors: open sizes, weights inside, radial filters tabulated.

    Raises:
        Exception: whatever the tracer says of a model that cannot be traced, see `compile`.
    """
    from torch.export import Dim, export
    from torch.fx.experimental.proxy_tensor import make_fx

    potential = copy.deepcopy(potential).to("cpu", dtype).eval().requires_grad_(False)
    tabulate(potential)
    example = _example(potential, dtype)
    # the gradient is part of the trace, which `export` alone cannot see
    tracer = make_fx(_network(potential), tracing_mode="symbolic", _allow_non_fake_inputs=True)
    sizes = [{axis: Dim.DYNAMIC} for axis in (0, 1, 0, 0, 0, 1)]
    with torch.no_grad():
        return export(tracer(*example), example, dynamic_shapes=tuple(sizes[: len(example)]))


def _network(potential: Potential) -> Network:
    """What is compiled: `Potential.forward`, of tensors."""
    table, scale = potential.reference_table, potential.scale

    def network(numbers: Tensor, pair_index: Tensor, pair_vec: Tensor, *others: Tensor):
        batch, cell = others[:2]
        edges = both_ways(pair_index), opposite(pair_vec)
        raw = predict(potential.model, Graph(numbers, *edges, *others))
        reference = sum_by(table.index_select(0, numbers), batch, cell.shape[0])
        return reference + scale * raw.energy.double(), scale * raw.forces, scale * raw.stress

    return network


def _example(potential: Potential, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Inputs to trace with, in sizes that nothing in the model has: equal ones would be one."""
    taken = {size for tensor in potential.state_dict().values() for size in tensor.shape}
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


def _padded(inputs: list[Tensor], number: int, cutoff: float) -> list[Tensor]:
    """At least two atoms and two pairs: the compiler takes sizes 0 and 1 for constants.

    What is added is two atoms beyond each other's reach and nobody else's neighbors; they are the
    last structure.
    """
    numbers, pair_index, pair_vec, batch, cell = inputs
    first = numbers.shape[0]
    extra = pair_index.new_tensor([[first, first], [first + 1, first + 1]])
    return [
        torch.cat([numbers, numbers.new_full((2,), number)]),
        torch.cat([pair_index, extra], dim=1),
        torch.cat([pair_vec, pair_vec.new_full((2, 3), cutoff)]),
        torch.cat([batch, batch.new_full((2,), cell.shape[0] - 1)]),
        cell,
    ]


def _compile(program: torch.export.ExportedProgram, path: Path, header: dict) -> None:
    from torch._inductor import aoti_compile_and_package, config
    from torch._inductor.exc import InductorError

    known = config.get_config_copy()
    options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name in known}
    options["aot_inductor.metadata"] = {"gradpot": json.dumps(header)}
    options["post_grad_custom_post_pass"] = bias_apart
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except InductorError as error:
        raise RunError(f"compiling failed: {error}") from error


def bias_apart(graph: fx.Graph) -> None:
    """Add a bias where the next kernel reads the product; `addmm` would copy it first."""
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


def read_header(path: str | Path) -> dict[str, Any]:
    """What a package says about itself, without running anything of it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
            names = [n for n in archive.namelist() if n.endswith("metadata.json")]
            metadata = [json.loads(archive.read(name)) for name in names]
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
        raise InputError(f"{path} is damaged or not a compiled potential") from None
    for entry in metadata:
        if "gradpot" in entry:
            return json.loads(entry["gradpot"])
    raise InputError(f"{path} was not written by gradpot compile")


def fits(path: Path, potential: Potential, dtype: torch.dtype) -> bool:
    """Whether `path` is a package of these weights that this process can use."""
    try:
        header = read_header(path)
        _check_header(header, path)
    except (OSError, InputError):
        return False
    same = header["fingerprint"] == fingerprint(potential)
    return same and DTYPES[header["dtype"]] == dtype


def fingerprint(potential: Potential) -> str | None:
    """Of all numbers that a potential consists of; None if it is not one that can be saved."""
    spec = getattr(potential.model, "spec", None)
    if spec is None:
        return None
    known = [spec, sorted(potential.references.items()), potential.scale]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, tensor in sorted(potential.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_header(header: dict, path: str | Path) -> None:
    if header["format"] > FORMAT:
        raise InputError(
            f"{path} has format {header['format']}; this gradpot reads up to {FORMAT}, update it"
        )
    for what, here in _machine().items():
        if header[what] != here:
            raise InputError(
                f"{path} was compiled for {what} {header[what]}, and this is {what} {here}; "
                "compile the potential again here"
            )


def _machine() -> dict[str, str]:
    """What machine code depends on."""
    return {
        "torch": torch.__version__.split("+")[0],
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "system": platform.system(),
    }


def _loaded(path: str | Path) -> Callable[[list[Tensor]], list[Tensor]]:
    from torch._inductor import aoti_load_package

    try:
        # the loader itself: its wrapper reads a description of the inputs at every call
        return aoti_load_package(str(path), run_single_threaded=True).loader.boxed_run
    except RuntimeError as error:
        raise InputError(f"{path} cannot be loaded: {error}") from None


def compiled(potential: Potential, dtype: torch.dtype) -> CompiledPotential:
    """The potential as machine code, compiled now unless the cache has it.

    Raises:
        InputError, RunError: see `compile_potential`.
    """
    cached = _cached(potential, dtype)
    if cached is None:
        with tempfile.TemporaryDirectory(prefix="gradpot-") as folder:
            path = Path(folder) / f"potential{SUFFIX}"
            compile_potential(potential, path, dtype)
            return CompiledPotential(path)
    if not fits(cached, potential, dtype):
        cached.parent.mkdir(parents=True, exist_ok=True)
        compile_potential(potential, cached, dtype)
    return CompiledPotential(cached)


def ready(potential: Potential, dtype: torch.dtype, beside: Path) -> CompiledPotential | None:
    """The potential as machine code if that is here already: in the file `beside`, or cached."""
    for path in (beside, _cached(potential, dtype)):
        if path is not None and fits(path, potential, dtype):
            return CompiledPotential(path)
    return None


def beside(path: str | Path) -> Path:
    """Where the package of a potential's file is expected."""
    return Path(path).with_suffix(SUFFIX)


def read_dtype(name: str | None) -> torch.dtype | None:
    """A precision by its name; None for None.

    Raises:
        InputError: it is another one.
    """
    if name is not None and name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name] if name else None


def dtype_name(dtype: torch.dtype) -> str:
    """As users write it: float32."""
    return str(dtype).removeprefix("torch.")


def _cached(potential: Potential, dtype: torch.dtype) -> Path | None:
    """Where the package of these weights, this code and this machine is kept."""
    import pooch

    weights = fingerprint(potential)
    if weights is None:
        return None
    digest = hashlib.sha256(json.dumps([weights, str(dtype), _machine(), OPTIONS]).encode())
    for source in _sources():
        digest.update(source.read_bytes())
    folder = Path(pooch.os_cache("gradpot")) / "compiled"
    return folder / f"{digest.hexdigest()[:32]}{SUFFIX}"


def _sources() -> list[Path]:
    """The code that a package is made from."""
    home = Path(__file__).parent
    parts = ["graph.py", "potential.py", "package.py", "models/**/*.py", "nn/*.py"]
    return sorted(path for part in parts for path in home.glob(part))
