"""One answer from the reference model, on one process or split over several by torchrun.

```
python -m gptoss_core.generate nano -p "How are you?" -t 1 -l 100
torchrun --nproc-per-node 2 -m gptoss_core.generate gpt-oss-120b -p "How are you?"
```

It has the flags of `gptoss generate` and of engine `torch`, and prints the same. Under torchrun
every process holds its share of the weights and runs the same engine on the same request; rank 0
samples, the others take its tokens, and only rank 0 prints.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from gptoss_core.device import choose_device
from gptoss_core.engine import TorchEngine, cache_capacity, load_model
from gptoss_core.options import TorchOptions
from gptoss_core.parallel import Group, connect
from gptoss_harmony.cli import run_safely
from gptoss_harmony.commands import generate as command
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import HarmonyError, UsageError
from gptoss_harmony.options import add_engine_options, engine_options


def run(args: argparse.Namespace) -> int:
    """Join the other processes, load this one's share, answer."""
    if args.engine != "torch":
        raise UsageError(
            f"this command runs engine torch only; for another: gptoss generate -b {args.engine}"
        )
    options = TorchOptions(**engine_options(args))
    group = connect(choose_device(options.device).type if options.device != "auto" else None)
    try:
        return _answer(args, options, group)
    except HarmonyError as error:
        if group.rank > 0:
            raise type(error)(f"process {group.rank}: {error}") from error
        raise
    finally:
        group.close()


def _answer(args: argparse.Namespace, options: TorchOptions, group: Group) -> int:
    encoding = load_encoding()
    text = command.make_prompt(args, encoding) if group.rank == 0 else None
    prompt = group.share_object(text)
    assert prompt is not None  # rank 0 made one
    device = group.device if group.size > 1 else choose_device(options.device)
    model = load_model(args.checkpoint, options, device=device, plan=group.plan)
    # Every process must decide alike, so rank 0's free memory counts for all.
    capacity = group.share_object(cache_capacity(options, device))
    options = replace(options, max_batch=1, prefix_reuse=False, kv_memory=capacity / 2**30)

    def share(tokens: list[int]) -> list[int]:
        agreed: list[int] = group.share(torch.tensor(tokens, device=device)).tolist()
        return agreed

    engine = TorchEngine(
        model, options, model_id=Path(args.checkpoint).name, share=share if group.size > 1 else None
    )
    with closing(engine), _silence(group.rank > 0):
        return command.answer(args, encoding, engine, prompt)


@contextlib.contextmanager
def _silence(wanted: bool) -> Iterator[None]:
    """Send what is printed nowhere."""
    if not wanted:
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run with ARGV and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gptoss_core.generate", description=command.HELP, allow_abbrev=False
    )
    command.add_arguments(parser)
    add_engine_options(parser, "torch", options=TorchOptions)
    parser.set_defaults(engine="torch")
    args = parser.parse_args(argv)
    return run_safely(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
