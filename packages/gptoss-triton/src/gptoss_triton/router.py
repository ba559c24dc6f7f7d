# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The router: norm, a small product, the top k logits, softmax over those alone.

    logits = Wg rmsnorm(x + y + b) + bg;   experts, gates = top-k then softmax

A few tokens spread the experts over programs (the last one to finish a token picks its winners);
many tokens take tiles through the tensor core from states that are normed already. Both round the
normed state to the weights' dtype first, so that they choose alike.

Dimensions: T tokens, N model width, E experts, K chosen per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, cdiv, power_of_two
from gptoss_triton.norm import EPSILON, narrow
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterScratch:
    """Where programs that share a token wait for each other.

    Attributes:
        logits: float32, shares x tokens x experts.
        arrived: int32, zero between calls.
    """

    logits: Tensor
    arrived: Tensor

    @classmethod
    def empty(cls, *, rows: int, experts: int, device: torch.device) -> RouterScratch:
        """Room for so many tokens times shares."""
        return cls(
            logits=torch.empty(rows * _padded(experts), dtype=torch.float32, device=device),
            arrived=torch.zeros(rows, dtype=torch.int32, device=device),
        )


def _padded(experts: int) -> int:
    """Columns of the logits' tile."""
    return max(16, power_of_two(experts))


@triton.jit
def _choose(logits, rows, live, chosen, gates, EXPERTS: tl.constexpr, TOP: tl.constexpr):
    """Pick TOP columns of (rows, EXPERTS) logits, best first, lowest index on a tie."""
    column = tl.arange(0, EXPERTS)[None, :]
    slot = tl.arange(0, triton.next_power_of_2(TOP))[None, :]
    best = tl.max(logits, 1)[:, None]
    values = best + tl.where(slot < TOP, 0.0, float("-inf"))
    picks = tl.zeros_like(values).to(tl.int32) - 1
    for choice in tl.static_range(TOP):
        value, index = tl.max(logits, 1, return_indices=True)
        values = tl.where(slot == choice, value[:, None], values)
        picks = tl.where((slot == choice) & live[:, None], index[:, None], picks)
        logits = tl.where(column == index[:, None], float("-inf"), logits)
    weights = tl.exp(values - best)
    weights = weights / tl.sum(weights, 1)[:, None]
    to = rows[:, None] * TOP + slot
    tl.store(chosen + to, picks, mask=slot < TOP)
    tl.store(gates + to, weights, mask=slot < TOP)


@quick
@triton.jit(do_not_specialize_on_alignment=["positions"])
def _router_few(
    x,
    y,
    y_bias,
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
    offset = tl.load(y_bias + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + expert, mask=known, other=0.0).to(tl.float32)
    release_next(PDL)
    wait_previous(PDL)
    value = tl.load(x + token * width + column, mask=inside, other=0.0)
    value += tl.load(y + token * width + column, mask=inside, other=0.0).to(tl.float32)
    value += offset
    rms = tl.rsqrt(tl.sum(value * value, 0) / width + EPSILON)
    state = narrow(value * rms * scale, normed.dtype.element_ty)
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
    y_bias: Tensor,
    gain: Tensor,
    weight: Tensor,
    bias: Tensor,
    positions: Tensor,
    *,
    total: Tensor,
    normed: Tensor,
    scratch: RouterScratch,
    chosen: Tensor,
    gates: Tensor,
    top: int,
    launch: Launch,
) -> None:
    """Residual, norm and router for a few tokens.

    Args:
        x: (T, N) float32 residual stream.
        y: (T, N) attention's output, added to it.
        y_bias: (N,) of that output's projection, added too.
        gain: (N,) of the norm.
        weight: (E, N).
        bias: (E,).
        positions: (T,) int32; a negative one marks an unused row, whose experts become -1.
        total: (T, N) float32, written; must not be `x`, which other programs still read.
        normed: (T, N), written.
        scratch: for T tokens.
        chosen: (T K,) int32 or longer, written.
        gates: (T K,) float32 or longer, written.
        top: K.
        launch: `rows` is the experts a program scores.
    """
    tokens, width = x.shape
    experts = weight.shape[0]
    share = min(launch.rows, power_of_two(experts))
    _router_few[(tokens, cdiv(experts, share))](
        x,
        y,
        y_bias,
        gain,
        weight,
        bias,
        positions,
        total,
        normed,
        scratch.logits,
        scratch.arrived,
        chosen,
        gates,
        width,
        experts,
        TOP=top,
        SHARE=share,
        EXPERTS=power_of_two(experts),
        WIDTH=power_of_two(width),
        **launch.plain(x.device),
    )


@quick
@triton.jit(do_not_specialize=["tokens"], do_not_specialize_on_alignment=["positions"])
def _router_many(
    normed,
    weight,
    bias,
    positions,
    chosen,
    gates,
    sums,
    arrived,
    tokens,
    width,
    experts,
    TOP: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EXPERTS: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """A tile of tokens against all experts, over a share of the columns; the last share chooses."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    live = token < tokens
    column = tl.arange(0, COLUMNS)
    expert = tl.arange(0, EXPERTS)
    release_next(PDL)
    wait_previous(PDL)
    acc = tl.zeros((TOKENS, EXPERTS), tl.float32)
    share = (width + SPLITS * COLUMNS - 1) // (SPLITS * COLUMNS) * COLUMNS
    begin = tl.program_id(1) * share
    for first in tl.range(begin, tl.minimum(begin + share, width), COLUMNS, num_stages=STAGES):
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
        acc = tl.dot(states.to(rows.dtype), rows, acc)
    last = True
    if SPLITS > 1:
        place = sums + token[:, None] * EXPERTS + expert[None, :]
        tl.store(place + tl.program_id(1) * tokens * EXPERTS, acc, mask=live[:, None])
        tl.debug_barrier()  # all stores of this program before its arrival
        last = tl.atomic_add(arrived + tl.program_id(0), 1) == SPLITS - 1
        if last:
            acc = tl.zeros((TOKENS, EXPERTS), tl.float32)
            for other in tl.static_range(SPLITS):
                acc += tl.load(
                    place + other * tokens * EXPERTS,
                    mask=live[:, None],
                    other=0.0,
                    cache_modifier=".cg",
                )
            tl.store(arrived + tl.program_id(0), 0)
    if last:
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
    scratch: RouterScratch,
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
        scratch: with room for `launch.splits` shares.
        top: K.
        launch: `pairs` tokens a tile, `columns` a step, `splits` programs that share the columns.
    """
    tokens, width = normed.shape
    experts = weight.shape[0]
    _router_many[(cdiv(tokens, launch.pairs), launch.splits)](
        normed,
        weight,
        bias,
        positions,
        chosen,
        gates,
        scratch.logits,
        scratch.arrived,
        tokens,
        width,
        experts,
        TOP=top,
        TOKENS=launch.pairs,
        COLUMNS=launch.columns,
        EXPERTS=_padded(experts),
        SPLITS=launch.splits,
        STAGES=launch.stages,
        **launch.plain(normed.device),
    )
