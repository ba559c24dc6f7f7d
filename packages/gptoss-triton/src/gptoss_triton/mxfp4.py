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
subnormals included. For bf16 they move three bits down and read as the value times 2^-126; the
decoder multiplies by 2^126 * 2^(scale - 127) = 2^(scale - 1), exactly too.

Dimensions: E experts, R rows (a multiple of 16), K columns, P = ceil(K / 64) panels.

    blocks, scales = pack_panels(blocks, scales)    # (E, P, 32 R) uint8, (E, ceil(P/2), R) int32
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PANEL = 64  # columns
LARGEST_SCALE = 128  # 2^(scale - 1) must be a bf16; weights beyond 12 are no gpt-oss weights

# bf16 with scales. $0, $1: low columns of four bytes; $2, $3: high ones; $4: the bytes; $5-$6 and
# $7-$8: their factors.
_DECODE_SCALED = tl.constexpr("""
{
    .reg .b32 t, s, m, f;
    mov.b32 f, 0x80008000;
    prmt.b32 t, $4, 0, 0x1404;
    and.b32 s, t, 0x80008000;
    shr.u32 m, t, 3;  lop3.b32 m, m, 0x01C001C0, s, 0xEA;
    fma.rn.bf16x2 $0, m, $5, f;
    shl.b32 s, t, 7;  and.b32 s, s, 0x80008000;
    shr.u32 m, t, 6;  lop3.b32 m, m, 0x01C001C0, s, 0xEA;
    fma.rn.bf16x2 $2, m, $7, f;
    prmt.b32 t, $4, 0, 0x3424;
    and.b32 s, t, 0x80008000;
    shr.u32 m, t, 3;  lop3.b32 m, m, 0x01C001C0, s, 0xEA;
    fma.rn.bf16x2 $1, m, $6, f;
    shl.b32 s, t, 7;  and.b32 s, s, 0x80008000;
    shr.u32 m, t, 6;  lop3.b32 m, m, 0x01C001C0, s, 0xEA;
    fma.rn.bf16x2 $3, m, $8, f;
}
""")
# float16 without scales, times 2^-14: four bytes at once become E5M2, which is the upper half of a
# float16. $4: the bytes.
_DECODE_PLAIN = tl.constexpr("""
{
    .reg .b32 a, b, s;
    and.b32 a, $4, 0x8E8E8E8E;
    shl.b32 s, $4, 7;  and.b32 s, s, 0x80808080;
    shr.u32 b, $4, 3;  lop3.b32 b, b, 0x0E0E0E0E, s, 0xEA;
    prmt.b32 $0, a, 0, 0x1404;
    prmt.b32 $1, a, 0, 0x3424;
    prmt.b32 $2, b, 0, 0x1404;
    prmt.b32 $3, b, 0, 0x3424;
}
""")


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
def load_panel(
    blocks,
    scales,
    first_row,
    panel,
    rows_total,
    like,
    ROWS: tl.constexpr,
    SCALED: tl.constexpr,
    ASM: tl.constexpr,
):
    """Decode one panel of ROWS consecutive rows of one expert.

    Args:
        blocks: pointer to the expert's bytes.
        scales: pointer to the expert's scale words.
        first_row: a multiple of 16; rows past the end repeat the last ones.
        panel: which panel.
        rows_total: rows of the matrix.
        like: a tensor whose dtype the weights get where inline assembly is off.
        ROWS: a multiple of 16.
        SCALED: bf16 weights, scales applied. Off: float16 weights times 2^-14 without scales; the
            caller multiplies 32-column partial sums by the factors, cheaper for few tokens.
        ASM: decode with PTX. Off in the interpreter: the same values by plain operations.

    Returns:
        low, high: (ROWS, 32) each, columns 0-31 and 32-63; and 2^14 times their scales, (ROWS,)
        float32 each.
    """
    row = tl.minimum(first_row + tl.arange(0, ROWS), rows_total - 1)
    words = tl.load(scales + (panel // 2) * rows_total + row)  # (ROWS,)
    words = words >> ((panel % 2) * 16)
    low_scale, high_scale = words & 255, (words >> 8) & 255
    group = tl.minimum(first_row // 16 + tl.arange(0, ROWS // 16), rows_total // 16 - 1)
    place = group[:, None] * 512 + tl.arange(0, 512)[None, :]
    packed = tl.load(blocks + panel * rows_total * 32 + place)  # (ROWS / 16, 512)
    packed = packed.reshape(ROWS // 16, 8, 4, 2, 4, 2)  # group, lane row, lane column, half, 8s, 2
    packed = packed.permute(0, 3, 1, 4, 2, 5).reshape(ROWS, 32)
    if ASM:
        if SCALED:
            low_factor = ((low_scale + 126) << 7).to(tl.int16).to(tl.bfloat16, bitcast=True)
            high_factor = ((high_scale + 126) << 7).to(tl.int16).to(tl.bfloat16, bitcast=True)
            low, high = tl.inline_asm_elementwise(
                asm=_DECODE_SCALED,
                constraints="=&r,=&r,=&r,=&r,r,r,r,r,r",
                args=[packed, low_factor[:, None], high_factor[:, None]],
                dtype=(tl.bfloat16, tl.bfloat16),
                is_pure=True,
                pack=4,
            )
        else:
            low, high = tl.inline_asm_elementwise(
                asm=_DECODE_PLAIN,
                constraints="=&r,=&r,=&r,=&r,r",
                args=[packed],
                dtype=(tl.float16, tl.float16),
                is_pure=True,
                pack=4,
            )
    else:
        low = _expand(packed >> 7, (packed >> 1) & 7)
        high = _expand(packed & 1, (packed >> 4) & 7)
        if SCALED:
            low = low * tl.exp2(low_scale.to(tl.float32) - 127.0)[:, None]
            high = high * tl.exp2(high_scale.to(tl.float32) - 127.0)[:, None]
        else:
            low, high = low * 0.00006103515625, high * 0.00006103515625  # 2^-14
        low, high = low.to(like.dtype), high.to(like.dtype)
    return low, high, _power(low_scale + 14), _power(high_scale + 14)


@triton.jit
def _power(exponent):
    """2^(exponent - 127) in float32, exactly, for exponents 1 to 254."""
    return (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def _expand(sign, magnitude):
    """E2M1 in float32, one element at a time."""
    exponent = (magnitude >> 1).to(tl.float32)
    mantissa = (magnitude & 1).to(tl.float32)
    normal = tl.exp2(exponent - 1.0) * (1.0 + 0.5 * mantissa)
    value = tl.where(exponent == 0.0, 0.5 * mantissa, normal)
    return tl.where(sign == 1, -value, value)
