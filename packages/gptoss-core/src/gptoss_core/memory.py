"""What fits: memory that is free, what keys and values take, and how running out looks.

Keys and values of one token take 2 · G · D elements a layer (G kv heads of D). Layers that see
all hold all tokens; windowed layers hold `sliding_window` tokens, once more in each snapshot.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from gptoss_harmony.config import ModelConfig

# Share of the memory left after loading that caches may take. The rest is for activations and, on a
# CPU, for the other programs of the computer.
CACHE_SHARE = {"cpu": 0.25, "mps": 0.4, "cuda": 0.7}
SNAPSHOT_SPACING = 256  # tokens between the ring cache's own snapshots
MAX_SNAPSHOTS = 32


def cache_bytes(config: ModelConfig, tokens: int, dtype: torch.dtype) -> int:
    """The least that a ring cache of `tokens` tokens takes: no snapshots, no room for growth."""
    slot = 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize
    held = 0
    for layer in range(config.num_hidden_layers):
        window = config.window(layer)
        held += tokens if window is None else min(tokens, window)
    return slot * held


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return _free_host_bytes()


def _free_host_bytes() -> int | None:
    """What Linux says programs could get; elsewhere all memory there is, as a bound."""
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def peak_bytes(device: torch.device) -> int:
    """Most bytes that PyTorch ever held on an accelerator; 0 on a CPU, where it does not count."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; each device says it in its own way."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
