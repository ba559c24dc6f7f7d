"""Documents packed into rows, one batch a step; batch number s is a pure function of (seed, s).

Each row of `context` positions holds whole documents; positions of different documents never see
each other (see attention.py). An epoch is a shuffle of all documents, filled best-fit from a
sliding pool.

```
context 8, documents of 5, 4, 3, 3 tokens  ->  rows [5 + 3], [4 + 3 + 1 padding]
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_core.train.documents import LOSS, Documents

POOL = 256  # documents that compete for the room left in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One batch.

    Attributes:
        tokens: int64 (B, T), padded with 0.
        document: int32 (B, T), number of the document in its row from 0; padding has its own.
        labels: uint8 (B, T), 0 on padding.
    """

    tokens: NDArray[np.int64]
    document: NDArray[np.int32]
    labels: NDArray[np.uint8]

    @property
    def targets(self) -> NDArray[np.int64]:
        """Flat positions (row * T + t) whose NEXT token is a target of the loss."""
        wanted = np.zeros(self.labels.shape, dtype=bool)
        same = self.document[:, 1:] == self.document[:, :-1]
        wanted[:, :-1] = (self.labels[:, 1:] & LOSS).astype(bool) & same
        return np.flatnonzero(wanted)


def plan_rows(sizes: NDArray[np.int64], context: int, order: NDArray[np.int64]) -> list[list[int]]:
    """Which documents share each row, best fit from a pool of the next documents in `order`."""
    rows: list[list[int]] = []
    queue = iter(order.tolist())
    pool: list[tuple[int, int]] = []  # (size, document), kept sorted by size
    more = True
    while True:
        while more and len(pool) < POOL:
            document = next(queue, None)
            more = document is not None
            if document is not None:
                pool.append((min(int(sizes[document]), context), document))
        if not pool:
            return rows
        oldest, room = pool.pop(0), context
        row, room = [oldest[1]], room - oldest[0]
        while True:
            fitting = [item for item in pool if item[0] <= room]
            if not fitting:
                break
            best = max(fitting, key=lambda item: item[0])
            pool.remove(best)
            row.append(best[1])
            room -= best[0]
        rows.append(row)


class Packer:
    """Packed batches of documents, the same for the same seed, whatever step one begins at.

    Documents come in parts, loaded when they are reached: an epoch takes the parts in order and
    shuffles each, so a large set never has to be in memory (or even written) as a whole.

    Args:
        parts: each gives some documents.
        context: positions of a row.
        rows: rows of a batch.
        seed: of the shuffles.

    Attributes:
        cut: documents met so far that were longer than a row and lost their end.
    """

    def __init__(
        self, parts: Sequence[Callable[[], Documents]], *, context: int, rows: int, seed: int
    ) -> None:
        self.context = context
        self.rows = rows
        self.cut = 0
        self._parts = parts
        self._seed = seed
        self._sizes: list[int] = []  # rows of part 0, 1, ..., counted through the epochs
        self._present = -1  # the part that is loaded, so counted
        self._documents: Documents | None = None
        self._plan: list[list[int]] = []

    def batch(self, step: int) -> Rows:
        """The batch of one step: `rows` consecutive rows of the endless sequence of epochs."""
        first = step * self.rows
        batch = self._empty()
        for row in range(self.rows):
            documents, place = self._find(first + row)
            self._fill(batch, row, documents, self._plan[place])
        return batch

    def all_rows(self) -> Iterator[Rows]:
        """Every document once, in order, in batches: for evaluation."""
        for part in self._parts:
            documents = part()
            sizes = np.diff(documents.starts)
            plan = plan_rows(sizes, self.context, np.arange(documents.length))
            for first in range(0, len(plan), self.rows):
                batch = self._empty()
                for row, members in enumerate(plan[first : first + self.rows]):
                    self._fill(batch, row, documents, members)
                yield batch

    def _empty(self) -> Rows:
        shape = (self.rows, self.context)
        return Rows(
            tokens=np.zeros(shape, dtype=np.int64),
            document=np.full(shape, self.context, dtype=np.int32),
            labels=np.zeros(shape, dtype=np.uint8),
        )

    def _fill(self, batch: Rows, row: int, documents: Documents, members: list[int]) -> None:
        """Lay documents side by side in one row of a batch."""
        at = 0
        for number, member in enumerate(members):
            begin = int(documents.starts[member])
            size = min(int(documents.starts[member + 1]) - begin, self.context)
            batch.tokens[row, at : at + size] = documents.tokens[begin : begin + size]
            batch.labels[row, at : at + size] = documents.labels[begin : begin + size]
            batch.document[row, at : at + size] = number
            at += size

    def _find(self, number: int) -> tuple[Documents, int]:
        """The part that holds row `number` of the endless sequence, and the row's place in it."""
        part = 0
        while True:
            if part == len(self._sizes):
                documents = self._load(part)
                self._sizes.append(len(self._plan))
                self.cut += int((np.diff(documents.starts) > self.context).sum())
            if number < self._sizes[part]:
                return self._load(part), number
            number -= self._sizes[part]
            part += 1

    def _load(self, part: int) -> Documents:
        """Make a part, counted through the epochs, the present one."""
        if part == self._present and self._documents is not None:
            return self._documents
        self._documents = self._parts[part % len(self._parts)]()
        order = np.random.default_rng([self._seed, 2, part]).permutation(self._documents.length)
        self._plan = plan_rows(np.diff(self._documents.starts), self.context, order)
        self._present = part
        return self._documents
