"""Tokenised documents with labels, and the shards that hold them.

A shard is an `.npz` file: `tokens` uint32 (N,), `labels` uint8 (N,), `starts` int64 (D + 1,),
`task` uint8 (D,) and `tasks` (names). Document d is `tokens[starts[d]:starts[d + 1]]`. A label's
bit 0 says that the token is a target of the loss, bit 1 that it is copyable (part of a name, value
or number that the answer repeats), bits 4 to 7 its position class.

```
documents = load_shards([Path("train-00.npz")])
documents.length            # number of documents
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony.errors import UsageError

LOSS = 1  # bit 0 of a label
COPYABLE = 2  # bit 1 of a label
CLASSES = ("prompt", "syntax", "key", "first", "later", "prose")  # bits 4-7 of a label


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Many documents in flat arrays.

    Attributes:
        tokens: uint32 (N,), all documents one after another.
        labels: uint8 (N,), what each token is.
        starts: int64 (D + 1,), where each document begins; the last entry is N.
        task: uint8 (D,), an index into `tasks`.
        tasks: names of the tasks.
    """

    tokens: NDArray[np.uint32]
    labels: NDArray[np.uint8]
    starts: NDArray[np.int64]
    task: NDArray[np.uint8]
    tasks: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    def select(self, chosen: NDArray[np.int64]) -> Documents:
        """The chosen documents, in that order."""
        sizes = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        index = np.repeat(self.starts[chosen] - starts[:-1], sizes) + np.arange(starts[-1])
        return Documents(
            tokens=self.tokens[index],
            labels=self.labels[index],
            starts=starts,
            task=self.task[chosen],
            tasks=self.tasks,
        )


def load_shards(paths: Sequence[Path]) -> Documents:
    """All documents of the shards, checked.

    Raises:
        UsageError: when a file is no shard, or shards name different tasks.
    """
    parts = [_load_shard(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.tasks != parts[0].tasks:
            raise UsageError(
                f"{path}: its tasks {part.tasks} differ from {parts[0].tasks} in {paths[0]}"
            )
    return join(parts)


def join(parts: Sequence[Documents]) -> Documents:
    """All documents of the parts, which name the same tasks."""
    offsets = np.cumsum([0] + [len(part.tokens) for part in parts])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    return Documents(
        tokens=np.concatenate([part.tokens for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        starts=np.concatenate([*starts, [offsets[-1]]]).astype(np.int64),
        task=np.concatenate([part.task for part in parts]),
        tasks=parts[0].tasks,
    )


def _load_shard(path: Path) -> Documents:
    try:
        with np.load(path, allow_pickle=False) as data:
            documents = Documents(
                tokens=data["tokens"].astype(np.uint32),
                labels=data["labels"].astype(np.uint8),
                starts=data["starts"].astype(np.int64),
                task=data["task"].astype(np.uint8),
                tasks=tuple(str(name) for name in data["tasks"]),
            )
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"{path}: not a shard of tokenised documents ({error}); it needs the arrays tokens, "
            "labels, starts, task and tasks"
        ) from error
    count, starts = len(documents.tokens), documents.starts
    regular = len(starts) > 1 and starts[0] == 0 and starts[-1] == count
    if not regular or (np.diff(starts) <= 0).any() or len(documents.labels) != count:
        raise UsageError(f"{path}: starts do not cut {count} tokens into documents")
    if len(documents.task) != documents.length:
        raise UsageError(f"{path}: {len(documents.task)} tasks for {documents.length} documents")
    return documents


def split(documents: Documents, share: float, *, seed: int) -> tuple[Documents, Documents]:
    """Training and held-out documents, drawn by `seed`; at least one of each."""
    if documents.length < 2:
        return documents, documents
    order = np.random.default_rng([seed, 1]).permutation(documents.length)
    held = min(max(1, round(share * documents.length)), documents.length - 1)
    return documents.select(np.sort(order[held:])), documents.select(np.sort(order[:held]))
