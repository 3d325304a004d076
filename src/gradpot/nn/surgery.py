"""Change networks that we did not write: swap activations, remove normalization layers.

Both work in place and use dotted names as `named_modules` gives them. Our own models have an
argument `activation` and do not need this.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradpot.errors import InputError
from gradpot.nn.activations import activation

# names of classes and functions, in lower case and without underscores. Sigmoid and softmax, which
# are mostly gates and weights, and functions of radial bases, such as exp and sin, are left out
ACTIVATION_NAMES = {
    *("celu", "elu", "selu", "gelu", "newgelu", "quickgelu", "mish", "tanh", "tanhshrink"),
    *("relu", "relu6", "leakyrelu", "prelu", "rrelu", "squaredrelu", "irelu", "leakyirelu"),
    *("silu", "swish", "scaledsilu", "scaledswish", "siqu", "hardswish", "hardtanh"),
    *("softplus", "shiftedsoftplus", "ssp", "softsign", "logsigmoid"),
}
# modules of our own activations
HOMES = ("gradpot.nn.activations", "gradpot.nn.irelu")
NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm, lazy and synchronized ones too
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
# number of names that an error lists
SHOWN = 12
Patterns = str | Sequence[str]


class Place(NamedTuple):
    """Where a module keeps a callable."""

    owner: nn.Module
    attribute: str
    key: object
    """key in the list or dict that the attribute is; None if the attribute is the callable"""
    names: tuple[str, ...]
    """dotted names; several if the owner is used in several places of the network"""

    @property
    def value(self) -> Any:
        """The callable."""
        held = getattr(self.owner, self.attribute)
        return held if self.key is None else held[self.key]


def swap_activations(
    module: nn.Module, name: str, only: Patterns = "*", skip: Patterns = ()
) -> list[str]:
    """Replace the activations of a network in place, and return their names.

    This finds submodules, functions held as attributes, and lists, tuples and dicts of these, if
    the class or function is one of ours or has one of `ACTIVATION_NAMES`. It cannot find a call
    `f(x)` inside `forward`. Parameters keep their names, dtype and mode; an activation with
    parameters adds new ones in every place.

    Args:
        name: a name of `nn.activations`, such as "irelu".
        only: patterns for dotted names, in which `*` stands for anything, dots included:
            "output_blocks.*". A name written out in full is replaced whatever is there.
        skip: patterns for what to leave alone.

    Returns:
        Dotted names of what was replaced: "interactions.0.act", "outnet.0.activation", "acts.1".

    Raises:
        InputError: no activation was found, a pattern matches none, or `name` is unknown. The
            network is then unchanged.
    """
    activation(name)
    if is_activation(module):
        raise InputError(f"{type(module).__name__} is itself an activation; give its parent module")
    places = list(_places(module))
    chosen = _chosen(places, is_activation, only, skip)
    if not chosen:
        raise InputError(f"no activation to replace in {type(module).__name__}{_seen(places)}")
    for place in chosen:
        _put(place, activation(name), module)
    return [place.names[0] for place in chosen]


def denormalize(module: nn.Module, only: Patterns = "*", skip: Patterns = ()) -> dict[str, str]:
    """Replace batch, instance, layer and group norms by the identity, in place.

    This covers the norms of torch and of `torch_geometric.nn.norm`. Their parameters are removed.

    Args:
        only: patterns for dotted names, as for `swap_activations`.
        skip: patterns for what to leave alone.

    Returns:
        What was removed, by dotted name; empty for a network without norms.

    Raises:
        InputError: a pattern matches no norm, or `module` is itself a norm.
    """
    if is_norm(module):
        raise InputError(f"{type(module).__name__} is itself a norm; give its parent module")
    chosen = _chosen(list(_places(module)), is_norm, only, skip)
    removed = {place.names[0]: repr(place.value) for place in chosen}
    for place in chosen:
        message = type(place.value).__name__ == "MessageNorm"
        _put(place, SecondOf() if message else FirstOf(), module)
    return removed


class FirstOf(nn.Module):
    """The first argument, unchanged; norms of graphs also get the graph."""

    def forward(self, x: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return x


class SecondOf(nn.Module):
    """The second argument, unchanged: `MessageNorm` gets atoms and messages, returns messages."""

    def forward(self, _x: Tensor, msg: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return msg


class Pointwise(nn.Module):
    """A function as a module, for places that need a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", repr(self.function))


