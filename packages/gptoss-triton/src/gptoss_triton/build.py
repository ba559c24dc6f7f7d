"""Puts an engine's parts together: device, checkpoint, memory plan, weights, pages, scheduler."""

from __future__ import annotations

import contextlib
import gc
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from gptoss_harmony.checkpoint import Checkpoint
from gptoss_harmony.config import ModelConfig
from gptoss_triton.cache import PAGE_SIZE, PagedCache, page_bytes
from gptoss_triton.errors import UnsupportedGpu
from gptoss_triton.memory import MemoryPlan, plan_memory
from gptoss_triton.model import Model
from gptoss_triton.options import TritonOptions
from gptoss_triton.pages import PagePool
from gptoss_triton.runner import Runner
from gptoss_triton.scheduler import Scheduler
from gptoss_triton.slots import Slots
from gptoss_triton.tuning import Tuning
from gptoss_triton.weights import DTYPE, ModelWeights, load_weights


@dataclass(slots=True, kw_only=True)
class Machine:
    """A model that is ready to run, and what plans its work.

    Attributes:
        config: sizes of the model.
        device: where it is.
        memory: the plan it was built by.
        scheduler: plans steps.
        runner: runs them; useless after `free`.
    """

    config: ModelConfig
    device: torch.device
    memory: MemoryPlan
    scheduler: Scheduler
    runner: Runner

    @property
    def device_name(self) -> str:
        """For people."""
        if self.device.type != "cuda":
            return f"{self.device} (interpreter)"
        note = "" if self.runner.model.tuning.measured else ", tile sizes not measured on it"
        return f"{self.device} ({torch.cuda.get_device_name(self.device)}{note})"

    @property
    def page_bytes(self) -> tuple[int, int]:
        """Of one full and one windowed page."""
        return page_bytes(self.config, self.runner.model.dtype.itemsize)

    def peak_bytes(self) -> int:
        """Most bytes that PyTorch ever held on the GPU."""
        if self.device.type != "cuda":
            return 0
        return torch.cuda.max_memory_allocated(self.device)

    def on_device(self) -> AbstractContextManager[object]:
        """What the worker thread runs in."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.cuda.device(self.device)

    def free(self) -> None:
        """Give the GPU's memory back."""
        self.runner.close()
        self.runner.model.forget()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def check_device(name: str) -> torch.device:
    """The CUDA device of that name.

    Raises:
        UnsupportedGpu: no CUDA, no such device, or a card that is too old.
    """
    if not name.startswith("cuda"):
        raise UnsupportedGpu(
            f"engine triton runs on NVIDIA GPUs, not on {name!r}: give --device cuda, or use "
            "`--engine torch` or `--engine metal`"
        )
    if not torch.cuda.is_available():
        raise UnsupportedGpu(
            "no CUDA GPU is usable here (no card, no driver, or a PyTorch without CUDA; "
            "`nvidia-smi` shows which): use `--engine torch` or `--engine metal`"
        )
    device = torch.device(name)
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise UnsupportedGpu(f"{name} is not here; there are {torch.cuda.device_count()} GPUs")
    device = torch.device("cuda", index)
    Tuning.for_device(device)
    return device


def open_checkpoint(checkpoint: str) -> Checkpoint:
    """Find and check a checkpoint; see `Checkpoint.open`."""
    return Checkpoint.open(checkpoint)


def build_machine(
    source: Checkpoint | ModelWeights, device: torch.device, options: TritonOptions
) -> Machine:
    """Plan the memory, load the weights unless they are there already, and set up the rest.

    Args:
        source: a checkpoint, or weights on `device`.
        device: a CUDA device; a CPU runs the interpreter, for tests.
        options: limits.

    Raises:
        OutOfMemory: said before anything is loaded.
    """
    config = source.config
    memory = plan_memory(config, _capacity(source, device, options), options)
    if device.type == "cuda":
        # Of the whole process: products of float16 are added up in float32, between programs too.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    if isinstance(source, Checkpoint):
        dtype = DTYPE if device.type == "cuda" else torch.float32
        weights = load_weights(source, device, dtype=dtype)
    else:
        weights = source
    cache = PagedCache.empty(
        config,
        full_pages=memory.full_pages,
        window_pages=memory.window_pages,
        device=device,
        dtype=weights.dtype,
    )
    tuning = Tuning.for_device(device)
    model = Model(
        weights,
        cache,
        tuning.fixed() if options.deterministic else tuning,
        max_decode=memory.max_batch,
        max_tokens=memory.step_tokens,
    )
    slots = Slots(
        memory.max_batch, context=memory.context, vocabulary=config.vocab_size, device=device
    )
    scheduler = Scheduler(
        PagePool(memory.full_pages),
        PagePool(memory.window_pages),
        page=PAGE_SIZE,
        window=config.sliding_window,
        slots=memory.max_batch,
        budget=memory.step_tokens,
        # What was read again, or read by somebody else, may differ in its last bits.
        reuse=options.prefix_reuse and not options.deterministic,
        reserve=options.deterministic,
    )
    return Machine(
        config=config,
        device=device,
        memory=memory,
        scheduler=scheduler,
        runner=Runner(model, slots, graphs=options.graphs),
    )


def _capacity(
    source: Checkpoint | ModelWeights, device: torch.device, options: TritonOptions
) -> int:
    """Bytes that the engine may use, weights included."""
    if device.type != "cuda":
        return 2 << 30  # the interpreter's models are tiny
    free, total = torch.cuda.mem_get_info(device)
    if isinstance(source, ModelWeights):
        free += torch.cuda.memory_allocated(device)
    return min(int(total * options.gpu_memory), free)
