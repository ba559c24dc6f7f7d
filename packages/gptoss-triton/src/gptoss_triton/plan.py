# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Sort (token, choice) pairs by expert and cut them into tiles, on the device.

A program for each expert counts all pairs and places its own, in their order: no program waits for
another, and none adds to a counter that others add to.

Dimensions: Q pairs, E experts.

    plan = Plan.empty(pairs=1024, experts=32, tile=16, device=torch.device("cuda"))
    make_plan(chosen, plan, launch=Launch(columns=1024))    # chosen: (Q,) int32
    plan.order[plan.tile_start[t] : plan.tile_stop[t]]   # the pairs of tile t, all of one expert
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch, power_of_two
from gptoss_triton.pdl import release_next, wait_previous
from gptoss_triton.quick import quick


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Pairs sorted by expert.

    Attributes:
        order: (Q,) int32 pair numbers, those of expert 0 first.
        tile_expert: (max_tiles,) int32.
        tile_start: (max_tiles,) int32 into `order`.
        tile_stop: (max_tiles,) int32, one past the last.
        num_tiles: (1,) int32 tiles in use.
        experts: E.
        tile: pairs a tile holds at most.
    """

    order: Tensor
    tile_expert: Tensor
    tile_start: Tensor
    tile_stop: Tensor
    num_tiles: Tensor
    experts: int
    tile: int

    def tiles_for(self, pairs: int) -> int:
        """Tiles that so many pairs can need at most."""
        return _most_tiles(pairs, self.experts, self.tile)

    @classmethod
    def empty(cls, *, pairs: int, experts: int, tile: int, device: torch.device) -> Plan:
        """Room for the plan of `pairs` pairs."""
        tiles = _most_tiles(pairs, experts, tile)

        def ints(size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int32, device=device)

        return cls(
            order=ints(pairs),
            tile_expert=ints(tiles),
            tile_start=ints(tiles),
            tile_stop=ints(tiles),
            num_tiles=ints(1),
            experts=experts,
            tile=tile,
        )


def _most_tiles(pairs: int, experts: int, tile: int) -> int:
    """Every expert may leave one tile that is not full."""
    return min(pairs, experts + pairs // tile)


@quick
@triton.jit(do_not_specialize=["tokens"])
def _plan(
    chosen,
    order,
    tile_expert,
    tile_start,
    tile_stop,
    num_tiles,
    tokens,
    TOP: tl.constexpr,
    TILE: tl.constexpr,
    EXPERTS_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILES: tl.constexpr,
    RUN: tl.constexpr,
    PDL: tl.constexpr,
):
    """One expert a program: count all, then place its own pairs in their order."""
    mine = tl.program_id(0)
    pairs = tokens * TOP
    release_next(PDL)
    wait_previous(PDL)
    count = tl.zeros((EXPERTS_PADDED,), tl.int32)
    for first in range(0, pairs, BLOCK):
        pair = first + tl.arange(0, BLOCK)
        expert = tl.load(chosen + pair, mask=pair < pairs, other=-1)
        live = expert >= 0  # negative: an unused row of the batch
        count += tl.histogram(tl.where(live, expert, 0), EXPERTS_PADDED, mask=live)
    index = tl.arange(0, EXPERTS_PADDED)
    tiles = (count + TILE - 1) // TILE
    start = tl.sum(tl.where(index < mine, count, 0), 0)
    own = tl.sum(tl.where(index == mine, count, 0), 0)
    first_tile = tl.sum(tl.where(index < mine, tiles, 0), 0)
    if mine == 0:
        tl.store(num_tiles, tl.sum(tiles, 0))
    for first in range(0, own, TILE * TILES):
        begin = first + tl.arange(0, TILES) * TILE
        place = first_tile + begin // TILE
        here = begin < own
        tl.store(tile_expert + place, mine, mask=here)
        tl.store(tile_start + place, start + begin, mask=here)
        tl.store(tile_stop + place, start + tl.minimum(begin + TILE, own), mask=here)
    if own > 0:
        run = tl.arange(0, BLOCK // RUN)[:, None] * RUN + tl.arange(0, RUN)[None, :]
        for first in range(0, pairs, BLOCK):
            pair = first + run
            here = tl.load(chosen + pair, mask=pair < pairs, other=-1) == mine
            within = tl.cumsum(here.to(tl.int32), 1)
            found = tl.sum(here.to(tl.int32), 1)
            place = start + (tl.cumsum(found, 0) - found)[:, None] + within - 1
            tl.store(order + place, pair, mask=here)
            start += tl.sum(found, 0)


def make_plan(chosen: Tensor, plan: Plan, *, launch: Launch) -> None:
    """Fill `plan` for the pairs' experts.

    Args:
        chosen: (Q,) int32 expert of each pair; negative ones are left out.
        plan: made for at least Q pairs.
        launch: `columns` pairs that a program reads a step; warps and PDL.
    """
    pairs = chosen.numel()
    top = 4 if pairs % 4 == 0 else 1  # so that the compiler knows of whole vectors
    _plan[(plan.experts,)](
        chosen,
        plan.order,
        plan.tile_expert,
        plan.tile_start,
        plan.tile_stop,
        plan.num_tiles,
        pairs // top,
        TOP=top,
        TILE=plan.tile,
        EXPERTS_PADDED=power_of_two(plan.experts),
        BLOCK=max(32 * launch.warps, min(launch.columns, power_of_two(pairs))),
        TILES=32,
        RUN=16,
        **launch.plain(chosen.device),
    )
