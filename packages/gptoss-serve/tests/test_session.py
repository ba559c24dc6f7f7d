"""The loop: rounds with tools, budgets, cancellation; and a real model held to schemas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai_harmony import Message, ToolNamespaceConfig

from gptoss_harmony import Engine, Sampling, open_engine, system_message, tool_message, user_message
from gptoss_harmony.grammar import AnswerFormat, JsonSchema
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_harmony.tool import ToolReply
from gptoss_serve import Budget, Session, Turn
from gptoss_serve.events import Event, PartDelta, PartDone, ToolAnswered, TurnDone

CODE = "<|channel|>analysis to=python code<|message|>1 + 1<|call|>"
ANSWER = "<|channel|>final<|message|>Two.<|return|>"


class SlowTool:
    """Answers `2` after a while."""

    name = "python"
    tool_config = ToolNamespaceConfig.python()

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def instruction(self) -> str:
        return ""

    def process(self, message: Message) -> ToolReply:
        async def reply() -> AsyncIterator[Message]:
            await asyncio.sleep(self._seconds)
            yield tool_message("python", "2", channel="analysis")

        return ToolReply(reply())


def respond(replies: list[Any], *, tools: Any = (), **turn: Any) -> list[Event]:
    session = Session(ScriptedEngine(Recording(replies)))
    asked = Turn(messages=[system_message(), user_message("Hi")], tools=tools, **turn)

    async def collect() -> list[Event]:
        return [event async for event in session.respond(asked)]

    return asyncio.run(collect())


def test_a_builtin_tool_runs_and_the_model_goes_on() -> None:
    events = respond([CODE, ANSWER], tools=[SlowTool()])
    assert ToolAnswered(0, "python", "2") in events
    done = events[-1]
    assert isinstance(done, TurnDone)
    assert done.reason == "stop"
    assert [message.author.role.value for message in done.messages] == [
        "assistant",
        "tool",
        "assistant",
    ]
    assert [e.index for e in events if isinstance(e, PartDone)] == [0, 1]


def test_a_tool_that_does_not_exist_is_answered() -> None:
    events = respond([CODE, ANSWER])
    answered = next(event for event in events if isinstance(event, ToolAnswered))
    assert answered.failed
    assert "There is no tool" in answered.text
    text = "".join(e.text for e in events if isinstance(e, PartDelta))
    assert text.startswith("1 + 1"), "text was lost"


def test_the_budget_of_tool_calls_leaves_an_answer() -> None:
    events = respond([CODE, CODE, ANSWER], tools=[SlowTool()], budget=Budget(tool_calls=1))
    answered = [event for event in events if isinstance(event, ToolAnswered)]
    assert [event.failed for event in answered] == [False, True]
    assert "The limit of tool calls is reached (1)." in answered[1].text
    assert isinstance(events[-1], TurnDone)
    assert events[-1].reason == "stop"


def test_the_budget_of_tool_calls_ends_the_turn() -> None:
    events = respond([CODE], tools=[SlowTool()], budget=Budget(tool_calls=3))
    answered = [event for event in events if isinstance(event, ToolAnswered)]
    assert [event.failed for event in answered] == [False, False, False, True]
    assert isinstance(events[-1], TurnDone)
    assert events[-1].reason == "tool_calls"


def test_the_budget_of_time_stops_a_tool() -> None:
    events = respond([CODE, ANSWER], tools=[SlowTool(30)], budget=Budget(seconds=0.3))
    answered = next(event for event in events if isinstance(event, ToolAnswered))
    assert "stopped" in answered.text
    assert isinstance(events[-1], TurnDone)


def test_tokens_are_counted_over_all_rounds() -> None:
    events = respond([CODE], tools=[SlowTool()], sampling=Sampling(max_tokens=25))
    done = events[-1]
    assert isinstance(done, TurnDone)
    assert (done.reason, done.usage.output_tokens) == ("length", 25)


def test_leaving_early_stops_the_engine() -> None:
    engine = ScriptedEngine(
        Recording(["<|channel|>final<|message|>" + "word " * 500 + "<|return|>"]),
        ScriptedOptions(tokens_per_second=50),
    )

    async def run() -> None:
        turn = Turn(messages=[user_message("Hi")])
        events = Session(engine).respond(turn)
        await anext(events)
        await events.aclose()
        for _ in range(100):
            if engine.stats().running == 0:
                return
            await asyncio.sleep(0.02)

    asyncio.run(run())
    assert engine.stats().running == 0
    assert engine.stats().generated_tokens < 200


@pytest.fixture(scope="module")
def nano() -> Iterator[Engine]:
    pytest.importorskip("gptoss_core", reason="the torch engine is not installed")
    pytest.importorskip("gptoss_nano", reason="nano is not installed")
    engine = open_engine("torch", "nano")
    yield engine
    engine.close()


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    {"enum": ["yes", "no"]},
    {
        "$defs": {"leaf": {"type": "object", "properties": {"é": {"type": "boolean"}}}},
        "type": "array",
        "items": {"$ref": "#/$defs/leaf"},
        "maxItems": 2,
    },
    {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
]


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_nano_at_random_obeys_a_schema(nano: Engine, schema: dict[str, Any]) -> None:
    import jsonschema

    turn = Turn(
        messages=[system_message(), user_message("Give me something.")],
        sampling=Sampling(max_tokens=120, temperature=1.0, seed=7),
        format=AnswerFormat(channels={"final": JsonSchema(schema)}),
    )

    async def collect() -> list[Event]:
        return [event async for event in Session(nano).respond(turn)]

    events = asyncio.run(collect())
    answer = next(e for e in events if isinstance(e, PartDone) and e.kind == "answer")
    assert answer.complete
    jsonschema.validate(json.loads(answer.text), schema)
