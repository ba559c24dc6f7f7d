"""Command-line flags from an engine's `Options` dataclass, so that each option is declared once.

```
@dataclass(frozen=True)
class Options:
    context: int | None = field(default=None, metadata={"help": "positions to make room for"})
```

becomes `--context N`. An engine's module is imported only once the engine is chosen: commands parse
their own flags first and hand the rest to `parse_options`.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from gptoss_harmony.errors import HarmonyError, UsageError
from gptoss_harmony.plugins import ENGINES, choose_engine, discover, engine_class


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def options_parser(engine: str) -> argparse.ArgumentParser:
    """Build the parser for the options of one engine, imported for it."""
    options = engine_class(engine).Options
    hints = get_type_hints(options)
    parser = _Parser(prog=f"engine {engine}", add_help=False, allow_abbrev=False)
    for entry in fields(options):
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}", **_argument(entry, hints[entry.name])
        )
    return parser


def parse_options(engine: str, flags: Sequence[str]) -> dict[str, Any]:
    """Read the flags that a command did not know as options of `engine`.

    Returns:
        Only the options that were given, by field name, for `open_engine(engine, ..., **options)`.

    Raises:
        UsageError: a flag that the engine does not have, or a value of the wrong type.
    """
    parser = options_parser(engine)
    try:
        given, unknown = parser.parse_known_args(list(flags))
    except UsageError as error:
        raise UsageError(f"engine {engine}: {error}") from error
    if unknown:
        known = ", ".join(sorted(action.option_strings[0] for action in parser._actions))
        raise UsageError(f"unknown flag {unknown[0]!r}; engine {engine} has: {known or 'none'}")
    return {name: value for name, value in vars(given).items() if value is not argparse.SUPPRESS}


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
        help="list the options of every installed engine and leave",
    )


def resolve_engine(name: str) -> tuple[str, str]:
    """Turn `auto` into a name; the second value is a sentence for the user about the choice."""
    if name != "auto":
        return name, f"engine {name}"
    chosen, passed_over = choose_engine()
    reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
    return chosen, f"engine {chosen}, chosen by auto{reasons}"


class _ShowEngineOptions(argparse.Action):
    """Print the options of every engine that can be imported, then leave."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Write one section per engine to standard output."""
        sections = []
        for name in discover(ENGINES):
            try:
                text = options_parser(name).format_help()
            except HarmonyError as error:
                text = f"{error}\n"
            sections.append(f"engine {name}\n{text.partition('options:')[2] or text}")
        parser.exit(0, "\n".join(sections))


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
