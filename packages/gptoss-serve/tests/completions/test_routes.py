"""Chat Completions and plain completions as OpenAI's own client sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from gptoss_serve import ServerSettings

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASK: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def connect(serve: Callable[..., Any]) -> Iterator[Callable[..., openai.OpenAI]]:
    clients = []

    def connect(*replies: Any, **app: Any) -> openai.OpenAI:
        server = serve(list(replies) or None, **app)
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def test_a_chat_with_reasoning_and_usage(connect: Any) -> None:
    chat = connect().chat.completions.create(model="scripted", messages=ASK)
    message = chat.choices[0].message
    assert (message.content, message.reasoning) == ("Hello, world!", "Just greet.")
    assert not hasattr(message, "reasoning_content")
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage.completion_tokens_details.reasoning_tokens == 4


def test_a_tool_loop_that_replays_reasoning(connect: Any, call: str, final: str) -> None:
    client = connect(call, final)
    first = client.chat.completions.create(model="scripted", messages=ASK, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content == "One moment."
    assert message.tool_calls[0].function.arguments == '{"city": "Lyon"}'
    answer = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7"}
    history = [*ASK, message.model_dump(exclude_none=True), answer]
    second = client.chat.completions.create(model="scripted", messages=history, tools=[WEATHER])
    assert second.choices[0].message.content == "Hello, world!"
    assert second.usage.prompt_tokens > first.usage.total_tokens


def test_a_stream_adds_up_to_the_whole(connect: Any, call: str) -> None:
    client = connect(call)
    fields = {"model": "scripted", "messages": ASK, "tools": [WEATHER]}
    with client.chat.completions.stream(**fields) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    whole = client.chat.completions.create(**fields)
    one, other = streamed.choices[0], whole.choices[0]
    assert one.finish_reason == other.finish_reason == "tool_calls"
    assert one.message.content == other.message.content
    arguments = [c.message.tool_calls[0].function.arguments for c in (one, other)]
    assert arguments[0] == arguments[1]


def test_the_last_chunk_has_the_usage(connect: Any) -> None:
    chunks = list(
        connect().chat.completions.create(
            model="scripted", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("stop", "text"), [("world", "Hello, "), (["x", "lo,"], "Hel")])
def test_stop_texts_end_the_answer(connect: Any, stop: Any, text: str) -> None:
    client = connect()
    chat = client.chat.completions.create(model="scripted", messages=ASK, stop=stop)
    assert chat.choices[0].message.content == text
    assert chat.choices[0].finish_reason == "stop"


def test_several_choices(connect: Any, final: str) -> None:
    other = "<|channel|>final<|message|>Bye.<|return|>"
    chat = connect(final, other).chat.completions.create(model="scripted", messages=ASK, n=2)
    assert [choice.index for choice in chat.choices] == [0, 1]
    assert {choice.message.content for choice in chat.choices} == {"Hello, world!", "Bye."}


def test_reasoning_can_be_hidden_or_doubled(connect: Any) -> None:
    hide = {"include_reasoning": False}
    chat = connect().chat.completions.create(model="scripted", messages=ASK, extra_body=hide)
    assert not hasattr(chat.choices[0].message, "reasoning")
    settings = ServerSettings(reasoning_content=True, drain_seconds=1)
    chat = connect(settings=settings).chat.completions.create(model="scripted", messages=ASK)
    assert chat.choices[0].message.reasoning_content == "Just greet."


def test_a_length_is_a_length(connect: Any) -> None:
    chat = connect().chat.completions.create(model="scripted", messages=ASK, max_tokens=3)
    assert chat.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
        ({"temperature": 7}, "temperature"),
    ],
)
def test_mistakes_are_named(connect: Any, fields: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        connect().chat.completions.create(**{"model": "scripted", "messages": ASK, **fields})
    assert caught.value.param == param


def test_plain_completions_of_text_and_tokens(connect: Any) -> None:
    client = connect("one two three<|return|>")
    assert client.completions.create(model="scripted", prompt="x").choices[0].text.startswith("one")
    ids = {"return_token_ids": True}
    two = client.completions.create(
        model="scripted", prompt=[[1, 2], [3]], max_tokens=2, extra_body=ids
    )
    assert [choice.finish_reason for choice in two.choices] == ["length", "length"]
    assert [len(choice.token_ids) for choice in two.choices] == [2, 2]
    chunks = list(client.completions.create(model="scripted", prompt="x", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "one two three"
