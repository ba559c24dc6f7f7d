from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gptoss_core.train import lora, quantize
from gptoss_core.train.initial import initial_weights
from gptoss_core.train.parameters import Parameters
from gptoss_core.train.settings import Settings
from gptoss_core.train.vocabulary import ActiveRows
from gptoss_harmony.config import ModelConfig

CPU = torch.device("cpu")
ROWS = np.array([2, 5, 7, 250])


def make(config: ModelConfig, **values: object) -> tuple[dict[str, Tensor], Parameters]:
    full = {name: w.float() for name, w in initial_weights(config, tail="none", seed=0).items()}
    active = ActiveRows(ROWS, size=config.vocab_size, candidates=3)
    settings = Settings.from_mapping({"dtype": "float32", **values})
    return full, Parameters(full, active, settings, device=CPU)


def test_candidates_follow_the_trained_rows(config: ModelConfig) -> None:
    full, parameters = make(config)
    weights = parameters.weights(torch.tensor([9, 1, 100]), quantised=False)
    expected = full["embedding.weight"][[2, 5, 7, 250, 9, 1, 100]]
    assert torch.allclose(weights["embedding.weight"], expected)
    assert parameters.trained["embedding.weight"].shape == (4, config.hidden_size)


def test_full_weights_hold_every_row_and_the_trained_ones_changed(config: ModelConfig) -> None:
    full, parameters = make(config)
    with torch.no_grad():
        parameters.trained["unembedding.weight"].add_(1.0)
    saved = dict(parameters.full(quantised=False))
    assert set(saved) == set(full)
    change = (saved["unembedding.weight"] - full["unembedding.weight"]).abs().amax(dim=-1) > 0.5
    assert change.nonzero().flatten().tolist() == ROWS.tolist()


def test_quantised_weights_are_what_is_stored(config: ModelConfig) -> None:
    _, parameters = make(config)
    name = "block.1.mlp.mlp1_weight"
    weights = parameters.weights(torch.tensor([9]), quantised=True)
    assert torch.equal(weights[name], quantize.mxfp4(parameters.trained[name].detach()))
    assert torch.equal(quantize.mxfp4(weights[name].detach()), weights[name])  # a fixed point
    weights[name].sum().backward()
    assert torch.equal(parameters.trained[name].grad, torch.ones_like(parameters.trained[name]))


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (("attention",), {"attn.qkv.weight", "attn.out.weight"}),
        (("router",), {"mlp.gate.weight"}),
        (("experts",), {"mlp.mlp1_weight", "mlp.mlp2_weight"}),
    ],
)
def test_lora_trains_pairs_only_and_begins_as_the_model(
    config: ModelConfig, targets: tuple[str, ...], names: set[str]
) -> None:
    full, parameters = make(config, lora_rank=2, lora_targets=targets)
    trained = {name.split(".", 2)[2].rsplit(".", 1)[0] for name in parameters.trained}
    assert trained == names
    for name, weight in parameters.full(quantised=False):
        assert torch.equal(weight, full[name]), name


def test_merged_lora_acts_as_the_two_factors_beside_the_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(3, 6, 8, generator=generator), torch.randn(5, 8, generator=generator)
    a, _ = lora.adapter(weight, 2, generator)
    b = torch.randn(3, 6, 2, generator=generator)
    merged = torch.einsum("eoj,tj->teo", lora.merge(weight, a, b, scale=0.5), x)
    beside = torch.einsum("eoj,tj->teo", weight, x)
    beside = beside + 0.5 * torch.einsum("eor,erj,tj->teo", b, a, x)
    assert torch.allclose(merged, beside, atol=1e-5)
