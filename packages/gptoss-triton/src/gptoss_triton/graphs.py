"""CUDA graphs of a decode step: forward pass and draw, captured once for each batch size.

A step of one token a sequence is 170 small kernels; launching them one by one costs more time than
they run. A graph is captured the first time a batch size is needed (a few tenths of a second) and
replayed from then on. Sizes are rounded up to a bucket; unused rows have position -1, and kernels
skip them. The graphs share one memory pool and one place for logits, since only one runs at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptoss_triton.model import Batch, Model
from gptoss_triton.sample import draw
from gptoss_triton.slots import Slots

STAGES = 4  # batches described on the host at once; a step is at most two ahead


def buckets_up_to(largest: int) -> list[int]:
    """Batch sizes worth a graph: 1, 2, 4, 6, 8, then ever wider steps."""
    sizes = [1, 2, 4, 6, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] + 64)
    return [size for size in sizes if size < largest] + [largest]


class DecodeGraphs:
    """Runs decode steps; call everything from one thread, on one stream.

    Args:
        model: the model.
        slots: tables, settings and the tokens drawn last.
        enabled: off runs the same kernels one by one.
    """

    def __init__(self, model: Model, slots: Slots, *, enabled: bool = True) -> None:
        self.model, self.slots = model, slots
        self.enabled = enabled and slots.device.type == "cuda"
        self.buckets = buckets_up_to(slots.count)
        self._captured: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # torch's handle of a memory pool
        largest, device = self.buckets[-1], slots.device
        cuda = device.type == "cuda"
        self._inputs = torch.zeros((2, largest), dtype=torch.int32, device=device)
        self._rows = torch.arange(largest, dtype=torch.int32, device=device)
        self._staged = [
            torch.empty((2, largest), dtype=torch.int32, pin_memory=cuda) for _ in range(STAGES)
        ]
        shape = (largest if self.enabled else 0, model.config.vocab_size)
        self._logits = torch.empty(shape, dtype=torch.float32, device=device)
        self._turn = 0

    def bucket(self, rows: int) -> int:
        """The batch size that serves so many rows."""
        return next(size for size in self.buckets if size >= rows)

    def step(self, rows: Sequence[tuple[int, int]]) -> Tensor:
        """Compute one token for each (slot, position); the draws land in the slots.

        Returns:
            (bucket, V) logits, valid until the next step; rows past the given ones are unused.
        """
        size = self.bucket(len(rows)) if self.enabled else len(rows)
        self._turn = (self._turn + 1) % STAGES
        staged = self._staged[self._turn][:, :size]
        unused = [(self.slots.spare, -1)] * (size - len(rows))
        staged.copy_(torch.tensor([*rows, *unused], dtype=torch.int32).t())
        self._inputs[:, :size].copy_(staged, non_blocking=True)
        if not self.enabled:
            return self._run(size, None)
        if size not in self._captured:
            self._captured[size] = self._capture(size)
        self._captured[size].replay()
        return self._logits[:size]

    def close(self) -> None:
        """Forget all graphs and what they write to."""
        self._captured.clear()
        self._pool = None
        self._logits = self._logits.new_empty(0)

    @property
    def positions(self) -> Tensor:
        """Of the rows of the step launched last, (largest bucket,) int32."""
        return self._inputs[1]

    def _run(self, size: int, out: Tensor | None) -> Tensor:
        """One step over the static inputs; its logits go to `out`, or to new memory."""
        slots, positions = self._inputs[0, :size], self._inputs[1, :size]
        settings = self.slots.draw
        logits = self.model.forward(
            Batch(
                tokens=settings.token,
                sources=slots,
                positions=positions,
                sequences=slots,
                full_table=self.slots.full_table,
                window_table=self.slots.window_table,
                decode=size,
            ),
            out,
        )
        launch = self.model.tuning.launch("draw", size)
        draw(logits, logits, self._rows[:size], slots, positions, settings, launch=launch)
        return logits

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Compile everything by a run without live rows, then record the graph."""
        kept = self._inputs.clone()
        self._inputs[0] = self.slots.spare
        self._inputs[1] = -1
        stream = torch.cuda.Stream(self.slots.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run(size, self._logits[:size])
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._run(size, self._logits[:size])
        self._pool = self._pool or graph.pool()
        self._inputs.copy_(kept)
        return graph
