"""Which rows of the vocabulary a run trains, and the compact numbering that a step uses.

Row i < K of a step is the i-th trained id; rows K .. K + P are candidates: frozen rows that the
batch contains, filled up with random ones, so that the softmax also learns to leave the others
alone.

```
trained ids [10, 20, 30], batch tokens [20, 77, 30]   ->   compact [1, 3, 2], candidates [77, ...]
```
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptoss_harmony.errors import UsageError

Ids = NDArray[np.int64]


class ActiveRows:
    """The compact numbering of a run.

    Args:
        rows: (K,) sorted ids that are trained.
        size: rows of the whole vocabulary.
        candidates: P, frozen rows in each step's softmax.
    """

    def __init__(self, rows: Ids, *, size: int, candidates: int) -> None:
        self.rows = rows
        self.size = size
        self.candidates = candidates
        self._compact = np.full(size, -1, dtype=np.int64)
        self._compact[rows] = np.arange(len(rows))
        self._frozen = np.flatnonzero(self._compact < 0)

    def compact(self, tokens: Ids, *, seed: int) -> tuple[Ids, Ids]:
        """Number a batch.

        Args:
            tokens: ids, any shape.
            seed: of the random candidates.

        Returns:
            Indices of the same shape, and the (P,) ids of the candidates.

        Raises:
            UsageError: more frozen ids occur than there are candidates.
        """
        inside = self._compact[tokens]
        met = np.unique(tokens[inside < 0])
        room = self.candidates - len(met)
        if room < 0:
            raise UsageError(
                f"a batch holds {len(met)} token ids outside the trained rows, more than the "
                f"{self.candidates} candidates of a step: raise tail_candidates or add ids to rows"
            )
        drawn = (
            np.random.default_rng([seed, 3]).choice(self._frozen, size=room) if room else met[:0]
        )
        candidates = np.concatenate([met, drawn])
        outside = len(self.rows) + np.searchsorted(met, tokens)
        return np.where(inside < 0, outside, inside), candidates


def read_rows(path: Path, size: int) -> Ids:
    """The trained ids of a `.npy` file, sorted.

    Raises:
        UsageError: no such file, no integers, or ids outside the vocabulary.
    """
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a .npy file of token ids ({error})") from error
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        raise UsageError(f"{path}: expected a flat array of integer ids, found {rows.dtype}")
    ids = np.unique(rows.astype(np.int64))
    if ids[0] < 0 or ids[-1] >= size:
        raise UsageError(f"{path}: ids reach from {ids[0]} to {ids[-1]}; the model has {size} rows")
    return ids
