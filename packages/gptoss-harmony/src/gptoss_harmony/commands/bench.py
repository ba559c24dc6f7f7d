"""`gptoss bench [CASE] [--engine ENGINE]`: the benchmark cases that the installed wheels offer.

A case is a module in the entry-point group `gptoss.benches` with the shape of a command (`HELP`,
`add_arguments`, `run`). Without a case, the one named like the engine runs, else `engine`.
"""

from __future__ import annotations

import argparse
from typing import Any

from gptoss_harmony.errors import UsageError
from gptoss_harmony.plugins import BENCHES, discover, load

HELP = "measure speed and memory beside a limit or a peer measured in the same run"
TAKES_REST = True
DEFAULT_CASE = "engine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that choose a case; its own flags follow them."""
    cases = ", ".join(discover(BENCHES))
    parser.add_argument("case", nargs="?", metavar="CASE", help=f"one of: {cases}")
    parser.add_argument("--engine", metavar="ENGINE", help="the engine to measure")
    parser.add_argument(
        "--case-help", action="store_true", help="show what the case does and its flags"
    )


def run(args: argparse.Namespace) -> int:
    """Hand over to the case."""
    cases = discover(BENCHES)
    name = args.case or (args.engine if args.engine in cases else DEFAULT_CASE)
    if name not in cases:
        raise UsageError(f"there is no benchmark {name!r}; installed: {', '.join(cases) or 'none'}")
    case = load(cases[name])
    parser = case_parser(name, case)
    if args.case_help:
        print(parser.format_help())
        return 0
    flags = list(args.rest)
    if args.engine is not None and _has_flag(parser, "--engine"):
        flags += ["--engine", args.engine]
    given, rest = parser.parse_known_args(flags)
    if rest and not getattr(case, "TAKES_REST", False):
        raise UsageError(f"benchmark {name!r} has no flag {rest[0]!r}; see --case-help")
    given.rest = rest
    return int(case.run(given))


def case_parser(name: str, case: Any) -> argparse.ArgumentParser:
    """Build the parser of one case."""
    parser = argparse.ArgumentParser(
        prog=f"gptoss bench {name}", description=case.HELP, allow_abbrev=False
    )
    case.add_arguments(parser)
    return parser


def _has_flag(parser: argparse.ArgumentParser, flag: str) -> bool:
    return any(flag in action.option_strings for action in parser._actions)
