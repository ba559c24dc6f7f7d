from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gptoss_core.model import Transformer
from gptoss_core.train.forward import Forward
from gptoss_core.train.initial import initial_weights
from gptoss_harmony.config import ModelConfig


def random_weights(config: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = initial_weights(config, tail="none", seed=1)
    return {
        name: torch.randn(w.shape, generator=generator) * (0.1 if w.dim() > 1 else 1.0)
        for name, w in weights.items()
    }


def reference_logits(config: ModelConfig, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    model = Transformer(config, dtype=torch.float32, experts="dense")
    model.load_state_dict(weights)
    with torch.no_grad():
        return model(tokens)


@pytest.mark.parametrize("experts", ["all", "routed"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_forward_equals_the_model(
    config: ModelConfig, experts: str, checkpointing: bool
) -> None:
    weights = random_weights(config)
    tokens = torch.randint(0, config.vocab_size, (2, 40))
    forward = Forward(config, experts=experts, checkpointing=checkpointing)
    states, _ = forward.hidden(weights, tokens, torch.zeros_like(tokens))
    logits = states @ weights["unembedding.weight"].T
    expected = reference_logits(config, weights, tokens)
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_packed_documents_do_not_see_each_other(config: ModelConfig) -> None:
    weights = random_weights(config)
    first, second = torch.randint(0, config.vocab_size, (2, 20))
    row = torch.cat([first, second])[None]
    documents = torch.tensor([0] * 20 + [1] * 20)[None]
    states, _ = Forward(config).hidden(weights, row, documents)
    # Rotary positions go on through the row: attention only depends on their differences.
    for part, tokens in ((states[0, :20], first), (states[0, 20:], second)):
        expected = reference_logits(config, weights, tokens)
        logits = part @ weights["unembedding.weight"].T
        assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_all_experts_and_routed_experts_have_equal_gradients(config: ModelConfig) -> None:
    tokens = torch.randint(0, config.vocab_size, (1, 24))
    grads = []
    for experts in ("all", "routed"):
        weights = {n: w.clone().requires_grad_() for n, w in random_weights(config).items()}
        states, balance = Forward(config, experts=experts).hidden(
            weights, tokens, torch.zeros_like(tokens)
        )
        (states.square().sum() + balance).backward()
        grads.append({name: w.grad for name, w in weights.items() if w.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        scale = float(grad.abs().max()) + 1e-6
        assert torch.allclose(grad, grads[1][name], rtol=1e-3, atol=1e-4 * scale), name


def test_balance_is_one_for_equal_use(config: ModelConfig) -> None:
    weights = random_weights(config)
    for layer in range(config.num_hidden_layers):
        weights[f"block.{layer}.mlp.gate.weight"].zero_()
        weights[f"block.{layer}.mlp.gate.bias"].zero_()
    tokens = torch.randint(0, config.vocab_size, (1, 24))
    _, balance = Forward(config).hidden(weights, tokens, torch.zeros_like(tokens))
    assert float(balance) == pytest.approx(1.0)
