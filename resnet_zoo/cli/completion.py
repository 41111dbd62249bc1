"""``completion``: the script that lets a shell complete commands, options, names and paths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class
from click.types import StringParamType

from resnet_zoo.catalog.manifest import current_manifest, get_entry
from resnet_zoo.cli.shell import examples
from resnet_zoo.errors import UnknownModelError, ZooError

if TYPE_CHECKING:
    from resnet_zoo.catalog.records import Entry

PROGRAM, VARIABLE = "resnet-zoo", "_RESNET_ZOO_COMPLETE"
"""The command that is completed, and the variable by which a shell asks it for completions: click's own choice."""

Complete = Callable[[click.Context, str], list[CompletionItem]]


class _Completed(StringParamType):
    """A text for which a shell is offered values. Any other text is as good: the command says what is wrong with it."""

    def __init__(self, complete: Complete) -> None:
        self.complete = complete

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002  # click's form
        """Return what the text may become; nothing where the manifest is broken, which a prompt cannot report."""
        with contextlib.suppress(ZooError):
            return self.complete(ctx, incomplete)
        return []


def _paths(ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    return [CompletionItem(incomplete, type="file")]  # the shell lists the files itself


def _rows(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Offer rows and aliases, or files once the text looks like a path."""
    names = {name: entry for entry in current_manifest().models for name in (entry.name, *entry.aliases)}
    found = [CompletionItem(name, help=_title(entry)) for name, entry in names.items() if name.startswith(incomplete)]
    return found or _paths(ctx, incomplete)


def _rows_and_tags(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Offer rows, and behind a slash the tags of a row."""
    row, slash, _ = incomplete.partition("/")
    if not slash:
        return [item for item in _rows(ctx, incomplete) if item.type == "plain"]
    return [CompletionItem(value) for tag in get_entry(row).weights if (value := f"{row}/{tag}").startswith(incomplete)]


def _tags(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Offer the weight sets of the rows named before, or of all rows, or files."""
    given = ctx.params.get("name") or ctx.params.get("names") or ctx.args  # where an option waits for its value
    entries = _found((given,) if isinstance(given, str) else tuple(given)) or current_manifest().models
    tags = dict.fromkeys(tag for entry in entries for tag in entry.weights)
    return [CompletionItem(tag) for tag in tags if tag.startswith(incomplete)] or _paths(ctx, incomplete)


def _found(names: tuple[str, ...]) -> list[Entry]:
    found = []
    for name in names:
        with contextlib.suppress(UnknownModelError):  # a path, or a repository on the Hub
            found.append(get_entry(name))
    return found


def _title(entry: Entry) -> str:
    return f"{entry.published.label} for {entry.dataset}, top-1 {entry.published.top1} %"


_COMPLETIONS: dict[str, Complete] = {
    **dict.fromkeys(("name", "names", "pattern"), _rows),
    "names_and_tags": _rows_and_tags,
    **dict.fromkeys(("weights", "tag"), _tags),
    **dict.fromkeys(("images", "paths", "output", "mirror", "manifest"), _paths),
}
"""What is offered for the parameter of this name, in every command; `click.Path` and `click.Choice` need no entry."""


def with_completion(command: click.Command) -> click.Command:
    """Let a command, and those below it, complete names, tags and paths. Nothing of what they accept changes."""
    for parameter in command.params:
        if parameter.name in _COMPLETIONS and isinstance(parameter.type, StringParamType):
            parameter.type = _Completed(_COMPLETIONS[parameter.name])
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_completion(inner)
    return command


@click.command(
    epilog=examples(
        "completion bash >> ~/.bashrc",
        "completion zsh >> ~/.zshrc",
        "completion fish > ~/.config/fish/completions/resnet-zoo.fish",
    ),
    short_help="Print the script that completes commands and names in a shell.",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, models, weights and paths in a shell.

    The shell reads it at startup (see the examples). It asks resnet-zoo at every Tab, so it is never out of date. It
    needs bash 4.4 or newer; in zsh, run compinit first.
    """
    kind: Any = get_completion_class(shell)
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
