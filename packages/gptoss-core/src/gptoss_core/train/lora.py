"""Low-rank adapters (Hu et al., arXiv:2106.09685): W + (alpha / r) B A with only A and B trained.

The sum is formed anew at every step, so that fake quantisation sees the merged weight and saving is
the same expression: merged and unmerged are equal by construction, and experts get one pair each.

Dimensions: E experts, O outputs, J inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SUFFIXES = {
    "attention": (".attn.qkv.weight", ".attn.out.weight"),
    "router": (".mlp.gate.weight",),
    "experts": (".mlp.mlp1_weight", ".mlp.mlp2_weight"),
}


def is_target(name: str, targets: Sequence[str]) -> bool:
    """Whether the weight gets an adapter: `targets` are keys of SUFFIXES."""
    return any(name.endswith(suffix) for target in targets for suffix in SUFFIXES[target])


def adapter(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A fresh pair that changes nothing yet.

    Args:
        weight: (..., O, J).
        rank: R.
        generator: on the CPU, for A.

    Returns:
        a: (..., R, J), normal with variance 1 / J; b: (..., O, R), zero. Both float32.
    """
    *batch, outputs, inputs = weight.shape
    a = torch.randn(*batch, rank, inputs, generator=generator) * inputs**-0.5
    return a.to(weight.device), torch.zeros(*batch, outputs, rank, device=weight.device)


def merge(weight: Tensor, a: Tensor, b: Tensor, *, scale: float) -> Tensor:
    """(..., O, J) float32: weight + scale * b a."""
    return weight.float() + scale * (b @ a)
