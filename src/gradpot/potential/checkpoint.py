"""A potential as one file: safetensors with a JSON header, which holds no code."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradpot.errors import InputError
from gradpot.potential.header import FORMAT, Header, energies, parse_header, validated
from gradpot.potential.potential import NOT_SMOOTH, Potential
from gradpot.potential.rebuild import rebuild
from gradpot.process import write_bytes


def save(potential: Potential, path: str | Path, notes: Mapping | None = None) -> None:
    """Write a potential whose model was made by `models.build`, all or nothing.

    Args:
        notes: anything that JSON can hold and that should be kept, such as settings and errors.

    Raises:
        InputError: the model was not made by `build`, or a reference or the scale is no number
            that `load` accepts.
    """
    spec = potential.model.spec
    if spec is None:
        raise InputError("only a model made by gradpot.build(name, ...) can be saved")
    header = {
        "format": FORMAT,
        "model": spec,
        "references": {str(z): e for z, e in sorted(potential.references.items())},
        "scale": potential.scale,
        "units": {"energy": "eV", "length": "Ang"},
        "notes": dict(notes or {}),
        "seen": potential.seen and potential.seen.model_dump(),
        "repulsion": potential.repulsion and potential.repulsion.model_dump(),
    }
    validated(Header, header, path)
    write_tensors(path, potential.model.state_dict(), header)


def load(
    path: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Potential:
    """Read a potential, in the precision it was saved with unless `dtype` says otherwise.

    Warns:
        UserWarning: the energy is not smooth at sites of high symmetry, see `Model.smooth`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is damaged, is not a gradpot model, or has another format.
    """
    if Path(path).suffix == ".pt2":
        raise InputError(
            f"{path} is a compiled potential, which works with `gradpot md` and Calculator only; "
            "give the model.safetensors that it was made from"
        )
    with _opened(path) as (file, content):
        header = _model_header(content, path)
        # keys() of a safetensors file, which is no mapping
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: (p.get_dtype(), tuple(p.get_shape())) for name, p in parts.items()}
        model = rebuild(header.model, shapes, path)
        tensors = {name: file.get_tensor(name) for name in parts}
    if spoiled := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise InputError(f"{path} has weights that are not finite ({spoiled[0]}): it is damaged")
    if not model.smooth:
        warnings.warn(NOT_SMOOTH, stacklevel=2)
    model.load_state_dict(tensors)
    references = energies(header.references)
    potential = Potential(model, references, header.scale, header.seen, header.repulsion)
    return potential.to(device=device, dtype=dtype).eval()


def notes(path: str | Path) -> dict:
    """The notes that `save` was given; for a training run, its settings and validation errors.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is damaged, or is not a gradpot model.
    """
    with _opened(path) as (_, content):
        return _model_header(content, path).notes


def _model_header(content: dict[str, Any], path: str | Path) -> Header:
    if "model" not in content:
        raise InputError(f"{path} is not a gradpot model; expected the model.safetensors of a run")
    if type(content.get("format")) is int and content["format"] != FORMAT:
        raise InputError(
            f"{path} was written by another version of gradpot, as format {content['format']}; "
            f"this one reads {FORMAT}: use that version, or train again"
        )
    return validated(Header, content, path)


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping) -> None:
    """Write named tensors and a JSON header, all or nothing."""
    from safetensors.torch import save as to_bytes

    plain: dict[str, torch.Tensor] = {}
    seen: set[tuple] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        # a module used in two places of a network has its weights written twice
        same = (tensor.data_ptr(), tensor.shape)
        plain[name] = tensor.clone() if same in seen else tensor
        seen.add(same)
    write_bytes(path, to_bytes(plain, metadata={"gradpot": json.dumps(header)}))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Named tensors and header, as `write_tensors` wrote them.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is damaged, or gradpot did not write it.
    """
    with _opened(path) as (file, header):
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The file, whose tensors are not read yet, and its header; whatever fails is one line."""
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; expected a file, such as its model.safetensors")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if "gradpot" not in metadata:
                raise InputError(f"{path} was not written by gradpot: it has no gradpot header")
            yield file, parse_header(metadata["gradpot"], path)
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file ({error})") from error
