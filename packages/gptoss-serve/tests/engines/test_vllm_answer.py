"""Answers over a server that knows lists of allowed tokens, or grammars, or neither, or breaks."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import httpx
import pytest

from gptoss_harmony import Sampling, load_encoding
from gptoss_harmony.errors import ContextOverflow, EngineError, Unsupported
from gptoss_harmony.grammar import AnswerFormat, Grammar, JsonSchema
from gptoss_harmony.testing import AllowOnly, tokens_of
from gptoss_serve.engines.vllm import VllmEngine

PROBE = [200_006]
UNLIKELY = 200_018


class FakeVllm:
    """Answers on vLLM's wire from `weights`, the same at every position.

    Args:
        weights: how likely each token is.
        ignores: request fields that it does not know.
        breaks: what happens after the first token: `error`, `cut`, `rubbish` or nothing.
    """

    def __init__(
        self, weights: dict[int, float], *, ignores: tuple[str, ...] = (), breaks: str = ""
    ) -> None:
        self.weights = weights
        self.ignores = ignores
        self.breaks = breaks
        self.refusal: httpx.Response | None = None
        self.random = random.Random(5)
        self.bodies: list[dict[str, Any]] = []

    def engine(self) -> VllmEngine:
        http = httpx.Client(transport=httpx.MockTransport(self.answer), base_url="http://fake/v1")
        engine = VllmEngine(http, "m")
        self.bodies.clear()
        return engine

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "m", "max_model_len": 64}]})
        if self.refusal is not None:
            return self.refusal
        body = json.loads(request.content)
        self.bodies.append(body)
        if "grammars" in self.ignores and body["prompt"] != PROBE and "structured_outputs" in body:
            return httpx.Response(400, json={"error": {"message": "Grammar error: no %lark here"}})
        known = {name: body[name] for name in body if name not in self.ignores}
        if known.get("structured_outputs") and body["prompt"] == PROBE:
            known["allowed_token_ids"] = [UNLIKELY]
        if not body.get("stream"):
            return httpx.Response(200, json={"choices": [self.piece(known, last=True)]})
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in self.chunks(known)]
        return httpx.Response(200, text="".join(lines) + "data: [DONE]\n\n")

    def chunks(self, body: dict[str, Any]) -> Any:
        for position in range(body["max_tokens"]):
            if position and self.breaks == "error":
                yield {"error": {"message": "EngineCore has died"}}
            if position and self.breaks in ("cut", "error"):
                return
            last = position == body["max_tokens"] - 1
            yield {"choices": [self.piece(body, last=last)] if self.breaks != "rubbish" else 7}
        yield {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}

    def piece(self, body: dict[str, Any], *, last: bool) -> dict[str, Any]:
        allowed = body.get("allowed_token_ids")
        weights = {t: w for t, w in self.weights.items() if allowed is None or t in allowed}
        token = (
            self.random.choices(*zip(*weights.items(), strict=True))[0] if weights else allowed[0]
        )
        return {
            "index": 0,
            "token_ids": [token],
            "finish_reason": "length" if last else None,
            "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{f"token_id:{token}": -1.0}]},
            "prompt_logprobs": [None] * len(body["prompt"]),
        }


def test_the_distribution_is_that_of_a_mask() -> None:
    fake = FakeVllm({1: 0.5, 2: 0.3, 3: 0.15, 4: 0.05})
    engine = fake.engine()
    counts: Counter[int] = Counter()
    for _ in range(300):
        constraint = AllowOnly({2, 4, 3})
        sampling = Sampling(max_tokens=10, stop_tokens=())
        tokens = tokens_of(list(engine.generate([9], sampling, constraint=constraint)))
        assert len(tokens) == 10
        assert constraint.accepted == tokens
        counts.update(tokens)
    for token, share in {2: 0.6, 3: 0.3, 4: 0.1}.items():
        assert abs(counts[token] / 3000 - share) < 0.03  # more than three standard deviations
    engine.close()


def test_a_single_choice_asks_nobody() -> None:
    fake = FakeVllm({1: 1.0})
    engine = fake.engine()
    sampling = Sampling(max_tokens=3, stop_tokens=())
    outputs = list(engine.generate([9], sampling, constraint=AllowOnly({7})))
    assert [(o.token, o.finish_reason) for o in outputs] == [(7, None), (7, None), (7, "length")]
    assert fake.bodies == []
    wanted = Sampling(max_tokens=1, stop_tokens=(), logprobs=0)
    assert next(engine.generate([9], wanted, constraint=AllowOnly({7}))).logprob == -1.0
    engine.close()


def test_what_a_free_draw_cannot_do_is_refused_by_name() -> None:
    engine = FakeVllm({1: 1.0}).engine()
    for change in ({"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}, {"presence_penalty": 0.5}):
        sampling = Sampling(max_tokens=2, **change)
        with pytest.raises(Unsupported, match=next(iter(change))):
            next(engine.generate([9], sampling, constraint=AllowOnly({1, 7})))
    greedy = Sampling(max_tokens=2, temperature=0, top_p=0.9)
    assert len(list(engine.generate([9], greedy, constraint=AllowOnly({1, 7})))) == 2
    engine.close()


def grammar() -> Grammar:
    schema = JsonSchema({"type": "object", "properties": {}, "additionalProperties": False})
    return Grammar(load_encoding(), AnswerFormat(channels={"final": schema}))


def test_a_grammar_is_sent_and_its_answer_still_checked() -> None:
    fake = FakeVllm({1: 1.0})  # says that it takes grammars, and then writes what it likes
    engine = fake.engine()
    made = grammar().constraint(budget=8)
    sampling = Sampling(max_tokens=8, top_p=0.5)
    outputs = list(engine.generate([9], sampling, constraint=made))
    text = load_encoding().decode(tokens_of(outputs))
    assert text == "<|channel|>final<|message|>{}<|return|>"
    assert outputs[-1].finish_reason == "stop"
    assert made.format.whole_lark() == fake.bodies[0]["structured_outputs"]["grammar"]
    assert not any("structured_outputs" in body for body in fake.bodies[1:])
    engine.close()


def test_a_grammar_that_the_server_cannot_read_is_held_here() -> None:
    engine = FakeVllm({1: 1.0}, ignores=("grammars",)).engine()
    outputs = list(engine.generate([9], Sampling(max_tokens=8), constraint=grammar().constraint()))
    text = load_encoding().decode(tokens_of(outputs))
    assert text.startswith("<|channel|>")
    sampling = Sampling(max_tokens=8, top_p=0.5)
    with pytest.raises(Unsupported, match=r"top_p.*no %lark here"):
        list(engine.generate([9], sampling, constraint=grammar().constraint()))
    engine.close()


def test_features_are_what_the_server_does() -> None:
    everything = FakeVllm({1: 1.0}).engine()
    assert {"constraint", "logprobs", "prompt_logprobs"} <= everything.spec.supports
    everything.close()
    old = FakeVllm({1: 1.0}, ignores=("allowed_token_ids", "structured_outputs")).engine()
    assert "constraint" not in old.spec.supports
    with pytest.raises(Unsupported, match="constraint"):
        next(old.generate([9], Sampling(), constraint=AllowOnly({1})))
    old.close()


def test_cached_tokens_come_with_the_end() -> None:
    engine = FakeVllm({1: 1.0}).engine()
    generation = engine.generate([9, 9, 9], Sampling(max_tokens=3))
    list(generation)
    assert generation.cached_tokens == 2
    assert engine.stats().cached_tokens == 2
    engine.close()


@pytest.mark.parametrize(
    ("breaks", "says"),
    [("error", "EngineCore has died"), ("cut", "too early"), ("rubbish", "cannot be read")],
)
def test_a_broken_stream_fails_after_what_came(breaks: str, says: str) -> None:
    engine = FakeVllm({1: 1.0}, breaks=breaks).engine()
    generation = engine.generate([9], Sampling(max_tokens=4, stop_tokens=()))
    with pytest.raises(EngineError, match=says):
        list(generation)
    assert next(generation, None) is None
    engine.close()


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (httpx.Response(400, json={"error": {"message": "no such top_k"}}), EngineError, "top_k"),
        (
            httpx.Response(400, json={"error": {"message": "maximum context length is 4"}}),
            ContextOverflow,
            "context length",
        ),
        (httpx.Response(502, text="<html>proxy</html>"), EngineError, "502"),
    ],
)
def test_refusals_say_what_the_server_said(
    answer: httpx.Response, kind: type[Exception], says: str
) -> None:
    fake = FakeVllm({1: 1.0})
    engine = fake.engine()
    fake.refusal = answer
    with pytest.raises(kind, match=says):
        next(engine.generate([9], Sampling(max_tokens=4)))
    engine.close()
