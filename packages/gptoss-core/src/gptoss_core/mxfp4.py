"""MXFP4 in torch, on the device where the weights are: the twin of `gptoss_harmony.mxfp4`.

32 consecutive elements of a row share a scale; a byte holds the even element in its low nibble and
the odd one in its high nibble; value = code * 2^(scale - 127) (OCP Microscaling Formats v1.0).

Dimensions: R rows, B blocks of 32 elements in a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptoss_harmony.config import MXFP4_BLOCK
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.mxfp4 import NAN_SCALE, VALUES

# Where rounding passes to the next code; a tie goes to the code whose last bit is 0.
_MIDPOINTS = ((0.25, 0), (0.75, 1), (1.25, 0), (1.75, 1), (2.5, 0), (3.5, 1), (5.0, 0))


def tables(dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """What unpacking looks up.

    Args:
        dtype: of the expanded values; bf16 holds them exactly (from 2**128 on they are infinite, as
            in float32).
        device: of the packed bytes.

    Returns:
        pairs: (256, 2), the values of a byte's two codes.
        powers: (256,), 2^(scale - 127); NaN for scale 255, which loaders refuse.
    """
    values = torch.tensor([*VALUES, *(-value for value in VALUES)], device="cpu")
    byte = torch.arange(256, device="cpu")
    pairs = torch.stack([values[byte & 15], values[byte >> 4]], dim=-1)  # (256, 2)
    powers = torch.ldexp(torch.ones(256, dtype=torch.float64, device="cpu"), byte - 127)
    powers[NAN_SCALE] = torch.nan
    return pairs.to(dtype).to(device), powers.to(dtype).to(device)


def unpack(blocks: Tensor, scales: Tensor, pairs: Tensor, powers: Tensor) -> Tensor:
    """Expand to the dtype of the tables, exactly.

    Args:
        blocks: (R, B, 16) uint8.
        scales: (R, B) uint8.
        pairs: (256, 2) from `tables`.
        powers: (256,) from `tables`.

    Returns:
        (R, 32 B).
    """
    rows, count = scales.shape
    values = pairs.index_select(0, blocks.reshape(-1).int())  # (R B 16, 2)
    values = values.view(rows, count, MXFP4_BLOCK)  # (R, B, 32)
    values *= powers[scales.int()][..., None]
    return values.view(rows, count * MXFP4_BLOCK)  # (R, 32 B)


def pack(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round to MXFP4, giving the same bytes as `gptoss_harmony.mxfp4.pack`.

    The scale is floor(log2(largest magnitude)) - 2; elements go to nearest, ties to even, and a
    largest magnitude between 6 and 8 saturates.

    Args:
        values: (..., C) floating, C a multiple of 32; taken as float32.

    Returns:
        blocks: (..., C/32, 16) uint8.
        scales: (..., C/32) uint8.

    Raises:
        CheckpointError: a value is NaN or infinite, or C is not a multiple of 32.
    """
    if values.shape[-1] % MXFP4_BLOCK:
        raise CheckpointError(
            f"MXFP4 shares a scale between {MXFP4_BLOCK} values of the last axis, so it must be a "
            f"multiple of {MXFP4_BLOCK}; the shape is {tuple(values.shape)}"
        )
    grid = *values.shape[:-1], values.shape[-1] // MXFP4_BLOCK, MXFP4_BLOCK
    values = values.float().reshape(grid)  # (..., B, 32)
    magnitude = values.abs()
    largest = magnitude.amax(dim=-1)  # (..., B)
    if not bool(torch.isfinite(largest).all()):
        raise CheckpointError("MXFP4 cannot hold NaN or infinity: weights must be finite")
    # The exponent field of a float32 is floor(log2) + 127, and 0 below the smallest normal number.
    exponent = (largest.view(torch.int32) >> 23) & 0xFF
    scale = (exponent - 2).clamp_min(0)  # (..., B)
    scaled = torch.ldexp(magnitude, (127 - scale)[..., None])
    codes = torch.zeros_like(scaled, dtype=torch.uint8)
    for midpoint, tie_goes_up in _MIDPOINTS:
        codes += (scaled >= midpoint) if tie_goes_up else (scaled > midpoint)
    codes |= torch.signbit(values).to(torch.uint8) << 3
    return codes[..., ::2] | (codes[..., 1::2] << 4), scale.to(torch.uint8)
