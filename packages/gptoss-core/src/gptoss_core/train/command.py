"""`gptoss train DATA --init CONFIG | --checkpoint FILE --out DIR`: fine-tune or train from scratch.

Options come from the fields of `Settings`, so each is declared once; a recipe file sets the same
names under [train], and the command line wins.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tomllib
from pathlib import Path
from typing import Any

from gptoss_harmony.errors import UsageError

HELP = "fine-tune a checkpoint, or train one from scratch, on harmony conversations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the paths and one option per training setting."""
    from gptoss_core.train.settings import CHOICES, OPTION_HELP, Settings

    parser.add_argument(
        "data", metavar="DATA", help=".jsonl conversations, .npz shards, or a folder of either"
    )
    parser.add_argument("--out", required=True, help="folder for log, state and checkpoint")
    parser.add_argument("--init", help="config.json of a model to train from scratch")
    parser.add_argument("--checkpoint", help="model to fine-tune: a folder, a hub id, or nano")
    parser.add_argument("--held", help="held-out conversations (default: a share of DATA)")
    parser.add_argument("--recipe", help=".toml file whose [train] table sets these options")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    for field in dataclasses.fields(Settings):
        flag, default = f"--{field.name.replace('_', '-')}", field.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        text = f"{OPTION_HELP[field.name]} (default {shown})".replace("(default )", "").strip()
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif isinstance(default, tuple):
            parser.add_argument(flag, type=_names, metavar="A,B", help=text)
        else:
            choices = CHOICES.get(field.name)
            parser.add_argument(flag, type=type(default), choices=choices, help=text)


def run(args: argparse.Namespace) -> int:
    """Train and say where the checkpoint is."""
    from gptoss_core.train.assemble import Paths, assemble
    from gptoss_core.train.loop import Loop

    settings = read_settings(args)
    paths = Paths(
        data=Path(args.data),
        out=Path(args.out),
        init=Path(args.init) if args.init else None,
        checkpoint=args.checkpoint,
        held=Path(args.held) if args.held else None,
    )
    made = assemble(paths, settings)
    display = Display(settings.steps)
    loop = Loop(
        made, paths.out, resume=args.resume, report=display.report, progress=display.progress
    )
    loop.train()
    print(f"wrote {paths.out / 'original'}")
    return 0


def read_settings(args: argparse.Namespace) -> Any:
    """Settings of the recipe, overridden by the options that were given.

    Raises:
        UsageError: an unreadable recipe, an unknown key, a value that makes no sense.
    """
    from gptoss_core.train.settings import Settings

    values: dict[str, Any] = {}
    if args.recipe:
        try:
            values = tomllib.loads(Path(args.recipe).read_text("utf-8")).get("train", {})
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{args.recipe} cannot be read as a recipe: {error}") from error
    for field in dataclasses.fields(Settings):
        given = getattr(args, field.name)
        if given is not None:
            values[field.name] = given
    return Settings.from_mapping(values)


class Display:
    """Reports as lines, and on a terminal a progress bar below them."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar = sys.stderr.isatty()

    def progress(self, done: int) -> None:
        """Redraw the bar."""
        if self._bar:
            share = done / self._steps
            bar = "#" * int(24 * share)
            print(f"\rtrain [{bar:.<24}] {done}/{self._steps}", end="", file=sys.stderr, flush=True)

    def report(self, report: dict[str, Any]) -> None:
        """Print one report."""
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr)
        parts = [f"{name} {_shown(value)}" for name, value in report.items()]
        print("  ".join(parts), file=sys.stderr, flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
