# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Attention of one new token a sequence, split over its keys; rotation and cache write included.

    out = sum_j exp(q k_j / sqrt(D)) v_j / (exp(sink) + sum_j exp(q k_j / sqrt(D)))

A program serves one kv head of one sequence and a share of its keys; the query heads of the group
are the rows of one tensor-core tile. Each warp folds whole tiles of keys into a softmax of its own,
so the loop has no barrier and no exchange between warps. The last program of a head to finish joins
what all warps saw, so the cost follows the sequence's real length and no second kernel is needed.

The newest key and value never go through the tiles: the program that writes them to the cache adds
them at the join. Masked loads fill unused slots with zeros, so nothing that a page holds there can
reach a product. A windowed layer looks at the tiles of its last keys only.

Dimensions: B sequences, H query heads, G kv heads, M = H / G heads a group, in the kernel padded to
a tensor-core tile, D head dim, W warps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick
from gptoss_triton.rope_cache import PAGE

LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-1.0e30)  # of a maximum over nothing: finite, so that differences are numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScratch:
    """Where the parts of a split sequence wait for each other.

    Attributes:
        out: (parts, M, D) float32, of all sequences and kv heads together.
        peak: (parts, M) float32, largest score, base 2.
        total: (parts, M) float32, sum of the weights relative to it.
        arrived: (B G,) int32, zero between calls.
    """

    out: Tensor
    peak: Tensor
    total: Tensor
    arrived: Tensor

    @classmethod
    def empty(
        cls, *, pairs: int, parts: int, group: int, dim: int, device: torch.device
    ) -> SplitScratch:
        """Room for `parts` parts of `pairs` sequences' kv heads."""
        return cls(
            out=torch.empty((parts, group, dim), dtype=torch.float32, device=device),
            peak=torch.empty((parts, group), dtype=torch.float32, device=device),
            total=torch.empty((parts, group), dtype=torch.float32, device=device),
            arrived=torch.zeros(pairs, dtype=torch.int32, device=device),
        )


def parts_of(launch: Launch) -> int:
    """Most parts that one kv head of one sequence falls into: one a warp."""
    return launch.splits * launch.warps


