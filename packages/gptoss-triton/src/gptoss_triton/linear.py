# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Dense products: y = W x + b.

One token multiplies and adds in registers (`_vector`). More of them go to the vendor's GEMM
(`linear_many`), or, where a row must not depend on what stands beside it, to tiles of the tensor
core with the weights as the left operand (`_skinny`): the GEMM picks its algorithm by their number.

Dimensions: T tokens, R weight rows, K columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick


@quick
@triton.jit
def _vector(
    x,
    weight,
    bias,
    out,
    rows_total,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BIAS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Some rows times one vector; all their weights are asked for at once, before `x` is there."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    safe_row = tl.minimum(row, rows_total - 1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    inside = column < columns
    place = weight + safe_row[:, None] * columns + column[None, :]
    release_next(PDL)
    tile = tl.load(place, mask=inside[None, :], other=0.0)
    wait_previous(PDL)
    part = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    result = tl.sum(tile.to(tl.float32) * part[None, :], 1)
    if BIAS:
        result += tl.load(bias + safe_row).to(tl.float32)
    tl.store(out + row, result.to(out.dtype.element_ty), mask=row < rows_total)


@quick
@triton.jit(do_not_specialize=["tokens"])
def _skinny(
    x,
    weight,
    bias,
    out,
    tokens,
    rows_total,
    columns,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EVEN: tl.constexpr,
    BIAS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile of rows times a tile of tokens."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    safe_row = tl.minimum(row, rows_total - 1).to(tl.int64)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    column = tl.arange(0, COLUMNS)
    base = weight + safe_row[:, None] * columns
    x_base = x + token[None, :].to(tl.int64) * columns + column[:, None]
    release_next(PDL)
    wait_previous(PDL)
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    for first in tl.range(0, columns, COLUMNS, num_stages=STAGES):
        live = (token < tokens)[None, :]
        if EVEN:
            tile = tl.load(base + first + column[None, :])
        else:
            inside = first + column < columns
            live = live & inside[:, None]
            tile = tl.load(base + first + column[None, :], mask=inside[None, :], other=0.0)
        acc = tl.dot(tile, tl.load(x_base + first, mask=live, other=0.0), acc)
    if BIAS:
        acc += tl.load(bias + safe_row).to(tl.float32)[:, None]
    to = out + token[None, :].to(tl.int64) * rows_total + row[:, None]
    live = (token < tokens)[None, :] & (row < rows_total)[:, None]
    tl.store(to, acc.to(out.dtype.element_ty), mask=live)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, *, launch: Launch) -> None:
    """Multiply tokens by a dense matrix in our own kernels.

    Args:
        x: (T, K), in the dtype of `weight`.
        weight: (R, K).
        bias: (R,) or None.
        out: (T, R), written in its dtype.
        launch: `rows`, `columns`, and `pairs` tokens a tile; 1 selects the vector form, where T
            must be 1 and a program takes all columns.
    """
    tokens, columns = x.shape
    rows = weight.shape[0]
    row_tiles = cdiv(rows, launch.rows)
    shared = {"ROWS": launch.rows, "BIAS": bias is not None, **launch.plain(x.device)}
    operands = (x, weight, weight if bias is None else bias, out)
    if launch.pairs == 1:
        _vector[(row_tiles,)](*operands, rows, columns, COLUMNS=power_of_two(columns), **shared)
        return
    _skinny[(row_tiles, cdiv(tokens, launch.pairs))](
        *operands,
        tokens,
        rows,
        columns,
        TOKENS=launch.pairs,
        COLUMNS=launch.columns,
        EVEN=columns % launch.columns == 0,
        STAGES=launch.stages,
        **shared,
    )


def linear_many(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """The same for many tokens, by the vendor's GEMM; `out` may be float32."""
    if bias is not None:
        torch.addmm(bias, x, weight.t(), out=out)
    elif out.dtype == x.dtype:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.mm(x, weight.t(), out_dtype=out.dtype, out=out)
