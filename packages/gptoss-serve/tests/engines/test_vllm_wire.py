"""What goes to vLLM and what is read from it, field by field."""

from __future__ import annotations

import pytest

from gptoss_harmony import Sampling, TokenLogprob, TokenOutput
from gptoss_harmony.errors import EngineError, Unsupported
from gptoss_serve.engines.vllm_wire import (
    cached_tokens,
    completion,
    outputs,
    prompt_scores,
    scoring,
    signed,
    trimmed,
)


def test_every_field_of_sampling_is_sent() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.01,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        repetition_penalty=1.1,
        seed=2**64 - 1,
        stop_tokens=(9, 3),
        logprobs=2,
        cache_salt="me",
        extra={"priority": -1, "logit_bias": {17: 2}},
    )
    body = completion("m", [1, 2], sampling, max_tokens=5, allowed_token_ids=[4])
    assert body == {
        "model": "m",
        "prompt": [1, 2],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "skip_special_tokens": False,
        "ignore_eos": True,
        "stop_token_ids": [3, 9],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.01,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "seed": -1,
        "cache_salt": "me",
        "priority": -1,
        "logit_bias": {"17": 2.0},
        "logprobs": 2,
        "return_tokens_as_token_ids": True,
        "allowed_token_ids": [4],
    }


def test_harmony_ends_answers_unless_told_otherwise() -> None:
    assert completion("m", [1], Sampling(), max_tokens=1)["stop_token_ids"] == [200_002, 200_012]
    assert completion("m", [1], Sampling(stop_tokens=()), max_tokens=1)["stop_token_ids"] == []


def test_other_research_options_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="thermostat"):
        completion("m", [1], Sampling(extra={"thermostat": 1}), max_tokens=1)


@pytest.mark.parametrize(
    ("seed", "sent"),
    [(None, None), (0, 0), (-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1), (2**63, -(2**63))],
)
def test_seeds_keep_their_64_bits(seed: int | None, sent: int | None) -> None:
    assert signed(seed) == sent


def test_pieces_become_outputs() -> None:
    choice = {
        "token_ids": [5, 6],
        "finish_reason": "length",
        "logprobs": {
            "token_logprobs": [-2.0, -0.5],
            "top_logprobs": [{"token_id:5": -2.0, "token_id:8": -0.1}, None],
        },
    }
    first, second = outputs(choice)
    assert first == TokenOutput(5, -2.0, ((8, -0.1), (5, -2.0)))
    assert second == TokenOutput(6, -0.5, (), finish_reason="length")
    assert trimmed(first, 1).top_logprobs == ((8, -0.1),)
    ended = {"token_ids": [], "finish_reason": "stop"}
    assert list(outputs(ended)) == [TokenOutput(None, finish_reason="stop")]
    assert list(outputs({"token_ids": [], "finish_reason": None})) == []


def test_a_server_without_token_ids_is_too_old() -> None:
    with pytest.raises(EngineError, match="vLLM 0"):
        list(outputs({"text": "Hi", "finish_reason": None}))


def test_prompts_are_scored_unstreamed() -> None:
    body = scoring("m", [5, 6], Sampling(prompt_logprobs=1, cache_salt="me"))
    assert body["prompt_logprobs"] == 1
    assert "stream" not in body
    scores = {"6": {"logprob": -3.0}, "9": {"logprob": -0.2}}
    answer = {"choices": [{"prompt_logprobs": [None, scores]}]}
    assert prompt_scores(answer, [5, 6], 1) == (None, TokenLogprob(6, -3.0, ((9, -0.2),)))
    with pytest.raises(EngineError, match="log probabilities"):
        prompt_scores({"choices": [{"prompt_logprobs": None}]}, [5, 6], 1)


def test_usage_may_lack_details() -> None:
    assert cached_tokens({"prompt_tokens": 4}) == 0
    assert cached_tokens({"prompt_tokens_details": None}) == 0
    assert cached_tokens({"prompt_tokens_details": {"cached_tokens": 3}}) == 3
