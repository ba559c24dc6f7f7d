# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Sort (token, choice) pairs by expert and cut them into tiles, on the device, in one program.

Dimensions: Q pairs, E experts.

    plan = Plan.empty(max_pairs=1024, experts=32, tile=16, device="cuda")
    make_plan(chosen, plan)          # chosen: (Q,) int32
    plan.order[plan.tile_start[t] : plan.tile_stop[t]]   # the pairs of tile t, all of one expert
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gptoss_triton.launch import Launch
from gptoss_triton.pdl import release_next, wait_previous


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Pairs sorted by expert.

    Attributes:
        order: (Q,) int32 pair numbers, those of expert 0 first.
        tile_expert: (max_tiles,) int32.
        tile_start: (max_tiles,) int32 into `order`.
        tile_stop: (max_tiles,) int32, one past the last.
        num_tiles: (1,) int32 tiles in use.
        counts: (E,) int32 scratch, zero between calls.
        tile: pairs a tile holds at most.
    """

    order: Tensor
    tile_expert: Tensor
    tile_start: Tensor
    tile_stop: Tensor
    num_tiles: Tensor
    counts: Tensor
    tile: int

    def tiles_for(self, pairs: int) -> int:
        """Tiles that so many pairs can need at most."""
        return min(pairs, self.counts.numel() + pairs // self.tile)

    @classmethod
    def empty(cls, *, pairs: int, experts: int, tile: int, device: torch.device) -> Plan:
        """Room for the plan of `pairs` pairs."""
        tiles = min(pairs, experts + pairs // tile)

        def ints(size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int32, device=device)

        return cls(
            order=ints(pairs),
            tile_expert=ints(tiles),
            tile_start=ints(tiles),
            tile_stop=ints(tiles),
            num_tiles=ints(1),
            counts=ints(experts),
            tile=tile,
        )


@triton.jit
def _plan(
    chosen,
    order,
    tile_expert,
    tile_start,
    tile_stop,
    num_tiles,
    counts,
    pairs,
    rank,
    TILE: tl.constexpr,
    EXPERTS: tl.constexpr,
    EXPERTS_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Count, then place; ranks within an expert come from atomics, so their order is free.

    The order of pairs within an expert changes no result: each pair is a column of its own.
    """
    wait_previous(PDL)
    release_next(PDL)
    lane = tl.arange(0, BLOCK)
    for first in range(0, pairs, BLOCK):
        pair = first + lane
        expert = tl.load(chosen + pair, mask=pair < pairs, other=-1)
        live = expert >= 0  # negative: an unused row of the batch
        tl.store(rank + pair, tl.atomic_add(counts + expert, 1, mask=live), mask=live)
    tl.debug_barrier()
    expert = tl.arange(0, EXPERTS_PADDED)
    known = expert < EXPERTS
    count = tl.load(counts + expert, mask=known, other=0)
    start = tl.cumsum(count, 0) - count
    tiles = (count + TILE - 1) // TILE
    first_tile = tl.cumsum(tiles, 0) - tiles
    tl.store(num_tiles, tl.sum(tiles, 0))
    for index in range(tl.max(tiles, 0)):
        here = index < tiles
        tl.store(tile_expert + first_tile + index, expert, mask=here)
        tl.store(tile_start + first_tile + index, start + index * TILE, mask=here)
        stop = tl.minimum(start + (index + 1) * TILE, start + count)
        tl.store(tile_stop + first_tile + index, stop, mask=here)
    tl.store(counts + expert, start, mask=known)  # read back below, then cleared
    tl.debug_barrier()
    for first in range(0, pairs, BLOCK):
        pair = first + lane
        expert_of = tl.load(chosen + pair, mask=pair < pairs, other=-1)
        live = expert_of >= 0
        place = tl.load(counts + expert_of, mask=live, other=0) + tl.load(
            rank + pair, mask=live, other=0
        )
        tl.store(order + place, pair, mask=live)
    tl.debug_barrier()
    tl.store(counts + expert, tl.zeros((EXPERTS_PADDED,), tl.int32), mask=known)


def make_plan(chosen: Tensor, plan: Plan, rank: Tensor, *, launch: Launch) -> None:
    """Fill `plan` for the pairs' experts.

    Args:
        chosen: (Q,) int32 expert of each pair.
        plan: made for at least Q pairs.
        rank: (Q,) int32 scratch.
        launch: warps and PDL.
    """
    experts = plan.counts.numel()
    _plan[(1,)](
        chosen,
        plan.order,
        plan.tile_expert,
        plan.tile_start,
        plan.tile_stop,
        plan.num_tiles,
        plan.counts,
        chosen.numel(),
        rank,
        TILE=plan.tile,
        EXPERTS=experts,
        EXPERTS_PADDED=triton.next_power_of_2(experts),
        BLOCK=min(8192, triton.next_power_of_2(chosen.numel())),
        **launch.plain(chosen.device),
    )
