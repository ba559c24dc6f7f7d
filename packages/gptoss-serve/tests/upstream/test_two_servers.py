"""OpenAI's client through two real servers: ours in front of ours, over either API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

FINAL = (
    "<|channel|>analysis<|message|>Just greet.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hello, world!<|return|>"
)
CALL = (
    "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>One moment.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
    '<|constrain|>json<|message|>{"city": "Lyon"}<|call|>'
)
PYTHON = (
    "<|channel|>analysis<|message|>Add.<|end|><|start|>assistant<|channel|>commentary"
    ' to=functions.python <|constrain|>json<|message|>{"code": "20 + 22"}<|call|>'
)
JSON = '<|channel|>final <|constrain|>json<|message|>{"city":"Lyon","celsius":7}<|return|>'

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

both = pytest.mark.parametrize("api", ["responses", "chat"])


class Weather(BaseModel):
    city: str
    celsius: int


@pytest.fixture
def connect() -> Iterator[Callable[[str], openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def start(url: str) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=url, api_key="x", max_retries=0))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@both
def test_answers_stream_with_thoughts_and_usage(
    behind: Any, front: Any, connect: Any, api: str
) -> None:
    engine, url = behind([FINAL, FINAL])
    client = connect(front(url, api=api).url)
    with client.responses.stream(
        model="behind",
        input="Hi",
        instructions="Be kind.",
        reasoning={"effort": "high"},
    ) as stream:
        events = list(stream)
        response = stream.get_final_response()
    assert response.output_text == "Hello, world!"
    assert response.output[0].content[0].text == "Just greet."
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.usage.input_tokens > 10
    kinds = [event.type for event in events]
    assert kinds.index("response.reasoning_text.delta") < kinds.index("response.output_text.delta")
    assert "Be kind." in engine.prompts[0]
    assert "Reasoning: high" in engine.prompts[0]

    chat = client.chat.completions.create(
        model="behind", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chat]
    assert "".join(delta.content or "" for delta in deltas) == "Hello, world!"
    assert "".join(getattr(delta, "reasoning", "") or "" for delta in deltas) == "Just greet."


@both
def test_functions_go_through_and_their_answers_come_back(
    behind: Any, front: Any, connect: Any, api: str
) -> None:
    engine, url = behind([CALL, FINAL])
    client = connect(front(url, api=api).url)
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    first = client.responses.create(model="behind", input="Weather in Lyon?", tools=[tool])
    call = first.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "Lyon"},
    )
    assert "weather" in engine.prompts[0]
    assert engine.sources, "the strictness of the tool was lost on the way"
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "7 degrees"}
    second = client.responses.create(
        model="behind", input=[answer], previous_response_id=first.id, tools=[tool]
    )
    assert second.output_text == "Hello, world!"
    assert "Look it up." in engine.prompts[1], "the thoughts of an unfinished answer were lost"
    assert "7 degrees" in engine.prompts[1]
    assert '{"city": "Lyon"}' in engine.prompts[1]


@both
def test_chat_clients_get_their_calls(behind: Any, front: Any, connect: Any, api: str) -> None:
    engine, url = behind([CALL, FINAL])
    client = connect(front(url, api=api).url)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    messages: list[Any] = [{"role": "user", "content": "Weather in Lyon?"}]
    choice = client.chat.completions.create(
        model="behind", messages=messages, tools=tools, tool_choice="required"
    ).choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Lyon"}
    assert engine.sources, "the forced choice was lost on the way"
    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "7 degrees"},
    ]
    again = client.chat.completions.create(model="behind", messages=messages, tools=tools)
    assert again.choices[0].message.content == "Hello, world!"
    assert "7 degrees" in engine.prompts[1]


@both
def test_our_python_runs_here(behind: Any, front: Any, connect: Any, sums: Any, api: str) -> None:
    engine, url = behind([PYTHON, FINAL])
    client = connect(front(url, api=api, tools=[sums]).url)
    tool = {"type": "code_interpreter", "container": {"type": "auto"}}
    response = client.responses.create(
        model="behind",
        input="20 + 22?",
        tools=[tool],
        include=["code_interpreter_call.outputs"],
    )
    assert sums.seen == ["20 + 22"]
    call = next(item for item in response.output if item.type == "code_interpreter_call")
    assert call.code == "20 + 22"
    assert call.outputs[0].logs == "42"
    assert response.output_text == "Hello, world!"
    assert "Add." in engine.prompts[1]
    assert "42" in engine.prompts[1]
    assert response.usage.output_tokens > 10, "usage is summed over the rounds"


@both
def test_a_forced_tool_of_ours_is_forced_there(
    behind: Any, front: Any, connect: Any, sums: Any, api: str
) -> None:
    engine, url = behind([PYTHON, FINAL])
    client = connect(front(url, api=api, tools=[sums]).url)
    response = client.responses.create(
        model="behind",
        input="20 + 22?",
        tools=[{"type": "code_interpreter", "container": {"type": "auto"}}],
        tool_choice={"type": "code_interpreter"},
    )
    assert response.output_text == "Hello, world!"
    assert [source.tool_choice for source in engine.sources] == ["python"]


@both
def test_schemas_are_handed_on(behind: Any, front: Any, connect: Any, api: str) -> None:
    engine, url = behind([JSON, JSON])
    client = connect(front(url, api=api).url)
    parsed = client.responses.parse(model="behind", input="Weather?", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Lyon", celsius=7)
    chat = client.chat.completions.parse(
        model="behind",
        messages=[{"role": "user", "content": "Weather?"}],
        response_format=Weather,
    )
    assert chat.choices[0].message.parsed == Weather(city="Lyon", celsius=7)
    assert len(engine.sources) == 2, "the schema was not enforced behind us"


@both
def test_what_we_keep_the_upstream_need_not(
    behind: Any, front: Any, connect: Any, api: str
) -> None:
    engine, url = behind([FINAL, FINAL])
    client = connect(front(url, api=api).url)
    first = client.responses.create(model="behind", input="My name is Ada.", background=True)
    while first.status in ("queued", "in_progress"):
        first = client.responses.retrieve(first.id)
    assert first.status == "completed"
    second = client.responses.create(
        model="behind", input="Who am I?", previous_response_id=first.id
    )
    assert second.output_text == "Hello, world!"
    assert "My name is Ada." in engine.prompts[1]
    assert "Just greet." not in engine.prompts[1], "old thoughts are left out"


@both
def test_a_cut_answer_is_incomplete(behind: Any, front: Any, connect: Any, api: str) -> None:
    _, url = behind([FINAL])
    client = connect(front(url, api=api).url)
    response = client.responses.create(model="behind", input="Hi", max_output_tokens=9)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


@both
def test_what_cannot_be_handed_on_is_named(behind: Any, front: Any, connect: Any, api: str) -> None:
    _, url = behind([])
    client = connect(front(url, api=api).url)
    with pytest.raises(openai.BadRequestError) as logprobs:
        client.responses.create(model="behind", input="Hi", top_logprobs=2)
    assert logprobs.value.param == "top_logprobs"
    with pytest.raises(openai.BadRequestError, match="/v1/responses"):
        client.completions.create(model="behind", prompt="Once")
    with pytest.raises(openai.BadRequestError, match=r"behind us|upstream|llguidance|schema"):
        client.responses.create(
            model="behind",
            input="Hi",
            text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}},
        )


@both
def test_the_model_reads_the_same_as_without_us(
    behind: Any, front: Any, connect: Any, api: str
) -> None:
    engine, url = behind([CALL, FINAL] * 2)
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    asked = {"model": "behind", "tools": [tool], "instructions": "Be kind.", "store": False}
    for base in (url, front(url, api=api).url):
        client = connect(base)
        items: list[Any] = [{"role": "user", "content": "Weather in Lyon?"}]
        first = client.responses.create(input=items, **asked)
        items += [item.model_dump(exclude_none=True) for item in first.output]
        call_id = first.output[-1].call_id
        items.append({"type": "function_call_output", "call_id": call_id, "output": "7 degrees"})
        assert client.responses.create(input=items, **asked).output_text == "Hello, world!"
    prompts = [re.sub(r"\d{4}-\d\d-\d\d", "today", prompt) for prompt in engine.prompts]
    assert prompts[2:] == prompts[:2]
