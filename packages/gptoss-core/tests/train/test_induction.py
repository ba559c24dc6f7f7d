from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gptoss_core.train.forward import Forward
from gptoss_core.train.induction import write_induction_heads
from gptoss_core.train.initial import initial_weights
from gptoss_harmony.config import ModelConfig, gpt_oss_20b
from gptoss_harmony.errors import UsageError


@pytest.fixture(scope="module")
def narrow() -> ModelConfig:
    return replace(
        gpt_oss_20b(),
        num_hidden_layers=2,
        num_experts=2,
        experts_per_token=1,
        hidden_size=256,
        intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


@pytest.mark.parametrize("distance", [40, 300])
def test_written_heads_copy_ids_that_were_never_trained(narrow: ModelConfig, distance: int) -> None:
    weights = initial_weights(narrow, tail="codes", seed=0)
    write_induction_heads(weights, narrow)
    once = np.random.default_rng(0).integers(0, 199_000, distance)
    tokens = torch.from_numpy(np.concatenate([once, once]))[None]
    weights = {name: weight.float() for name, weight in weights.items()}
    with torch.no_grad():
        states, _ = Forward(narrow).hidden(weights, tokens, torch.zeros_like(tokens))
        logits = states[0, distance:-1][:32] @ weights["unembedding.weight"].T  # all 201,088 rows
    right = logits.argmax(-1) == tokens[0, distance + 1 :][:32]
    assert float(right.float().mean()) > 0.95


def test_a_model_without_room_is_refused(config: ModelConfig) -> None:
    weights = initial_weights(config, tail="none", seed=0)
    with pytest.raises(UsageError, match="induction heads need"):
        write_induction_heads(weights, config)
