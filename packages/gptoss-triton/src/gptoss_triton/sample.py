# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Choosing the next token on the device: mask, thresholds of top-k, top-p and min-p, and the draw.

A draw is one pass: the largest of `logit / temperature + Gumbel noise` is a sample of the softmax
(Gumbel, 1954). The noise is a counter-based random number of (seed, position, token), so a request
with a seed repeats itself whatever it is batched with, as far as its logits do. Top-k and top-p
need no sort either: the threshold is found by bisection over the bits of the logits, exactly.

Dimensions: B rows, V vocabulary rows, C chunks of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick

CHUNK = 4096  # tokens a program looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What the draws of all slots need, and where their results go.

    Attributes:
        temperature: (B,) float32; 0 takes the largest.
        seed: (B,) int64.
        top_k: (B,) int32; 0 keeps all.
        top_p: (B,) float32; 1 keeps all.
        min_p: (B,) float32; 0 keeps all.
        threshold: (B,) float32; smaller logits are out. -inf keeps all.
        token: (B,) int32, written.
        logprob: (B,) float32, written: natural log, of the unmodified logits.
        lse: (B,) float32, written: log of the sum of exponentials of the unmodified logits.
        scratch: (4, B, C) float32.
        arrived: (B,) int32, zero between calls.
    """

    temperature: Tensor
    seed: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    threshold: Tensor
    token: Tensor
    logprob: Tensor
    lse: Tensor
    scratch: Tensor
    arrived: Tensor

    @classmethod
    def empty(cls, *, rows: int, vocabulary: int, device: torch.device) -> Draw:
        """Greedy rows without thresholds."""
        chunks = cdiv(vocabulary, CHUNK)

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            temperature=zeros(rows, dtype=torch.float32),
            seed=zeros(rows, dtype=torch.int64),
            top_k=zeros(rows, dtype=torch.int32),
            top_p=torch.ones(rows, device=device),
            min_p=zeros(rows, dtype=torch.float32),
            threshold=torch.full((rows,), float("-inf"), device=device),
            token=zeros(rows, dtype=torch.int32),
            logprob=zeros(rows, dtype=torch.float32),
            lse=zeros(rows, dtype=torch.float32),
            scratch=zeros(4, rows, chunks, dtype=torch.float32),
            arrived=zeros(rows, dtype=torch.int32),
        )


@triton.jit
def _log2(x, ASM: tl.constexpr):
    """Base-2 logarithm of normal numbers by the one instruction for it, good to 2^-22."""
    if ASM:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.log2(x)


@triton.jit
def _noise(seed, position, first, SIZE: tl.constexpr, ASM: tl.constexpr):
    """Gumbel noise / log 2, up to a constant, of SIZE tokens from `first`, a multiple of four.

    One call of the generator serves four tokens; seven rounds are the fewest that passed every
    test of BigCrush (Salmon et al., 2011).
    """
    key = seed + position.to(tl.int64) * 0x5851F42D4C957F2D
    counter = first // 4 + tl.arange(0, SIZE // 4)
    a, b, c, d = tl.randint4x(key, counter, n_rounds=7)
    bits = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (SIZE,))
    # Within 0 and 1, both excluded, and fine near 0, where the large values are.
    u = bits.to(tl.uint32, bitcast=True).to(tl.float32) * 2.3283062e-10 + 1.1641531e-10
    series = u * (1.4426950 + u * (0.7213475 + u * 0.4808983))
    return -_log2(tl.where(u < 0.01, series, -_log2(1.0 - u, ASM)), ASM)


@quick
@triton.jit(do_not_specialize_on_alignment=["rows", "slots", "positions"])
def _draw(
    adjusted,
    logits,
    rows,
    slots,
    positions,
    temperature,
    seed,
    threshold,
    token_out,
    logprob_out,
    lse_out,
    scratch,
    arrived,
    vocabulary,
    total_rows,
    CHUNKS: tl.constexpr,
    SIZE: tl.constexpr,
    ASM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One chunk of one row; the last chunk of a row to finish decides."""
    line = tl.program_id(0)
    chunk = tl.program_id(1)
    chunks = tl.num_programs(1)
    release_next(PDL)
    wait_previous(PDL)
    row = tl.load(rows + line).to(tl.int64)
    token = chunk * SIZE + tl.arange(0, SIZE)
    inside = token < vocabulary
    raw = tl.load(logits + row * vocabulary + token, mask=inside, other=float("-inf"))
    value = tl.load(
        adjusted + line.to(tl.int64) * vocabulary + token, mask=inside, other=float("-inf")
    )
    slot = tl.load(slots + line)
    heat = tl.load(temperature + slot)
    value = tl.where(value >= tl.load(threshold + slot), value, float("-inf"))
    if heat > 0:
        position = tl.load(positions + row)
        noise = _noise(tl.load(seed + slot), position, chunk * SIZE, SIZE, ASM)
        value = value * (1.4426950408889634 / tl.maximum(heat, 1.0e-30)) + noise
    high = tl.max(raw, 0)
    top = tl.max(value, 0)
    best = tl.min(tl.where(value == top, tl.arange(0, SIZE), SIZE), 0)  # cheaper than argmax
    place = line * chunks + chunk
    size = total_rows * chunks
    tl.store(scratch + place, top)
    tl.store(scratch + size + place, (chunk * SIZE + best).to(tl.float32))  # exact below 2^24
    tl.store(scratch + 2 * size + place, high)
    tl.store(scratch + 3 * size + place, tl.sum(tl.exp(raw - high), 0))
    tl.debug_barrier()  # all stores of this program before its arrival
    if tl.atomic_add(arrived + line, 1) == chunks - 1:
        part = tl.arange(0, CHUNKS)
        live = part < chunks
        parts = scratch + line * chunks + part
        key = tl.load(parts, mask=live, other=float("-inf"), cache_modifier=".cg")
        which = tl.load(parts + size, mask=live, other=0.0, cache_modifier=".cg")
        highs = tl.load(parts + 2 * size, mask=live, other=float("-inf"), cache_modifier=".cg")
        mass = tl.load(parts + 3 * size, mask=live, other=0.0, cache_modifier=".cg")
        winner = tl.argmax(key, 0)
        chosen = tl.sum(tl.where(part == winner, which, 0.0), 0).to(tl.int32)
        chosen = tl.minimum(chosen, vocabulary - 1)  # an unused row may hold anything
        peak = tl.max(highs, 0)
        lse = peak + tl.log(tl.sum(mass * tl.exp(highs - peak), 0))
        tl.store(token_out + slot, chosen)
        tl.store(lse_out + slot, lse)
        tl.store(logprob_out + slot, tl.load(logits + row * vocabulary + chosen) - lse)
        tl.store(arrived + line, 0)


