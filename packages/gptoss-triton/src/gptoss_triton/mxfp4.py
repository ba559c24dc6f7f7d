# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""MXFP4 the way the kernels want it: packed at load into panels, decoded in registers.

A panel is 64 input columns of all rows, 32 bytes a row. Byte c of a row holds column c in its low
nibble and column 32 + c in its high one: the decoder's two results are two runs of 32 columns, each
with one scale a row. Scales come as one 32-bit word for two panels, the smallest piece that can be
fetched ahead.

Within a panel, 16 rows make a fragment of 512 bytes, ordered as the tensor core's left operand
wants them: lane l of a warp multiplies rows l/4 and l/4 + 8, columns 2 (l mod 4) + {0, 1} of every
8. Its 16 bytes are neighbours, so they arrive in one load and need no exchange between lanes.

A byte is not two plain nibbles but their bits in the places where a decoder wants them: sign and
magnitude of the low column in bits 7 and 3-1, of the high column in bits 0 and 6-4. With the byte
in the upper half of 16 bits, E2M1's exponent and mantissa are where float16 has the last two bits
of its exponent and the first of its mantissa: masking alone gives the value times 2^-14, exactly,
subnormals included. What is left is one multiplication by 2^14 times the scale. float16 holds every
weight exactly whose scale is 104 to 128: magnitudes of 2^-24 to 12. Below that its last bits are
lost, and below 99 all of it: weights smaller than 1e-6.

Dimensions: E experts, R rows (a multiple of 16), K columns, P = ceil(K / 64) panels.

    blocks, scales = pack_panels(blocks, scales)    # (E, P, 32 R) uint8, (E, ceil(P/2), R) int32
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PANEL = 64  # columns
LARGEST_SCALE = 128  # float16 ends there; weights beyond 12 are no gpt-oss weights

