"""A potential compiled ahead of time: one `.pt2` file with the network as machine code.

`export` makes such files. A file needs neither a compiler nor the weights, but the same torch and
the same kind of processor. It holds code that is run: load only files you trust.
"""

import hashlib
import json
import platform
import zipfile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.errors import InputError, unknown
from gradpot.graph.graph import Graph, Properties, find_triplets
from gradpot.models.base import Model
from gradpot.potential.potential import Potential

FORMAT = 1
# of packages: that of model.safetensors is looked for beside it, as model.pt2
SUFFIX = ".pt2"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class CompiledNetwork(Model):
    """A package's description of its network; the weights are in the machine code."""

    def __init__(self, header: dict[str, Any]):
        super().__init__(header["cutoff"])
        self.uses_triplets = header.get("uses_triplets", False)
        self.direct = header.get("direct", False)

    def forward(self, graph: Graph) -> Tensor:
        raise TypeError("the network is machine code: call the potential, not its model")


class CompiledPotential(Potential):
    """A potential from a file written by `compile_potential`; the same up to rounding.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, was not written by gradpot, or was made for another version of
            torch or another kind of processor.
    """

    def __init__(self, path: str | Path):
        from torch._inductor import aoti_load_package

        header = read_header(path)
        _check_header(header, path)
        references = {int(z): e for z, e in header["references"].items()}
        super().__init__(CompiledNetwork(header), references, header["scale"])
        self.header = header
        try:
            # the loader itself: its wrapper reads a description of the inputs at every call
            self._run = aoti_load_package(str(path), run_single_threaded=True).loader.boxed_run
        except RuntimeError as error:
            raise InputError(f"{path} cannot be loaded: {error}") from None

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return DTYPES[self.header["dtype"]]

    def forward(self, graph: Graph, stress: bool = True) -> Properties:
        """Energy (float64) in eV, forces in eV/Å, stress in eV/Å³ (NaN without `stress`)."""
        pairs = graph.pair_index.contiguous(), graph.pair_vec
        cell = torch.cat([graph.cell, graph.cell.new_zeros(1, 3, 3)])
        raw = self.run(graph.numbers, *pairs, graph.batch, cell, graph.triplets)
        # without the additional structure
        return Properties(
            energy=raw.energy[:-1],
            forces=raw.forces,
            stress=raw.stress[:-1] if stress else torch.full_like(graph.cell, torch.nan),
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
        """The same without a `Graph`, for callers to whom microseconds matter.

        Args:
            pair_index, pair_vec: as in `Graph`, contiguous, and finite.
            cell: as in `Graph`, and zeros for one more structure, which has no atoms.
            triplets: as in `Graph`; found here if they are needed and not given.
        """
        inputs = [numbers, pair_index, pair_vec, batch, cell]
        n_atoms = numbers.shape[0]
        if self.uses_triplets:
            if triplets is None:
                triplets = find_triplets(pair_index.flatten(), n_atoms)
            inputs.append(triplets)
        if n_atoms >= 2 and pair_vec.shape[0] >= 2 and inputs[-1].shape[-1] >= 2:
            return Properties(*self._run(inputs))
        padded = _padded(inputs[:5], min(self.references), self.cutoff)
        if self.uses_triplets:
            padded.append(find_triplets(padded[1].flatten(), n_atoms + 2))
        energy, forces, stress = self._run(padded)
        return Properties(energy, forces[:n_atoms], stress)

    def __deepcopy__(self, _memo: dict) -> "CompiledPotential":
        """Itself: it cannot be changed."""
        return self


def _padded(inputs: list[Tensor], number: int, cutoff: float) -> list[Tensor]:
    """Add two atoms and two pairs: the compiler treats sizes 0 and 1 as constants.

    The two atoms form the last structure. They have no other neighbors and are a cutoff apart, so
    that nothing depends on them.
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


def read_header(path: str | Path) -> dict[str, Any]:
    """A package's description of itself; none of its code is run.

    Raises:
        FileNotFoundError, InputError: see `CompiledPotential`.
    """
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
    """Whether `path` is a package of this potential and precision that runs here.

    False also for a file that is missing, damaged or made for another machine.
    """
    try:
        header = read_header(path)
        _check_header(header, path)
    except (OSError, InputError):
        return False
    made_for = header["fingerprint"], DTYPES[header["dtype"]]
    return made_for == (fingerprint(potential), dtype)


def fingerprint(potential: Potential) -> str | None:
    """Hash of all numbers in a potential; None if it cannot be saved."""
    spec = potential.model.spec
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
            f"{path} has format {header['format']}, newer than {FORMAT}: update gradpot"
        )
    for what, here in machine().items():
        if header[what] != here:
            raise InputError(
                f"{path} was compiled for {what} {header[what]}, and this is {what} {here}; "
                "compile the potential again on this machine"
            )


def machine() -> dict[str, str]:
    """Everything outside gradpot that machine code depends on.

    These are entries of a package's header; a package that differs in one cannot run here.
    """
    return {
        "torch": torch.__version__.split("+")[0],
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "system": platform.system(),
    }


def read_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype that a name of `DTYPES` stands for; a dtype or None is returned as it is.

    Raises:
        InputError: the name is unknown.
    """
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype as users write it: float32."""
    return str(dtype).removeprefix("torch.")
