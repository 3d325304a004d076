"""What a user can get wrong, and what can go wrong with a run.

Any other exception, except an OSError, is a bug in gradpot and keeps its traceback.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

# characters of a parser's message that are repeated; some print the whole file
LONGEST_REASON = 200
# similarity from which one name is proposed; below it, two are (of at least 0.6, difflib's default)
SURE = 0.8


class InputError(ValueError):
    """A file, option or argument is wrong; the text names the value and what to do.

    The command line prints it as one line and exits with 2.
    """


class RunError(RuntimeError):
    """A run cannot continue: its loss is not finite, its atoms fly apart, or compiling fails.

    The command line prints it as one line and exits with 1; what was written stays.
    """


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """Turn whatever a parser raises into one InputError: `what`, and the parser's reason.

    On damaged input, a parser raises dozens of kinds of exceptions, and others in its next
    version. An InputError passes unchanged, and so does an OSError that names a file: there the
    file cannot be opened.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise InputError(f"{what} ({reason(error)})") from error


def reason(error: Exception) -> str:
    """The first line of an exception's message, or its name if it has none."""
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return first if len(first) <= LONGEST_REASON else first[:LONGEST_REASON] + "..."


def unknown(
    what: str, value: object, known: Iterable[object], meant: Mapping[str, str] | None = None
) -> InputError:
    """An error that says that `value` is not among the `known` names, and which it may mean.

    `meant` has names that other packages use, in lower case, and ours (`other_names`).
    """
    names = [str(name) for name in known]
    hint = did_you_mean(value, names, meant)
    return InputError(f"unknown {what} {shown(value)}{hint}; known: {', '.join(names)}")


def did_you_mean(
    value: object, names: Iterable[str], meant: Mapping[str, str] | None = None
) -> str:
    """A question in parentheses that names the closest names, or nothing if none is close."""
    if not isinstance(value, str) or len(value) > LONGEST_REASON:
        return ""
    table = {**(meant or {}), **{name.lower(): name for name in names}}
    typed = value.strip().lower()
    found = [typed] if typed in table else get_close_matches(typed, table, n=1, cutoff=SURE)
    found = found or get_close_matches(typed, table, n=3)
    close = list(dict.fromkeys(table[name] for name in found))[:2]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def shown(value: object) -> str:
    """A value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
