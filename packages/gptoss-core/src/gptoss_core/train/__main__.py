"""`python -m gptoss_core.train`: `gptoss train` where the script is not installed."""

from __future__ import annotations

import argparse
import sys

from gptoss_core.train import command
from gptoss_harmony.cli import run_safely


def main() -> int:
    """Parse the arguments of `gptoss train` and run it."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_core.train", description=command.HELP)
    command.add_arguments(parser)
    args = parser.parse_args()
    return run_safely(lambda: command.run(args))


if __name__ == "__main__":
    sys.exit(main())
