# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The router: norm, a small product, the top k logits, softmax over those alone.

    logits = Wg rmsnorm(x + y) + bg;   experts, gates = top-k then softmax

A few tokens spread the experts over programs (the last one to finish a token picks its winners);
many tokens take tiles through the tensor core from states that are normed already. Both round the
normed state to bf16 first, so that they choose alike.

Dimensions: T tokens, N model width, E experts, K chosen per token.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch
from gptoss_triton.norm import EPSILON
from gptoss_triton.pdl import release_next, wait_previous

LARGEST_HALF = 65504.0  # float16 states saturate: a gain in the thousands must not become inf


@triton.jit
def _choose(logits, rows, live, chosen, gates, EXPERTS: tl.constexpr, TOP: tl.constexpr):
    """Pick TOP columns of (rows, EXPERTS) logits, best first, lowest index on a tie."""
    column = tl.arange(0, EXPERTS)[None, :]
    best = tl.max(logits, 1)
    total = tl.zeros_like(best)
    left = logits
    for _ in tl.static_range(TOP):
        value = tl.max(left, 1)
        total += tl.exp(value - best)
        left = tl.where(column == tl.argmax(left, 1)[:, None], float("-inf"), left)
    left = logits
    for choice in tl.static_range(TOP):
        value = tl.max(left, 1)
        index = tl.argmax(left, 1)
        tl.store(chosen + rows * TOP + choice, tl.where(live, index, -1).to(tl.int32))
        tl.store(gates + rows * TOP + choice, tl.exp(value - best) / total)
        left = tl.where(column == index[:, None], float("-inf"), left)


