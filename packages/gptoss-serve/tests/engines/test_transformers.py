"""The transformers engine, for real on a CPU: the contract on nano, and that no lane, chunk, cache
or company changes an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_harmony import (
    Checkpoint,
    Conversation,
    Role,
    Sampling,
    TokenOutput,
    load_encoding,
    open_engine,
    system_message,
    user_message,
)
from gptoss_harmony.convert import convert_checkpoint
from gptoss_harmony.errors import CheckpointError, EngineError, NotInstalled, UsageError
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import EngineContract, require, tokens_of
from gptoss_serve import Client, Session
from gptoss_serve.engines import transformers_batch, transformers_model
from gptoss_serve.engines.transformers import TransformersEngine, TransformersOptions

pytestmark = [pytest.mark.transformers, pytest.mark.slow]
OPTIONS = {"device": "cpu", "dtype": "float32", "kv_memory": 0.5, "context": 4096}
GREEDY = Sampling(temperature=0.0, max_tokens=12, stop_tokens=())


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    require(not transformers_model.missing(), "torch, transformers or accelerate is missing")
    require(find_spec("gptoss_core") is not None, "gptoss-core is not installed")


@pytest.fixture(scope="module")
def model() -> Any:
    """nano, converted and loaded."""
    options = TransformersOptions(**OPTIONS)
    return transformers_model.load_model(Checkpoint.open("nano"), options)


@pytest.fixture(scope="module")
def nano(model: Any) -> Iterator[TransformersEngine]:
    options = TransformersOptions(**OPTIONS)
    with closing(TransformersEngine(model, options, context=4096, model_id="nano")) as engine:
        yield engine


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, nano: TransformersEngine) -> TransformersEngine:
        return nano


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the whole vocabulary; no two tokens of the answers below are close."""
    folder = tmp_path_factory.mktemp("tiny")
    original = Checkpoint.open(random_checkpoint(folder / "original", tiny_config(), seed=7))
    return Path(convert_checkpoint(original, folder / "hf", layout="hf-bf16").folder)


@pytest.fixture
def serve_tiny(tiny: Path) -> Iterator[Callable[..., TransformersEngine]]:
    engines = []

    def start(**options: Any) -> TransformersEngine:
        chosen = TransformersOptions(**{**OPTIONS, **options})
        engines.append(TransformersEngine.open(str(tiny), chosen))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def ask(text: str) -> list[int]:
    conversation = Conversation.from_messages([system_message(), user_message(text)])
    return load_encoding().render_conversation_for_completion(conversation, Role.ASSISTANT)


def answer(engine: Any, prompt: list[int], sampling: Sampling = GREEDY) -> list[int]:
    return tokens_of(list(engine.generate(prompt, sampling)))


def many(engine: Any, prompts: list[list[int]], sampling: Sampling = GREEDY) -> list[list[int]]:
    """Answers to requests that run at once: the first has its lane for itself."""
    generations = [engine.generate(prompt, sampling) for prompt in prompts]
    return [tokens_of(list(generation)) for generation in generations]


def test_a_chat_is_that_of_the_torch_engine(nano: TransformersEngine) -> None:
    prompt, sampling = ask("Hello"), Sampling(temperature=0.0, max_tokens=60)
    mine = answer(nano, prompt, sampling)
    with closing(open_engine("torch", "nano", device="cpu", dtype="float32", threads=1)) as torch:
        assert mine == answer(torch, prompt, sampling)

    async def chat() -> Any:
        async with Client.over_session(Session(nano)) as client:
            return await client.complete("Hello", temperature=0, max_output_tokens=60)

    reply = asyncio.run(chat())
    assert reply.text
    assert reply.text in load_encoding().decode(mine)


