"""Write training conversations as shards of tokens.

    python -m recipe.build --out DIR --tokens 3e7

A shard `train-00017.npz` holds whole documents one after another: `tokens` uint32, `labels` uint8
(bit 0 loss, bit 1 word that may be renamed, bits 4-7 class), `starts` int64, `task` uint8 into
`tasks`. Shard n depends on the seed and n alone, so any number of workers gives the same files;
each appears under its name only when it is complete.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from recipe.mixture import TASKS, draw
from recipe.render import Document, Renderer
from recipe.words import Words

SHARD_TOKENS = 500_000
LONGEST = 2048
NAMES = [*TASKS]


def build_shard(number: int, *, out: Path, seed: str, part: str, size: int, longest: int) -> int:
    """Write one shard; return its tokens."""
    renderer = _renderer()
    words = Words(renderer.encode, part=part)
    documents: list[Document] = []
    total, index = 0, 0
    while total < size:
        drawn = draw(random.Random(f"{seed} {part} {number} {index}"), words)
        index += 1
        document = drawn.document(renderer)
        if part == "train" and not words.barred.isdisjoint(document.tokens):
            continue  # names that meet can form a held-out name, which training must never show
        if len(document.tokens) <= longest:
            documents.append(document)
            total += len(document.tokens)
    save(out / f"{part}-{number:05d}.npz", documents)
    return total


def save(path: Path, documents: Sequence[Document]) -> None:
    """Write documents under a temporary name, then rename."""
    starts = np.cumsum([0, *(len(d.tokens) for d in documents)])
    partial_path = path.with_suffix(f".{os.getpid()}.tmp")
    with partial_path.open("wb") as file:
        np.savez_compressed(
            file,
            tokens=np.concatenate([np.array(d.tokens, dtype=np.uint32) for d in documents]),
            labels=np.concatenate([np.array(d.labels, dtype=np.uint8) for d in documents]),
            starts=starts.astype(np.int64),
            task=np.array([NAMES.index(d.task) for d in documents], dtype=np.uint8),
            tasks=np.array(NAMES),
        )
    partial_path.rename(path)


_RENDERERS: list[Renderer] = []  # one per worker process, made on first use


def _renderer() -> Renderer:
    if not _RENDERERS:
        _RENDERERS.append(Renderer())
    return _RENDERERS[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Build the shards with several processes and say how fast it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--tokens", type=float, default=3e7, help="tokens in all")
    parser.add_argument("--seed", default="1", help="another seed gives other conversations")
    parser.add_argument("--part", choices=["train", "held"], default="train")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--shard-tokens", type=float, default=SHARD_TOKENS)
    parser.add_argument("--longest", type=int, default=LONGEST, help="tokens of a document")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    count = max(1, round(options.tokens / options.shard_tokens))
    work = partial(
        build_shard,
        out=options.out,
        seed=options.seed,
        part=options.part,
        size=options.shard_tokens,
        longest=options.longest,
    )
    begun, total = time.perf_counter(), 0
    with multiprocessing.get_context("spawn").Pool(min(options.workers, count)) as pool:
        for tokens in pool.imap_unordered(work, range(count)):
            total += tokens
    took = time.perf_counter() - begun
    rate = total / took
    sys.stderr.write(f"{total:,} tokens in {count} shards, {took:.1f} s, {rate:,.0f} tokens/s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