@triton.jit
def _router_few(
    x,
    y,
    gain,
    weight,
    bias,
    positions,
    total,
    normed,
    logits,
    arrived,
    chosen,
    gates,
    width,
    experts,
    TOP: tl.constexpr,
    SHARE: tl.constexpr,
    EXPERTS: tl.constexpr,
    WIDTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """One token and SHARE experts a program."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    column = tl.arange(0, WIDTH)
    inside = column < width
    expert = part * SHARE + tl.arange(0, SHARE)
    known = expert < experts
    mask = known[:, None] & inside[None, :]
    rows = tl.load(weight + expert[:, None] * width + column[None, :], mask=mask, other=0.0)
    scale = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + expert, mask=known, other=0.0).to(tl.float32)
    wait_previous(PDL)
    release_next(PDL)
    value = tl.load(x + token * width + column, mask=inside, other=0.0)
    value += tl.load(y + token * width + column, mask=inside, other=0.0).to(tl.float32)
    rms = tl.rsqrt(tl.sum(value * value, 0) / width + EPSILON)
    wide = value * rms * scale
    if normed.dtype.element_ty == tl.float16:
        wide = tl.minimum(tl.maximum(wide, -65504.0), 65504.0)
    state = wide.to(normed.dtype.element_ty)
    if part == 0:
        tl.store(total + token * width + column, value, mask=inside)
        tl.store(normed + token * width + column, state, mask=inside)
    score = tl.sum(rows.to(tl.float32) * state.to(tl.float32)[None, :], 1) + shift
    tl.store(logits + token * experts + expert, score, mask=known)
    tl.debug_barrier()  # all stores of this program before its arrival
    if tl.atomic_add(arrived + token, 1) == tl.num_programs(1) - 1:
        everyone = tl.arange(0, EXPERTS)[None, :]
        scores = tl.load(
            logits + token * experts + everyone,
            mask=everyone < experts,
            other=float("-inf"),
            cache_modifier=".cg",
        )
        row = tl.zeros((1,), tl.int64) + token
        live = tl.load(positions + row) >= 0
        _choose(scores, row, live, chosen, gates, EXPERTS, TOP)
        tl.store(arrived + token, 0)


def router_few(
    x: Tensor,
    y: Tensor,
    gain: Tensor,
    weight: Tensor,
    bias: Tensor,
    positions: Tensor,
    *,
    total: Tensor,
    normed: Tensor,
    scratch: tuple[Tensor, Tensor],
    chosen: Tensor,
    gates: Tensor,
    launch: Launch,
) -> None:
    """Residual, norm and router for a few tokens.

    Args:
        x: (T, N) float32 residual stream.
        y: (T, N) attention's output, added to it.
        gain: (N,) of the norm.
        weight: (E, N).
        bias: (E,).
        positions: (T,) int32; a negative one marks an unused row, whose experts become -1.
        total: (T, N) float32, written; must not be `x`, which other programs still read.
        normed: (T, N), written.
        scratch: logits (T, E) float32 and arrivals (T,) int32, the latter zero between calls.
        chosen: (T, K) int32, written.
        gates: (T, K) float32, written.
        launch: `rows` is the experts a program scores.
    """
    tokens, width = x.shape
    experts = weight.shape[0]
    share = min(launch.rows, triton.next_power_of_2(experts))
    _router_few[(tokens, triton.cdiv(experts, share))](
        x,
        y,
        gain,
        weight,
        bias,
        positions,
        total,
        normed,
        *scratch,
        chosen,
        gates,
        width,
        experts,
        TOP=chosen.numel() // tokens,
        SHARE=share,
        EXPERTS=triton.next_power_of_2(experts),
        WIDTH=triton.next_power_of_2(width),
        **launch.plain(x.device),
    )


@triton.jit
def _router_many(
    normed,
    weight,
    bias,
    positions,
    chosen,
    gates,
    tokens,
    width,
    experts,
    TOP: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EXPERTS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile of tokens against all experts."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    live = token < tokens
    column = tl.arange(0, COLUMNS)
    expert = tl.arange(0, EXPERTS)
    wait_previous(PDL)
    release_next(PDL)
    acc = tl.zeros((TOKENS, EXPERTS), tl.float32)
    for first in tl.range(0, width, COLUMNS, num_stages=STAGES):
        inside = first + column < width
        states = tl.load(
            normed + token.to(tl.int64)[:, None] * width + first + column[None, :],
            mask=live[:, None] & inside[None, :],
            other=0.0,
        )
        rows = tl.load(
            weight + expert[None, :] * width + first + column[:, None],
            mask=(expert < experts)[None, :] & inside[:, None],
            other=0.0,
        )
        acc = tl.dot(states, rows, acc)
    acc += tl.load(bias + expert, mask=expert < experts, other=0.0).to(tl.float32)[None, :]
    acc = tl.where((expert < experts)[None, :], acc, float("-inf"))
    used = tl.load(positions + token, mask=live, other=-1) >= 0
    row = tl.where(live, token, tokens)  # rows past the end go to one spare row
    _choose(acc, row, used, chosen, gates, EXPERTS, TOP)


def router_many(
    normed: Tensor,
    weight: Tensor,
    bias: Tensor,
    positions: Tensor,
    chosen: Tensor,
    gates: Tensor,
    *,
    top: int,
    launch: Launch,
) -> None:
    """Router for many tokens.

    Args:
        normed: (T, N).
        weight: (E, N).
        bias: (E,).
        positions: (T,) int32, negative for unused rows.
        chosen: ((T + 1) K,) int32, written; the last row is scratch.
        gates: ((T + 1) K,) float32, written likewise.
        top: K.
        launch: `pairs` tokens and `columns` a program.
    """
    tokens, width = normed.shape
    experts = weight.shape[0]
    _router_many[(triton.cdiv(tokens, launch.pairs),)](
        normed,
        weight,
        bias,
        positions,
        chosen,
        gates,
        tokens,
        width,
        experts,
        TOP=top,
        TOKENS=launch.pairs,
        COLUMNS=launch.columns,
        EXPERTS=max(16, triton.next_power_of_2(experts)),
        STAGES=launch.stages,
        **launch.plain(normed.device),
    )
