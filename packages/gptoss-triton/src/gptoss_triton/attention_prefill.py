# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Flash attention of a chunk of new tokens at any offset, over the paged cache that holds them too.

A program serves one kv head and a run of consecutive tokens of one sequence; the tile's rows are
those tokens times the heads of the group, so each key is loaded once for the whole group. Keys
before the tile's first token need no mask; windowed layers start at the first page in reach.

Dimensions: T tokens, H query heads, G kv heads, M = H / G heads a group, D head dim, X tiles.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.attention_decode import LOG2_E
from gptoss_triton.launch import Launch, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick
from gptoss_triton.rope_cache import PAGE


@triton.jit
def _pages(
    q,
    keys,
    values,
    table,
    kv_head,
    kv_heads,
    query_position,
    peak,
    total,
    acc,
    begin,
    end,
    MASK: tl.constexpr,
    WINDOW: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Fold the keys of pages begin..end into the running softmax.

    Each page is asked for one step before its keys are, so that a key's load depends on nothing of
    its own step and all stages are loads in flight.
    """
    column = tl.arange(0, D)
    slot = tl.arange(0, PAGE)
    newest = tl.max(query_position, 0)
    last = tl.maximum(end - 1, 0)
    page = tl.load(table + tl.minimum(begin, last))
    for index in tl.range(begin, end, num_stages=STAGES):
        next_page = tl.load(table + tl.minimum(index + 1, last))
        base = (page.to(tl.int64) * kv_heads + kv_head) * PAGE * D
        k = tl.load(keys + base + slot[None, :] * D + column[:, None])  # (D, PAGE)
        at = values + base + slot[:, None] * D + column[None, :]
        if MASK:
            # Slots past the newest hold whatever a page's earlier owner left: not even times zero.
            v = tl.load(at, mask=(slot <= newest - index * PAGE)[:, None], other=0.0)
        else:
            v = tl.load(at)  # (PAGE, D)
        score = tl.dot(q, k)
        if MASK:
            latest = (query_position - index * PAGE)[:, None]
            seen = slot[None, :] <= latest
            if WINDOW > 0:
                seen = seen & (slot[None, :] > latest - WINDOW)
            score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 1)
        acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None])
        peak = higher
        page = next_page
    return peak, total, acc


@quick
@triton.jit(do_not_specialize_on_alignment=["tile_sequence", "tile_token", "tile_count"])
def _attention_prefill(
    qkv,
    keys,
    values,
    table,
    positions,
    tile_sequence,
    tile_token,
    tile_count,
    sinks,
    out,
    table_length,
    heads,
    kv_heads,
    scale,
    WINDOW: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One kv head, one run of tokens."""
    kv_head = tl.program_id(0) % kv_heads
    # The last tiles of a chunk see most keys: start them first.
    tile = tl.num_programs(0) // kv_heads - 1 - tl.program_id(0) // kv_heads
    release_next(PDL)
    wait_previous(PDL)
    sequence = tl.load(tile_sequence + tile).to(tl.int64)
    first_token = tl.load(tile_token + tile)
    count = tl.load(tile_count + tile)
    row = tl.arange(0, TOKENS * GROUP_PADDED)
    offset, member = row // GROUP_PADDED, row % GROUP_PADDED
    live = (offset < count) & (member < GROUP)
    first_position = tl.load(positions + first_token)
    query_position = first_position + tl.minimum(offset, count - 1)
    column = tl.arange(0, D)
    head = kv_head * GROUP + member
    token = (first_token + offset).to(tl.int64)
    place = token * (heads + 2 * kv_heads) * D + head * D
    q = tl.load(qkv + place[:, None] + column[None, :], mask=live[:, None], other=0.0)
    q = (q.to(tl.float32) * scale).to(qkv.dtype.element_ty)  # scores in base-2 units
    peak = tl.full((TOKENS * GROUP_PADDED,), -1.0e30, tl.float32)
    total = tl.zeros((TOKENS * GROUP_PADDED,), tl.float32)
    acc = tl.zeros((TOKENS * GROUP_PADDED, D), tl.float32)
    pages = table + sequence * table_length
    end = (first_position + count - 1) // PAGE + 1
    if WINDOW > 0:
        begin = tl.maximum(first_position - WINDOW + 1, 0) // PAGE
    else:
        begin = first_position // PAGE
        peak, total, acc = _pages(
            q, keys, values, pages, kv_head, kv_heads, query_position, peak, total, acc,
            0, begin, False, WINDOW, D, STAGES,
        )  # fmt: skip
    peak, total, acc = _pages(
        q, keys, values, pages, kv_head, kv_heads, query_position, peak, total, acc,
        begin, end, True, WINDOW, D, STAGES,
    )  # fmt: skip
    sink = tl.load(sinks + head, mask=member < GROUP, other=0.0).to(tl.float32) * LOG2_E
    higher = tl.maximum(peak, sink)
    shrink = tl.exp2(peak - higher)
    result = acc * (shrink / (total * shrink + tl.exp2(sink - higher)))[:, None]
    to = out + (token * heads + head)[:, None] * D + column[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=live[:, None])


def attention_prefill(
    qkv: Tensor,
    cache: tuple[Tensor, Tensor],
    table: Tensor,
    positions: Tensor,
    tiles: tuple[Tensor, Tensor, Tensor],
    sinks: Tensor,
    out: Tensor,
    *,
    window: int | None,
    launch: Launch,
) -> None:
    """Attend from a chunk whose keys and values `rope_cache` has written.

    Args:
        qkv: (T, (H + 2 G) D), queries rotated.
        cache: keys and values, (pages, G, 64, D) each.
        table: (S, L) int32 page numbers.
        positions: (T,) int32; consecutive within a tile.
        tiles: row of `table`, first token and number of tokens (at most `launch.pairs`), (X,) int32
            each.
        sinks: (H,).
        out: (T, H D), written for the tokens of the tiles.
        window: keys a query sees, itself included; None for all.
        launch: `pairs` tokens a tile, warps, stages, registers.
    """
    _, kv_heads, _, dim = cache[0].shape
    heads = sinks.numel()
    group = heads // kv_heads
    _attention_prefill[(tiles[0].numel() * kv_heads,)](
        qkv,
        *cache,
        table,
        positions,
        *tiles,
        sinks,
        out,
        table.shape[1],
        heads,
        kv_heads,
        dim**-0.5 * LOG2_E.value,
        WINDOW=0 if window is None else window,
        GROUP=group,
        GROUP_PADDED=power_of_two(group),
        TOKENS=launch.pairs,
        D=dim,
        STAGES=launch.stages,
        **launch.plain(qkv.device),
    )
