# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The experts' products for many tokens: tiles of pairs that chose the same expert.

    h = swiglu(W1[e] x + b1[e]);   y = gate * (W2[e] h + b2[e])      for every (token, choice) pair

A program owns a tile of weight rows of one expert and a tile of the pairs that chose it (`plan` has
sorted them), and walks the panels of the input width. The weights are the left operand, decoded in
registers straight into the tensor core's layout with their scales applied; the activations are the
right one. Two panels are one step, because a word of scales is theirs.

Dimensions: T tokens, K experts per token, Q = T K pairs (pair = token K + choice), N model width,
I expert width, E experts, P panels of 64 columns, R weight rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv
from gptoss_triton.mxfp4 import PackedMatrix, decode_panel, panel_factors
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.plan import Plan
from gptoss_triton.quick import quick
from gptoss_triton.swiglu import swiglu_tile


@triton.jit
def _multiply(
    x_at,
    blocks_at,
    words_at,
    live,
    stride,
    COLUMNS: tl.constexpr,
    PANELS: tl.constexpr,
    TOTAL: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    STAGES: tl.constexpr,
    MASKED: tl.constexpr,
    SETTLED: tl.constexpr,
    PINNED: tl.constexpr,
    ASM: tl.constexpr,
):
    """All columns of a tile of rows times a tile of pairs: (ROWS, PAIRS) float32.

    Past the last panel there are zeros.
    """
    column = tl.arange(0, 64)[:, None]
    acc = tl.zeros((ROWS, PAIRS), tl.float32)
    for step in tl.range(0, (PANELS + 1) // 2, num_stages=STAGES):
        words = tl.load(words_at)
        even_bytes = tl.load(blocks_at)
        if PANELS % 2 == 1:
            odd_bytes = tl.load(blocks_at + 32 * TOTAL, mask=step < PANELS // 2, other=0)
        else:
            odd_bytes = tl.load(blocks_at + 32 * TOTAL)
        if MASKED or COLUMNS % 64 != 0:
            even_mask = live & (column < COLUMNS - step * 128)
            odd_mask = live & (column < COLUMNS - step * 128 - 64)
            even_x = tl.load(x_at, mask=even_mask, other=0.0)
            odd_x = tl.load(x_at + 64, mask=odd_mask, other=0.0)
        else:
            even_x = tl.load(x_at)
            if PANELS % 2 == 1:
                odd_x = tl.load(x_at + 64, mask=step < PANELS // 2, other=0.0)
            else:
                odd_x = tl.load(x_at + 64)
        words_at += TOTAL
        blocks_at += stride
        x_at += 128
        low, high = panel_factors(words, ROWS, ASM)
        even = decode_panel(even_bytes, low, high, even_x, 0, ROWS, PINNED, ASM)
        acc = tl.dot(even, even_x, acc)
        odd = decode_panel(odd_bytes, low, high, odd_x, 1, ROWS, PINNED, ASM)
        acc = tl.dot(odd, odd_x, acc)
        if SETTLED and ASM:
            acc = _settle(acc)
    return acc


@triton.jit
def _settle(acc):
    """The sums themselves, once they are there.

    Without it the second product runs on while the next weights are decoded, so both have to have
    registers. Other programs fill the wait where fewer registers let more of them in.
    """
    return tl.inline_asm_elementwise(
        asm="mov.b32 $0, $1;",
        constraints="=r,r",
        args=[acc],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def _finish(
    acc,
    gates,
    out,
    pair,
    live,
    row_tile,
    limit,
    TOTAL: tl.constexpr,
    SWIGLU: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Activate or weigh a tile, and store the pairs that are live."""
    HALF: tl.constexpr = 2 if SWIGLU else 1  # gates and ups become one
    if SWIGLU:
        result = swiglu_tile(acc, limit, ROWS, PAIRS)
    else:
        result = acc * tl.load(gates + pair)[None, :]
    row = row_tile * (ROWS // HALF) + tl.arange(0, ROWS // HALF)
    to = out + pair.to(tl.int64)[None, :] * (TOTAL // HALF) + row[:, None]
    inside = live & (row < TOTAL // HALF)[:, None]
    tl.store(to, result.to(out.dtype.element_ty), mask=inside)


@quick
@triton.jit
def _grouped(
    x,
    blocks,
    words,
    bias,
    gates,
    out,
    order,
    tile_expert,
    tile_start,
    tile_stop,
    num_tiles,
    row_tiles,
    limit,
    stride,
    COLUMNS: tl.constexpr,
    PANELS: tl.constexpr,
    TOTAL: tl.constexpr,
    DIV: tl.constexpr,
    SWIGLU: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    STAGES: tl.constexpr,
    MASKED: tl.constexpr,
    SETTLED: tl.constexpr,
    PINNED: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows times one tile of pairs of one expert.

    Pairs past the tile's last are the last one again: nothing of theirs is stored, and their loads
    need no mask. MASKED: they are zeros instead, and are not read.
    """
    row_tile = tl.program_id(0) % row_tiles
    tile = tl.program_id(0) // row_tiles
    release_next(PDL)
    wait_previous(PDL)
    tiles = tl.load(num_tiles)
    expert = tl.load(tile_expert + tile).to(tl.int64)
    slot = tl.load(tile_start + tile) + tl.arange(0, PAIRS)
    stop = tl.load(tile_stop + tile)
    if tile >= tiles:
        return
    pair = tl.load(order + tl.minimum(slot, stop - 1))
    live = (slot < stop)[None, :]
    inside = tl.minimum(row_tile * ROWS + tl.arange(0, ROWS), TOTAL - 1)
    group = tl.minimum(row_tile * (ROWS // 16) + tl.arange(0, ROWS // 16), TOTAL // 16 - 1)
    source = (pair // DIV).to(tl.int64)[None, :] * COLUMNS
    acc = _multiply(
        x + source + tl.arange(0, 64)[:, None],
        blocks + expert * (PANELS * TOTAL * 32) + (group[:, None] * 512 + tl.arange(0, 512)),
        words + expert * ((PANELS + 1) // 2 * TOTAL) + inside,
        live,
        stride,
        COLUMNS,
        PANELS,
        TOTAL,
        ROWS,
        PAIRS,
        STAGES,
        MASKED,
        SETTLED,
        PINNED,
        ASM,
    )
    acc += tl.load(bias + expert * TOTAL + inside).to(tl.float32)[:, None]
    _finish(acc, gates, out, pair, live, row_tile, limit, TOTAL, SWIGLU, ROWS, PAIRS)


def experts_grouped(
    x: Tensor,
    matrix: PackedMatrix,
    plan: Plan,
    gates: Tensor,
    out: Tensor,
    *,
    swiglu: float | None,
    launch: Launch,
) -> None:
    """Multiply pairs, sorted by expert, by their experts' matrices.

    Args:
        x: (T, N) for the first matrix, (Q, I) for the second, float16.
        matrix: the weights.
        plan: of the pairs' experts, with tiles of `launch.pairs`.
        gates: (Q,) float32 weights of the choices; used without `swiglu` only.
        out: (Q, I) or (Q, N), written for the pairs of the plan.
        swiglu: the activation's limit; None multiplies by the gate instead.
        launch: `rows`, `pairs`, `masked`; `registers` other than 0 also keeps the need for them
            small.
    """
    assert plan.tile == launch.pairs  # else pairs of a tile would be left out
    pairs, panels, rows = gates.numel(), matrix.blocks.shape[1], matrix.bias.shape[1]
    row_tiles = cdiv(rows, launch.rows)
    _grouped[(row_tiles * plan.tiles_for(pairs),)](
        x,
        matrix.blocks,
        matrix.scales,
        matrix.bias,
        gates,
        out,
        plan.order,
        plan.tile_expert,
        plan.tile_start,
        plan.tile_stop,
        plan.num_tiles,
        row_tiles,
        0.0 if swiglu is None else swiglu,
        64 * rows,
        COLUMNS=matrix.columns,
        PANELS=panels,
        TOTAL=rows,
        DIV=pairs // x.shape[0],
        SWIGLU=swiglu is not None,
        ROWS=launch.rows,
        PAIRS=launch.pairs,
        STAGES=launch.stages,
        MASKED=launch.masked,
        SETTLED=launch.registers > 0,
        PINNED=_pinned(x.device),
        **launch.target(x.device),
    )


def _pinned(device: torch.device) -> bool:
    """Whether the decoder can be pinned: from sm_100 on the compiler refuses to."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 10
