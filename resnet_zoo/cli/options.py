"""Options of every command, wherever they stand, and options that also go by an earlier name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from resnet_zoo.cli.shell import DEBUG


def _remember_debug(ctx: click.Context, _option: click.Parameter, debug: bool) -> None:
    if debug:
        ctx.meta[DEBUG] = True


def _set_variable(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that puts what was given where the package looks for it."""

    def put(_ctx: click.Context, _option: click.Parameter, given: str | bool | None) -> None:
        if given:
            os.environ[name] = "1" if given is True else str(given)

    return put


def with_common_options(command: click.Command, *, hidden: bool = False) -> click.Command:
    """Let a command take the options that hold for every command; those below it take them too.

    Args:
        command: The command; options that it has already stay as they are.
        hidden: Show them in a line below the help, instead of among the options.
    """
    taken = {option for parameter in command.params for option in parameter.opts}
    options = [option for option in _common_options(hidden=hidden) if option.opts[0] not in taken]
    command.params += options
    if hidden and options:
        *others, last = (option.opts[0] for option in options)
        command.epilog = f"{command.epilog}\n\nAlso {', '.join(others)} and {last}: see `resnet-zoo -h`."
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        with_common_options(inner, hidden=True)
    return command


def _common_options(*, hidden: bool = False) -> list[click.Option]:
    how: dict[str, Any] = {"expose_value": False, "hidden": hidden}
    return [
        click.Option(
            ["--debug"],
            is_flag=True,
            envvar="RESNET_ZOO_DEBUG",
            show_envvar=True,
            help="Show tracebacks.",
            callback=_remember_debug,
            **how,
        ),
        click.Option(
            ["--offline"],
            is_flag=True,
            help="Never use the network.  [env: RESNET_ZOO_OFFLINE, HF_HUB_OFFLINE]",
            callback=_set_variable("RESNET_ZOO_OFFLINE"),
            **how,
        ),
        click.Option(
            ["--mirror"],
            metavar="URL|DIR",
            help="Look for weights here first.  [env: RESNET_ZOO_MIRROR]",
            callback=_set_variable("RESNET_ZOO_MIRROR"),
            **how,
        ),
        click.Option(
            ["--manifest"],
            metavar="FILE",
            help="Manifest of a private zoo.  [env: RESNET_ZOO_MANIFEST]",
            callback=_set_variable("RESNET_ZOO_MANIFEST"),
            **how,
        ),
    ]


class RenamedOption(click.Option):
    """An option that also goes by its earlier names, which neither help nor completion show."""

    def __init__(self, *args: Any, earlier: Sequence[str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.earlier = list(earlier)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Tell the parser all names; see the class."""
        names = self.opts
        self.opts = [*names, *self.earlier]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = names


HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""How a program shows its help; for ``context_settings``."""

manifest_option = click.option(
    "--manifest",
    metavar="FILE",
    help="The manifest to write.  [default: the one in use]",
    callback=_set_variable("RESNET_ZOO_MANIFEST"),
    expose_value=False,
)
