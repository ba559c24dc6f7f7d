"""Straight-through fake quantisation: forward sees rounded weights, gradients the real ones.

    y = w + (round(w) - w).detach()        # value of round(w), gradient of w

`mxfp4` rounds as `gptoss_harmony.mxfp4.pack` does, `int8_rows` as
`gptoss_harmony.nano_rows.quantise_rows`; tests hold them together, so what is trained is what is
stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 32  # neighbours on the last axis that share a scale
LARGEST_EXPONENT = 2  # of an E2M1 element: 6 = 1.5 * 2**2
SMALLEST_SCALE, LARGEST_SCALE = -127, 127


def straight_through(weight: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded` with the gradient of `weight`."""
    return weight + (rounded - weight).detach()


def mxfp4(weight: Tensor) -> Tensor:
    """Round to the values that MXFP4 can hold, blocks of 32 along the last axis.

    Args:
        weight: (..., C) float32, C a multiple of 32.

    Returns:
        (..., C) float32.
    """
    blocks = weight.reshape(*weight.shape[:-1], -1, BLOCK)  # (..., C / 32, 32)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    exponent = torch.frexp(largest).exponent - 1 - LARGEST_EXPONENT
    exponent = exponent.clamp(SMALLEST_SCALE, LARGEST_SCALE)
    scaled = torch.ldexp(blocks, -exponent).abs()
    # Steps of the grid 0 .5 1 1.5 2 3 4 6: 0.5 below 2, 1 below 4, 2 above; ties go to even codes.
    step = torch.where(scaled < 2, 0.5, torch.where(scaled < 4, 1.0, 2.0))
    rounded = (torch.round(scaled / step) * step).clamp(max=6.0)
    rounded = torch.copysign(torch.ldexp(rounded, exponent), blocks)
    return torch.where(largest > 0, rounded, blocks).flatten(-2)


def int8_rows(rows: Tensor) -> Tensor:
    """Round each row to q * 2**e with |q| <= 127 and the smallest e that fits.

    Args:
        rows: (n, N) float32.
    """
    largest = rows.abs().amax(dim=-1, keepdim=True)  # (n, 1)
    mantissa, exponent = torch.frexp(largest / 127)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    return torch.ldexp(torch.round(torch.ldexp(rows, -exponent)), exponent)
