"""What a wrong option or command may mean, and options that are given twice."""

import sys
from collections import Counter
from typing import Any

from typer.core import TyperCommand

from gradpot import other_names
from gradpot.errors import InputError, did_you_mean


class Command(TyperCommand):
    """A command that refuses an option that is given twice, where the first would be ignored."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options, then parse as usual."""
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        for parameter, count in Counter(order).items():
            once = parameter.param_type_name == "option" and not parameter.multiple
            if count > 1 and once:
                raise InputError(f"{parameter.opts[0]} is given twice; leave one out")
        return super().parse_args(ctx, args)


def of_usage(error: Any) -> str:
    """The message about wrong usage of a command, with a hint.

    `error` is an exception of the parser, which has an attribute `ctx` for the command.
    """
    context: Any = getattr(error, "ctx", None)
    message = error.format_message()
    if not message:  # without arguments, the help was printed
        return ""
    message = error.message
    if option := getattr(error, "option_name", None):
        if message.startswith("No such option"):
            message += _option(option, context)
    elif message.startswith("No such command"):
        message = message.partition(" Did you mean")[0].rstrip(".")
        typed = message.partition("'")[2].rstrip("'")
        known = {*context.command.commands, "--help"}
        meant = {theirs: ours for theirs, ours in other_names.COMMANDS.items() if ours in known}
        message += did_you_mean(typed, context.command.commands, meant)
    else:
        message = error.format_message()
    return message.rstrip(".") + (f". See: {context.command_path} --help" if context else "")


def _option(typed: str, context: Any) -> str:
    """The option or, for training, the key that may be meant by one that does not exist."""
    if typed == "--debug":
        return f" (write it first: gradpot --debug {context.info_name} ...)"
    if context.command.name == "train" and typed in ("--config", "--config-file", "--cfg"):
        return f" (did you mean gradpot train {_value(typed).replace('...', 'config.toml')}?)"
    parameters = [p for p in context.command.params if p.param_type_name == "option"]
    known = [name for p in parameters for name in p.opts if name.startswith("--")]
    by_name = {name.lstrip("-").lower(): name for name in known}
    table = {option: names for option, names in other_names.OPTIONS.items() if option in known}
    meant = other_names.by_their_name(table) | by_name
    word = typed.lstrip("-").replace("-", "_").lower()
    if context.command.name != "train" or word in meant:
        return did_you_mean(word, (), meant) or did_you_mean(typed.lstrip("-"), (), meant)

    from gradpot.train.config import key_hint

    return key_hint(word).replace("?", f"={_value(typed)}?") or did_you_mean(word, (), meant)


def _value(option: str) -> str:
    """What stands behind an option on the command line."""
    for word, following in zip(sys.argv, [*sys.argv[1:], ""]):
        if word.startswith(option + "="):
            return word.partition("=")[2]
        if word == option and following and not following.startswith("-"):
            return following
    return "..."
