"""The equations of gpt-oss as plain functions; every faster kernel is tested against these.

Dimensions: T tokens, H query heads, G kv heads, M query heads per kv head (H = G M), D head dim,
E experts, K experts chosen per token, V vocabulary rows, N any width. A leading batch is allowed
wherever `...` is written.

    out, lse = attention(q, k, v, window=128, offset=0)   # softmax over the keys alone
    out = apply_sink(out, lse, sinks)                      # the sink joins the denominator last

Keeping the sink out of `attention` lets parts of the keys be attended to apart and merged exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

SWIGLU_ALPHA = 1.702  # the sigmoid's slope; no config carries it
SCORE_ELEMENTS = 1 << 24  # attention scores held at once: 64 MiB in float32
UNEMBED_ELEMENTS = 1 << 24  # unembedding weights held in float32 at once
CACHED_ELEMENTS = 1 << 19  # the same on a CPU: 2 MiB stay in its cache, which is 5 times faster


class Attention(Protocol):
    """The seam for another attention: same arguments, same results, as `attention` below."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, offset: int
    ) -> tuple[Tensor, Tensor]:
        """Attend without the sink; returns (..., Tq, H, D) and (..., Tq, H), both float32."""
        ...


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square of the last axis, then multiply by the gain.

    Args:
        x: (..., N), any floating dtype.
        scale: (N,) gain; there is no bias and no offset.
        eps: added to the mean square; 1e-5 in gpt-oss.

    Returns:
        (..., N) in the dtype of `x`. All arithmetic, the gain's included, is float32 (Llama rounds
        before the gain, gpt-oss after it).
    """
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (wide * scale.float()).to(x.dtype)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None, offset: int
) -> tuple[Tensor, Tensor]:
    """Causal grouped-query attention without the sink, in float32, a few queries at a time.

    Query i stands at position `i + offset` counted from the first key, and sees the keys up to and
    including its own position; with a window, only the last `window` of them, itself included.
    Query head h reads kv head h // M.

    Args:
        q: (..., Tq, H, D), rotated.
        k: (..., Tk, G, D), rotated.
        v: (..., Tk, G, D).
        window: keys that a query sees, itself included; None means all before it.
        offset: absolute position of q[0] minus that of k[0]; may be negative for a part of the
            keys that lies ahead of the first queries.

    Returns:
        out: (..., Tq, H, D) float32, the weighted values; zero for a query that sees no key.
        lse: (..., Tq, H) float32, the log of the softmax denominator; -inf for such a query.
    """
    *batch, num_queries, heads, dim = q.shape
    groups = k.shape[-2]
    q = q.reshape(*q.shape[:-2], groups, heads // groups, dim)  # (..., Tq, G, M, D)
    q = q.float() * dim**-0.5
    k, v = k.float(), v.float()
    parts = [
        _attend(q[..., rows, :, :, :], k, v, window, offset + rows.start)
        for rows in _chunks(num_queries, heads * max(1, k.shape[-3]) * max(1, _size(batch)), window)
    ]
    out = torch.cat([part[0] for part in parts], dim=-4)  # (..., Tq, G, M, D)
    lse = torch.cat([part[1] for part in parts], dim=-3)  # (..., Tq, G, M)
    return out.flatten(-3, -2), lse.flatten(-2)  # (..., Tq, H, D), (..., Tq, H)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, offset: int
) -> tuple[Tensor, Tensor]:
    """Attend from one chunk of queries to the keys that any of them sees."""
    num_queries, num_keys = q.shape[-4], k.shape[-3]
    first = 0 if window is None else min(max(0, offset - window + 1), num_keys)
    last = min(max(first, offset + num_queries), num_keys)
    k, v = k[..., first:last, :, :], v[..., first:last, :, :]
    scores = torch.einsum("...tgmd,...sgd->...gmts", q, k)  # (..., G, M, Tq, S)
    distance = (
        torch.arange(num_queries, device=q.device)[:, None]
        + (offset - first)
        - torch.arange(last - first, device=q.device)
    )  # (Tq, S): how far the key lies behind the query
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    scores = scores.masked_fill(hidden, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)  # (..., G, M, Tq)
    # A row without keys has lse = -inf; the clamp turns its weights into exp(-inf) = 0, not NaN.
    weights = torch.exp(scores - lse.clamp_min(torch.finfo(torch.float32).min)[..., None])
    out = torch.einsum("...gmts,...sgd->...tgmd", weights, v)  # (..., Tq, G, M, D)
    return out, lse.movedim(-1, -3)  # (..., Tq, G, M)


def _chunks(num_queries: int, row_elements: int, window: int | None) -> Iterator[slice]:
    """Cut the queries so that one chunk's scores stay within SCORE_ELEMENTS."""
    size = max(1, SCORE_ELEMENTS // row_elements)
    if window is not None:
        size = max(size, min(window, num_queries))  # its keys are bounded by window + size anyway
    for start in range(0, max(1, num_queries), size):
        yield slice(start, min(start + size, num_queries))


def _size(shape: Sequence[int]) -> int:
    """Number of elements of a shape; 1 for the empty one."""
    return int(torch.Size(shape).numel())


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join the attention of the same queries to disjoint sets of keys, exactly.

    Args:
        parts: one (out, lse) of `attention` per set of keys, without the sink.

    Returns:
        The (out, lse) of attention to all the keys together.
    """
    lses = torch.stack([lse for _, lse in parts])  # (parts, ..., T, H)
    lse = torch.logsumexp(lses, dim=0)
    weights = torch.exp(lses - lse.clamp_min(torch.finfo(torch.float32).min))
    out = sum(part * weight[..., None] for (part, _), weight in zip(parts, weights, strict=True))
    assert isinstance(out, Tensor)  # `parts` holds at least one part
    return out, lse


def apply_sink(out: Tensor, lse: Tensor, sinks: Tensor) -> Tensor:
    """Add each head's sink logit to the softmax denominator; it has no value vector.

    exp(lse) / (exp(lse) + exp(sink)) = sigmoid(lse - sink).

    Args:
        out: (..., T, H, D) from `attention` or `merge`.
        lse: (..., T, H).
        sinks: (H,), one learned logit per query head, not scaled by 1/sqrt(D).

    Returns:
        (..., T, H, D) in the dtype of `out`.
    """
    return out * torch.sigmoid(lse - sinks.float())[..., None]


def route(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose the k experts with the largest logits, then softmax over those k alone.

    Args:
        logits: (..., E) router logits, computed in float32.
        k: experts per token.

    Returns:
        weights: (..., K) float32, summing to one.
        indices: (..., K) int64, best first.
    """
    values, indices = torch.topk(logits.float(), k, dim=-1)
    return torch.softmax(values, dim=-1), indices


def swiglu(x: Tensor, limit: float) -> Tensor:
    """The experts' gate: g sigmoid(1.702 g) (u + 1), gate and up interleaved on the last axis.

    Args:
        x: (..., 2 N); even entries are the gate g, odd ones the linear part u.
        limit: g is clamped from above, u from both sides; 7.0 in gpt-oss.

    Returns:
        (..., N) in the dtype of `x`, rounded once from float32.
    """
    wide = x.float()
    gate = wide[..., ::2].clamp(max=limit)
    up = wide[..., 1::2].clamp(-limit, limit)
    return (gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)).to(x.dtype)


