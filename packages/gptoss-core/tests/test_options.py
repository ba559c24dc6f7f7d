"""The options of engine torch: what they refuse and what auto means."""

from __future__ import annotations

import pytest
import torch

from gptoss_core.options import TorchOptions, choose_context, choose_dtype, choose_experts
from gptoss_harmony.config import gpt_oss_20b
from gptoss_harmony.errors import UsageError
from gptoss_harmony.random_checkpoint import tiny_config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context", 0),
        ("max_batch", 0),
        ("prefill_chunk", -1),
        ("threads", 0),
        ("kv_memory", 0.0),
        ("kv_memory", float("inf")),
        ("kv_memory", float("nan")),
        ("dtype", "float8"),
        ("experts", "sparse"),
    ],
)
def test_impossible_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{field} must be"):
        TorchOptions(**{field: value})


def test_every_option_says_what_it_does() -> None:
    fields = TorchOptions.__dataclass_fields__.values()
    assert all(field.metadata["help"] for field in fields)


def test_auto_keeps_the_published_dtype() -> None:
    assert choose_dtype("auto") == torch.bfloat16


def test_a_context_beyond_the_model_is_refused() -> None:
    longest = gpt_oss_20b().max_context_length
    assert choose_context(TorchOptions(), gpt_oss_20b()) == longest == 131_072
    assert choose_context(TorchOptions(context=longest), gpt_oss_20b()) == longest
    with pytest.raises(UsageError, match="more than the 131072 tokens of the model"):
        choose_context(TorchOptions(context=longest + 1), gpt_oss_20b())


def test_auto_expands_the_experts_of_small_models_only() -> None:
    assert TorchOptions().experts == "auto"
    assert choose_experts("auto", tiny_config(), torch.float32) == "dense"
    assert choose_experts("auto", gpt_oss_20b(), torch.bfloat16) == "packed"
    assert choose_experts("packed", tiny_config(), torch.float32) == "packed"
