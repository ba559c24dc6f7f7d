# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Attention of one new token a sequence, split over its keys; rotation and cache write included.

    out = sum_j exp(q k_j / sqrt(D)) v_j / (exp(sink) + sum_j exp(q k_j / sqrt(D)))

A program serves one kv head of one sequence and a share of its pages; the query heads of the group
are the rows of one tensor-core tile. The program with the newest position writes the new key and
value to the cache and uses them from registers. The last program of a head to finish joins the
parts, so the cost follows the sequence's real length and no second kernel is needed. A windowed
layer looks at the pages of its last keys only.

Dimensions: B sequences, H query heads, G kv heads, M = H / G heads a group, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.rope_cache import PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScratch:
    """Where the parts of a split sequence wait for each other.

    Attributes:
        out: (B, G, splits, M, D) float32.
        lse: (B, G, splits, M) float32, base 2.
        arrived: (B, G) int32, zero between calls.
    """

    out: Tensor
    lse: Tensor
    arrived: Tensor

    @classmethod
    def empty(
        cls, *, batch: int, kv_heads: int, splits: int, group: int, dim: int, device: torch.device
    ) -> SplitScratch:
        """Room for `splits` parts of each of `batch` sequences."""
        shape = (batch, kv_heads, splits, group)
        return cls(
            out=torch.empty((*shape, dim), dtype=torch.float32, device=device),
            lse=torch.empty(shape, dtype=torch.float32, device=device),
            arrived=torch.zeros(shape[:2], dtype=torch.int32, device=device),
        )


@triton.jit
def _rotated(base, cos, sin, position, column, mask, HALF: tl.constexpr):
    """Load vectors of 2 HALF elements at `base` and rotate them, in float32."""
    angle = position.to(tl.int64) * HALF + column % HALF
    c, s = tl.load(cos + angle), tl.load(sin + angle)
    s = tl.where(column < HALF, -s, s)
    value = tl.load(base + column, mask=mask, other=0.0).to(tl.float32)
    partner = tl.load(base + (column + HALF) % (2 * HALF), mask=mask, other=0.0).to(tl.float32)
    return value * c + partner * s


