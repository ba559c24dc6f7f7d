"""MXFP4 in torch, on the device where the weights are: the twin of `gptoss_harmony.mxfp4`.

32 consecutive elements of a row share a scale; a byte holds the even element in its low nibble and
the odd one in its high nibble; value = code * 2^(scale - 127) (OCP Microscaling Formats v1.0).

Dimensions: R rows, B blocks of 32 elements in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_harmony.config import MXFP4_BLOCK
from gptoss_harmony.errors import CheckpointError
from gptoss_harmony.mxfp4 import NAN_SCALE, VALUES

# The dtype that moves so many bytes as one element; its meaning does not matter.
_WORDS = {4: torch.int32, 8: torch.int64, 16: torch.complex128}
# Where rounding passes to the next code; a tie goes to the code whose last bit is 0.
_MIDPOINTS = ((0.25, 0), (0.75, 1), (1.25, 0), (1.75, 1), (2.5, 0), (3.5, 1), (5.0, 0))


@dataclass(frozen=True, slots=True)
class Tables:
    """What unpacking looks up; made once and shared by all weights of a model.

    Attributes:
        words: (256,) or (65536,): the bits of the 2 values of each byte, or of the 4 of each pair
            of bytes, as one number.
        powers: (256,) 2^(scale - 127); NaN for scale 255, which loaders refuse.
    """

    words: Tensor
    powers: Tensor


def tables(dtype: torch.dtype, device: torch.device | str) -> Tables:
    """Make the tables.

    Args:
        dtype: of the expanded values; bf16 holds them exactly (from 2**128 on they are infinite, as
            in float32).
        device: of the packed bytes. A CPU looks up two bytes at once, from half a megabyte that
            stays in its cache; an accelerator one byte, from a table that fits any.
    """
    values = torch.tensor([*VALUES, *(-value for value in VALUES)], device="cpu")
    byte = torch.arange(256, device="cpu")
    entries = torch.stack([values[byte & 15], values[byte >> 4]], dim=-1)  # (256, 2)
    if torch.device(device).type == "cpu":
        both = torch.arange(65536, device="cpu")
        entries = torch.cat([entries[both & 255], entries[both >> 8]], dim=-1)  # (65536, 4)
    entries = entries.to(dtype)
    words = entries.view(_WORDS[entries[0].nbytes]).flatten()
    powers = torch.ldexp(torch.ones(256, dtype=torch.float64, device="cpu"), byte - 127)
    powers[NAN_SCALE] = torch.nan
    return Tables(words.to(device), powers.to(dtype).to(device))


def unpack(blocks: Tensor, scales: Tensor, lookup: Tables) -> Tensor:
    """Expand to the dtype of the tables, exactly.

    Args:
        blocks: (R, B, 16) uint8.
        scales: (R, B) uint8.
        lookup: from `tables`.

    Returns:
        (R, 32 B).
    """
    rows, count = scales.shape
    index = blocks.reshape(-1)  # (R B 16)
    if len(lookup.words) > 256:
        index = index.view(torch.uint16)  # (R B 8), the first byte in the low half
    words = lookup.words.index_select(0, index.to(torch.int32))
    values = words.view(lookup.powers.dtype).view(rows, count, MXFP4_BLOCK)  # (R, B, 32)
    values *= lookup.powers.index_select(0, scales.reshape(-1).int()).view(rows, count, 1)
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
