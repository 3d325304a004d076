"""Damage: bytes that are flipped, cut and inserted, and JSON with something else in it."""

import copy
import re
from typing import Any

from hypothesis import strategies as st

NUMBER = re.compile(rb"[-+]?\d+(\.\d*)?([eEdD][-+]?\d+)?")
WORD = re.compile(rb"[A-Za-z_]\w*")
NUMBERS = (
    *(b"0", b"-1", b"1", b"2", b"1e400", b"-1e308", b"5e-324", b"nan", b"inf", b"9" * 30, b"1e5"),
    *(b"0x1f", b"1.2.3", b"1_0", b"", b"T", b"None", b"-0.0", b"99999999", b"2147483648", b"1D-3"),
)
TEXTS = (
    *(b"\0", b"\xff" * 4, b"\n", b"\r\n", b" ", b"\t", b'"', b"'", b"{", b"[", b"]", b",", b"="),
    *(b"\xc3\x85", b"\xef\xbb\xbf", b"\\ud800", b"(" * 400, b"#", b"%", b"//", b"A" * 5000),
)


@st.composite
def mutated(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """One of the contents, with up to four damages."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((1, 2, 4, 8, 100, 5000)))
        kind = draw(st.sampled_from(("flip", "put", "cut", "end", "copy", "number", "word")))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "put":
            content[at:at] = draw(st.sampled_from(TEXTS) | st.binary(max_size=9))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "end":
            del content[at:]
        elif kind == "copy":
            to = draw(st.integers(0, len(content)))
            content[to : to + length * draw(st.booleans())] = content[at : at + length]
        elif kind == "number" and (found := NUMBER.search(content, at)):
            content[found.start() : found.end()] = draw(st.sampled_from(NUMBERS))
        elif kind == "word" and (found := WORD.search(content, at)):
            words = WORD.findall(content[:20_000]) or [b"x"]
            content[found.start() : found.end()] = draw(st.sampled_from(words))
    return bytes(content)


ODD = (
    *(None, True, False, -1, 0, 1, 2**31, 2**64, 10**400, 1e308, -0.0, 5e-324, 0.5),
    *(float("nan"), float("inf"), "", "x", "nan", "1", "a" * 5000, "\0", "Å", [], {}, [[]], [1]),
    *({"a": 1}, [None], "../../etc/passwd", "H", "119", "-1"),
)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """JSON with one to three values replaced, removed, renamed or added somewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys))
            below = node[key]
            if isinstance(below, dict | list) and below and draw(st.booleans()):
                node = below
                continue
            kind = draw(st.sampled_from(("replace", "replace", "remove", "add", "swap")))
            odd = copy.deepcopy(draw(st.sampled_from(ODD)))
            if kind == "remove":
                del node[key]
            elif kind == "add" and isinstance(node, dict):
                node[draw(st.sampled_from(("x", "", "name", "1", "epochs")))] = odd
            elif kind == "add":
                node.insert(key, odd)
            elif kind == "swap":
                other = draw(st.sampled_from(keys))
                node[key], node[other] = node[other], node[key]
            else:
                node[key] = odd
            break
    return tree
