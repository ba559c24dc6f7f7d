from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gptoss_core import mxfp4, ops
from gptoss_core.experts import ExpertWeight, PackedWeight, apply_experts

EXPERTS, CHOSEN, WIDTH, INNER, LIMIT = 7, 3, 64, 96, 7.0


def random_weights(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MXFP4-exact matrices and their biases."""
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(EXPERTS, 2 * INNER, WIDTH, generator=generator) * 0.3
    down = torch.randn(EXPERTS, WIDTH, INNER, generator=generator) * 0.3
    lookup = mxfp4.tables(torch.float32, "cpu")
    up, down = (
        torch.stack([mxfp4.unpack(*mxfp4.pack(matrix), lookup) for matrix in weight])
        for weight in (up, down)
    )
    up_bias = torch.randn(EXPERTS, 2 * INNER, generator=generator)
    down_bias = torch.randn(EXPERTS, WIDTH, generator=generator)
    return up, up_bias, down, down_bias


def routed(tokens: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, WIDTH, generator=generator)
    weights, indices = ops.route(torch.randn(tokens, EXPERTS, generator=generator), CHOSEN)
    return x, weights, indices


def one_token_at_a_time(x: Tensor, weights: Tensor, indices: Tensor, seed: int = 0) -> Tensor:
    """The equation, token by token and expert by expert."""
    up, up_bias, down, down_bias = random_weights(seed)
    rows = []
    for token, shares, chosen in zip(x, weights, indices.tolist(), strict=True):
        total = torch.zeros(WIDTH)
        for share, expert in zip(shares, chosen, strict=True):
            hidden = ops.swiglu(up[expert] @ token + up_bias[expert], LIMIT)
            total = total + share * (down[expert] @ hidden + down_bias[expert])
        rows.append(total)
    return torch.stack(rows)


def make(kind: str, weight: Tensor) -> ExpertWeight:
    if kind == "dense":
        return nn.Parameter(weight)
    blocks, scales = mxfp4.pack(weight)
    return PackedWeight(blocks, scales, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["packed", "dense"])
@pytest.mark.parametrize("tokens", [1, 2, 50])
def test_grouped_experts_equal_the_equation(kind: str, tokens: int) -> None:
    up, up_bias, down, down_bias = random_weights()
    x, weights, indices = routed(tokens)
    out = apply_experts(
        x,
        weights,
        indices,
        mlp1=(make(kind, up), up_bias),
        mlp2=(make(kind, down), down_bias),
        limit=LIMIT,
    )
    expected = one_token_at_a_time(x, weights, indices)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_only_chosen_experts_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    expanded: list[int] = []
    original = PackedWeight.__getitem__

    def spy(self: PackedWeight, expert: int) -> Tensor:
        expanded.append(expert)
        return original(self, expert)

    monkeypatch.setattr(PackedWeight, "__getitem__", spy)
    up, up_bias, down, down_bias = random_weights()
    x, weights, _ = routed(4)
    apply_experts(
        x,
        weights,
        torch.tensor([[5, 1, 2]]).expand(4, 3),
        mlp1=(make("packed", up), up_bias),
        mlp2=(make("packed", down), down_bias),
        limit=LIMIT,
    )
    assert sorted(expanded) == [1, 1, 2, 2, 5, 5]  # once for all four tokens, in two matrices


def test_gradients_of_dense_experts() -> None:
    up, up_bias, down, down_bias = random_weights()
    parameters = [nn.Parameter(tensor) for tensor in (up, up_bias, down, down_bias)]
    x, weights, _ = routed(4)
    indices = torch.tensor([[5, 1, 2]]).expand(4, 3)
    weights.requires_grad_()
    out = apply_experts(
        x,
        weights,
        indices,
        mlp1=(parameters[0], parameters[1]),
        mlp2=(parameters[2], parameters[3]),
        limit=LIMIT,
    )
    out.square().sum().backward()
    assert weights.grad is not None
    assert bool((weights.grad != 0).all())
    for parameter in parameters:
        assert parameter.grad is not None
        moved = [bool((grad != 0).any()) for grad in parameter.grad]
        assert moved == [expert in (1, 2, 5) for expert in range(EXPERTS)]


def test_packed_weights_know_their_shape_and_take_4_25_bits() -> None:
    weight = make("packed", random_weights()[0])
    assert isinstance(weight, PackedWeight)
    assert weight.shape == (EXPERTS, 2 * INNER, WIDTH)
    packed = sum(buffer.nbytes for buffer in weight.state_dict().values())
    assert packed * 8 == 4.25 * EXPERTS * 2 * INNER * WIDTH
