"""Chat Completions and plain completions as OpenAI's own client sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from gptoss_harmony import load_encoding
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings
from gptoss_serve.completions.chat import ChatChoice
from gptoss_serve.events import PartDelta, ScoredToken
from gptoss_serve.functions import ClientFunctions

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASK: list[Any] = [{"role": "user", "content": "Hi"}]


def called(arguments: Any) -> dict[str, Any]:
    """An earlier call, as a client sends it back."""
    function = {"name": "weather", "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


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


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [called(5)]}, "messages[0].tool_calls[0]"),
        ({"messages": [*ASK, {"role": "user", "content": [PICTURE]}]}, "messages[1].content[0]"),
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


def test_every_token_is_told_also_half_a_letter(connect: Any) -> None:
    text = "one \U0001f99c\U0001f9ab two"
    client = connect(f"{text}<|return|>")
    ids = {"return_token_ids": True}
    fields: dict[str, Any] = {"model": "scripted", "prompt": "x", "extra_body": ids}
    whole = client.completions.create(**fields)
    assert whole.choices[0].text == text
    tokens = load_encoding().encode(text)
    assert whole.choices[0].token_ids[: len(tokens)] == tokens
    assert len(whole.choices[0].token_ids) == whole.usage.completion_tokens
    chunks = client.completions.create(**fields, stream=True)
    streamed = [token for c in chunks for token in c.choices[0].token_ids]
    assert streamed == whole.choices[0].token_ids


def test_arguments_that_come_as_an_object_are_read(serve: Any, final: str) -> None:
    prompts: list[str] = []

    def script(prompt: Any) -> Any:
        prompts.append(load_encoding().decode(prompt.tokens))
        return load_encoding().encode(final, allowed_special="all")

    server = serve(engine=ScriptedEngine(script))
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "7"}
    body = {"messages": [*ASK, called({"city": "Lyon"}), answer], "verbosity": "low"}
    said = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert said.status_code == 200, said.text
    assert '{"city": "Lyon"}<|call|>' in prompts[0]
    assert "Keep the final answer short" in prompts[0]


def test_one_call_at_a_time_where_that_is_asked_for(connect: Any, call: str) -> None:
    two = f"{call.removesuffix('<|call|>')}<|end|><|start|>assistant{call}"
    client = connect(two)
    ask: dict[str, Any] = {"model": "scripted", "messages": ASK, "tools": [WEATHER]}
    both = client.chat.completions.create(**ask)
    one = client.chat.completions.create(**ask, parallel_tool_calls=False)
    assert [len(c.choices[0].message.tool_calls) for c in (both, one)] == [2, 1]


def test_scores_wait_with_the_text_that_may_be_a_stop_text() -> None:
    encoding = load_encoding()
    choice = ChatChoice(0, functions=ClientFunctions(), encoding=encoding, stops=["lo!"])
    scores = tuple(ScoredToken(token, -1.0) for token in encoding.encode("Hello"))
    deltas = choice.read(PartDelta(0, "answer", "lo", logprobs=scores))
    assert deltas == []
    deltas = choice.read(PartDelta(0, "answer", "w", logprobs=scores))
    assert deltas[0]["delta"]["content"] == "low"
    assert len(deltas[0]["logprobs"]["content"]) == 2 * len(scores)


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_are_not_in_force_are_named(serve: Any, stream: bool) -> None:
    url = f"{serve().url}/v1/chat/completions"
    body = {"messages": ASK, "tools": [WEATHER, {"type": "mcp"}], "stream": stream}
    assert httpx.post(url, json=body, timeout=60).headers["gptoss-ignored-tools"] == "mcp"
    plain = httpx.post(url, json={**body, "tools": [WEATHER]}, timeout=60)
    assert "gptoss-ignored-tools" not in plain.headers


@pytest.mark.parametrize("path", ["responses", "chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_no_header_can_name_spoils_no_answer(
    serve: Any, path: str, stream: bool
) -> None:
    asked = {"responses": {"input": "Hi"}, "chat/completions": {"messages": ASK}}[path]
    strange = [" ", " x", "x ", "\u00fc", "x" * 100_000]
    tools = [{"type": kind} for kind in [*strange, "image_generation"]]
    body = {**asked, "tools": tools, "stream": stream}
    answer = httpx.post(f"{serve().url}/v1/{path}", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["gptoss-ignored-tools"] == "image_generation"
    assert "Hello, world!" in answer.text or stream


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [({"enabled": False}, "low"), ({"enabled": False, "effort": "high"}, "high"), ({}, "medium")],
)
def test_reasoning_that_is_switched_off_is_as_little_as_there_is(
    serve: Any, reasoning: Any, effort: str
) -> None:
    seen: list[str] = []

    class Listening(ScriptedEngine):
        def generate(self, prompt: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(load_encoding().decode(prompt.tokens))
            return super().generate(prompt, *arguments, **options)

    engine = Listening(Recording(["<|channel|>final<|message|>Hi<|return|>"]), ScriptedOptions())
    url = f"{serve(engine=engine).url}/v1/chat/completions"
    body = {"messages": ASK, "reasoning": reasoning}
    assert httpx.post(url, json=body, timeout=60).status_code == 200
    assert f"Reasoning: {effort}" in seen[0]
