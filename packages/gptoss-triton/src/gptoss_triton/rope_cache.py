# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Rotate a chunk's queries in place, and its keys on their way into the paged cache.

A page holds 64 positions of all kv heads: (pages, G, 64, D). A sequence's page table maps position
p to page table[p // 64], slot p % 64.

Dimensions: T tokens, S sequences, H query heads, G kv heads, D head dim, L table length.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick

PAGE = tl.constexpr(64)  # positions a page holds


@quick
@triton.jit(do_not_specialize_on_alignment=["sequences", "positions"])
def _rope_cache(
    qkv,
    keys,
    values,
    table,
    sequences,
    positions,
    cos,
    sin,
    table_length,
    heads,
    kv_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PDL: tl.constexpr,
):
    """One token a program."""
    token = tl.program_id(0)
    release_next(PDL)
    wait_previous(PDL)
    position = tl.load(positions + token)
    if position < 0:
        return
    sequence = tl.load(sequences + token).to(tl.int64)
    page = tl.load(table + sequence * table_length + position // PAGE).to(tl.int64)
    i = tl.arange(0, HALF)[None, :]
    c = tl.load(cos + position.to(tl.int64) * HALF + i)
    s = tl.load(sin + position.to(tl.int64) * HALF + i)
    row = qkv + token.to(tl.int64) * (heads + 2 * kv_heads) * 2 * HALF
    head = tl.arange(0, HEADS)[:, None]
    left = row + head * 2 * HALF + i
    here = head < heads
    a = tl.load(left, mask=here, other=0.0).to(tl.float32)
    b = tl.load(left + HALF, mask=here, other=0.0).to(tl.float32)
    tl.store(left, (a * c - b * s).to(qkv.dtype.element_ty), mask=here)
    tl.store(left + HALF, (b * c + a * s).to(qkv.dtype.element_ty), mask=here)
    head = tl.arange(0, KV_HEADS)[:, None]
    here = head < kv_heads
    left = row + (heads + head) * 2 * HALF + i
    a = tl.load(left, mask=here, other=0.0).to(tl.float32)
    b = tl.load(left + HALF, mask=here, other=0.0).to(tl.float32)
    place = ((page * kv_heads + head) * PAGE + position % PAGE) * 2 * HALF + i
    tl.store(keys + place, (a * c - b * s).to(keys.dtype.element_ty), mask=here)
    tl.store(keys + place + HALF, (b * c + a * s).to(keys.dtype.element_ty), mask=here)
    left += kv_heads * 2 * HALF
    tl.store(values + place, tl.load(left, mask=here), mask=here)
    tl.store(values + place + HALF, tl.load(left + HALF, mask=here), mask=here)


def rope_cache(
    qkv: Tensor,
    cache: tuple[Tensor, Tensor],
    table: Tensor,
    sequences: Tensor,
    positions: Tensor,
    tables: tuple[Tensor, Tensor],
    *,
    heads: int,
    launch: Launch,
) -> None:
    """Rotate queries in place; write rotated keys and the values to their pages.

    Args:
        qkv: (T, (H + 2 G) D), query heads first; its query part is rotated in place.
        cache: keys and values, (pages, G, 64, D) each.
        table: (S, L) int32 page numbers.
        sequences: (T,) int32 row of `table` for each token.
        positions: (T,) int32; tokens at a negative position are skipped.
        tables: cosines and sines, (positions, D/2) float32.
        heads: H.
        launch: warps and PDL.
    """
    kv_heads, half = cache[0].shape[1], tables[0].shape[1]
    _rope_cache[(positions.numel(),)](
        qkv,
        *cache,
        table,
        sequences,
        positions,
        *tables,
        table.shape[1],
        heads,
        kv_heads,
        HEADS=power_of_two(heads),
        KV_HEADS=power_of_two(kv_heads),
        HALF=half,
        **launch.plain(qkv.device),
    )
