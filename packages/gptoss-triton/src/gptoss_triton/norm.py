# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The residual stream's two small kernels: embedding, and add-then-RMSNorm in one pass.

    x = x + sum(parts) + shift;   out = x / rms(x) * gain

The stream is float32: two additions a layer, rounded to 16 bits, would cost more accuracy than all
operands of the model together, and it grows beyond 65,504, where float16 ends.

Dimensions: T tokens, N model width, C parts to add (0, 1, or one per chosen expert).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick

EPSILON = tl.constexpr(1e-5)


@triton.jit
def narrow(value, kind: tl.constexpr):
    """Round; float16 saturates, so that a gain in the thousands does not become inf."""
    if kind == tl.float16:
        value = tl.minimum(tl.maximum(value, -65504.0), 65504.0)
    return value.to(kind)


@quick
@triton.jit
def _residual_norm(
    x,
    parts,
    shift,
    gain,
    total,
    out,
    width,
    PARTS: tl.constexpr,
    SHIFT: tl.constexpr,
    WIDTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """One token a program."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    scale = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    if SHIFT:
        bias = tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    release_next(PDL)
    wait_previous(PDL)
    value = tl.load(x + token * width + column, mask=inside, other=0.0)
    for part in tl.static_range(PARTS):
        place = (token * PARTS + part) * width + column
        value += tl.load(parts + place, mask=inside, other=0.0).to(tl.float32)
    if SHIFT:
        value += bias
    if PARTS > 0:
        tl.store(total + token * width + column, value, mask=inside)
    rms = tl.rsqrt(tl.sum(value * value, 0) / width + EPSILON)
    tl.store(
        out + token * width + column, narrow(value * rms * scale, out.dtype.element_ty), inside
    )


def residual_norm(
    x: Tensor,
    parts: Tensor | None,
    gain: Tensor,
    total: Tensor,
    out: Tensor,
    *,
    shift: Tensor | None = None,
    launch: Launch,
) -> None:
    """Add parts to the residual stream and norm it.

    Args:
        x: (T, N) float32.
        parts: (T, N) or (T, C, N), any float dtype; None adds nothing and writes no `total`.
        gain: (N,).
        total: (T, N) float32, written; may be `x`.
        out: (T, N), written in its dtype.
        shift: (N,), added to every token with the parts.
        launch: warps and PDL.
    """
    tokens, width = x.shape
    count = 0 if parts is None else parts.numel() // x.numel()
    _residual_norm[(tokens,)](
        x,
        x if parts is None else parts,
        gain if shift is None else shift,
        gain,
        total,
        out,
        width,
        PARTS=count,
        SHIFT=shift is not None,
        WIDTH=power_of_two(width),
        **launch.plain(x.device),
    )


@quick
@triton.jit(do_not_specialize_on_alignment=["tokens", "rows"])
def _embed(tokens, rows, table, x, width, WIDTH: tl.constexpr, PDL: tl.constexpr):
    """One token a program."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    release_next(PDL)
    wait_previous(PDL)
    token = tl.maximum(tl.load(tokens + tl.load(rows + row)), 0).to(tl.int64)
    value = tl.load(table + token * width + column, mask=column < width, other=0.0)
    tl.store(x + row * width + column, value.to(tl.float32), mask=column < width)


def embed(tokens: Tensor, rows: Tensor, table: Tensor, x: Tensor, *, launch: Launch) -> None:
    """Write rows of the table to the residual stream.

    Args:
        tokens: int32 ids; a negative one reads row 0 of the table.
        rows: (T,) int32 which of `tokens` each row of `x` is.
        table: (V, N).
        x: (T, N) float32, written.
        launch: warps and PDL.
    """
    width = table.shape[1]
    _embed[(rows.numel(),)](
        tokens,
        rows,
        table,
        x,
        width,
        WIDTH=power_of_two(width),
        **launch.plain(x.device),
    )