@triton.jit
def _rotated_rows(
    at, cos, sin, position, scale, ROWS: tl.constexpr, USED: tl.constexpr, D: tl.constexpr
):
    """The vectors of D elements at `at`, rotated, times `scale`: (ROWS, D), zero beyond USED."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, D)[None, :]
    place = at + row * D
    value = tl.load(place + column, mask=row < USED, other=0.0)
    partner = tl.load(place + (column + D // 2) % D, mask=row < USED, other=0.0)
    # The angles in every row: in the layout of the vectors, nothing is exchanged.
    angle = tl.maximum(position, 0).to(tl.int64) * (D // 2) + column % (D // 2) + row * 0
    c, s = tl.load(cos + angle), tl.load(sin + angle)
    s = tl.where(column < D // 2, -s, s)
    rotated = value.to(tl.float32) * c + partner.to(tl.float32) * s
    return (rotated * scale).to(at.dtype.element_ty)


@triton.jit
def _tiles(
    q,
    keys,
    values,
    pages_of,
    page,
    kv_head,
    position,
    first_key,
    start,
    step,
    WARPS: tl.constexpr,
    KEYS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WINDOW: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
):
    """What every warp saw: maximum and sum (W, M), and weighted values (W, M, D)."""
    column = tl.arange(0, D)
    slot = tl.arange(0, KEYS)
    peak = tl.full((WARPS, q.shape[1]), LOWEST, tl.float32)
    total = tl.zeros((WARPS, q.shape[1]), tl.float32)
    acc = tl.zeros((WARPS, q.shape[1], D), tl.float32)
    first = start + tl.arange(0, WARPS) * KEYS
    for _ in tl.range(start, position, step, num_stages=STAGES):
        # A tile's page is asked for one step early, so that its keys do not wait for it.
        ahead = first + step
        next_page = tl.load(pages_of + ahead // PAGE, mask=ahead < position, other=0)
        seen = slot[None, :] < (position - first)[:, None]  # (W, KEYS)
        if WINDOW > 0:
            seen = seen & (slot[None, :] >= (first_key - first)[:, None])
        base = ((page.to(tl.int64) * KV_HEADS + kv_head) * PAGE + first % PAGE) * D
        k_at = (keys + base)[:, None, None] + (slot[None, None, :] * D + column[None, :, None])
        v_at = (values + base)[:, None, None] + (slot[None, :, None] * D + column[None, None, :])
        k = tl.load(k_at, mask=seen[:, None, :], other=0.0)  # (W, D, KEYS)
        v = tl.load(v_at, mask=seen[:, :, None], other=0.0)  # (W, KEYS, D)
        score = tl.where(seen[:, None, :], tl.dot(q, k), float("-inf"))  # (W, M, KEYS)
        higher = tl.maximum(peak, tl.max(score, 2))
        weight = tl.exp2(score - higher[:, :, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 2)
        acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, :, None])
        peak = higher
        first, page = ahead, next_page
    return peak, total, acc


@triton.jit
def _store_parts(parts, part, peak, total, acc, GROUP: tl.constexpr, D: tl.constexpr):
    """Leave what the warps saw where the join finds it, at places `part` (W,)."""
    part_out, part_peak, part_total = parts
    head, column = tl.arange(0, peak.shape[1])[None, :], tl.arange(0, D)
    place = part[:, None] * GROUP + head  # (W, M)
    tl.store(part_peak + place, peak, mask=head < GROUP)
    tl.store(part_total + place, total, mask=head < GROUP)
    place = place[:, :, None] * D + column[None, None, :]
    tl.store(part_out + place, acc, mask=(head < GROUP)[:, :, None])


@triton.jit
def _join(
    parts,
    first,
    count,
    sink,
    newest,
    value,
    to,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Combine parts first.. of a group of heads, its newest key (score, value) and its sinks.

    Rows are first in every tile, so that a thread holds the same element of all parts.
    """
    part_out, part_peak, part_total = parts
    head = tl.arange(0, sink.shape[0])
    column = tl.arange(0, D)
    part = tl.arange(0, CHUNK)
    peak = tl.maximum(sink, newest)
    share = tl.exp2(newest - peak)
    total = tl.exp2(sink - peak) + share
    acc = value[None, :] * share[:, None]
    for start in range(0, count, CHUNK):
        place = (first + start + part)[None, :] * GROUP + head[:, None]
        live = (start + part < count)[None, :] & (head < GROUP)[:, None]
        peaks = tl.load(part_peak + place, mask=live, other=LOWEST, cache_modifier=".cg")
        totals = tl.load(part_total + place, mask=live, other=0.0, cache_modifier=".cg")
        outs = tl.load(
            part_out + place[:, :, None] * D + column[None, None, :],
            mask=live[:, :, None],
            other=0.0,
            cache_modifier=".cg",
        )  # (M, CHUNK, D)
        higher = tl.maximum(peak, tl.max(peaks, 1))
        weight = tl.exp2(peaks - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(totals * weight, 1)
        acc = acc * shrink[:, None] + tl.sum(outs * weight[:, :, None], 1)
        peak = higher
    result = (acc / total[:, None]).to(to.dtype.element_ty)
    tl.store(to + head[:, None] * D + column[None, :], result, mask=(head < GROUP)[:, None])


@quick
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
    part_peak,
    part_total,
    arrived,
    table_length,
    scale,
    WINDOW: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    WARPS: tl.constexpr,
    KEYS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One kv head of one sequence; every `splits`-th step of W times KEYS keys."""
    pair, split = tl.program_id(0), tl.program_id(1)
    row = (pair // KV_HEADS).to(tl.int64)
    kv_head = pair % KV_HEADS
    warp, column = tl.arange(0, WARPS), tl.arange(0, D)
    token = qkv + row * ((GROUP + 2) * KV_HEADS * D)
    queries = token + kv_head * (GROUP * D)
    new_key = token + (GROUP * KV_HEADS + kv_head) * D
    new_value = new_key + KV_HEADS * D
    release_next(PDL)
    wait_previous(PDL)
    position = tl.load(positions + row)
    pages_of = table + tl.load(sequences + row).to(tl.int64) * table_length
    first_key = 0
    if WINDOW > 0:
        first_key = tl.maximum(position - WINDOW + 1, 0)
    origin = first_key // KEYS * KEYS
    used = tl.minimum(tl.cdiv(position - origin, WARPS * KEYS), tl.num_programs(1))
    used = tl.maximum(used, 1)  # the first token has no older key
    start = origin + split * WARPS * KEYS
    first = start + warp * KEYS
    page = tl.load(pages_of + first // PAGE, mask=first < position, other=0)
    q = _rotated_rows(queries, cos, sin, position, scale, HEADS, GROUP, D)
    if (position < 0) | (split >= used):  # not earlier: the loads above would wait for it
        return
    peak, total, acc = _tiles(
        tl.broadcast_to(q[None, :, :], (WARPS, HEADS, D)),
        keys, values, pages_of, page, kv_head, position, first_key, start, used * WARPS * KEYS,
        WARPS, KEYS, KV_HEADS, WINDOW, D, STAGES,
    )  # fmt: skip
    begin = pair * tl.num_programs(1) * WARPS
    parts = (part_out, part_peak, part_total)
    _store_parts(parts, begin + split * WARPS + warp, peak, total, acc, GROUP, D)
    # The newest key and value, while those stores are on their way.
    sink = tl.arange(0, GROUP_PADDED)
    sink = tl.load(sinks + kv_head * GROUP + sink, mask=sink < GROUP, other=0.0).to(tl.float32)
    query = _rotated_rows(queries, cos, sin, position, scale, GROUP_PADDED, GROUP, D)
    key = _rotated_rows(new_key, cos, sin, position, 1.0, 1, 1, D)
    value = tl.load(new_value + column)
    last = tl.load(pages_of + position // PAGE).to(tl.int64)
    slot = ((last * KV_HEADS + kv_head) * PAGE + position % PAGE) * D + column
    tl.store(keys + slot[None, :], key, mask=split == 0)
    tl.store(values + slot, value, mask=split == 0)
    score = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)
    tl.debug_barrier()  # all stores of this program before its arrival, or its own join
    before = 0
    if used > 1:
        before = tl.atomic_add(arrived + pair, 1)
    if before == used - 1:
        tl.store(arrived + pair, 0)
        _join(
            parts, begin, used * WARPS, sink * LOG2_E, score, value.to(tl.float32),
            out + (row * KV_HEADS + kv_head) * (GROUP * D), GROUP, D, CHUNK,
        )  # fmt: skip


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
        scratch: room for `parts_of(launch)` parts a sequence and kv head.
        window: keys a query sees, itself included; None for all.
        launch: `rows` keys a warp and step, at most `splits` programs a head, `columns` parts
            joined at a time.
    """
    batch = positions.numel()
    _, kv_heads, _, dim = cache[0].shape
    heads = sinks.numel()
    group = heads // kv_heads
    splits = launch.splits
    if window is not None:
        splits = min(splits, cdiv(window, PAGE.value) + 1)
    operands = (qkv, *cache, table, sequences, positions, *tables, sinks, out)
    _attention_decode[(batch * kv_heads, splits)](
        *operands,
        scratch.out,
        scratch.peak,
        scratch.total,
        scratch.arrived,
        table.shape[1],
        dim**-0.5 * LOG2_E.value,
        WINDOW=0 if window is None else window,
        GROUP=group,
        GROUP_PADDED=power_of_two(group),
        KV_HEADS=kv_heads,
        HEADS=max(16, power_of_two(group)),
        D=dim,
        CHUNK=min(launch.columns, power_of_two(parts_of(launch))),
        WARPS=launch.warps,
        KEYS=launch.rows,
        STAGES=launch.stages,
        **launch.plain(qkv.device),
    )