def draw(
    adjusted: Tensor,
    logits: Tensor,
    rows: Tensor,
    slots: Tensor,
    positions: Tensor,
    settings: Draw,
    *,
    launch: Launch,
) -> None:
    """Draw one token a line.

    Args:
        adjusted: (B, V) float32, logits after masks and penalties; may be `logits`.
        logits: (rows, V) float32, unmodified.
        rows: (B,) int32: which row of `logits` and `positions` each line is.
        slots: (B,) int32: which entry of `settings` each line uses and writes.
        positions: (rows,) int32, the counter of the random numbers.
        settings: temperatures, seeds, thresholds and results.
        launch: warps and PDL.
    """
    lines, vocabulary = adjusted.shape
    chunks = cdiv(vocabulary, CHUNK)
    _draw[(lines, chunks)](
        adjusted,
        logits,
        rows,
        slots,
        positions,
        settings.temperature,
        settings.seed,
        settings.threshold,
        settings.token,
        settings.logprob,
        settings.lse,
        settings.scratch,
        settings.arrived,
        vocabulary,
        settings.scratch.shape[1],
        CHUNKS=power_of_two(chunks),
        SIZE=CHUNK,
        **launch.target(logits.device),
    )


@triton.jit
def _allow(adjusted, words, lines, vocabulary, words_per_line, SIZE: tl.constexpr):
    """Set forbidden tokens of one chunk of one masked line to -inf."""
    line = tl.load(lines + tl.program_id(0)).to(tl.int64)
    token = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = token < vocabulary
    word = tl.load(words + tl.program_id(0) * words_per_line + token // 32, mask=inside, other=0)
    forbidden = ((word >> (token % 32)) & 1) == 0
    place = adjusted + line * vocabulary + token
    tl.store(place, tl.full((SIZE,), float("-inf"), tl.float32), mask=inside & forbidden)


def allow(adjusted: Tensor, words: Tensor, lines: Tensor) -> None:
    """Apply grammar masks in place.

    Args:
        adjusted: (B, V) float32, changed.
        words: (L, ceil(V/32)) int32, bit 0 of word 0 is token 0; set bits stay.
        lines: (L,) int32, the line of `adjusted` of each mask.
    """
    vocabulary = adjusted.shape[1]
    grid = (lines.numel(), cdiv(vocabulary, CHUNK))
    _allow[grid](adjusted, words, lines, vocabulary, words.shape[1], SIZE=CHUNK)


@triton.jit
def _order(value):
    """Map float32 to int32 of the same order."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _measure(row, vocabulary, candidate, high, heat, SIZE: tl.constexpr):
    """Count, and probability mass relative to the peak, of the logits at or above a candidate."""
    count = tl.zeros((SIZE,), tl.int32)
    mass = tl.zeros((SIZE,), tl.float32)
    for first in range(0, vocabulary, SIZE):
        token = first + tl.arange(0, SIZE)
        value = tl.load(row + token, mask=token < vocabulary, other=float("-inf"))
        kept = (_order(value) >= candidate) & (value > float("-inf"))
        count += kept.to(tl.int32)
        mass += tl.where(kept, tl.exp((value - high) / heat), 0.0)
    return tl.sum(count, 0), tl.sum(mass, 0)


@triton.jit
def _thresholds(
    adjusted, slots, temperature, top_k, top_p, min_p, threshold, vocabulary, SIZE: tl.constexpr
):
    """One line a program: bisection over the 32 bits of a logit, for top-k, then for top-p."""
    line = tl.program_id(0).to(tl.int64)
    row = adjusted + line * vocabulary
    slot = tl.load(slots + line)
    heat = tl.maximum(tl.load(temperature + slot), 1.0e-6)
    peak = tl.full((SIZE,), float("-inf"), tl.float32)
    for first in range(0, vocabulary, SIZE):
        token = first + tl.arange(0, SIZE)
        value = tl.load(row + token, mask=token < vocabulary, other=float("-inf"))
        peak = tl.maximum(peak, value)
    high = tl.max(peak, 0)
    least = tl.full((), -2147483648, tl.int64)
    keep = tl.load(top_k + slot)
    if keep > 0:
        bound = tl.full((), 2147483648, tl.int64)
        for _ in range(32):
            middle = (least + bound) // 2
            count, _mass = _measure(row, vocabulary, middle, high, heat, SIZE)
            enough = count >= keep
            least, bound = tl.where(enough, middle, least), tl.where(enough, bound, middle)
    share = tl.load(top_p + slot)
    if share < 1.0:
        _count, whole = _measure(row, vocabulary, least, high, heat, SIZE)
        bound = tl.full((), 2147483648, tl.int64)
        for _ in range(32):
            middle = least + (bound - least) // 2
            _count, mass = _measure(row, vocabulary, middle, high, heat, SIZE)
            enough = mass >= share * whole
            least, bound = tl.where(enough, middle, least), tl.where(enough, bound, middle)
    bits = least.to(tl.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    limit = tl.where(least == -2147483648, float("-inf"), bits.to(tl.float32, bitcast=True))
    small = tl.load(min_p + slot)
    floor = tl.where(small > 0.0, high + tl.log(tl.maximum(small, 1.0e-30)) * heat, float("-inf"))
    tl.store(threshold + slot, tl.maximum(limit, floor))


def thresholds(adjusted: Tensor, slots: Tensor, settings: Draw) -> None:
    """Fill `settings.threshold` so that it keeps top-k, then top-p of those, then min-p.

    Args:
        adjusted: (B, V) float32, logits after masks and penalties.
        slots: (B,) int32: which entry of `settings` each line uses and writes.
        settings: its temperatures and limits are read, its thresholds written.
    """
    lines, vocabulary = adjusted.shape
    _thresholds[(lines,)](
        adjusted,
        slots,
        settings.temperature,
        settings.top_k,
        settings.top_p,
        settings.min_p,
        settings.threshold,
        vocabulary,
        SIZE=8192,
        **({"num_warps": 16} if adjusted.device.type == "cuda" else {}),
    )
