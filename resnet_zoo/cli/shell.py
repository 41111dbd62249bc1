"""What every command shares: errors as sentences and exit codes, and common options."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import io
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click

from resnet_zoo.base.progress import folded, tell, terminal_width
from resnet_zoo.base.shown import LONGEST_SENTENCE, shown
from resnet_zoo.errors import NOT_CHECKED, UNFORESEEN, ZooError

SIGINT_EXIT, SIGPIPE_EXIT, SIGTERM_EXIT = 130, 141, 143
"""What shells report for a program ended by Ctrl-C, a closed pipe and SIGTERM (128 + signal number)."""


_TOLD = "resnet_zoo.told"
"""Where a command's context keeps that what the package logs is shown already."""

_LONGEST_REASON = 300
"""Characters shown of an error that nobody wrote for people."""


class Failure(click.ClickException):
    """An error for the person at the terminal: one sentence and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(shown(message, LONGEST_SENTENCE, keep="\n"))
        self.exit_code: int = code  # type: ignore[misc]  # click declares it for the class only

    def show(self, file: Any = None) -> None:  # noqa: ARG002  # click's form
        """Write it to stderr."""
        tell(f"Error: {self.format_message()}")


class _Sentences(click.Command):
    """Turns our errors into sentences and exit codes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program; see the class."""
        _open_closed_streams()
        if not sys.warnoptions:  # here, where no other thread runs yet
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what it finds odd in images that it reads
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line, and print the help if asked to; see the class."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path or a tick that the pipe's encoding lacks
        with contextlib.suppress(BrokenPipeError):
            return super().make_context(*args, **kwargs)
        _discard_stdout()
        raise click.exceptions.Exit(SIGPIPE_EXIT)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; see the class."""
        try:
            with _log_on_stderr():
                super().invoke(ctx)
            if sys.stdout is not None:  # none at all, if the shell closed it
                sys.stdout.flush()
        except ZooError as error:
            raise _failure(ctx, error, str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Failure("Interrupted.", SIGINT_EXIT) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                _discard_stdout()
                ctx.exit(SIGPIPE_EXIT)
            raise _failure(ctx, error, sentence_of(error), NOT_CHECKED) from error
        except click.UsageError as error:
            sentence, width = error.format_message(), terminal_width(sys.stderr)
            if width is None or "\n" in sentence:  # a help
                raise
            raise click.UsageError(folded(sentence, width, begin="Error: "), error.ctx) from error
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
            next_step = "Report the traceback." if is_debugging(ctx) else "Run it with --debug for the traceback."
            raise _failure(ctx, error, f"Unexpected error, a bug ({what}). {next_step}", UNFORESEEN) from error


class ZooCommand(_Sentences):
    """A command that is a program of its own."""


class CommandGroup(click.Group):
    """A group that suggests commands for misspelt ones, and takes ``ls`` for ``list``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; see the class."""
        if args[:1] == ["ls"]:
            args = ["list", *args[1:]]
        is_unknown = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if is_unknown and not ctx.resilient_parsing:  # a shell that completes a line has no use for a sentence
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


class ZooGroup(_Sentences, CommandGroup):
    """The group of all commands."""


def sentence_of(error: Exception) -> str:
    """Return what an error says to a person; of one of the operating system: what, where, and what to do about it."""
    if not isinstance(error, OSError) or isinstance(error, ZooError):
        return str(error)
    is_full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
    place = error.filename2 or error.filename or ("standard output" if is_full else None)
    what = f"{error.strerror} ({place})" if place else str(error)
    return f"{what}. {'Make room there, and run it again' if is_full else 'Check the path and its permissions'}."


def _failure(ctx: click.Context, error: Exception, sentence: str, code: int) -> Failure:
    """Return an error as a sentence, after its traceback if that is wanted."""
    if is_debugging(ctx):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    return Failure(sentence, code)


def _open_closed_streams() -> None:
    """Put the null device in the place of standard streams that whoever started us has closed.

    Otherwise the next file that is opened gets their number, and what libraries write to standard error goes into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  # for as long as the process lives


def _discard_stdout() -> None:
    """The reader of our output has closed it; nothing may be written to it at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def format_option(*formats: str) -> Callable[[Any], Any]:
    """Return the ``--format`` option with these choices, the first being the default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def batch_size_option(default: int) -> Callable[[Any], Any]:
    """Return the ``--batch-size`` option."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Images per forward pass.",
    )


def workers_option(default: str) -> Callable[[Any], Any]:
    """Return the ``--num-workers`` option, which says how many there are by default."""
    return click.option(
        "--num-workers",
        "-j",
        type=click.IntRange(min=0),
        metavar="N",
        help=f"Processes that decode images.  [default: {default}]",
    )


