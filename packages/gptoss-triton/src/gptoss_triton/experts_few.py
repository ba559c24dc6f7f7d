# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"
"""The experts' products for a few tokens: every pair by itself, a warp for 16 rows.

    h = swiglu(W1[e] x + b1[e]);   y = gate * (W2[e] h + b2[e])      for every (token, choice) pair

A vector would fill one column of a tensor-core tile and leave the others empty, so here the eight
columns hold eight *runs* of 32 inputs. A warp takes four panels (a quad) of a strip of 16 rows: 256
input columns, which are eight runs, each with scales of its own. Column n of the right operand is
run n; that costs a lane four words a quad. All columns are multiplied by the weights of every run,
but only the column of that very run means anything: lane l holds the sums of rows l/4 and l/4 + 8
in columns 2 (l mod 4) and the next, that is of both runs of panel l mod 4, and takes them when that
panel's turn comes. So a lane applies the scales of one panel, and the four lanes of a row are added
once, at the end.

Inside the loop nothing is exchanged: no shared memory, no barrier. The warps of a program that
share a strip's columns meet once. For 1,024 weights a warp needs about 58 instructions (a tile with
one column in use needed 130), of which 36 decode.

A tensor here has one element a thread: element t is lane t mod 32 of warp t / 32.

Dimensions: T tokens, K experts per token, Q = T K pairs (pair = token K + choice), N model width,
I expert width.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv
from gptoss_triton.mxfp4 import PackedMatrix, expand_code
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick
from gptoss_triton.swiglu import swiglu_tile


def _load_source() -> str:
    """PTX: $0-$15 become four panels' words; $16: address, $17: stride, $18: runs left.

    Panels past the end keep what the registers held: any bits decode to finite weights, and the
    inputs there are zero.
    """
    lines = [".reg .pred p;", ".reg .b64 a;", "mov.b64 a, $16;"]
    for panel in range(4):
        words = ", ".join(f"${4 * panel + word}" for word in range(4))
        lines += [
            f"setp.gt.s32 p, $18, {2 * panel};",
            f"@p ld.global.nc.L1::no_allocate.v4.b32 {{{words}}}, [a];",
            "add.s64 a, a, $17;",
        ]
    return "{\n" + "\n".join(lines) + "\n}"


def _multiply_source() -> str:
    """PTX: $0 and $1 become the sums of the lane's two rows, from those so far ($25, $26).

    $2-$17 are the weights' words, $18-$21 the inputs two by two, $22 and $23 the scales of both
    rows, $24 is the lane's panel.

    Bytes 0 and 2 of a word make one pair of float16, bytes 1 and 3 the other, and the inputs are
    paired likewise: the masks that decode also separate them. A byte permutation would come on top,
    on the integer pipe, which takes an instruction every other cycle only.
    """
    lines = [
        ".reg .pred p;",
        ".reg .b32 s, t, u, x<4>, l<8>, h<8>;",
        ".reg .f32 z, c<4>, d<4>, f<4>;",
        "mov.f32 z, 0f00000000;",
    ]
    for row in range(2):
        lines += [
            f"shl.b32 s, ${22 + row}, 23;  and.b32 s, s, 0x7F800000;  mov.b32 f{2 * row}, s;",
            f"shl.b32 s, ${22 + row}, 15;  and.b32 s, s, 0x7F800000;  mov.b32 f{2 * row + 1}, s;",
        ]
    for step in range(2):
        pair = f"${18 + 2 * step}, ${19 + 2 * step}"
        lines.append(f"prmt.b32 x{2 * step}, {pair}, 0x5410;")
        lines.append(f"prmt.b32 x{2 * step + 1}, {pair}, 0x7632;")
    for panel in range(4):
        for word in range(4):
            name = f"${2 + 4 * panel + word}"
            lines += [
                f"shl.b32 t, {name}, 8;  and.b32 l{2 * word}, t, 0x8E008E00;",
                f"and.b32 l{2 * word + 1}, {name}, 0x8E008E00;",
                f"shr.u32 u, {name}, 3;  shl.b32 s, {name}, 7;",
                "lop3.b32 u, u, s, 0x7F7F7F7F, 0xE4;",  # magnitude of the one, sign of the other
                f"shl.b32 t, u, 8;  and.b32 h{2 * word}, t, 0x8E008E00;",
                f"and.b32 h{2 * word + 1}, u, 0x8E008E00;",
            ]
        for run, sums in (("l", "c"), ("h", "d")):
            into = ", ".join(f"{sums}{i}" for i in range(4))
            for step, start in ((0, "z, z, z, z"), (1, into)):
                # Left operand: row and row + 8 of the even columns, then of the odd ones.
                order = (2 * step, 4 + 2 * step, 2 * step + 1, 5 + 2 * step)
                left = ", ".join(f"{run}{i}" for i in order)
                lines.append(
                    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                    f"{{{into}}}, {{{left}}}, {{x{2 * step}, x{2 * step + 1}}}, {{{start}}};"
                )
        when = f"setp.eq.s32 p, $24, {panel};  @p " if panel else ""
        then = "@p " if panel else ""
        lines += [
            f"{when}fma.rn.f32 $0, c0, f0, $25;  {then}fma.rn.f32 $0, d1, f1, $0;",
            f"{then}fma.rn.f32 $1, c2, f2, $26;  {then}fma.rn.f32 $1, d3, f3, $1;",
        ]
    return "{\n" + "\n".join(lines) + "\n}"


UNIT = tl.constexpr(2.0**-14)  # of decoded weights, and so of their sums
_LOAD = tl.constexpr(_load_source())
_LOAD_OPERANDS = tl.constexpr(",".join(["=&r"] * 16 + ["l", "l", "r"]))
_MULTIPLY = tl.constexpr(_multiply_source())
_MULTIPLY_OPERANDS = tl.constexpr(",".join(["=&f"] * 2 + ["r"] * 23 + ["f"] * 2))


@triton.jit
def _fetch(
    blocks,
    scales,
    runs,
    lane,
    QUAD: tl.constexpr,
    ROWS_TOTAL: tl.constexpr,
    ASM: tl.constexpr,
):
    """Ask for a quad: 16 words of weights and the scales of two rows.

    Args:
        blocks: each thread's pointer to its 16 bytes in the warp's first panel.
        scales: each thread's pointer to its first scale word of row l/4.
        runs: how many runs there are from the warp's first quad on.
        lane: l.
        QUAD: which quad, counted from the warp's first; past the end, nothing is read.
        ROWS_TOTAL: rows of the matrix.
        ASM: off in the interpreter, where the words are one tensor (T, 16).
    """
    runs -= QUAD * 8
    known = lane % 4 // 2 * 4 < runs
    scales += QUAD * 2 * ROWS_TOTAL
    s0 = tl.load(scales, mask=known, other=0)
    s1 = tl.load(scales + 8, mask=known, other=0)
    blocks += QUAD * 128 * ROWS_TOTAL
    if ASM:
        w = tl.inline_asm_elementwise(
            asm=_LOAD,
            constraints=_LOAD_OPERANDS,
            args=[blocks, tl.full((1,), ROWS_TOTAL * 32, tl.int64), runs],
            dtype=(tl.int32,) * 16,
            is_pure=False,
            pack=1,
        )
    else:
        word = tl.arange(0, 16)
        words = blocks.to(tl.pointer_type(tl.int32))[:, None]
        inside = (word // 4 * 2)[None, :] < runs[:, None]
        w = tl.load(words + (word // 4 * ROWS_TOTAL * 8 + word % 4)[None, :], mask=inside, other=0)
    return w, s0, s1


@triton.jit
def _multiply_quad(quad, x, runs, lane, sum0, sum1, QUAD: tl.constexpr, ASM: tl.constexpr):
    """Add a fetched quad's products to the sums of rows l/4 and l/4 + 8, times 2^-14."""
    w, s0, s1 = quad
    live = lane // 4 < runs - QUAD * 8
    x += QUAD * 256
    shift = lane % 2 * 16  # the lane's panel is the first or second of its scale word
    s0, s1 = s0 >> shift, s1 >> shift
    if ASM:
        inputs = x.to(tl.pointer_type(tl.int32))
        v = (
            tl.load(inputs, mask=live, other=0),
            tl.load(inputs + 4, mask=live, other=0),
            tl.load(inputs + 8, mask=live, other=0),
            tl.load(inputs + 12, mask=live, other=0),
        )
        sum0, sum1 = tl.inline_asm_elementwise(
            asm=_MULTIPLY,
            constraints=_MULTIPLY_OPERANDS,
            args=w + v + (s0, s1, lane % 4, sum0, sum1),
            dtype=(tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    else:
        i = tl.arange(0, 8)
        v = tl.load(x[:, None] + (i // 2 * 8 + i % 2)[None, :], mask=live[:, None], other=0.0)
        low0, low1, high0, high1 = _products(w, v)
        sum0 += low0 * _power(s0 & 255) + high0 * _power((s0 >> 8) & 255)
        sum1 += low1 * _power(s1 & 255) + high1 * _power((s1 >> 8) & 255)
    return sum0, sum1


@triton.jit
def _power(exponent):
    """2^(exponent - 127) in float32, exactly, for exponents 1 to 254."""
    return (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def _products(w, v):
    """Sums of the lane's panel, both runs of both rows: what `_MULTIPLY` has before scales.

    Here words are (T, 16) and inputs (T, 8).
    """
    WARPS: tl.constexpr = w.shape[0] // 32
    byte = (w[:, :, None] >> (tl.arange(0, 4) * 8)[None, None, :]) & 255
    byte = byte.reshape(WARPS, 8, 4, 4, 2, 8)  # lane row, lane column, panel, row, column
    v = v.to(tl.float32).reshape(WARPS, 4, 2, 4, 8).permute(0, 3, 1, 4, 2)
    low_v, high_v = tl.split(v)  # (WARPS, lane column, panel, column)
    low = expand_code(byte >> 7, (byte >> 1) & 7) * low_v[:, None, :, :, None, :]
    high = expand_code(byte & 1, (byte >> 4) & 7) * high_v[:, None, :, :, None, :]
    low = tl.sum(tl.sum(low, 5), 2).reshape(w.shape[0], 2) * UNIT
    high = tl.sum(tl.sum(high, 5), 2).reshape(w.shape[0], 2) * UNIT
    low0, low1 = tl.split(low)  # one panel for each of a row's four lanes
    high0, high1 = tl.split(high)
    return low0, low1, high0, high1


@quick
@triton.jit(do_not_specialize=["steps"])
def _few(
    x,
    blocks,
    scales,
    bias,
    gates,
    out,
    experts,
    steps,
    limit,
    DIV: tl.constexpr,
    SWIGLU: tl.constexpr,
    ROWS_TOTAL: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIPS: tl.constexpr,
    SHARES: tl.constexpr,
    DEPTH: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """Some strips of 16 rows of one pair; SHARES warps a strip take every SHARES-th quad."""
    PANELS: tl.constexpr = (COLUMNS + 63) // 64
    QUADS: tl.constexpr = (PANELS + 4 * SHARES - 1) // (4 * SHARES)  # of one warp, rounded up
    HEIGHT: tl.constexpr = ROWS_TOTAL // 2 if SWIGLU else ROWS_TOTAL  # of the result
    pair = tl.program_id(0)  # neighbours, so that pairs of one expert meet in the cache
    first = tl.program_id(1) * STRIPS
    thread = tl.arange(0, 32 * STRIPS * SHARES)
    lane = thread % 32
    share = thread // 32 % SHARES
    strip = tl.minimum(first + thread // 32 // SHARES, ROWS_TOTAL // 16 - 1)
    blocks += share * ROWS_TOTAL * 128 + strip * 512 + lane * 16
    scales += (share * 2 + lane % 4 // 2) * ROWS_TOTAL + strip * 16 + lane // 4
    x += (pair // DIV).to(tl.int64) * COLUMNS + share * 256 + lane // 4 * 32 + lane % 4 * 2
    runs = COLUMNS // 32 - share * 8
    release_next(PDL)
    wait_previous(PDL)
    expert = tl.load(experts + pair).to(tl.int64)
    if expert < 0:  # an unused row of the batch
        return
    blocks += expert * (PANELS * ROWS_TOTAL * 32)
    scales += expert * ((PANELS + 1) // 2 * ROWS_TOTAL)
    bias += expert * ROWS_TOTAL + strip * 16 + lane // 4
    once = (lane % 4 == 0) & (share == 0)
    sum0 = tl.load(bias, mask=once, other=0.0).to(tl.float32) * UNIT
    sum1 = tl.load(bias + 8, mask=once, other=0.0).to(tl.float32) * UNIT
    if not SWIGLU:
        gate = tl.load(gates + pair)
    waiting = ()
    for i in tl.static_range(DEPTH):
        waiting += (_fetch(blocks, scales, runs, lane, i * SHARES, ROWS_TOTAL, ASM),)
    for _ in range(steps):  # QUADS // DEPTH, given at run time: unrolling it takes registers
        for i in tl.static_range(DEPTH):
            sum0, sum1 = _multiply_quad(waiting[0], x, runs, lane, sum0, sum1, i * SHARES, ASM)
            waiting = waiting[1:] + (  # noqa: RUF005 - the compiler knows no starred items
                _fetch(blocks, scales, runs, lane, (DEPTH + i) * SHARES, ROWS_TOTAL, ASM),
            )
        blocks += DEPTH * SHARES * 128 * ROWS_TOTAL
        scales += DEPTH * SHARES * 2 * ROWS_TOTAL
        x += DEPTH * SHARES * 256
        runs -= DEPTH * SHARES * 8
    for i in tl.static_range(QUADS % DEPTH):
        sum0, sum1 = _multiply_quad(waiting[i], x, runs, lane, sum0, sum1, i * SHARES, ASM)
    sums = tl.join(sum0, sum1).reshape(STRIPS, SHARES, 8, 4, 2).permute(0, 4, 2, 1, 3)
    sums = tl.sum(sums.reshape(STRIPS * 16, SHARES * 4), 1) * 16384.0  # 2^14; rows in order
    if SWIGLU:
        result = swiglu_tile(sums[:, None], limit, STRIPS * 16, 1).reshape(STRIPS * 8)
        row = first * 8 + tl.arange(0, STRIPS * 8)
    else:
        result = sums * gate
        row = first * 16 + tl.arange(0, STRIPS * 16)
    to = out + pair.to(tl.int64) * HEIGHT + row
    tl.store(to, result.to(out.dtype.element_ty), mask=row < HEIGHT)


def experts_few(
    x: Tensor,
    matrix: PackedMatrix,
    experts: Tensor,
    gates: Tensor,
    out: Tensor,
    *,
    swiglu: float | None,
    launch: Launch,
) -> None:
    """Multiply every pair by its expert's matrix, pair by pair.

    Args:
        x: (T, N) for the first matrix, (Q, I) for the second, float16.
        matrix: the weights.
        experts: (Q,) int32 chosen experts; negative ones are skipped.
        gates: (Q,) float32 weights of the choices; used without `swiglu` only.
        out: (Q, I) or (Q, N), written.
        swiglu: the activation's limit; None multiplies by the gate instead.
        launch: `rows`, a multiple of 16; `warps`, a multiple of its strips, whose columns they
            share; `stages`, the quads a warp asks for ahead; `registers`.
    """
    pairs, rows = experts.numel(), matrix.bias.shape[1]
    strips = launch.rows // 16
    shares = launch.warps // strips
    _few[(pairs, cdiv(rows, launch.rows))](
        x,
        matrix.blocks,
        matrix.scales,
        matrix.bias,
        gates,
        out,
        experts,
        cdiv(cdiv(matrix.columns, 256), shares) // launch.stages,
        0.0 if swiglu is None else swiglu,
        DIV=pairs // x.shape[0],
        SWIGLU=swiglu is not None,
        ROWS_TOTAL=rows,
        COLUMNS=matrix.columns,
        STRIPS=strips,
        SHARES=shares,
        DEPTH=launch.stages,
        **launch.target(x.device),
    )
