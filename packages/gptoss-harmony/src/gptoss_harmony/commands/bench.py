"""`gptoss bench [CASE] [--engine ENGINE]`: the benchmark cases that the installed wheels offer.

A case is a module in the entry-point group `gptoss.benches` with the shape of a command (`HELP`,
`add_arguments`, `run`). Without a case, the one named like the engine runs, else `engine`.
"""

from __future__ import annotations

import argparse
from typing import Any

from gptoss_harmony.errors import UsageError
from gptoss_harmony.options import parse_arguments
from gptoss_harmony.plugins import BENCHES, discover, load

HELP = "measure speed and memory beside a limit or a peer measured in the same run"
TAKES_REST = True
DEFAULT_CASE = "engine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that choose a case; the case and its own flags arrive in `args.rest`."""
    cases = ", ".join(discover(BENCHES))
    parser.usage = "gptoss bench [CASE] [--engine ENGINE] [--case-help] [flags of the case]"
    parser.epilog = f"CASE is one of: {cases}. It comes first."
    parser.add_argument("--engine", metavar="ENGINE", help="the engine to measure")
    parser.add_argument(
        "--case-help", action="store_true", help="show what the case does and its flags"
    )


def run(args: argparse.Namespace) -> int:
    """Hand over to the case."""
    cases = discover(BENCHES)
    flags = list(args.rest)
    named = flags.pop(0) if flags and not flags[0].startswith("-") else None
    name = named or (args.engine if args.engine in cases else DEFAULT_CASE)
    if name not in cases:
        raise UsageError(f"there is no benchmark {name!r}; installed: {', '.join(cases) or 'none'}")
    case = load(cases[name])
    parser = case_parser(name, case)
    if args.case_help:
        print(parser.format_help())
        return 0
    if args.engine is not None and "--engine" in parser._option_string_actions:
        flags += ["--engine", args.engine]
    return int(case.run(parse_arguments(parser, flags)))


def case_parser(name: str, case: Any) -> argparse.ArgumentParser:
    """Build the parser of one case."""
    parser = argparse.ArgumentParser(
        prog=f"gptoss bench {name}", description=case.HELP, allow_abbrev=False
    )
    case.add_arguments(parser)
    return parser
