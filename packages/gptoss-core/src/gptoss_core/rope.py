"""Rotary position embedding with YaRN's stretching (Peng et al., arXiv:2309.00071).

Pair i of a head is (x[i], x[i + D/2]) and turns by position * inverse_frequency[i]. Fast pairs
(more than `rope_ntk_beta` turns within the initial context) keep their frequency, slow ones (fewer
than `rope_ntk_alpha` turns) are slowed by `rope_scaling_factor`, and a linear ramp joins the two.
Its ends are not rounded to whole pairs: rounding them costs accuracy past the initial context.

Dimensions: T tokens, H heads, D head dim.

    cos, sin = rope_tables(config, torch.arange(T))   # (T, D/2) each
    q = apply_rope(q, cos, sin)                       # (T, H, D)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gptoss_harmony.config import ModelConfig


def concentration(config: ModelConfig) -> float:
    """The factor on cos and sin, so on q·k its square: 1.3466 for a stretch of 32."""
    if config.rope_scaling_factor <= 1:
        return 1.0
    return 0.1 * math.log(config.rope_scaling_factor) + 1.0


def correction_bounds(config: ModelConfig) -> tuple[float, float]:
    """The pair indices between which the ramp runs, unrounded: 8.0928 and 17.3980 in gpt-oss."""
    low, high = (
        config.head_dim
        / 2
        * math.log(config.initial_context_length / (turns * 2 * math.pi))
        / math.log(config.rope_theta)
        for turns in (config.rope_ntk_beta, config.rope_ntk_alpha)
    )
    return low, high


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Radians per position of each pair: (D/2,) float32, on the CPU."""
    half = config.head_dim // 2
    low, high = correction_bounds(config)
    frequencies = []
    for i in range(half):
        plain = config.rope_theta ** (-i / half)
        ramp = min(1.0, max(0.0, (i - low) / (high - low)))
        if config.rope_scaling_factor <= 1:
            ramp = 0.0
        frequencies.append(plain * (1 - ramp) + plain / config.rope_scaling_factor * ramp)
    return torch.tensor(frequencies, dtype=torch.float32, device="cpu")


def rope_tables(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, concentration included.

    Args:
        config: the model's sizes.
        positions: (T,) integers, counted from 0.

    Returns:
        cos, sin: (T, D/2) float32 on the device of `positions`.
    """
    turn = inverse_frequencies(config).to(positions.device)  # (D/2,)
    angles = positions[:, None].float() * turn  # (T, D/2)
    factor = concentration(config)
    return angles.cos() * factor, angles.sin() * factor


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate every head; the tables are rounded to the dtype of `x` first.

    So do the published code and Hugging Face's; the model was made with it.

    Args:
        x: (..., T, H, D) queries or keys.
        cos: (T, D/2).
        sin: (T, D/2).

    Returns:
        (..., T, H, D) in the dtype of `x`.
    """
    cos, sin = (table.to(x.dtype)[:, None, :] for table in (cos, sin))  # (T, 1, D/2)
    left, right = x.chunk(2, dim=-1)  # (..., T, H, D/2)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