def is_activation(value: object) -> bool:
    """Whether a module or function is one of our activations or has a known name."""
    named = _named(value)
    if isinstance(named, type) and not isinstance(value, nn.Module):
        return False  # a class, from which activations are made
    if named is Pointwise or getattr(named, "__module__", "") in HOMES:
        return True
    return getattr(named, "__name__", "").replace("_", "").lower() in ACTIVATION_NAMES


def is_norm(value: object) -> bool:
    """Whether a module is one of `NORMS` or of `torch_geometric.nn.norm`."""
    homes = [base.__module__ for base in type(value).__mro__]
    return isinstance(value, NORMS) or any(h.startswith("torch_geometric.nn.norm") for h in homes)


def _places(module: nn.Module) -> Iterator[Place]:
    """Every submodule and every callable held as an attribute, once each."""
    prefixes: dict[int, list[str]] = {}
    owners: dict[int, nn.Module] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        prefixes.setdefault(id(owner), []).append(f"{prefix}." if prefix else "")
        owners[id(owner)] = owner
    internal = vars(nn.Module()).keys()
    for number, owner in owners.items():
        held = {k: v for k, v in vars(owner).items() if k not in internal}
        for attribute, value in {**held, **owner._modules}.items():
            for key, member in _members(value):
                if callable(member):
                    end = attribute if key is None else f"{attribute}.{key}"
                    names = tuple(prefix + end for prefix in prefixes[number])
                    yield Place(owner, attribute, key, names)


def _members(value: Any) -> list[tuple[object, Any]]:
    """Keys and members of a list, tuple or dict; anything else is one member without a key."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    return [(None, value)]


def _chosen(
    places: list[Place], wanted: Callable[[object], bool], only: Patterns, skip: Patterns
) -> list[Place]:
    """Places that are wanted or named in full, without skipped ones and those inside others."""
    only, skip = ([p] if isinstance(p, str) else list(p) for p in (only, skip))
    named = [p for p in places if wanted(p.value) or set(p.names) & set(only)]
    inside = {id(m) for p in named if isinstance(p.value, nn.Module) for m in p.value.modules()}
    named = [p for p in named if id(p.owner) not in inside]
    for pattern in (*only, *skip):
        if pattern != "*" and not any(_fits(place, [pattern]) for place in named):
            raise InputError(f"{pattern!r} matches nothing to replace{_seen(named or places)}")
    return [p for p in named if _fits(p, only) and not _fits(p, skip)]


def _fits(place: Place, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in place.names for pattern in patterns)


def _seen(places: list[Place]) -> str:
    """The choices, for an error message; functions first."""
    leaves = [p for p in places if not (isinstance(p.value, nn.Module) and p.value._modules)]
    leaves.sort(key=lambda p: isinstance(p.value, nn.Module))
    kinds = [f"{p.names[0]} ({_kind(p.value)})" for p in leaves]
    more = f" and {len(kinds) - SHOWN} more" if len(kinds) > SHOWN else ""
    return f"; there are: {', '.join(kinds[:SHOWN])}{more}" if kinds else "; it holds no callables"


def _kind(value: object) -> str:
    return getattr(_named(value), "__name__", type(value).__name__)


def _named(value: Any) -> Any:
    """The object that has the name: a module's class, or the function inside a partial."""
    while isinstance(value, partial):
        value = value.func
    return type(value) if isinstance(value, nn.Module) else value


def _put(place: Place, new: Callable[[Tensor], Tensor], root: nn.Module) -> None:
    """Replace what is at a place, by a module if a module was there."""
    owner, attribute, key, _ = place
    if isinstance(new, nn.Module):
        # a trainable activation: every place has its own
        new = deepcopy(new).train(owner.training)
        like = next((p for p in root.parameters() if p.is_floating_point()), torch.zeros(0))
        new.to(like.device, like.dtype)
    elif isinstance(place.value, nn.Module):
        new = Pointwise(new)
    if key is None:
        setattr(owner, attribute, new)
        return
    held = getattr(owner, attribute)
    if isinstance(held, tuple):
        setattr(owner, attribute, tuple(new if i == key else h for i, h in enumerate(held)))
    else:
        held[key] = new
    if isinstance(new, nn.Module) and any(True for _ in new.parameters()):
        # a plain list does not register the parameters in it
        owner.add_module(f"{attribute}_{key}", new)
