"""From the bytes of a file to a tensor on a device, at the speed of the disk or the bus.

On a CPU a tensor is the mapped file itself: pages come when they are used and cost no memory of
their own. To an accelerator a few threads copy pieces into page-locked buffers, two each, and send
one while they fill the other; the host never holds more than those buffers.

    stager = Stager(torch.device("cuda"))
    weight = stager.send(array)     # at once, filled in the background
    stager.finish()                 # all of them are there
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_harmony.checkpoint import Part
from gptoss_harmony.errors import CheckpointError

THREADS = 4
PIECE_BYTES = 16 << 20  # of one buffer; THREADS * 2 of them are page-locked
_TORCH_TYPES = {"BF16": torch.bfloat16, "U8": torch.uint8}
_CARRIERS = {"BF16": np.int16, "U8": np.uint8}  # numpy has no bf16: its bits travel


def map_part(part: Part) -> Tensor:
    """A tensor over the bytes of a file, in canonical axis order.

    Writing to it changes a private copy of the page, never the file.

    Args:
        part: where the bytes lie.

    Returns:
        bf16 or uint8, on the CPU.

    Raises:
        CheckpointError: the file has changed or gone since it was opened.
    """
    kind = _CARRIERS[part.dtype]
    try:
        array = np.asarray(np.memmap(part.path, kind, "c", part.start, part.shape))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{part.path} changed since it was opened: {error}") from error
    if not array.flags.aligned:
        array = array.copy()
    tensor = torch.from_numpy(array).view(_TORCH_TYPES[part.dtype])
    return tensor.transpose(-1, -2) if part.transposed else tensor


class Stager:
    """Sends host tensors to one device in the background.

    Args:
        device: a CUDA device; a CPU works too, for tests.
        piece_bytes: of one staging buffer.
    """

    def __init__(self, device: torch.device, *, piece_bytes: int = PIECE_BYTES) -> None:
        self.device = device
        self.piece_bytes = piece_bytes
        self._pool = ThreadPoolExecutor(THREADS)
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(THREADS):
            self._lanes.put(_Lane(device, piece_bytes))
        self._jobs: list[Future[None]] = []

    def send(self, source: Tensor) -> Tensor:
        """Start copying a host tensor of any strides.

        Args:
            source: on the CPU; must stay unchanged until `finish`.

        Returns:
            A contiguous tensor on the device, valid after `finish`.
        """
        target = torch.empty(source.shape, dtype=source.dtype, device=self.device)
        for piece, place in _pieces(source, target, self.piece_bytes):
            self._jobs.append(self._pool.submit(self._copy, piece, place))
        return target

    def _copy(self, source: Tensor, target: Tensor) -> None:
        """Copy one piece through whichever lane is free."""
        lane = self._lanes.get()
        try:
            lane.copy(source, target)
        finally:
            self._lanes.put(lane)

    def finish(self) -> None:
        """Wait until everything sent has arrived; raises what a copy raised."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Stop the threads; pieces not yet started are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Lane:
    """Two staging buffers and, on CUDA, a stream of their own."""

    def __init__(self, device: torch.device, piece_bytes: int) -> None:
        cuda = device.type == "cuda"
        self.device = device
        self.buffers = [
            torch.empty(piece_bytes, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)
        ]
        self.stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self.sent: list[torch.cuda.Event | None] = [None, None]
        self.turn = 0

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Fill a buffer, as soon as its last use is over, and send it."""
        turn, self.turn = self.turn, 1 - self.turn
        if (event := self.sent[turn]) is not None:
            event.synchronize()
        stage = self.buffers[turn][: source.nbytes].view(source.dtype).view(source.shape)
        # numpy copies on this thread alone and without the interpreter lock; torch would start a
        # team of threads in every lane.
        np.copyto(_bits(stage), _bits(source))
        if self.stream is None:
            target.copy_(stage)
            return
        # The target's memory may just have been given back by work queued on the main stream.
        self.stream.wait_stream(torch.cuda.default_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(stage, non_blocking=True)
            self.sent[turn] = self.stream.record_event()


def _bits(tensor: Tensor) -> NDArray[Any]:
    """A numpy view of a host tensor; bf16 as its bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _pieces(source: Tensor, target: Tensor, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut both alike along the leading axes until a piece fits the limit.

    (32, 5760, 90, 16) bytes and a limit of 16 MiB give 32 x 1 pieces of (1, 5760, 90, 16); a limit
    of 4 MiB cuts each of those along the next axis.
    """
    if source.nbytes <= limit or source.dim() == 0:
        if source.numel():
            yield source, target
        return
    row = math.prod(source.shape[1:]) * source.itemsize
    if row > limit:
        for inner_source, inner_target in zip(source, target, strict=True):
            yield from _pieces(inner_source, inner_target, limit)
        return
    step = max(1, limit // row)
    for start in range(0, len(source), step):
        yield source[start : start + step], target[start : start + step]
