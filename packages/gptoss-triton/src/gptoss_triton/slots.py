"""What the GPU keeps for every running sequence: its page tables and how it samples.

A sequence that runs has a slot. Slot numbers index all arrays here, so a batch is described by its
slots and positions alone; sampled tokens stay on the device and feed the next step from there. One
spare slot serves the unused rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gptoss_harmony.engine import Sampling
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

    def __init__(self, count: int, *, context: int, vocabulary: int, device: torch.device) -> None:
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
        return self.there(torch.tensor(values, dtype=torch.int32))

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

    def set_sampling(self, settings: Mapping[int, tuple[Sampling, int]]) -> None:
        """Write how slots sample; thresholds are open until they are found.

        Args:
            settings: sampling and seed by slot.
        """
        if not settings:
            return
        slots = self.send(list(settings)).long()
        floats = [(s.temperature, s.top_p, s.min_p, float("-inf")) for s, _ in settings.values()]
        columns = self.there(torch.tensor(floats, dtype=torch.float32).t().contiguous())
        draw = self.draw
        targets = (draw.temperature, draw.top_p, draw.min_p, draw.threshold)
        for target, column in zip(targets, columns, strict=True):
            target[slots] = column
        draw.top_k[slots] = self.send([s.top_k for s, _ in settings.values()])
        seeds = torch.tensor([seed for _, seed in settings.values()], dtype=torch.int64)
        draw.seed[slots] = self.there(seeds)

    def there(self, tensor: Tensor) -> Tensor:
        """Send without waiting for the device."""
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
