# mypy: disable-error-code="no-untyped-def"
"""The experts' two matrix products on packed MXFP4, one kernel for one token and for thousands.

    h = swiglu(W1[e] x + b1[e]);   y = gate * (W2[e] h + b2[e])      for every (token, choice) pair

A program owns a tile of weight rows of one expert and a tile of the pairs that chose it, and walks
the panels of the input width. The weights are the left operand, decoded in registers straight into
the tensor core's layout; the activations are the right one. Batch 1 thus streams only the chosen
experts, and a long prompt reuses a decoded tile for up to 256 pairs.

Two forms share the kernel: `direct`, where a tile is one pair and no sorting is needed (a few
tokens), and `grouped`, where `plan` has sorted the pairs by expert.

Dimensions: T tokens, K experts per token, Q = T K pairs (pair = token K + choice), N model width,
I expert width, E experts, P panels of 64 columns, R weight rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch
from gptoss_triton.mxfp4 import load_panel
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedMatrix:
    """One layer's packed matrices of all experts.

    Attributes:
        blocks: (E, P, 32 R) uint8 panels of fragments.
        scales: (E, ceil(P/2), R) int32 words.
        bias: (E, R) bf16 or float32, rows in the order of `blocks`.
        columns: input width, before panels were filled up.
    """

    blocks: Tensor
    scales: Tensor
    bias: Tensor
    columns: int


@triton.jit
def _experts(
    x,
    blocks,
    scales,
    bias,
    gates,
    out,
    order,
    tile_expert,
    tile_start,
    tile_stop,
    num_tiles,
    rows_total,
    columns,
    panels,
    row_tiles,
    limit,
    DIV: tl.constexpr,
    SWIGLU: tl.constexpr,
    DIRECT: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    UNROLL: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows times one tile of pairs."""
    row_tile = tl.program_id(0) % row_tiles
    tile = tl.program_id(0) // row_tiles
    row = row_tile * ROWS + tl.arange(0, ROWS)
    safe_row = tl.minimum(row, rows_total - 1)
    wait_previous(PDL)
    release_next(PDL)
    if DIRECT:
        expert = tl.load(tile_expert + tile).to(tl.int64)
        if expert < 0:  # an unused row of the batch
            return
        start = tile
        stop = tile + 1
    else:
        if tile >= tl.load(num_tiles):
            return
        expert = tl.load(tile_expert + tile).to(tl.int64)
        start = tl.load(tile_start + tile)
        stop = tl.load(tile_stop + tile)
    slot = start + tl.arange(0, PAIRS)
    live = slot < stop
    if DIRECT:
        pair = slot
    else:
        pair = tl.load(order + slot, mask=live, other=0)
    block_base = blocks + expert * panels * rows_total * 32
    scale_base = scales + expert * ((panels + 1) // 2) * rows_total
    column = tl.arange(0, 32)
    x_low = x + (pair // DIV).to(tl.int64)[None, :] * columns + column[:, None]  # (32, PAIRS)
    acc = tl.zeros((ROWS, PAIRS), tl.float32)
    for first_panel in tl.range(0, panels, UNROLL, num_stages=STAGES):
        for step in tl.static_range(UNROLL):
            panel = first_panel + step
            low_mask = live[None, :]
            high_mask = live[None, :]
            if not EVEN:
                low_mask = low_mask & (panel * 64 + column < columns)[:, None]
                high_mask = high_mask & (panel * 64 + 32 + column < columns)[:, None]
                panel = tl.minimum(panel, panels - 1)
            low_x = tl.load(x_low + panel * 64, mask=low_mask, other=0.0)
            high_x = tl.load(x_low + panel * 64 + 32, mask=high_mask, other=0.0)
            low, high, low_scale, high_scale = load_panel(
                block_base, scale_base, row_tile * ROWS, panel, rows_total, low_x, ROWS, SCALED, ASM
            )
            if SCALED:
                acc = tl.dot(low, low_x, acc)
                acc = tl.dot(high, high_x, acc)
            else:
                acc += tl.dot(low, low_x) * low_scale[:, None]
                acc += tl.dot(high, high_x) * high_scale[:, None]
    acc += tl.load(bias + expert * rows_total + safe_row).to(tl.float32)[:, None]
    if SWIGLU:
        grouped = acc.reshape(ROWS // 16, 2, 8, PAIRS).permute(0, 2, 3, 1)
        gate, up = tl.split(grouped)  # (ROWS / 16, 8, PAIRS) each
        gate = tl.minimum(gate, limit)
        up = tl.minimum(tl.maximum(up, -limit), limit)
        value = gate / (1.0 + tl.exp(-1.702 * gate)) * (up + 1.0)
        result = value.reshape(ROWS // 2, PAIRS)
        out_row = row_tile * (ROWS // 2) + tl.arange(0, ROWS // 2)
        out_rows = rows_total // 2
    else:
        result = acc * tl.load(gates + pair, mask=live, other=0.0)[None, :]
        out_row = row
        out_rows = rows_total
    to = out + pair.to(tl.int64)[None, :] * out_rows + out_row[:, None]
    tl.store(
        to, result.to(out.dtype.element_ty), mask=live[None, :] & (out_row < out_rows)[:, None]
    )


def experts_direct(
    x: Tensor,
    matrix: PackedMatrix,
    experts: Tensor,
    gates: Tensor,
    out: Tensor,
    *,
    swiglu: float | None,
    launch: Launch,
) -> None:
    """Multiply every pair by its expert's matrix, one program column a pair.

    Args:
        x: (T, N) for the first matrix, (Q, I) for the second; the rows' own width.
        matrix: the weights.
        experts: (Q,) int32 chosen experts.
        gates: (Q,) float32 weights of the choices; used without `swiglu` only.
        out: (Q, I) or (Q, N), written.
        swiglu: the activation's limit; None multiplies by the gate instead.
        launch: tile sizes.
    """
    pairs = experts.numel()
    _launch(x, matrix, gates, out, None, experts, pairs, pairs // x.shape[0], swiglu, launch)


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
    """The same for pairs that `plan` has sorted by expert into tiles of `launch.pairs`."""
    pairs = gates.numel()
    _launch(x, matrix, gates, out, plan, plan.order, plan.max_tiles, pairs // x.shape[0], swiglu, launch)


def _launch(
    x: Tensor,
    matrix: PackedMatrix,
    gates: Tensor,
    out: Tensor,
    plan: Plan | None,
    experts: Tensor,
    tiles: int,
    div: int,
    swiglu: float | None,
    launch: Launch,
) -> None:
    """Fill in what both forms share."""
    panels, rows = matrix.blocks.shape[1], matrix.bias.shape[1]
    row_tiles = triton.cdiv(rows, launch.rows)
    if plan is None:
        tables: tuple[Any, ...] = (experts, experts, experts, experts, experts)
    else:
        tables = (plan.order, plan.tile_expert, plan.tile_start, plan.tile_stop, plan.num_tiles)
    _experts[(row_tiles * tiles,)](
        x,
        matrix.blocks,
        matrix.scales,
        matrix.bias,
        gates,
        out,
        *tables,
        rows,
        matrix.columns,
        panels,
        row_tiles,
        0.0 if swiglu is None else swiglu,
        DIV=div,
        SWIGLU=swiglu is not None,
        DIRECT=plan is None,
        EVEN=matrix.columns % (64 * launch.unroll) == 0,
        UNROLL=launch.unroll,
        ROWS=launch.rows,
        PAIRS=launch.pairs,
        STAGES=launch.stages,
        SCALED=launch.scaled,
        **launch.target(x.device),
    )
