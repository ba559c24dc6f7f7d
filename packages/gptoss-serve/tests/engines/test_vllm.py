"""The vllm engine against vLLM's documented wire, spoken by our own `/v1/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gptoss_harmony import Sampling, open_engine
from gptoss_harmony.errors import EngineError, UsageError
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_harmony.testing import EngineContract
from gptoss_serve import Client, Session
from gptoss_serve.engines.vllm import VllmEngine, VllmOptions

REPLY = "<|channel|>final<|message|>" + "word " * 40 + "<|return|>"


def connect(server: Any, **options: Any) -> VllmEngine:
    return VllmEngine.open("scripted", VllmOptions(engine_url=f"{server.url}/v1", **options))


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, serve: Callable[..., Any]) -> Iterator[VllmEngine]:
        server = serve(engine=ScriptedEngine(Recording([REPLY])))
        engine = connect(server)
        yield engine
        engine.close()


def test_a_whole_answer_through_two_servers(serve: Callable[..., Any], call: str) -> None:
    engine = connect(serve([call]))
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]

    async def run() -> Any:
        async with Client.over_session(Session(engine)) as client:
            return await client.complete("Weather?", tools=tools)

    reply = asyncio.run(run())
    assert [item["type"] for item in reply.output] == ["reasoning", "message", "function_call"]
    assert engine.stats().generated_tokens == reply.usage.output_tokens
    engine.close()


def test_a_cancel_stops_the_server_behind(serve: Callable[..., Any]) -> None:
    behind = ScriptedEngine(Recording([REPLY]), ScriptedOptions(tokens_per_second=10))
    engine = connect(serve(engine=behind))
    generation = engine.generate([1, 2], Sampling())
    next(generation)
    generation.cancel()
    assert list(generation)[-1].finish_reason == "cancelled"
    engine.close()
    assert behind.stats().generated_tokens < 30


def test_missing_servers_and_models_are_named(serve: Callable[..., Any]) -> None:
    with pytest.raises(EngineError, match="--engine-url"):
        open_engine("vllm", "x", engine_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="scripted"):
        open_engine("vllm", "x", engine_url=f"{serve().url}/v1")
