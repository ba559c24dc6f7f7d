"""What caches take, and how running out of memory is recognised."""

from __future__ import annotations

import pytest
import torch

from gptoss_core.cache import RingCache
from gptoss_core.memory import cache_bytes, free_bytes, is_out_of_memory, peak_bytes
from gptoss_harmony.config import gpt_oss_20b
from gptoss_harmony.random_checkpoint import tiny_config


@pytest.mark.parametrize("tokens", [1, 100, 128, 129, 1000])
def test_a_cache_takes_at_least_what_is_foreseen(tokens: int) -> None:
    config = tiny_config(num_hidden_layers=4)
    cache = RingCache(config, block=10**6)
    shape = tokens, config.num_key_value_heads, config.head_dim
    for layer in range(config.num_hidden_layers):
        cache.append(layer, torch.zeros(shape), torch.zeros(shape))
    foreseen = cache_bytes(config, tokens, torch.float32)
    assert foreseen <= cache.nbytes() <= 2 * max(foreseen, cache_bytes(config, 64, torch.float32))


def test_the_published_sizes() -> None:
    """24 KiB a token at long context, as half of the 24 layers are windowed."""
    config = gpt_oss_20b()
    grown = cache_bytes(config, 100_000, torch.bfloat16) - cache_bytes(config, 1000, torch.bfloat16)
    assert grown == 99_000 * 24 * 1024


def test_a_device_knows_its_memory() -> None:
    device = torch.device("cpu")
    free = free_bytes(device)
    assert free is None or free > 2**20
    assert peak_bytes(device) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocator_really_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
