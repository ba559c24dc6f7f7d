"""Attention inside packed rows: causal, windowed or full, and never across documents.

Dimensions: B rows, T positions, H query heads, G kv heads, D head dim.

    masks = document_masks(documents, window=128, flex=False)
    out, lse = attend(q, k, v, masks.full)      # as ops.attention: without the sink

Two implementations with one signature: plain matrix products with a boolean mask, for any device,
and PyTorch's flex_attention, compiled, which skips the blocks that a mask hides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

Mask = Any  # Tensor (B, T, T) of bool, True where a key is seen; or a flex_attention BlockMask
Attend = Callable[[Tensor, Tensor, Tensor, Mask], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Masks:
    """What the queries of the two kinds of layers see."""

    windowed: Mask
    full: Mask


def document_masks(documents: Tensor, *, window: int, flex: bool) -> Masks:
    """Masks of one batch.

    Args:
        documents: (B, T) int, number of each position's document.
        window: keys that a query of a windowed layer sees, itself included.
        flex: make block masks for `flex_attend` instead of tensors for `plain_attend`.
    """
    if flex:
        return Masks(_block_mask(documents, window), _block_mask(documents, None))
    place = torch.arange(documents.shape[1], device=documents.device)
    distance = place[:, None] - place  # (T, T)
    same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
    full = same & (distance >= 0)
    return Masks(full & (distance < window), full)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention in float32 with a boolean mask.

    Args:
        q: (B, T, H, D), rotated.
        k: (B, T, G, D), rotated.
        v: (B, T, G, D).
        mask: (B, T, T).

    Returns:
        out (B, T, H, D) and lse (B, T, H), both float32, without the sink.
    """
    groups = k.shape[2]
    batch, length, heads, dim = q.shape
    q = q.view(batch, length, groups, heads // groups, dim).float() * dim**-0.5
    scores = torch.einsum("btgmd,bsgd->bgmts", q, k.float())  # (B, G, M, T, T)
    scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)  # (B, G, M, T)
    weights = torch.exp(scores - lse[..., None])
    out = torch.einsum("bgmts,bsgd->btgmd", weights, v.float())  # (B, T, G, M, D)
    return out.flatten(2, 3), lse.flatten(1, 2).transpose(1, 2)  # (B, T, H, D), (B, T, H)


def flex_attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """The same through flex_attention; to be called inside a compiled function."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
    if hasattr(flex, "AuxRequest"):
        wanted = flex.AuxRequest(lse=True)
        out, aux = flex.flex_attention(q, k, v, block_mask=mask, enable_gqa=True, return_aux=wanted)
        lse = aux.lse
        assert lse is not None  # it was asked for
    else:  # before PyTorch 2.9
        out, lse = flex.flex_attention(q, k, v, block_mask=mask, enable_gqa=True, return_lse=True)
    return out.transpose(1, 2), lse.transpose(1, 2)  # (B, T, H, D), (B, T, H)


def _block_mask(documents: Tensor, window: int | None) -> Mask:
    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        visible = (i >= j) & (documents[b, i] == documents[b, j])
        return visible if window is None else visible & (i - j < window)

    batch, length = documents.shape
    return flex.create_block_mask(
        seen, batch, None, length, length, device=documents.device, _compile=True
    )
