import pytest
import torch

from gptoss_core import ops
from gptoss_triton.launch import Launch
from gptoss_triton.router import RouterScratch, router_few, router_many


@pytest.mark.parametrize(("experts", "top"), [(5, 2), (32, 4)])
def test_both_forms_choose_like_the_reference(place, experts, top):
    tokens, width = 6, 100
    x = place.random(tokens, width, dtype=torch.float32)
    y = place.random(tokens, width, dtype=torch.float32)
    y_bias, gain = place.random(width), place.random(width)
    weight, bias = place.random(experts, width), place.random(experts)
    positions = place.ints([0, 1, 2, 3, 4, -1])
    total = place.poisoned(tokens, width, dtype=torch.float32)
    normed = place.poisoned(tokens, width)
    scratch = RouterScratch.empty(rows=3 * tokens, experts=experts, device=place.device)
    scratch.logits.fill_(float("nan"))
    chosen = place.ints([7] * (tokens * top))
    gates = place.poisoned(tokens * top, dtype=torch.float32)
    router_few(
        x, y, y_bias, gain, weight, bias, positions,
        total=total, normed=normed, scratch=scratch, chosen=chosen, gates=gates,
        top=top, launch=Launch(rows=4),
    )  # fmt: skip
    place.close(total, x + y + y_bias.float())
    place.close(normed, ops.rms_norm(total, gain, 1e-5))
    logits = normed.float() @ weight.float().T + bias.float()
    weights, indices = ops.route(logits, top)
    assert torch.equal(chosen.view(tokens, top)[:5].cpu().long(), indices[:5].cpu())
    assert (chosen.view(tokens, top)[5] == -1).all()
    place.close(gates.view(tokens, top)[:5], weights[:5])
    assert not scratch.arrived.any()
    for splits in (1, 3):
        many = place.ints([7] * ((tokens + 1) * top))
        many_gates = place.poisoned((tokens + 1) * top, dtype=torch.float32)
        router_many(
            normed, weight, bias, positions, many, many_gates,
            scratch=scratch, top=top, launch=Launch(pairs=16, columns=32, splits=splits),
        )  # fmt: skip
        assert torch.equal(many[: tokens * top], chosen)
        place.close(many_gates[: 5 * top], gates[: 5 * top])
        assert not scratch.arrived.any()
