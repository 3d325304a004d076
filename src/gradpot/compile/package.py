"""A potential compiled ahead of time: one `.pt2` file with the network as machine code.

`export` makes such files. A file needs neither a compiler nor the weights, but the same torch and
the same kind of processor. It holds code that is run: load only files you trust.
"""

import hashlib
import json
import platform
import reprlib
import sys
import zipfile
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradpot.errors import InputError, unknown
from gradpot.graph.graph import Graph, Properties, find_triplets
from gradpot.models import OWN
from gradpot.models.base import Model
from gradpot.potential.header import (
    LONGEST_HEADER,
    Positive,
    References,
    Repulsion,
    Section,
    Seen,
    energies,
    parse_header,
    validated,
)
from gradpot.potential.potential import Potential

FORMAT = 1
# of packages: that of model.safetensors is looked for beside it, as model.pt2
SUFFIX = ".pt2"
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Header(Section):
    """What a package says about itself; the weights are in its machine code."""

    format: Literal[1]
    gradpot: str
    """version that compiled it"""
    torch: str
    processor: str
    system: str
    dtype: Literal["float32", "float64"]
    cutoff: Positive
    """Å"""
    scale: Positive
    """eV"""
    uses_triplets: bool = False
    direct: bool = False
    references: References
    fingerprint: str | None
    """of the potential, see `fingerprint`"""
    seen: Seen | None = None
    """None in older files"""
    repulsion: Repulsion | None = None
    """of the machine code; None in older files, and without repulsion"""


class CompiledNetwork(Model):
    """A package's description of its network; the weights are in the machine code."""

    def __init__(self, header: Header):
        super().__init__(header.cutoff)
        self.uses_triplets, self.direct = header.uses_triplets, header.direct

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

        self.header = read_header(path)
        _check_machine(self.header, path)
        references = energies(self.header.references)
        network = CompiledNetwork(self.header)
        own = self.header.scale, self.header.seen, self.header.repulsion
        super().__init__(network, references, *own)
        try:
            # the loader itself: its wrapper reads a description of the inputs at every call
            self._run = aoti_load_package(str(path), run_single_threaded=True).loader.boxed_run
        except RuntimeError as error:
            raise InputError(f"{path} cannot be loaded: {error}") from error

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return DTYPES[self.header.dtype]

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


def read_header(path: str | Path) -> Header:
    """A package's description of itself; none of its code is run.

    Raises:
        FileNotFoundError, InputError: see `CompiledPotential`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            named = [one for one in archive.infolist() if one.filename.endswith("metadata.json")]
            too_long = any(one.file_size > LONGEST_HEADER for one in named)
            if too_long or archive.testzip() is not None:
                raise zipfile.BadZipFile
            texts = [archive.read(one).decode() for one in named]
    except PermissionError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds for damaged files
        raise InputError(f"{path} is damaged or not a compiled potential") from error
    found = [content for text in texts if "gradpot" in (content := parse_header(text, path))]
    if not found:
        raise InputError(f"{path} was not written by gradpot compile")
    text = found[0]["gradpot"]
    if not isinstance(text, str):
        raise InputError(f"{path} is damaged: its header is no text but {reprlib.repr(text)}")
    content = parse_header(text, path)
    if type(content.get("format")) is int and content["format"] > FORMAT:
        raise InputError(
            f"{path} has format {content['format']}, newer than {FORMAT}: update gradpot"
        )
    return validated(Header, content, path)


def fits(path: Path, potential: Potential, dtype: torch.dtype) -> bool:
    """Whether `path` is a package of this potential and precision that runs here.

    False also for a file that is missing, damaged or made for another machine.
    """
    try:
        header = read_header(path)
        _check_machine(header, path)
    except (OSError, InputError):
        return False
    return (header.fingerprint, DTYPES[header.dtype]) == (fingerprint(potential), dtype)


def fingerprint(potential: Potential) -> str | None:
    """Hash of all numbers in a potential; None if it cannot be saved."""
    spec = potential.model.spec
    if spec is None:
        return None
    known = [spec, sorted(potential.references.items()), potential.scale]
    known += [record.model_dump() for record in (potential.seen, potential.repulsion) if record]
    if OWN in spec["name"]:  # its code is no part of gradpot, so it can change on its own
        file = sys.modules[type(potential.model).__module__].__file__
        known.append(Path(file or "").read_text())
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, tensor in sorted(potential.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_machine(header: Header, path: str | Path) -> None:
    for what, here in machine().items():
        made_for = getattr(header, what)
        if made_for != here:
            raise InputError(
                f"{path} was compiled for {what} {made_for}, and this is {what} {here}; "
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
