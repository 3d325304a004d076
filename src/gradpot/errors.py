"""What a user can get wrong, and what can go wrong with a run.

Any other exception, except an OSError, is a bug in gradpot and keeps its traceback.
"""


class InputError(ValueError):
    """A file, option or argument is wrong; the text names the value and what to do.

    The command line prints it as one line and exits with 2.
    """


class RunError(RuntimeError):
    """A run cannot continue: its loss is not finite, its atoms fly apart, or compiling fails.

    The command line prints it as one line and exits with 1; what was written stays.
    """


def unknown(what: str, value: object, known: object) -> InputError:
    """An error that says that `value` is not among the `known` names."""
    names = ", ".join(str(name) for name in known)  # type: ignore[attr-defined]
    return InputError(f"unknown {what} {value!r}; known: {names}")
