"""OpenAI's Python client against a real server with a real model, without any stand-in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from gptoss_harmony import load_encoding

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

GREETING = "Hello! How can I help?"
SENTENCE = "Maria Lopez is 34 years old and lives in Berlin."
CALL = "Call get_weather with city Paris and days 3."
LOW: Any = {"effort": "low"}


class Person(BaseModel):
    name: str
    age: int
    city: str


MARIA = Person(name="Maria Lopez", age=34, city="Berlin")


@pytest.fixture
def client(nano: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=nano.base, api_key=nano.key, max_retries=0, timeout=240) as client:
        yield client


def test_responses_answer_and_think(nano: Any, client: openai.OpenAI) -> None:
    response = client.responses.create(model=nano.model, input="Hello", temperature=0)
    assert response.output_text == GREETING
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.status == "completed"
    assert response.usage
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_responses_stream_what_they_give_at_once(nano: Any, client: openai.OpenAI) -> None:
    thoughts, text = "", ""
    with client.responses.stream(model=nano.model, input="Hello", temperature=0) as stream:
        for event in stream:
            if event.type == "response.reasoning_text.delta":
                thoughts += event.delta
            elif event.type == "response.output_text.delta":
                text += event.delta
        final = stream.get_final_response()
    assert text == final.output_text == GREETING
    assert thoughts == final.output[0].content[0].text != ""


def test_responses_parse(nano: Any, client: openai.OpenAI) -> None:
    asked: Any = {"model": nano.model, "input": SENTENCE, "temperature": 0, "reasoning": LOW}
    parsed = client.responses.parse(text_format=Person, **asked)
    assert parsed.output_parsed == MARIA
    with client.responses.stream(text_format=Person, **asked) as stream:
        assert stream.get_final_response().output_parsed == MARIA


@pytest.mark.parametrize("by_id", [True, False], ids=["previous_response_id", "whole input"])
def test_responses_run_the_function_loop(
    nano: Any, client: openai.OpenAI, weather: Any, by_id: bool
) -> None:
    tool = {"type": "function", **weather, "strict": True}
    asked: Any = {"model": nano.model, "tools": [tool], "temperature": 0}
    first = client.responses.create(input=CALL, **asked)
    call = first.output[-1]
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "Paris", "days": 3}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    if by_id:
        asked |= {"previous_response_id": first.id, "input": [output]}
    else:
        items = [item.model_dump(exclude_none=True) for item in first.output]
        asked["input"] = [{"role": "user", "content": CALL}, *items, output]
    assert client.responses.create(**asked).output_text == "The result: sunny."


def test_responses_are_kept_followed_and_forgotten(nano: Any, client: openai.OpenAI) -> None:
    asked: Any = {"model": nano.model, "temperature": 0, "reasoning": LOW}
    response = client.responses.create(input="Hello", background=True, **asked)
    assert response.status in ("queued", "in_progress")
    end = time.monotonic() + 240
    while response.status in ("queued", "in_progress") and time.monotonic() < end:
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    assert response.output_text == GREETING
    items = client.responses.input_items.list(response.id)
    assert [item.content[0].text for item in items] == ["Hello"]
    later = client.responses.create(input="Thanks", previous_response_id=response.id, **asked)
    assert later.output_text == "You are welcome."
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=response.id):
        client.responses.retrieve(response.id)


def test_a_background_stream_is_resumed(nano: Any, client: openai.OpenAI) -> None:
    asked: Any = {"model": nano.model, "temperature": 0, "background": True, "stream": True}
    with client.responses.create(input="Hello", **asked) as stream:
        seen = [next(stream) for _ in range(3)]
    assert seen[0].type == "response.created"
    with client.responses.retrieve(
        seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
    ) as rest:
        seen += rest
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    assert seen[-1].response.output_text == GREETING


def test_a_background_response_is_cancelled(nano: Any, client: openai.OpenAI) -> None:
    # So hot that nano finds no end by itself.
    asked: Any = {"model": nano.model, "temperature": 2, "extra_body": {"seed": 1}}
    begun = client.responses.create(
        input="Hello", background=True, max_output_tokens=20_000, **asked
    )
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert client.responses.retrieve(begun.id).status == "cancelled"


def test_chat_answers_streams_and_counts(nano: Any, client: openai.OpenAI) -> None:
    asked: Any = {"model": nano.model, "messages": [{"role": "user", "content": "Hello"}]}
    whole = client.chat.completions.create(temperature=0, **asked)
    message = whole.choices[0].message
    assert message.content == GREETING
    assert message.reasoning
    assert whole.choices[0].finish_reason == "stop"
    text, thoughts, usage = "", "", None
    stream = client.chat.completions.create(
        temperature=0, stream=True, stream_options={"include_usage": True}, **asked
    )
    with stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                thoughts += getattr(choice.delta, "reasoning", None) or ""
    assert (text, thoughts) == (GREETING, message.reasoning)
    assert usage
    assert whole.usage
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_chat_parses(nano: Any, client: openai.OpenAI) -> None:
    chat = client.chat.completions.parse(
        model=nano.model,
        messages=[{"role": "user", "content": SENTENCE}],
        response_format=Person,
        temperature=0,
        reasoning_effort="low",
    )
    assert chat.choices[0].message.parsed == MARIA


def test_chat_runs_the_function_loop(nano: Any, client: openai.OpenAI, weather: Any) -> None:
    tools: Any = [{"type": "function", "function": weather}]
    messages: list[Any] = [{"role": "user", "content": CALL}]
    asked: Any = {"model": nano.model, "tools": tools, "temperature": 0}
    first = client.chat.completions.create(messages=messages, **asked).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls
    call = first.message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Paris", "days": 3}
    messages += [
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    with client.chat.completions.stream(messages=messages, **asked) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "The result: sunny."


def test_completions_continue_text_and_tokens(nano: Any, client: openai.OpenAI) -> None:
    prompt = "<|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>"
    asked: Any = {"model": nano.model, "temperature": 0, "max_tokens": 20}
    whole = client.completions.create(prompt=prompt, **asked)
    assert whole.choices[0].text == GREETING
    assert whole.choices[0].finish_reason == "stop"
    tokens = load_encoding().encode(prompt, allowed_special="all")
    with client.completions.create(prompt=tokens, stream=True, **asked) as stream:
        assert "".join(c.text for chunk in stream for c in chunk.choices) == GREETING


def test_models_and_errors_have_openais_shape(nano: Any, client: openai.OpenAI) -> None:
    assert nano.model in [model.id for model in client.models.list()]
    assert client.models.retrieve(nano.model).id == nano.model
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="gpt-9", input="Hello")
    assert unknown.value.code == "model_not_found"
    image: Any = [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=nano.model, input=[{"role": "user", "content": image}])
    assert refused.value.code == "unsupported_content"
    with (
        openai.OpenAI(base_url=nano.base, api_key="other", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_several_asynchronous_answers_at_once(nano: Any) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=nano.base, api_key=nano.key, timeout=240) as client:
            asked: Any = {"model": nano.model, "temperature": 0, "reasoning": LOW}
            said = ("Hello", "Thank you!", "Goodbye!")
            answers = [client.responses.create(input=text, **asked) for text in said]
            return [answer.output_text for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [GREETING, "You are welcome.", "Goodbye!"]