@triton.jit
def _join(
    part_out,
    part_lse,
    first,
    used,
    sink,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Combine the parts of one head and the sink: (HEADS, D) float32."""
    head = tl.arange(0, HEADS)
    split = tl.arange(0, CHUNK)
    column = tl.arange(0, D)
    peak = sink
    total = tl.full((HEADS,), 1.0, tl.float32)
    acc = tl.zeros((HEADS, D), tl.float32)
    for start in range(0, used, CHUNK):
        place = (first + start + split)[:, None] * GROUP + head[None, :]
        live = (start + split < used)[:, None] & (head < GROUP)[None, :]
        lse = tl.load(part_lse + place, mask=live, other=float("-inf"), cache_modifier=".cg")
        higher = tl.maximum(peak, tl.max(lse, 0))
        weight = tl.exp2(lse - higher[None, :])
        out = tl.load(
            part_out + place[:, :, None] * D + column[None, None, :],
            mask=live[:, :, None],
            other=0.0,
            cache_modifier=".cg",
        )
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 0)
        acc = acc * shrink[:, None] + tl.sum(out * weight[:, :, None], 0)
        peak = higher
    return acc / total[:, None]


@triton.jit
def _attention_decode(
    qkv,
    keys,
    values,
    table,
    sequences,
    positions,
    cos,
    sin,
    sinks,
    out,
    part_out,
    part_lse,
    arrived,
    table_length,
    heads,
    kv_heads,
    scale,
    WINDOW: tl.constexpr,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    KEYS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One kv head of one sequence, one share of its pages."""
    pair = tl.program_id(0)
    split = tl.program_id(1)
    splits = tl.num_programs(1)
    row = (pair // kv_heads).to(tl.int64)
    kv_head = pair % kv_heads
    wait_previous(PDL)
    release_next(PDL)
    position = tl.load(positions + row)
    if position < 0:
        return
    first_key = 0
    if WINDOW > 0:
        first_key = tl.maximum(position - WINDOW + 1, 0)
    first_page = first_key // PAGE
    pages = position // PAGE - first_page + 1
    share = tl.maximum(tl.cdiv(pages, splits), tl.minimum(pages, KEYS // PAGE))
    used = tl.cdiv(pages, share)
    if split >= used:
        return
    pages_of = table + tl.load(sequences + row).to(tl.int64) * table_length
    head = tl.arange(0, HEADS)
    column = tl.arange(0, D)
    slot = tl.arange(0, KEYS)
    token = qkv + row * (heads + 2 * kv_heads) * D
    query_head = kv_head * GROUP + head
    q = _rotated(
        token + query_head[:, None] * D,
        cos,
        sin,
        position,
        column[None, :],
        (head < GROUP)[:, None],
        D // 2,
    )
    q = (q * scale).to(qkv.dtype.element_ty)  # (HEADS, D), in base-2 units
    begin = first_page + split * share
    end = tl.minimum(begin + share, first_page + pages)
    new_key = _rotated(
        token + (heads + kv_head) * D, cos, sin, position, column, column >= 0, D // 2
    ).to(keys.dtype.element_ty)
    new_value = tl.load(token + (heads + kv_heads + kv_head) * D + column)
    if end == first_page + pages:
        newest = tl.load(pages_of + position // PAGE).to(tl.int64)
        place = ((newest * kv_heads + kv_head) * PAGE + position % PAGE) * D + column
        tl.store(keys + place, new_key)
        tl.store(values + place, new_value)
    peak = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    acc = tl.zeros((HEADS, D), tl.float32)
    for start in tl.range(begin * PAGE, end * PAGE, KEYS, num_stages=STAGES):
        key_position = start + slot
        inside = key_position < end * PAGE
        page = tl.load(pages_of + key_position // PAGE, mask=inside, other=0)
        base = ((page.to(tl.int64) * kv_heads + kv_head) * PAGE + key_position % PAGE) * D
        k = tl.load(keys + base[None, :] + column[:, None])  # (D, KEYS)
        v = tl.load(values + base[:, None] + column[None, :])  # (KEYS, D)
        k = tl.where((key_position == position)[None, :], new_key[:, None], k)
        v = tl.where((key_position == position)[:, None], new_value[None, :], v)
        # Slots past the newest, and places past this share, hold anything: not even times zero.
        v = tl.where((inside & (key_position <= position))[:, None], v, 0.0)
        score = tl.dot(q, k)  # (HEADS, KEYS)
        seen = (key_position >= first_key) & (key_position <= position) & inside
        score = tl.where(seen[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 1)
        acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None])
        peak = higher
    sink = (
        tl.load(sinks + query_head, mask=head < GROUP, other=0.0).to(tl.float32)
        * 1.4426950408889634
    )
    to = out + (row * heads + query_head[:, None]) * D + column[None, :]
    if used == 1:
        higher = tl.maximum(peak, sink)
        shrink = tl.exp2(peak - higher)
        result = acc * shrink[:, None] / (total * shrink + tl.exp2(sink - higher))[:, None]
        tl.store(to, result.to(out.dtype.element_ty), mask=(head < GROUP)[:, None])
    else:
        first = pair * splits
        place = (first + split) * GROUP + head
        tl.store(part_lse + place, peak + tl.log2(total), mask=head < GROUP)
        tl.store(
            part_out + place[:, None] * D + column[None, :],
            acc / total[:, None],
            mask=(head < GROUP)[:, None],
        )
        tl.debug_barrier()  # all stores of this program before its arrival
        if tl.atomic_add(arrived + pair, 1) == used - 1:
            result = _join(part_out, part_lse, first, used, sink, GROUP, HEADS, D, CHUNK)
            tl.store(to, result.to(out.dtype.element_ty), mask=(head < GROUP)[:, None])
            tl.store(arrived + pair, 0)


def attention_decode(
    qkv: Tensor,
    cache: tuple[Tensor, Tensor],
    table: Tensor,
    sequences: Tensor,
    positions: Tensor,
    tables: tuple[Tensor, Tensor],
    sinks: Tensor,
    out: Tensor,
    scratch: SplitScratch,
    *,
    window: int | None,
    launch: Launch,
) -> None:
    """Attend from each sequence's newest token, after writing its key and value to the cache.

    Args:
        qkv: (B, (H + 2 G) D), not rotated.
        cache: keys and values, (pages, G, 64, D) each.
        table: (S, L) int32 page numbers.
        sequences: (B,) int32 row of `table` of each sequence.
        positions: (B,) int32 of the new token; negative rows are skipped.
        tables: cosines and sines, (positions, D/2) float32.
        sinks: (H,).
        out: (B, H D), written.
        scratch: its number of splits bounds how many programs share a sequence.
        window: keys a query sees, itself included; None for all.
        launch: `rows` keys a step, `columns` splits joined at a time.
    """
    batch = positions.numel()
    _, kv_heads, _, dim = cache[0].shape
    heads = sinks.numel()
    splits = scratch.out.shape[2]
    if window is not None:
        splits = min(splits, -(-window // PAGE.value) + 1)
    _attention_decode[(batch * kv_heads, splits)](
        qkv,
        *cache,
        table,
        sequences,
        positions,
        *tables,
        sinks,
        out,
        scratch.out,
        scratch.lse,
        scratch.arrived,
        table.shape[1],
        heads,
        kv_heads,
        dim**-0.5 * 1.4426950408889634,
        WINDOW=0 if window is None else window,
        GROUP=heads // kv_heads,
        HEADS=max(16, triton.next_power_of_2(heads // kv_heads)),
        D=dim,
        CHUNK=min(launch.columns, triton.next_power_of_2(splits)),
        KEYS=launch.rows,
        STAGES=launch.stages,
        **launch.plain(qkv.device),
    )
