"""Command line -> one call of the library each; the border where errors become messages and exit codes."""

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import click

from pronk.cli.audit import audit
from pronk.cli.bench import bench
from pronk.cli.cache import cache
from pronk.cli.check import check
from pronk.cli.compare import compare
from pronk.cli.console import installed_version, note_flag, say
from pronk.cli.curve import curve
from pronk.cli.demo import demo
from pronk.cli.evaluate import evaluate
from pronk.cli.explain import explain
from pronk.cli.export import export
from pronk.cli.features import features
from pronk.cli.next_photos import next_photos
from pronk.cli.predict import predict
from pronk.cli.serve import serve
from pronk.cli.train import train
from pronk.cli.undo import undo
from pronk.cli.verify import verify
from pronk.errors import PronkError, SettingsError

USAGE = 2
INTERRUPTED = 130


def _flag(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, is_flag=True, expose_value=False, callback=note_flag, help=text)


class Commands(click.Group):
    """The commands, in the order in which they are met."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self.commands)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
EPILOG = """\b
MODEL is a run folder (RUN), its model/, or an export.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.
Completion in bash: eval "$(_PRONK_COMPLETE=bash_source pronk)"
"""


@click.group(cls=Commands, context_settings=CONTEXT, epilog=EPILOG)
@click.version_option(installed_version(), prog_name="pronk")
@_flag("--quiet", "No progress and no summary, only results and errors.")
@_flag("--debug", "Show the traceback of an error.")
def cli() -> None:
    """Turn a folder of photos, one sub-folder per class, into an image classifier.

    \b
    Example:
        pronk train photos
        pronk predict runs/photos-1 new-photo.jpg
    """


# First what everybody needs, then better data, then what becomes of a model, then what tidies up.
COMMANDS = (
    *(demo, check, train, evaluate, predict, explain, serve),
    *(audit, curve, next_photos, compare),
    *(export, bench, verify, features),
    *(undo, cache),
)
for command in COMMANDS:
    cli.add_command(command)
    command.context_settings.update(cli.context_settings)  # -h too, however a command is reached
    # So that `pronk train DATA --quiet` works as well as `pronk --quiet train DATA`.
    _flag("--quiet", "Only results and errors.")(command)
    _flag("--debug", "Show tracebacks.")(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Exit codes: 0 done, 1 the work failed, 2 usage, 130 after Ctrl-C.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name of a file may have letters that the encoding here lacks, or bytes that are none.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _note_interrupts()
    code = run_command(sys.argv[1:] if arguments is None else arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: background threads of a training framework can hold up, or crash, an orderly exit


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line with the words after `pronk`, say on stderr what went wrong, and return the exit code."""
    try:
        code = cli.main(list(arguments), prog_name="pronk", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:  # `pronk` alone asks what there is
        say(error.format_message(), err=True)
        return USAGE
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _say_stopped(arguments)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        if _interrupts:
            return _say_stopped(arguments)
        message, hint, code = _explain(error)
        say(f"error: {message}", err=True)
        if hint:
            say(f"hint: {hint}", err=True)
        return code


def _explain(error: Exception) -> tuple[str, str, int]:
    """Return what is wrong, what to do, and the exit code."""
    if isinstance(error, click.ClickException):
        command = getattr(getattr(error, "ctx", None), "command_path", "pronk")
        return error.format_message(), f"{command} --help", error.exit_code
    if isinstance(error, PronkError):
        return str(error), error.hint, USAGE if isinstance(error, SettingsError) else 1
    if isinstance(error, MemoryError):
        return "not enough memory", "close other programs, or use a smaller --image-size or fewer --views", 1
    if isinstance(error, OSError):
        where = error.filename or "the system"
        return f"{where}: {error.strerror or error}", "check the path and the free space", 1
    # A fault of ours, still without a wall of text.
    return f"unexpected {type(error).__name__}: {error}", "repeat with --debug and report what it shows", 1


_interrupts: list[int] = []


def _note_interrupts() -> None:
    """Remember Ctrl-C: an extension module that is being imported turns it into errors of another name."""

    def note(number: int, frame: FrameType | None) -> None:
        _interrupts.append(number)
        signal.default_int_handler(number, frame)

    # Only where it is heard at all, and nobody else listens; the main thread alone may ask for it.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


def _say_stopped(arguments: Sequence[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), "")
    how = ""
    if command == "train":
        how = "; the same command with --resume goes on"
    elif command == "predict" and any(word.startswith(("--out", "--sort-into")) for word in arguments):
        how = "; the same command goes on"
    say(f"stopped{how}", err=True)
    return INTERRUPTED


def _open_missing_streams() -> None:
    # A shell can start a program without any of its three streams; the first file opened would then become one.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
