"""The one exception for what a user can get wrong."""


class InputError(ValueError):
    """A file, option or argument is wrong; the text names the value and what to do.

    The command line prints it as one line and exits with 2. Anything else that is raised is a
    bug of ours, and keeps its traceback.
    """


def unknown(what: str, value: object, known: object) -> InputError:
    """Say that `value` is none of the `known` names."""
    names = ", ".join(str(name) for name in known)  # type: ignore[attr-defined]
    return InputError(f"unknown {what} {value!r}; known: {names}")
