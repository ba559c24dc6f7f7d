# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The residual stream's two small kernels: embedding, and add-then-RMSNorm in one pass.

    x = x + sum(parts);   out = x / rms(x) * gain

The stream is float32: 48 additions rounded to bf16 would cost more accuracy than all bf16
operands of the model together.

Dimensions: T tokens, N model width, C parts to add (0, 1, or one per chosen expert).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch
from gptoss_triton.pdl import release_next, wait_previous

EPSILON = tl.constexpr(1e-5)


@triton.jit
def _residual_norm(
    x, parts, gain, total, out, width, PARTS: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr
):
    """One token a program."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    scale = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    wait_previous(PDL)
    release_next(PDL)
    value = tl.load(x + token * width + column, mask=inside, other=0.0)
    for part in tl.static_range(PARTS):
        place = (token * PARTS + part) * width + column
        value += tl.load(parts + place, mask=inside, other=0.0).to(tl.float32)
    if PARTS > 0:
        tl.store(total + token * width + column, value, mask=inside)
    rms = tl.rsqrt(tl.sum(value * value, 0) / width + EPSILON)
    tl.store(out + token * width + column, (value * rms * scale).to(out.dtype.element_ty), inside)


def residual_norm(
    x: Tensor, parts: Tensor | None, gain: Tensor, total: Tensor, out: Tensor, *, launch: Launch
) -> None:
    """Add parts to the residual stream and norm it.

    Args:
        x: (T, N) float32.
        parts: (T, N) or (T, C, N), any float dtype; None adds nothing and writes no `total`.
        gain: (N,).
        total: (T, N) float32, written; may be `x`.
        out: (T, N), written in its dtype.
        launch: warps and PDL.
    """
    tokens, width = x.shape
    count = 0 if parts is None else parts.numel() // x.numel()
    _residual_norm[(tokens,)](
        x,
        x if parts is None else parts,
        gain,
        total,
        out,
        width,
        PARTS=count,
        WIDTH=triton.next_power_of_2(width),
        **launch.plain(x.device),
    )


@triton.jit
def _embed(tokens, rows, table, x, width, WIDTH: tl.constexpr, PDL: tl.constexpr):
    """One token a program."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    wait_previous(PDL)
    release_next(PDL)
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
        WIDTH=triton.next_power_of_2(width),
        **launch.plain(x.device),
    )