def test_both_lanes_give_the_same_answers(nano: TransformersEngine, model: Any) -> None:
    options = TransformersOptions(**OPTIONS, batching="off")
    prompts = [ask(text) for text in ("Hello", "What is 3 + 4?", "Say one word.")]
    with closing(TransformersEngine(model, options, context=4096)) as alone:
        assert "batching" not in alone.spec.supports
        expected = [answer(alone, prompt) for prompt in prompts]
        assert many(alone, prompts) == expected
    assert "batching" in nano.spec.supports
    assert many(nano, prompts * 2) == expected * 2
    sampled = many(nano, prompts, Sampling(max_tokens=6, stop_tokens=()))
    assert [len(tokens) for tokens in sampled] == [6, 6, 6]
    assert all(batch.held_bytes for batch in nano._batches), "continuous batching was not used"
    assert nano.stats().running == 0


def test_prefixes_and_chunks_change_nothing(serve_tiny: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 199_000, 300).tolist()
    second = first[:170] + rng.integers(0, 199_000, 60).tolist()  # beyond the window, and back
    fresh = serve_tiny(prefix_reuse=False, prefill_chunk=4096, batching="off")
    expected = [answer(fresh, prompt) for prompt in (first, second, second)]
    engine = serve_tiny(prefill_chunk=7, batching="off")
    assert answer(engine, first) == expected[0]
    generation = engine.generate(second, GREEDY)
    assert generation.cached_tokens == 170
    assert tokens_of(list(generation)) == expected[1]
    assert engine.generate(second, GREEDY).cached_tokens == len(second) - 1
    other = engine.generate(second, Sampling(temperature=0.0, max_tokens=2, cache_salt="other"))
    assert other.cached_tokens == 0
    list(other)
    assert engine.stats().kv_bytes_used > 0


def test_a_cache_stays_within_its_memory(serve_tiny: Callable[..., Any]) -> None:
    engine = serve_tiny(kv_memory=0.0005, batching="off")
    for seed in range(4):
        prompt = np.random.default_rng(seed).integers(0, 199_000, 200).tolist()
        answer(engine, prompt)
        assert engine.stats().kv_bytes_used <= engine.stats().kv_bytes_capacity


def test_an_answer_that_outgrows_the_pool_goes_on(
    serve_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_batch, "PAGE", 32)
    monkeypatch.setattr(transformers_batch, "LEAST_ROOM", 8)
    long = Sampling(temperature=0.0, max_tokens=90, stop_tokens=())
    engine = serve_tiny(kv_memory=0.0001, batching="on")  # the least pool: 64 tokens a request
    expected = answer(engine, [1, 2, 3], long)
    assert len(expected) == 90
    assert many(engine, [[1, 2, 3]] * 4, long) == [expected] * 4


def test_a_batch_that_cannot_start_says_so(
    serve_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(batch: Any) -> None:
        raise RuntimeError("no pool")

    monkeypatch.setattr(transformers_batch.Batch, "_make_manager", fail)
    engine = serve_tiny()
    first = engine.generate([1, 2, 3], Sampling(stop_tokens=(), max_tokens=300))
    second = engine.generate([1, 2, 3], GREEDY)
    with pytest.raises(EngineError, match=r"no pool.*take turns"):
        list(second)
    expected = answer(engine, [1, 2, 3])
    assert len(expected) == 12
    first.cancel()


def test_a_cancel_ends_in_either_lane(serve_tiny: Callable[..., Any]) -> None:
    engine = serve_tiny()
    endless = Sampling(stop_tokens=(), max_tokens=3000)
    generations = [engine.generate([1, 2, 3], endless) for _ in range(3)]
    for generation in generations:
        next(generation)
        generation.cancel()
        assert list(generation)[-1].finish_reason == "cancelled"
    assert engine.generate([1], GREEDY) is not None  # dropped at once: cancelled
    engine.close()
    assert engine.stats().running == 0
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate([1], GREEDY))


