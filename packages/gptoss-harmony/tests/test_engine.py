"""The values that cross the engine contract."""

import dataclasses

import pytest

from gptoss_harmony.engine import EngineSpec, Prompt, Sampling
from gptoss_harmony.errors import UsageError
from gptoss_harmony.spans import Span


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2.0),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", float("inf")),
        ("repetition_penalty", 0.0),
        ("seed", 2**64),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
    ],
)
def test_sampling_refuses_values_out_of_range_by_name(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        Sampling(**{field: value})


def test_sampling_is_frozen_and_keeps_tuples() -> None:
    sampling = Sampling(stop_tokens=[1, 2])
    assert sampling.stop_tokens == (1, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampling.seed = 1


def test_a_prompt_is_made_from_any_sequence() -> None:
    spans = (Span(start=0, stop=2, role="user"),)
    prompt = Prompt([1, 2], spans)
    assert prompt.tokens == (1, 2)
    assert Prompt.of(prompt) is prompt
    assert Prompt.of([1, 2]).tokens == (1, 2)


def test_a_span_cannot_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        Span(start=3, stop=2, role="user")


def test_a_spec_declares_only_known_features() -> None:
    known = {"name": "x", "model_id": "x", "context_length": 1, "vocabulary_size": 1, "device": "x"}
    with pytest.raises(ValueError, match="telepathy"):
        EngineSpec(**known, supports=frozenset({"telepathy"}))