def unembed(x: Tensor, weight: Tensor) -> Tensor:
    """Float32 logits from weights of any dtype, widening a few vocabulary rows at a time.

    A bf16 product would round the logits to 8 bits, and equal logits are then common.

    Args:
        x: (..., N) final normed states.
        weight: (V, N).

    Returns:
        (..., V) float32.
    """
    wide = x.float()
    if weight.dtype == torch.float32:
        return functional.linear(wide, weight)
    elements = CACHED_ELEMENTS if weight.device.type == "cpu" else UNEMBED_ELEMENTS
    parts = torch.split(weight, max(1, elements // weight.shape[1]))
    if torch.is_grad_enabled() and (wide.requires_grad or weight.requires_grad):
        return torch.cat([functional.linear(wide, part.float()) for part in parts], dim=-1)
    flat = wide.reshape(-1, wide.shape[-1])  # (T, N)
    out = flat.new_empty(len(flat), len(weight))  # (T, V)
    buffer = torch.empty_like(parts[0], dtype=torch.float32)
    for part, columns in zip(parts, torch.split(out, len(parts[0]), dim=1), strict=True):
        widened = buffer[: len(part)].copy_(part)
        columns.copy_(flat @ widened.T) if len(flat) > 1 else torch.mm(flat, widened.T, out=columns)
    return out.view(*wide.shape[:-1], len(weight))
