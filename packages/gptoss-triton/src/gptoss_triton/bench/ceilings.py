"""How fast the card could be: bytes and operations of a step over the rates it shows in this run.

A decode step must read every weight it uses once, and the keys and values of its sequences. How
many experts that is depends on the routing, so the benchmark counts them: a random model's tokens
agree on far fewer than the E (1 - (1 - K/E)^B) of uniform routing, which would flatter the share.
Prompt chunks are bound by multiplications instead.

Dimensions: B sequences, T tokens, N model width, I expert width, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gptoss_harmony.config import ModelConfig

COPY_BYTES = 2 << 30
GEMM_SIZE = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the card does in this run.

    Attributes:
        bandwidth: bytes per second, read and written, of a large copy.
        gemm: bf16 operations per second of a large product of random matrices.
    """

    bandwidth: float
    gemm: float


def elapsed(function: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, the median of five timed runs after a warm-up."""
    function()
    times = []
    for _ in range(5):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        stop = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(repeats):
            function()
        stop.record()
        torch.cuda.synchronize()
        times.append(float(start.elapsed_time(stop)) / repeats / 1000)
    return sorted(times)[2]


def measure_rates(device: torch.device) -> Rates:
    """Copy 2 GiB and multiply two large matrices."""
    copy = _copy_seconds(device)
    shape = (GEMM_SIZE, GEMM_SIZE)
    left, right = (torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
    out = torch.empty_like(left)
    product = elapsed(lambda: torch.mm(left, right, out=out), 10)
    return Rates(bandwidth=2 * COPY_BYTES / copy, gemm=2 * GEMM_SIZE**3 / product)


def _copy_seconds(device: torch.device) -> float:
    """Of COPY_BYTES, as 8-byte elements: a copy of single bytes is slower than the memory."""
    source = torch.randint(0, 2**62, (COPY_BYTES // 8,), dtype=torch.int64, device=device)
    target = torch.empty_like(source)
    return elapsed(lambda: target.copy_(source), 4)


def expert_bytes(config: ModelConfig) -> float:
    """Both matrices of one expert: 4.25 bits a weight, and biases of 16."""
    weights = 3 * config.hidden_size * config.intermediate_size
    return weights * 17 / 32 + 2 * (2 * config.intermediate_size + config.hidden_size)


def distinct_experts(config: ModelConfig, tokens: int) -> float:
    """Experts of a layer that so many tokens use, if all are equally likely."""
    experts, chosen = config.num_experts, config.experts_per_token
    return experts * (1 - (1 - chosen / experts) ** tokens)


def dense_weights(config: ModelConfig) -> int:
    """Weights of a layer outside its experts: projections and router, biases left aside."""
    attention = config.num_attention_heads * config.head_dim
    return (config.qkv_size + attention + config.num_experts) * config.hidden_size


def decode_bytes(config: ModelConfig, batch: int, context: int, distinct: float) -> float:
    """Bytes that one step must read.

    Args:
        config: sizes.
        batch: sequences.
        context: tokens of each.
        distinct: experts of a layer that the step uses, on average over the layers.
    """
    experts = distinct * expert_bytes(config)
    weights = config.num_hidden_layers * (2 * dense_weights(config) + experts)
    weights += 2 * config.vocab_size * config.hidden_size
    kept = 0
    for layer in range(config.num_hidden_layers):
        window = config.window(layer)
        kept += context if window is None else min(context, window)
    return weights + batch * kept * 4 * config.num_key_value_heads * config.head_dim


def prefill_operations(config: ModelConfig, tokens: int) -> float:
    """Multiplications and additions of reading a prompt; logits of its last token only."""
    expert = 3 * config.hidden_size * config.intermediate_size
    layer = dense_weights(config) + config.experts_per_token * expert
    heads = config.num_attention_heads * config.head_dim
    pairs = 0.0
    for index in range(config.num_hidden_layers):
        window = config.window(index) or tokens
        full = min(window, tokens)
        pairs += full * (full + 1) / 2 + max(0, tokens - full) * full
    return 2.0 * layer * config.num_hidden_layers * tokens + 4.0 * heads * pairs


def decode_ceiling(
    config: ModelConfig, rates: Rates, batch: int, context: int, *, distinct: float
) -> float:
    """Tokens per second if every byte came at the measured bandwidth; see `decode_bytes`."""
    return batch * rates.bandwidth / decode_bytes(config, batch, context, distinct)


def prefill_ceiling(config: ModelConfig, rates: Rates, tokens: int) -> float:
    """Tokens per second if every operation ran at the measured rate."""
    return tokens * rates.gemm / prefill_operations(config, tokens)