def echo_skipped(error: ZooError) -> None:
    """Report on stderr that an image was left out, and why."""
    tell(f"Skipped: {error}")


def examples(*lines: str) -> str:
    """Return an epilog of example commands; long ones go on in a second line, as a shell takes them."""
    return "\b\nExamples:\n" + "\n".join(example(f"resnet-zoo {line}") for line in lines)


def example(command: str) -> str:
    """Return an example command in lines that fit a terminal of 80 columns with click's own indentation."""
    wrapper = textwrap.TextWrapper(74, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    kept = re.sub(r" (--?[\w-]+) (?!-)", " \\1\0", command)  # an option stays beside its value
    return textwrap.indent(" \\\n".join(wrapper.wrap(kept)), "  ").replace("\0", " ")


DEBUG = f"{__name__}.debug"
"""Under this key the contexts of a command line, which share it, remember ``--debug``."""


def is_debugging(ctx: click.Context) -> bool:
    """Tell whether tracebacks are wanted."""
    return bool(ctx.meta.get(DEBUG))


weights_option = click.option(
    "--weights", metavar="TAG|PATH", help="A weight set of the model, or a .safetensors or .pth file."
)
size_option = click.option(
    "--size", type=int, metavar="PX", help="Test size, one that the weights' publisher used.  [default: the usual one]"
)
device_option = click.option(
    "--device", metavar="DEVICE", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, mps."
)


image_column_option = click.option(
    "--image-column", metavar="NAME", default="image", show_default=True, help="Column of images in parquet files."
)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which then ends a command as Ctrl-C does."""


@contextlib.contextmanager
def going_on_later() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a command with the sentence that the same command goes on.

    Under torchrun SIGTERM is left as it is: a process that waits for others would hear of it late. Processes that were
    forked from this one end at once.
    """
    process = os.getpid()

    def end(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)
        raise _Terminated

    handles = threading.current_thread() is threading.main_thread() and "WORLD_SIZE" not in os.environ
    before = signal.signal(signal.SIGTERM, end) if handles else None
    try:
        yield
    except KeyboardInterrupt as error:
        code = SIGTERM_EXIT if isinstance(error, _Terminated) else SIGINT_EXIT
        raise Failure("Interrupted. Run the same command again: it resumes where this one stopped.", code) from error
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show the package's warnings, and what else it is set to log, for as long as the context lasts."""
    import logging

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    log, handler = logging.getLogger("resnet_zoo"), Told()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _tell_what_was_done(ctx: click.Context, _option: click.Parameter, wanted: bool) -> bool:
    """Let `optimize_for_inference` show its report; among many processes, that of the first."""
    if not wanted or ctx.meta.get(_TOLD):
        return wanted
    ctx.meta[_TOLD] = True
    from resnet_zoo.base.processes import Processes

    try:
        if Processes.from_environment().is_first:
            import logging

            log = logging.getLogger("resnet_zoo")
            ctx.call_on_close(functools.partial(log.setLevel, log.level))
            log.setLevel(logging.INFO)
    except ZooError as error:
        raise Failure(str(error), error.exit_code) from error
    return True


fast_option = click.option(
    "--fast",
    is_flag=True,
    callback=_tell_what_was_done,
    help="Fold batch-norm, compute in bfloat16 where the device supports it natively, and report the effect.",
)


def int8_options(command: Any) -> Any:
    """Add ``--int8`` and ``--calibrate``, of which the command takes the latter, as ``calibration``."""

    @functools.wraps(command)
    def checked(*args: Any, int8: bool, calibration: str | None, **options: Any) -> Any:
        if int8 and calibration is None:
            raise click.UsageError("--int8 needs images like those to come: --calibrate DIR.")
        if calibration is not None and not int8:
            raise click.UsageError("--calibrate is for --int8.")
        return command(*args, calibration=calibration, **options)

    what = "Compute in 8-bit integers, on a CPU, and report the effect; needs --calibrate."
    folder = "Images like those to come, a hundred or more, for --int8."
    checked = click.option("--calibrate", "calibration", type=click.Path(), metavar="DIR", help=folder)(checked)
    return click.option("--int8", is_flag=True, callback=_tell_what_was_done, help=what)(checked)


data_options = (
    batch_size_option(64),
    workers_option("none on a CPU, else one per core, at most 8"),
    click.option("--skip-bad", is_flag=True, help="Count and report unreadable images instead of stopping."),
    click.option("--partial", is_flag=True, help="Accept a folder with missing classes."),
)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add several options to a command, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
