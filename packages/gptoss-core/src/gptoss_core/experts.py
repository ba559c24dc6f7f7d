"""The experts of one layer: packed in MXFP4 or expanded, applied to tokens grouped by expert.

`mlp1_weight` and `mlp2_weight` are either `nn.Parameter`s of shape (E, rows, columns) (dense) or
`PackedWeight`s (packed), whose item e is expert e's matrix, expanded when it is asked for. The
equation below is the same for both: each expert that was chosen is taken once, for all its tokens.

Dimensions: T tokens, N model width, I expert width, E experts, K experts chosen per token,
B MXFP4 blocks of 32 elements in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptoss_core import mxfp4, ops
from gptoss_harmony.config import MXFP4_BLOCK


class PackedWeight(nn.Module):
    """E matrices kept in MXFP4; item e is expanded to `dtype` on request and not kept.

    Args:
        blocks: (E, rows, B, 16) uint8.
        scales: (E, rows, B) uint8.
        dtype: of the expanded matrices; bf16 holds every MXFP4 value exactly.
        tables: what to look up, to share between weights; made here unless given.
    """

    blocks: Tensor
    scales: Tensor
    words: Tensor
    powers: Tensor

    def __init__(
        self,
        blocks: Tensor,
        scales: Tensor,
        *,
        dtype: torch.dtype,
        tables: mxfp4.Tables | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("blocks", blocks)
        self.register_buffer("scales", scales)
        tables = tables or mxfp4.tables(dtype, blocks.device)
        self.register_buffer("words", tables.words, persistent=False)
        self.register_buffer("powers", tables.powers, persistent=False)

    @property
    def shape(self) -> torch.Size:
        """(E, rows, columns) of the expanded matrices."""
        return torch.Size((*self.scales.shape[:2], MXFP4_BLOCK * self.scales.shape[2]))

    def __getitem__(self, expert: int) -> Tensor:
        """Expert's matrix: (rows, columns)."""
        lookup = mxfp4.Tables(self.words, self.powers)
        return mxfp4.unpack(self.blocks[expert], self.scales[expert], lookup)


ExpertWeight: TypeAlias = nn.Parameter | PackedWeight


def empty_weight(
    shape: tuple[int, int, int], experts: str, *, device: torch.device, dtype: torch.dtype
) -> ExpertWeight:
    """A weight of (E, rows, columns) to be filled: a parameter, or packed zeros."""
    if experts == "dense":
        return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
    count, rows, columns = shape
    blocks = torch.zeros(count, rows, columns // MXFP4_BLOCK, 16, device=device, dtype=torch.uint8)
    scales = torch.zeros(count, rows, columns // MXFP4_BLOCK, device=device, dtype=torch.uint8)
    return PackedWeight(blocks, scales, dtype=dtype)


def matrices(weight: ExpertWeight) -> Sequence[Tensor] | PackedWeight:
    """What to index by expert; unbinding a parameter once keeps its backward pass to one stack."""
    return weight.unbind(0) if isinstance(weight, Tensor) else weight


def apply_experts(
    x: Tensor,
    weights: Tensor,
    indices: Tensor,
    *,
    mlp1: tuple[ExpertWeight, Tensor],
    mlp2: tuple[ExpertWeight, Tensor],
    limit: float,
) -> Tensor:
    """Sum over the chosen experts of weight * (down(swiglu(up(x))) with both biases).

    Args:
        x: (T, N).
        weights: (T, K) float32 from `ops.route`.
        indices: (T, K) int64 from `ops.route`.
        mlp1: fused gate and up projection, (E, 2 I, N), and its bias (E, 2 I).
        mlp2: down projection, (E, N, I), and its bias (E, N).
        limit: of `ops.swiglu`.

    Returns:
        (T, N) float32. Experts are summed in the order of their numbers, so a token's result does
        not depend on the tokens beside it.
    """
    (up, up_bias), (down, down_bias) = (
        (matrices(weight), bias.unbind(0)) for weight, bias in (mlp1, mlp2)
    )
    chosen = indices.flatten()  # (T K)
    order = torch.argsort(chosen, stable=True)
    token = order // indices.shape[-1]  # the token of each assignment, grouped by expert
    share = weights.flatten()[order][:, None]
    out = x.new_zeros(x.shape, dtype=torch.float32)
    start = 0
    for expert, count in enumerate(torch.bincount(chosen).tolist()):
        if count == 0:
            continue
        group = slice(start, start + count)
        start += count
        hidden = functional.linear(x[token[group]], up[expert], up_bias[expert])  # (group, 2 I)
        hidden = ops.swiglu(hidden, limit)  # (group, I)
        result = functional.linear(hidden, down[expert], down_bias[expert])  # (group, N)
        out.index_add_(0, token[group], result.float() * share[group])
    return out
