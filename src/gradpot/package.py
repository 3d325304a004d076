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
from torch import Tensor, nn

from gradpot import __version__
from gradpot.checkpoint import write_bytes
from gradpot.compile import has_compiler
from gradpot.errors import InputError, RunError
from gradpot.graph import Graph, Properties, both_ways, opposite
from gradpot.nn.radial import tabulate
from gradpot.nn.segment import sum_by
from gradpot.potential import Potential, virial_stress

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
# (numbers, pair_index, pair_vec) -> atom energies, forces, and the gradient by each vector
Network = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


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
        self._run = _loaded(path)

    @property
    def cutoff(self) -> float:
        """Å."""
        return self._cutoff

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
        n_atoms, n_graphs = graph.numbers.shape[0], graph.cell.shape[0]
        atom_energy, forces, pull = self._run(_padded(graph, min(self.references), self.cutoff))
        energy = sum_by(atom_energy[:n_atoms].double(), graph.batch, n_graphs)
        reference = self.reference_energy(graph.numbers, graph.batch, n_graphs)
        return Properties(
            energy=reference + self.scale * energy,
            forces=forces[:n_atoms],
            stress=self._stress(graph, pull) if stress else torch.full_like(graph.cell, torch.nan),
        )

    def _stress(self, graph: Graph, pull: Tensor) -> Tensor:
        pair_vec = graph.pair_vec
        pull = pull[: pair_vec.shape[0]]
        if graph.cell.shape[0] == 1:
            return virial_stress((pair_vec.T @ pull)[None], graph.cell)
        owner = graph.batch.index_select(0, graph.pair_index[0])
        outer = pair_vec[:, :, None] * pull[:, None, :]
        return virial_stress(sum_by(outer, owner, graph.cell.shape[0]), graph.cell)

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
        "dtype": str(dtype).removeprefix("torch."),
        "cutoff": potential.cutoff,
        "scale": potential.scale,
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

    model = tabulate(copy.deepcopy(potential.model).to("cpu", dtype).eval().requires_grad_(False))
    example = _example(model, min(potential.references), potential.cutoff, dtype)
    network = _network(model, potential.scale)
    # the gradient is part of the trace, which `export` alone cannot see
    trace = make_fx(network, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    sizes = ({0: Dim.DYNAMIC}, {1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    with torch.no_grad():
        return export(trace, example, dynamic_shapes=sizes)


def _network(model: Callable[[Graph], Tensor], scale: float) -> Network:
    """What is compiled: `potential.predict` for one structure, without the virial."""

    def network(numbers: Tensor, pair_index: Tensor, pair_vec: Tensor):
        with torch.enable_grad():
            pair_vec = pair_vec.detach().requires_grad_()
            graph = Graph(
                numbers=numbers,
                edge_index=both_ways(pair_index),
                edge_vec=opposite(pair_vec),
                batch=torch.zeros_like(numbers),
                cell=pair_vec.new_zeros(1, 3, 3),
            )
            atom_energy = model(graph)
            (pull,) = torch.autograd.grad(atom_energy.sum(), pair_vec)
        pull = scale * pull
        center, neighbor = pair_index
        forces = sum_by(pull, center, numbers.shape[0]) - sum_by(pull, neighbor, numbers.shape[0])
        return atom_energy.detach(), forces, pull

    return network


def _example(
    model: nn.Module, number: int, cutoff: float, dtype: torch.dtype
) -> tuple[Int[Tensor, "n_atoms"], Int[Tensor, "2 n_pairs"], Float[Tensor, "n_pairs 3"]]:
    """Atoms to trace with, in sizes that nothing in the model has: equal ones would be one."""
    taken = {size for tensor in model.state_dict().values() for size in tensor.shape}
    free = [n for n in range(5, 1000) if not taken & {n, 2 * n}]
    n_atoms, n_pairs = free[0], next(n for n in free[1:] if 2 * free[0] < n)
    center = torch.arange(n_pairs) % n_atoms
    pair_vec = torch.full((n_pairs, 3), 0.4 * cutoff, dtype=dtype)
    numbers = torch.full((n_atoms,), number)
    return numbers, torch.stack([center, (center + 1) % n_atoms]), pair_vec


def _padded(graph: Graph, number: int, cutoff: float) -> list[Tensor]:
    """Inputs of the network, at least two of each: the compiler takes 0 and 1 for constants.

    What is added to structures below that size is two atoms beyond each other's reach, and
    nobody else's neighbors.
    """
    numbers, pair_vec = graph.numbers, graph.pair_vec
    pair_index = graph.pair_index.contiguous()
    n_atoms = numbers.shape[0]
    if n_atoms >= 2 and pair_vec.shape[0] >= 2:
        return [numbers, pair_index, pair_vec]
    extra = pair_index.new_tensor([[n_atoms, n_atoms], [n_atoms + 1, n_atoms + 1]])
    return [
        torch.cat([numbers, numbers.new_full((2,), number)]),
        torch.cat([pair_index, extra], dim=1),
        torch.cat([pair_vec, pair_vec.new_full((2, 3), cutoff)]),
    ]


def _compile(program: torch.export.ExportedProgram, path: Path, header: dict) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InductorError

    options = {**OPTIONS, "aot_inductor.metadata": {"gradpot": json.dumps(header)}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except InductorError as error:
        raise RunError(f"compiling failed: {error}") from error


def read_header(path: str | Path) -> dict[str, Any]:
    """What a package says about itself, without running anything of it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
            names = [n for n in archive.namelist() if n.endswith(".wrapper_metadata.json")]
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
    parts = ["graph.py", "potential.py", "package.py", "models/*.py", "nn/*.py"]
    return sorted(path for part in parts for path in home.glob(part))
