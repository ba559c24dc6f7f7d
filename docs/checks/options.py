"""Check that every option of every command has help, and write the command reference.

The page `docs/reference/commands.md` is made from the parsers themselves, so that it cannot differ
from them. Run by `nox -s docs`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gptoss_harmony.cli import build_parser
from gptoss_harmony.commands.bench import case_parser
from gptoss_harmony.options import options_parser
from gptoss_harmony.plugins import BENCHES, ENGINES, discover, load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "commands.md"
HEADER = """# Commands

Made from the commands themselves by `docs/checks/options.py`; do not edit.
"""


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every parser with its title: commands, their sub-commands, benches, engines."""
    yield from walk("gptoss", build_parser())
    for name, point in discover(BENCHES).items():
        yield f"gptoss bench {name}", case_parser(name, load(point))
    for name in discover(ENGINES):
        yield f"options of engine {name}", options_parser(name)


def walk(
    title: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield a parser and all parsers below it."""
    yield title, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from walk(f"{title} {name}", sub)


def undocumented(title: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Name the options that have no help."""
    for action in parser._actions:
        if not action.help and not isinstance(action, argparse._SubParsersAction):
            yield f"{title}: {'/'.join(action.option_strings) or action.dest} has no help"


def section(title: str, parser: argparse.ArgumentParser) -> str:
    """Return the reference of one parser."""
    return f"\n## {title}\n\n```text\n{parser.format_help().strip()}\n```\n"


def main() -> int:
    """Write the page; the exit code is 1 if an option has no help."""
    os.environ["COLUMNS"] = "100"
    found = list(parsers())
    problems = [problem for title, parser in found for problem in undocumented(title, parser)]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(HEADER + "".join(section(title, parser) for title, parser in found))
    print("\n".join(problems) or f"options: {len(found)} parsers, every option documented")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
