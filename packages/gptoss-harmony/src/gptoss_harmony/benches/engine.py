"""`gptoss bench engine`: how fast any engine reads a prompt and continues it.

Reports, for each batch size, the time to the first token, the rate of reading the prompt and the
rate of all answers together, beside the same engine at batch 1 in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass

from gptoss_harmony.engine import Engine, Sampling
from gptoss_harmony.options import add_engine_argument, engine_options, positive, resolve_engine
from gptoss_harmony.plugins import open_engine

HELP = "prompt reading and decoding rate of any engine, at several batch sizes"
ORDINARY_TOKENS = 199_998  # ids below are text, those above are special


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One batch size; rates in tokens per second, times in seconds."""

    batch: int
    prompt_tokens: int
    new_tokens: int
    first_token_seconds: float
    prompt_rate: float
    decode_rate: float
    speedup: float  # decode rate over that of batch 1 in this run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--checkpoint", default="nano", metavar="CHECKPOINT", help="default nano")
    add_engine_argument(parser, "--engine")
    parser.add_argument(
        "--batch", type=positive, nargs="+", default=[1, 4], metavar="N", help="answers"
    )
    parser.add_argument(
        "--prompt-tokens", type=positive, default=256, metavar="N", help="of each prompt"
    )
    parser.add_argument(
        "--new-tokens", type=positive, default=64, metavar="N", help="of each answer"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure every batch size and print a table or JSON."""
    name, sentence = resolve_engine(args.engine)
    print(sentence, file=sys.stderr)
    start = time.perf_counter()
    with closing(open_engine(name, args.checkpoint, **engine_options(args))) as engine:
        opened = time.perf_counter() - start
        measure(engine, 1, args, seed=0, base=None)  # warms caches and compilers up
        rows: list[Row] = []
        for batch in args.batch:
            rows.append(measure(engine, batch, args, seed=batch, base=rows[0] if rows else None))
    report = {"engine": name, "checkpoint": args.checkpoint, "open_seconds": opened}
    if args.json:
        print(json.dumps({**report, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(f"{name} on {args.checkpoint}, opened in {opened:.2f} s")
        print("batch  prompt  first token  prompt tok/s  decode tok/s  over first row")
        for row in rows:
            print(
                f"{row.batch:5}  {row.prompt_tokens:6}  {row.first_token_seconds:9.3f} s  "
                f"{row.prompt_rate:12.1f}  {row.decode_rate:12.1f}  {row.speedup:11.2f}x"
            )
    return 0


def measure(
    engine: Engine, batch: int, args: argparse.Namespace, *, seed: int, base: Row | None
) -> Row:
    """Run `batch` different random prompts at once."""
    random_ids = random.Random(seed)
    prompts = [
        [random_ids.randrange(ORDINARY_TOKENS) for _ in range(args.prompt_tokens)]
        for _ in range(batch)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(batch) as pool:
        times = list(pool.map(lambda prompt: _answer(engine, prompt, args.new_tokens), prompts))
    firsts = [first - start for first, _, _ in times]
    tokens = sum(count for _, _, count in times)
    decoding = max(last for _, last, _ in times) - min(first for first, _, _ in times)
    decode_rate = (tokens - batch) / max(decoding, 1e-9)
    return Row(
        batch=batch,
        prompt_tokens=args.prompt_tokens,
        new_tokens=args.new_tokens,
        first_token_seconds=max(firsts),
        prompt_rate=batch * args.prompt_tokens / max(firsts),
        decode_rate=decode_rate,
        speedup=decode_rate / base.decode_rate if base else 1.0,
    )


def _answer(engine: Engine, prompt: list[int], limit: int) -> tuple[float, float, int]:
    """Generate once; return the times of the first and the last token, and how many came."""
    sampling = Sampling(temperature=0.0, max_tokens=limit, stop_tokens=())
    first = last = 0.0
    count = 0
    for _ in engine.generate(prompt, sampling):
        last = time.perf_counter()
        first = first or last
        count += 1
    return first, last, count
