"""The `gptoss` command: what every installed wheel adds, behind one name.

A command is a module named in the entry-point group `gptoss.commands` with

* `HELP`, one line;
* `add_arguments(parser)`;
* `run(args) -> int`, the exit code;
* optionally `TAKES_REST = True`: arguments it does not know arrive in `args.rest`.

A command that runs an engine calls `options.add_engine_argument`; the engine's own options are then
flags of the command.

Exit codes: 0 done, 1 the work itself failed, 2 something is missing or misused (one sentence on
standard error says what and how to mend it), 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from gptoss_harmony.errors import HarmonyError
from gptoss_harmony.options import parse_arguments
from gptoss_harmony.plugins import COMMANDS, WHEEL_OF_COMMAND, discover, load


class Command(Protocol):
    """The shape of a command module."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code."""
        ...


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `gptoss` with every installed command; broken wheels are left out."""
    parser = argparse.ArgumentParser(
        prog="gptoss",
        description="Run, read, serve and extend OpenAI's gpt-oss models.",
        epilog=_missing_wheels(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"gptoss {version('gptoss-harmony')}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, point in discover(COMMANDS).items():
        _add_command(commands, name, point)
    return parser


def _add_command(commands: Any, name: str, point: Any) -> None:
    try:
        command: Command = load(point)
    except HarmonyError as error:
        broken = commands.add_parser(name, help=f"broken; `gptoss {name}` says why")
        broken.set_defaults(command=_Broken(error), takes_rest=True)
        return
    text = command.HELP
    sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.add_arguments(sub)
    takes_rest = getattr(command, "TAKES_REST", False)
    sub.set_defaults(command=command, parser=sub, takes_rest=takes_rest)


class _Broken:
    """Stands for a command whose wheel cannot be imported, and says so when it is called."""

    def __init__(self, error: HarmonyError) -> None:
        self._error = error

    def run(self, args: argparse.Namespace) -> int:
        raise self._error


def _missing_wheels() -> str:
    missing = [
        f"  {name:<10} pip install {wheel}"
        for name, wheel in WHEEL_OF_COMMAND.items()
        if name not in discover(COMMANDS)
    ]
    return "\n".join(["installing another wheel would add:", *missing]) if missing else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `gptoss ARGV...` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in WHEEL_OF_COMMAND and arguments[0] not in discover(COMMANDS):
        wheel = WHEEL_OF_COMMAND[arguments[0]]
        return _say(f"{arguments[0]} is not installed; get it with: pip install {wheel}")

    def run() -> int:
        args = parse_arguments(build_parser(), arguments)
        return int(args.command.run(args))

    return run_safely(run)


def run_safely(run: Callable[[], int]) -> int:
    """Call `run` so that user mistakes end in one sentence, never in a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or pipe that lacks a character of the answer gets its number instead.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run()
    except HarmonyError as error:
        return _say(str(error))
    except KeyboardInterrupt:
        return _say("interrupted", code=130)
    except BrokenPipeError:
        # The reader of our output left (`gptoss ... | head`): not an error, and nothing more may
        # be written, not even by the interpreter's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(f"{error.strerror or error}: {error.filename or 'a system call failed'}")


def _say(sentence: str, *, code: int = 2) -> int:
    print(f"gptoss: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
