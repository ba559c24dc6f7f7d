# mypy: disable-error-code="no-untyped-def, untyped-decorator"
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

import torch
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
def _multiply(
    x,
    blocks,
    scales,
    pair,
    live,
    first_row,
    begin,
    end,
    rows_total,
    columns,
    panels,
    DIV: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    UNROLL: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    ASM: tl.constexpr,
):
    """Panels begin..end of a tile of rows times a tile of pairs: (ROWS, PAIRS) float32."""
    column = tl.arange(0, 32)
    x_low = x + (pair // DIV).to(tl.int64)[None, :] * columns + column[:, None]  # (32, PAIRS)
    acc = tl.zeros((ROWS, PAIRS), tl.float32)
    for first_panel in tl.range(begin, end, UNROLL, num_stages=STAGES):
        for step in tl.static_range(UNROLL):
            panel = first_panel + step
            low_mask = live[None, :]
            high_mask = live[None, :]
            if not EVEN:
                low_mask = low_mask & ((panel * 64 + column < columns) & (panel < end))[:, None]
                high_mask = (
                    high_mask & ((panel * 64 + 32 + column < columns) & (panel < end))[:, None]
                )
                panel = tl.minimum(panel, panels - 1)
            low_x = tl.load(x_low + panel * 64, mask=low_mask, other=0.0)
            high_x = tl.load(x_low + panel * 64 + 32, mask=high_mask, other=0.0)
            low, high, low_factor, high_factor = load_panel(
                blocks, scales, first_row, panel, rows_total, low_x, ROWS, SCALED, ASM
            )
            if SCALED:
                acc = tl.dot(low, low_x, acc)
                acc = tl.dot(high, high_x, acc)
            else:
                acc += tl.dot(low, low_x) * low_factor[:, None]
                acc += tl.dot(high, high_x) * high_factor[:, None]
    return acc


@triton.jit
def _swiglu(acc, limit, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    """Gates and ups, eight rows apart, to (ROWS / 2, PAIRS)."""
    gate, up = tl.split(acc.reshape(ROWS // 16, 2, 8, PAIRS).permute(0, 2, 3, 1))
    gate = tl.minimum(gate, limit)
    up = tl.minimum(tl.maximum(up, -limit), limit)
    value = gate / (1.0 + tl.exp(-1.702 * gate)) * (up + 1.0)
    return value.reshape(ROWS // 2, PAIRS)


@triton.jit
def _grouped(
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
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    UNROLL: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows times one tile of pairs of one expert."""
    row_tile = tl.program_id(0) % row_tiles
    tile = tl.program_id(0) // row_tiles
    wait_previous(PDL)
    release_next(PDL)
    if tile >= tl.load(num_tiles):
        return
    expert = tl.load(tile_expert + tile).to(tl.int64)
    slot = tl.load(tile_start + tile) + tl.arange(0, PAIRS)
    live = slot < tl.load(tile_stop + tile)
    pair = tl.load(order + slot, mask=live, other=0)
    acc = _multiply(
        x,
        blocks + expert * panels * rows_total * 32,
        scales + expert * ((panels + 1) // 2) * rows_total,
        pair,
        live,
        row_tile * ROWS,
        0,
        panels,
        rows_total,
        columns,
        panels,
        DIV,
        EVEN,
        ROWS,
        PAIRS,
        UNROLL,
        STAGES,
        SCALED,
        ASM,
    )
    row = row_tile * ROWS + tl.arange(0, ROWS)
    shift = tl.load(bias + expert * rows_total + tl.minimum(row, rows_total - 1))
    acc += shift.to(tl.float32)[:, None]
    if SWIGLU:
        result = _swiglu(acc, limit, ROWS, PAIRS)
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


@triton.jit
def _direct(
    x,
    blocks,
    scales,
    bias,
    gates,
    out,
    experts,
    parts,
    arrived,
    rows_total,
    columns,
    panels,
    row_tiles,
    limit,
    DIV: tl.constexpr,
    SWIGLU: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    UNROLL: tl.constexpr,
    STAGES: tl.constexpr,
    SPLITS: tl.constexpr,
    SCALED: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows, one pair, one share of the input columns; the last share to finish adds."""
    row_tile = tl.program_id(0) % row_tiles
    split = (tl.program_id(0) // row_tiles) % SPLITS
    pair = tl.program_id(0) // row_tiles // SPLITS
    wait_previous(PDL)
    release_next(PDL)
    expert = tl.load(experts + pair).to(tl.int64)
    if expert < 0:  # an unused row of the batch
        return
    share = tl.cdiv(tl.cdiv(panels, SPLITS), UNROLL) * UNROLL
    lane = tl.arange(0, PAIRS)
    acc = _multiply(
        x,
        blocks + expert * panels * rows_total * 32,
        scales + expert * ((panels + 1) // 2) * rows_total,
        pair + lane * 0,
        lane < 1,
        row_tile * ROWS,
        split * share,
        tl.minimum(split * share + share, panels),
        rows_total,
        columns,
        panels,
        DIV,
        EVEN,
        ROWS,
        PAIRS,
        UNROLL,
        STAGES,
        SCALED,
        ASM,
    )
    total = tl.sum(acc, 1)  # (ROWS,): all but one column are zero
    row = row_tile * ROWS + tl.arange(0, ROWS)
    inside = row < rows_total
    last = True
    if SPLITS > 1:
        place = (pair * SPLITS * rows_total).to(tl.int64) + row
        tl.store(parts + place + split * rows_total, total, mask=inside)
        tl.debug_barrier()  # all stores of this program before its arrival
        counter = arrived + pair * row_tiles + row_tile
        last = tl.atomic_add(counter, 1) == SPLITS - 1
        if last:
            total = tl.zeros((ROWS,), tl.float32)
            for other in tl.static_range(SPLITS):
                total += tl.load(
                    parts + place + other * rows_total, mask=inside, other=0.0, cache_modifier=".cg"
                )
            tl.store(counter, 0)
    if last:
        total += tl.load(bias + expert * rows_total + row, mask=inside, other=0.0).to(tl.float32)
        if SWIGLU:
            value = _swiglu(total[:, None], limit, ROWS, 1)
            half = row_tile * (ROWS // 2) + tl.arange(0, ROWS // 2)
            to = out + pair.to(tl.int64) * (rows_total // 2) + half
            mask = half < rows_total // 2
            tl.store(to[:, None], value.to(out.dtype.element_ty), mask=mask[:, None])
        else:
            total = total * tl.load(gates + pair)
            to = out + pair.to(tl.int64) * rows_total + row
            tl.store(to, total.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSums:
    """Where the shares of a split product wait for each other.

    Attributes:
        parts: float32 scratch, splits x pairs x rows.
        arrived: int32, pairs x row tiles, zero between calls.
    """

    parts: Tensor
    arrived: Tensor

    @classmethod
    def empty(cls, *, pairs: int, rows: int, launch: Launch, device: torch.device) -> SplitSums:
        """Room for one product of `pairs` pairs."""
        tiles = pairs * triton.cdiv(rows, 16)  # enough for any tile size
        return cls(
            parts=torch.empty(launch.splits * pairs * rows, dtype=torch.float32, device=device),
            arrived=torch.zeros(tiles, dtype=torch.int32, device=device),
        )


def experts_direct(
    x: Tensor,
    matrix: PackedMatrix,
    experts: Tensor,
    gates: Tensor,
    out: Tensor,
    sums: SplitSums,
    *,
    swiglu: float | None,
    launch: Launch,
) -> None:
    """Multiply every pair by its expert's matrix, pair by pair.

    Args:
        x: (T, N) for the first matrix, (Q, I) for the second: float16, or bf16 if `launch.scaled`.
        matrix: the weights.
        experts: (Q,) int32 chosen experts; negative ones are skipped.
        gates: (Q,) float32 weights of the choices; used without `swiglu` only.
        out: (Q, I) or (Q, N), written.
        sums: scratch for `launch.splits` shares.
        swiglu: the activation's limit; None multiplies by the gate instead.
        launch: `rows`, `pairs` (columns of the tensor-core tile), `splits` of the input columns.
    """
    pairs, panels, rows = experts.numel(), matrix.blocks.shape[1], matrix.bias.shape[1]
    row_tiles = triton.cdiv(rows, launch.rows)
    _direct[(row_tiles * pairs * launch.splits,)](
        x,
        matrix.blocks,
        matrix.scales,
        matrix.bias,
        gates,
        out,
        experts,
        sums.parts,
        sums.arrived,
        rows,
        matrix.columns,
        panels,
        row_tiles,
        0.0 if swiglu is None else swiglu,
        DIV=pairs // x.shape[0],
        SPLITS=launch.splits,
        **_shape(matrix, swiglu, launch),
        **launch.target(x.device),
    )


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
    """The same for pairs that `make_plan` has sorted by expert into tiles of `launch.pairs`."""
    pairs, panels, rows = gates.numel(), matrix.blocks.shape[1], matrix.bias.shape[1]
    row_tiles = triton.cdiv(rows, launch.rows)
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
        rows,
        matrix.columns,
        panels,
        row_tiles,
        0.0 if swiglu is None else swiglu,
        DIV=pairs // x.shape[0],
        **_shape(matrix, swiglu, launch),
        **launch.target(x.device),
    )


def _shape(matrix: PackedMatrix, swiglu: float | None, launch: Launch) -> dict[str, Any]:
    """Compile-time arguments of both forms."""
    panels = matrix.blocks.shape[1]
    return {
        "SWIGLU": swiglu is not None,
        "EVEN": matrix.columns % 64 == 0 and panels % (launch.unroll * launch.splits) == 0,
        "ROWS": launch.rows,
        "PAIRS": launch.pairs,
        "UNROLL": launch.unroll,
        "STAGES": launch.stages,
        "SCALED": launch.scaled,
    }
