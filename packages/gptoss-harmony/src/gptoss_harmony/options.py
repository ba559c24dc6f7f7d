"""Command-line flags from an engine's `Options` dataclass, so that each option is declared once.

```
@dataclass(frozen=True)
class Options:
    context: int | None = field(default=None, metadata={"help": "positions to make room for"})
```

becomes `--context N`. An engine's module is imported only once the engine is chosen: commands parse
their own flags first (`parse_arguments`), and read the engine's with `engine_options`.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gptoss_harmony.errors import HarmonyError, UsageError
from gptoss_harmony.plugins import (
    ENGINES,
    choose_engine,
    discover,
    engine_class,
    unavailable,
)

# Where an engine option lands in the parsed arguments: no flag of a command has such a name.
_PREFIX = "engine option "


def options_parser(engine: str) -> argparse.ArgumentParser:
    """Return a parser with only the options of one engine, for help and documentation."""
    parser = argparse.ArgumentParser(prog=f"engine {engine}", add_help=False, allow_abbrev=False)
    add_engine_options(parser, engine)
    return parser


def add_engine_options(
    parser: argparse.ArgumentParser, engine: str, *, options: type[Any] | None = None
) -> None:
    """Add a flag for each field of an engine's `Options`.

    Args:
        parser: gets the flags.
        engine: its name.
        options: its `Options`; None finds the installed engine and imports it.

    Raises:
        UsageError: the engine has an option that the command has as a flag of its own.
    """
    options = options or engine_class(engine).Options
    hints = get_type_hints(options)
    group = parser.add_argument_group(f"options of engine {engine}")
    for entry in fields(options):
        flag = f"--{entry.name.replace('_', '-')}"
        try:
            group.add_argument(
                flag, dest=_PREFIX + entry.name, **_argument(entry, hints[entry.name])
            )
        except argparse.ArgumentError as error:
            raise UsageError(f"engine {engine}: {error}") from error


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the engine options that were given, by field name, for `open_engine`."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(_PREFIX)
    }


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line whose flags may belong to the engine that it chooses.

    An engine is imported only where a flag is left over; its options then join the flags of the
    command, and everything is parsed again.

    Args:
        parser: with `add_engine_argument` in it or in a sub-command. A sub-command names itself in
            the default `parser`; one with the default `takes_rest` gets what nobody knows in
            `args.rest`, for any other that is a mistake of the user.
        argv: the arguments.

    Raises:
        HarmonyError: the engine does not exist or cannot be imported.
    """
    args, rest = parser.parse_known_args(list(argv))
    command: argparse.ArgumentParser = getattr(args, "parser", parser)
    takes_rest = getattr(args, "takes_rest", False)
    if rest and hasattr(args, "engine") and not takes_rest:
        add_engine_options(command, resolve_engine(args.engine)[0])
        args, rest = parser.parse_known_args(list(argv))
    if rest and not takes_rest:
        command.error(f"unknown argument {rest[0]!r}; see {command.prog} --help")
    args.rest = rest
    return args


def add_engine_argument(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add the flag that chooses the engine, and the one that lists each engine's options."""
    names = ", ".join(["auto", *discover(ENGINES)])
    parser.add_argument(
        *flags,
        dest="engine",
        default="auto",
        metavar="ENGINE",
        help=f"one of: {names} (default auto: triton, else metal, else torch)",
    )
    parser.add_argument(
        "--engine-options",
        action=_ShowEngineOptions,
        help="list every installed engine with its options and leave",
    )


def resolve_engine(name: str) -> tuple[str, str]:
    """Turn `auto` into a name; the second value is a sentence for the user about the choice."""
    if name != "auto":
        return name, f"engine {name}"
    chosen, passed_over = choose_engine()
    reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
    return chosen, f"engine {chosen}, chosen by auto{reasons}"


def count(text: str) -> int:
    """Read the value of a flag that is 0 or more."""
    return _at_least(0, text)


def positive(text: str) -> int:
    """Read the value of a flag that is 1 or more."""
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


class _ShowEngineOptions(argparse.Action):
    """Print every engine: its options, and why it cannot run here where it cannot; then leave."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Write one section per engine to standard output."""
        sections = []
        for name in discover(ENGINES):
            try:
                text = options_parser(name).format_help()
                reason = unavailable(engine_class(name))
            except HarmonyError as error:
                text, reason = f"{error}\n", None
            title = (
                f"engine {name}, which cannot run here: {reason}" if reason else f"engine {name}"
            )
            sections.append(f"{title}\n{text.partition('options:')[2] or text}")
        sys.stdout.write("\n".join(sections))
        parser.exit(0)


def _argument(entry: Field[Any], hint: Any) -> dict[str, Any]:
    """Translate a dataclass field into keywords of `add_argument`."""
    text = entry.metadata.get("help", "")
    if entry.default is not MISSING and entry.default not in (None, ""):
        text = f"{text} (default {entry.default})".strip()
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    hint = _without_none(hint)
    if hint is bool:
        return {**keywords, "action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {**keywords, "choices": get_args(hint)}
    return {**keywords, "type": hint if hint in (int, float) else str, "metavar": _metavar(hint)}


def _without_none(hint: Any) -> Any:
    """Reduce `X | None` to `X`."""
    if get_origin(hint) in (Union, types.UnionType):
        kept = [part for part in get_args(hint) if part is not type(None)]
        return kept[0] if len(kept) == 1 else str
    return hint


def _metavar(hint: Any) -> str:
    return {int: "N", float: "X"}.get(hint, "TEXT")