# Two scales, one in each half, to 2^(scale - 113) in float16: the decoder's values are times 2^-14.
# Small integers compare alike as float16, so the float16 maximum cuts off what lies below 98.
_FACTORS = """
{
    .reg .b32 t, c;
    mov.b32 c, 0x00620062;
    prmt.b32 t, $1, 0, SELECT;
    max.f16x2 t, t, c;
    mad.lo.u32 $0, t, 1024, 0x77FE7800;
}
"""
_LOW_FACTORS = tl.constexpr(_FACTORS.replace("SELECT", "0x4240"))  # bytes 0 and 2 of a scale word
_HIGH_FACTORS = tl.constexpr(_FACTORS.replace("SELECT", "0x4341"))  # bytes 1 and 3
# $0, $1: low columns of four bytes; $2, $3: high ones; $4: the bytes; $5-$8 and $9-$12: for each
# byte the factors of two panels, of which PART takes this panel's. Two neighbours share a row.
_DECODE = """
{
    .reg .b32 a, b, s, f;
    .reg .b16 even, odd;
    and.b32 a, $4, 0x8E8E8E8E;
    shl.b32 s, $4, 7;  and.b32 s, s, 0x80808080;
    shr.u32 b, $4, 3;  lop3.b32 b, b, 0x0E0E0E0E, s, 0xEA;
    mov.b32 {even, odd}, $5;  mov.b32 f, {PART, PART};
    prmt.b32 $0, a, 0, 0x1404;  mul.rn.f16x2 $0, $0, f;
    mov.b32 {even, odd}, $7;  mov.b32 f, {PART, PART};
    prmt.b32 $1, a, 0, 0x3424;  mul.rn.f16x2 $1, $1, f;
    mov.b32 {even, odd}, $9;  mov.b32 f, {PART, PART};
    prmt.b32 $2, b, 0, 0x1404;  mul.rn.f16x2 $2, $2, f;
    mov.b32 {even, odd}, $11;  mov.b32 f, {PART, PART};
    prmt.b32 $3, b, 0, 0x3424;  mul.rn.f16x2 $3, $3, f;
}
"""
_DECODE_EVEN = tl.constexpr(_DECODE.replace("PART", "even"))
_DECODE_ODD = tl.constexpr(_DECODE.replace("PART", "odd"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedMatrix:
    """One layer's packed matrices of all experts.

    Attributes:
        blocks: (E, P, 32 R) uint8 panels of fragments.
        scales: (E, ceil(P/2), R) int32 words.
        bias: (E, R), rows in the order of `blocks`.
        columns: K, before panels were filled up.
    """

    blocks: Tensor
    scales: Tensor
    bias: Tensor
    columns: int


def pack_panels(blocks: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Reorder a checkpoint's bytes into panels; every nibble is kept, zeros fill the last panel.

    Args:
        blocks: (E, R, K/32, 16) uint8 as in the checkpoint, even column in the low nibble.
        scales: (E, R, K/32) uint8.

    Returns:
        blocks (E, P, 32 R) uint8 and scales (E, ceil(P/2), R) int32 on the same device; byte j of
        a scale word belongs to the j-th run of 32 columns of its two panels.
    """
    experts, rows, groups, _ = blocks.shape
    panels = -(-groups // 2)
    if groups % 2:
        blocks = torch.nn.functional.pad(blocks, (0, 0, 0, 1))
    halves = blocks.reshape(experts, rows, panels, 2, 16)
    low, high = halves[..., 0, :], halves[..., 1, :]  # (E, R, P, 16)
    even = _place(low & 0xF, high & 0xF)
    odd = _place(low >> 4, high >> 4)
    packed = torch.stack([even, odd], dim=-1)  # (E, R, P, 16, 2)
    # Axes: group, row half, lane row, panel, eight columns, lane column, column of a pair.
    axes = packed.reshape(experts, rows // 16, 2, 8, panels, 4, 4, 2)
    fragments = axes.permute(0, 4, 1, 3, 6, 2, 5, 7).reshape(experts, panels, rows * 32)
    words = -(-panels // 2)
    scales = torch.nn.functional.pad(scales, (0, words * 4 - groups))
    scale_words = scales.reshape(experts, rows, words, 4).view(torch.int32).squeeze(-1)
    return fragments.contiguous(), scale_words.transpose(1, 2).contiguous()


def _place(low: Tensor, high: Tensor) -> Tensor:
    """Put the bits of two codes where the decoders want them."""
    return ((low & 8) << 4) | ((low & 7) << 1) | ((high & 7) << 4) | (high >> 3)


def interleave_gate_up(tensor: Tensor) -> Tensor:
    """Reorder fused rows g0 u0 g1 u1 ... into groups of 16: eight gates, then their eight ups.

    A tensor-core accumulator keeps rows r and r + 8 of such a group in one thread, so the
    activation needs no exchange. Rows are axis 1; 2 I must be a multiple of 16.

    Args:
        tensor: (E, 2 I, ...) rows interleaved as in the checkpoint.

    Returns:
        The same shape in the order above.
    """
    experts, rows = tensor.shape[:2]
    rest = tensor.shape[2:]
    grouped = tensor.reshape(experts, rows // 16, 8, 2, *rest).transpose(2, 3)
    return grouped.reshape(experts, rows, *rest)


@triton.jit
def panel_factors(words, ROWS: tl.constexpr, ASM: tl.constexpr):
    """Scale words (ROWS,) to factors of two panels for every byte: (ROWS / 16, 512) twice."""
    low, high = words, words
    if ASM:
        low, high = _factor_pairs(words, _LOW_FACTORS), _factor_pairs(words, _HIGH_FACTORS)
    return _spread(low, ROWS), _spread(high, ROWS)


@triton.jit
def _factor_pairs(words, SOURCE: tl.constexpr):
    """One of the two programs above on every scale word."""
    return tl.inline_asm_elementwise(
        asm=SOURCE, constraints="=r,r", args=[words], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit
def _spread(values, ROWS: tl.constexpr):
    """A row's value for each byte of the row, in the order of a panel: (ROWS / 16, 512)."""
    values = values.reshape(ROWS // 16, 2, 8).permute(0, 2, 1)  # group, lane row, half
    values = values.reshape(ROWS // 16, 8, 1, 2, 1, 1)
    return tl.broadcast_to(values, (ROWS // 16, 8, 4, 2, 4, 2)).reshape(ROWS // 16, 512)


@triton.jit
def decode_panel(
    packed,
    low_factor,
    high_factor,
    like,
    PART: tl.constexpr,
    ROWS: tl.constexpr,
    PINNED: tl.constexpr,
    ASM: tl.constexpr,
):
    """A panel's bytes in the order of memory to its weights, (ROWS, 64).

    PINNED: called impure, which it is not. As a pure one it would be moved behind the reordering,
    where the four bytes of a register belong to two rows and have to be gathered first.
    """
    if ASM:
        low, high = tl.inline_asm_elementwise(
            asm=_DECODE_ODD if PART else _DECODE_EVEN,
            constraints="=&r,=&r,=&r,=&r,r,r,r,r,r,r,r,r,r",
            args=[packed, low_factor, high_factor],
            dtype=(tl.float16, tl.float16),
            is_pure=not PINNED,
            pack=4,
        )
    else:
        low = _plain(packed >> 7, (packed >> 1) & 7, low_factor >> (16 * PART))
        high = _plain(packed & 1, (packed >> 4) & 7, high_factor >> (16 * PART + 8))
        low, high = low.to(like.dtype), high.to(like.dtype)
    both = tl.join(_in_rows(low, ROWS), _in_rows(high, ROWS))  # (ROWS, 32, 2)
    return both.permute(0, 2, 1).reshape(ROWS, 64)


@triton.jit
def _plain(sign, magnitude, scale):
    """The same values by plain operations in float32."""
    return expand_code(sign, magnitude) * tl.exp2((scale & 255).to(tl.float32) - 127.0)


@triton.jit
def _in_rows(weights, ROWS: tl.constexpr):
    """From the order of memory, (ROWS / 16, 512), to (ROWS, 32)."""
    weights = weights.reshape(ROWS // 16, 8, 4, 2, 4, 2)  # group, lane row, column, half, 8s, 2
    return weights.permute(0, 3, 1, 4, 2, 5).reshape(ROWS, 32)


@triton.jit
def expand_code(sign, magnitude):
    """E2M1 in float32, one element at a time."""
    exponent = (magnitude >> 1).to(tl.float32)
    mantissa = (magnitude & 1).to(tl.float32)
    normal = tl.exp2(exponent - 1.0) * (1.0 + 0.5 * mantissa)
    value = tl.where(exponent == 0.0, 0.5 * mantissa, normal)
    return tl.where(sign == 1, -value, value)
