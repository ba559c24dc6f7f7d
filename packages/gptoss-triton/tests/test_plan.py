import pytest
import torch

from gptoss_triton.launch import Launch
from gptoss_triton.plan import Plan, make_plan


@pytest.mark.parametrize(
    ("tokens", "experts", "tile"), [(1, 5, 16), (40, 32, 16), (601, 5, 64), (300, 128, 128)]
)
def test_every_pair_is_in_a_tile_of_its_expert(place, tokens, experts, tile):
    chosen = torch.randint(0, experts, (tokens, 4))
    chosen[torch.rand(tokens) < 0.2] = -1  # unused rows
    chosen = chosen.flatten()
    plan = Plan.empty(pairs=4 * tokens, experts=experts, tile=tile, device=place.device)
    there = place.ints(chosen)
    for _ in range(2):  # the second time, whatever the first left behind must not matter
        make_plan(there, plan, launch=Launch(columns=1024))
    tiles = int(plan.num_tiles)
    order, expert, start, stop = (
        tensor.tolist()
        for tensor in (plan.order, plan.tile_expert, plan.tile_start, plan.tile_stop)
    )
    placed = []
    for index in range(tiles):
        pairs = order[start[index] : stop[index]]
        assert 0 < len(pairs) <= tile
        assert {int(chosen[pair]) for pair in pairs} == {expert[index]}
        assert pairs == sorted(pairs)
        placed += pairs
    assert sorted(placed) == (chosen >= 0).nonzero()[:, 0].tolist()
    counts = torch.bincount(chosen[chosen >= 0], minlength=experts)
    assert tiles == int((-(-counts // tile)).sum())
    assert expert[:tiles] == sorted(expert[:tiles])
