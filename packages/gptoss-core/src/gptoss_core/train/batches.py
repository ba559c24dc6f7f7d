"""What one step computes with: packed rows, renamed, in compact numbering, made ahead by a thread.

Batch s depends on (documents, settings, s) alone, so a resumed run sees the batches it would have
seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptoss_core.train.documents import COPYABLE
from gptoss_core.train.packing import Packer, Rows
from gptoss_core.train.rename import Renamer
from gptoss_core.train.vocabulary import ActiveRows

AHEAD = 3  # batches in the making


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's input.

    Attributes:
        tokens: int64 (B, T), compact numbers.
        documents: int32 (B, T).
        positions: int64 (L,), flat places whose next token is a target.
        targets: int64 (L,), compact numbers.
        classes: uint8 (L,), position class of each target.
        candidates: int64 (P,), ids of the frozen rows in this step's softmax.
    """

    tokens: Tensor
    documents: Tensor
    positions: Tensor
    targets: Tensor
    classes: Tensor
    candidates: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device, copied without waiting where the memory is pinned."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in self.__dataclass_fields__
        }
        return Batch(**moved)


class BatchMaker:
    """Makes batches.

    Args:
        packer: of the documents.
        active: the trained rows.
        renamer: draws new names, or None.
        share: of the documents that are renamed.
        seed: of the run.
        pin: whether to make pinned tensors, for a GPU.
    """

    def __init__(
        self,
        packer: Packer,
        active: ActiveRows,
        *,
        renamer: Renamer | None = None,
        share: float = 0.0,
        seed: int = 0,
        pin: bool = False,
    ) -> None:
        self.packer = packer
        self._active = active
        self._renamer = renamer
        self._share = share
        self._seed = seed
        self._pin = pin

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Batches of the steps first .. last - 1, a few made ahead."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = [pool.submit(self.batch, s) for s in range(first, min(first + AHEAD, last))]
            for step in range(first, last):
                batch = waiting.pop(0).result()
                if step + AHEAD < last:
                    waiting.append(pool.submit(self.batch, step + AHEAD))
                yield batch

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        return self.finish(self.packer.batch(step), step)

    def finish(self, rows: Rows, step: int) -> Batch:
        """Rename, number and cut out the targets of packed rows."""
        tokens = self._renamed(rows, step)
        compact, candidates = self._active.compact(tokens, seed=self._seed * 1_000_003 + step)
        positions = rows.targets
        following = positions + 1  # a target is never the first of its row
        arrays = {
            "tokens": compact,
            "documents": rows.document,
            "positions": positions,
            "targets": compact.reshape(-1)[following],
            "classes": rows.labels.reshape(-1)[following] >> 4,
            "candidates": candidates,
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        return Batch(**{k: t.pin_memory() if self._pin else t for k, t in tensors.items()})

    def _renamed(self, rows: Rows, step: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        if self._renamer is None or self._share == 0.0:
            return rows.tokens
        count, context = rows.tokens.shape
        owner = rows.document.astype(np.int64) + np.arange(count)[:, None] * (context + 1)
        draws = np.random.default_rng([self._seed, 4, step]).random(count * (context + 1))
        copyable = ((rows.labels & COPYABLE) != 0) & (draws[owner] < self._share)
        renamed = self._renamer.rename(
            rows.tokens.reshape(-1),
            owner.reshape(-1),
            copyable.reshape(-1),
            seed=self._seed * 1_000_003 + step,
        )
        return renamed.reshape(count, context)
