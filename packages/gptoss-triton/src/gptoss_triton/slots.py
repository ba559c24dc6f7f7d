"""What the GPU keeps for every running sequence: its page tables and how it samples.

A sequence that runs has a slot. Slot numbers index all arrays here, so a batch is described by its
slots and positions alone; sampled tokens stay on the device and feed the next step from there. One
spare slot serves the unused rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptoss_triton.model import pages_for
from gptoss_triton.sample import Draw


class Slots:
    """Arrays for `count` sequences and the spare slot.

    Args:
        count: most sequences that run at once.
        context: most positions of one.
        vocabulary: rows of the unembedding.
        device: where.
    """

    def __init__(
        self, count: int, *, context: int, vocabulary: int, device: torch.device
    ) -> None:
        self.count, self.device = count, device
        self.draw = Draw.empty(rows=count + 1, vocabulary=vocabulary, device=device)
        shape = (count + 1, pages_for(context))
        self.full_table = torch.zeros(shape, dtype=torch.int32, device=device)
        self.window_table = torch.zeros(shape, dtype=torch.int32, device=device)

    @property
    def spare(self) -> int:
        """The slot of unused rows."""
        return self.count

    def send(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """Integers from the host, without waiting for the device."""
        tensor = torch.tensor(values, dtype=torch.int32)
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def set_pages(self, changes: Sequence[tuple[bool, int, int, int]]) -> None:
        """Write page numbers.

        Args:
            changes: (of the windowed layers, slot, index in the table, page).
        """
        for windowed, table in ((False, self.full_table), (True, self.window_table)):
            rows = [change[1:] for change in changes if change[0] == windowed]
            if rows:
                slots, indices, pages = self.send(list(zip(*rows, strict=True))).unbind(0)
                table[slots.long(), indices.long()] = pages

    def set_sampling(
        self, slot: int, *, temperature: float, top_k: int, top_p: float, min_p: float, seed: int
    ) -> None:
        """Write how a slot samples; -inf keeps all tokens until thresholds are found."""
        draw = self.draw
        draw.temperature[slot] = temperature
        draw.top_k[slot] = top_k
        draw.top_p[slot] = top_p
        draw.min_p[slot] = min_p
        draw.seed[slot] = seed
        draw.threshold[slot] = float("-inf")