def test_each_setting_does_what_it_says(serve_tiny: Callable[..., Any]) -> None:
    engine = serve_tiny()
    prompt = list(range(40))

    def run(**settings: Any) -> list[TokenOutput]:
        return list(engine.generate(prompt, Sampling(stop_tokens=(), max_tokens=8, **settings)))

    greedy = tokens_of(run(temperature=0.0))
    assert tokens_of(run(temperature=1.0, top_k=1)) == greedy
    assert tokens_of(run(temperature=1.0, min_p=1.0)) == greedy
    assert tokens_of(run(temperature=1.0, top_p=1e-6)) == greedy
    assert tokens_of(run(temperature=1e-9)) == greedy
    assert tokens_of(run(temperature=1.0, seed=1)) != tokens_of(run(temperature=1.0, seed=2))
    for penalty in ({"presence_penalty": 100.0}, {"frequency_penalty": 100.0}):
        assert len(set(tokens_of(run(temperature=0.0, **penalty)))) == 8
    unseen = tokens_of(run(temperature=0.0, repetition_penalty=1e6))
    assert len(set(unseen)) == 8
    assert not set(unseen) & set(prompt)
    biased = run(temperature=0.0, extra={"logit_bias": {7: 1e6, str(greedy[0]): -1.0}})
    assert tokens_of(biased) == [7] * 8
    scored = run(temperature=1.0, logprobs=20, seed=3)
    listed = [dict(output.top_logprobs).get(output.token) for output in scored]
    assert all(score is None or score == scored[i].logprob for i, score in enumerate(listed))


def test_a_constraint_that_fails_ends_its_request(serve_tiny: Callable[..., Any]) -> None:
    class Broken:
        source, done = None, False

        def __init__(self, at: str) -> None:
            self.at = at

        def fill(self, row: Any) -> bool:
            row[:] = 0
            if self.at == "fill":
                raise ValueError("cannot")
            return self.at == "nothing"

        def accept(self, token: int) -> None:
            raise ValueError("will not")

    engine = serve_tiny()
    cases = {"fill": "cannot", "accept": "will not", "nothing": "allows no token"}
    for at, said in cases.items():
        with pytest.raises(EngineError, match=said):
            next(engine.generate([1, 2], GREEDY, constraint=Broken(at)))
    assert answer(engine, [1, 2])


def test_what_is_missing_or_wrong_is_said(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, said in (
        ({"device": "cuda:99"}, "not in this computer"),
        ({"device": "tpu"}, "tpu"),
        ({"context": 10**9}, "is more than"),
        ({"prefill_chunk": 0}, "at least 1"),
        ({"kv_memory": -1.0}, "positive"),
    ):
        with pytest.raises(UsageError, match=said):
            open_engine("transformers", str(tiny), **options)
    with pytest.raises(CheckpointError, match="no such folder"):
        open_engine("transformers", str(tmp_path / "nowhere"))
    monkeypatch.setattr(transformers_model, "find_spec", lambda name: None)
    assert "pip install" in str(TransformersEngine.unavailable())
    with pytest.raises(NotInstalled, match=r"gptoss-serve\[transformers\]"):
        open_engine("transformers", str(tiny), device="cpu")


def test_packed_experts_need_a_gpu() -> None:
    with pytest.raises(UsageError, match="packed"):
        open_engine("transformers", "nano", device="cpu", experts="packed")


def test_it_serves(nano: TransformersEngine, serve: Callable[..., Any]) -> None:
    import httpx

    from gptoss_harmony.scripted import ScriptedEngine

    class Lent(ScriptedEngine):
        """The engine of this module, which the server must not close."""

        def __init__(self) -> None:
            self.spec = nano.spec

        def generate(self, *args: Any, **keywords: Any) -> Any:
            return nano.generate(*args, **keywords)

        def stats(self) -> Any:
            return nano.stats()

        def close(self) -> None:
            """Stays open."""

    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    body = {
        "model": "nano",
        "input": "Is it ok? Answer in JSON.",
        "max_output_tokens": 120,
        "temperature": 0,
        "text": {"format": {"type": "json_schema", "name": "r", "schema": schema, "strict": True}},
    }
    reply = httpx.post(f"{serve(engine=Lent()).url}/v1/responses", json=body, timeout=120).json()
    assert reply.get("status") in ("completed", "incomplete"), reply
    texts = [p["text"] for i in reply["output"] if i["type"] == "message" for p in i["content"]]
    if reply["status"] == "completed":
        assert set(json.loads(texts[-1])) == {"ok"}
