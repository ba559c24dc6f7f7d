"""What Open Responses asks of a server, in our words, under each name of the reasoning events.

The cases: a plain answer, a streamed one, a system message, a call (also streamed), its round
trip, several turns, going on from a response, and input that a text model cannot take. The checks
on keys, types and order are those of `conformance`, the same as for any other response.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gptoss_harmony import load_encoding
from gptoss_harmony.engine import Prompt
from gptoss_harmony.scripted import ScriptedEngine
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.store import ResponseStore

Json = dict[str, Any]
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
CALL = (
    "<|channel|>analysis<|message|>Ask the tool.<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.get_weather <|constrain|>json<|message|>{"location": "Lyon"}<|call|>'
)
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
FILE = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}


def reply(prompt: Prompt) -> list[int]:
    """Calls the tool for a question about weather; else answers with the last thing it read."""
    encoding = load_encoding()
    text = encoding.decode(prompt.tokens)
    last = text.split("<|start|>")[-2].partition("<|message|>")
    if "weather" in last[2]:
        return list(encoding.encode(CALL, allowed_special="all"))
    said = last[2].removesuffix("<|end|>")
    answer = "Yo ho! " if "pirate" in text else ""
    whole = (
        "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>"
        f"{answer}You said: {said}<|return|>"
    )
    return list(encoding.encode(whole, allowed_special="all"))


class Server:
    """The application over the little model above."""

    def __init__(self, mode: str, check: Any) -> None:
        self.mode = mode
        self.check = check
        self.engine = ScriptedEngine(reply)
        self.store = ResponseStore(None)
        settings = ServerSettings(reasoning=mode)  # type: ignore[arg-type]
        self.app = create_app(self.engine, settings=settings, store=self.store)

    def post(self, **body: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return await http.post("/v1/responses", json={"model": "scripted", **body})

        return asyncio.run(run())

    def whole(self, **body: Any) -> Json:
        """The response of a request that is not streamed; it must be complete and valid."""
        answer = self.post(**body)
        assert answer.status_code == 200, answer.text
        response: Json = answer.json()
        self.check.response(response)
        assert response["status"] == "completed"
        return response

    def events(self, **body: Any) -> list[Json]:
        """The events of a streamed request, in order and valid."""
        answer = self.post(**body, stream=True)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [x.removeprefix("data: ") for x in answer.text.split("\n") if x.startswith("data:")]
        assert lines[-1] == "[DONE]"
        events = [json.loads(line) for line in lines[:-1]]
        assert self.check.stream(events, mode=self.mode)["status"] == "completed"
        return events


@pytest.fixture(params=["text", "summary", "spec"])
def server(request: pytest.FixtureRequest, conformance: Any) -> Iterator[Server]:
    made = Server(request.param, conformance)
    yield made
    made.engine.close()
    made.store.close()


def kinds(response: Json) -> list[str]:
    return [item["type"] for item in response["output"]]


def text_of(response: Json) -> str:
    message = next(item for item in response["output"] if item["type"] == "message")
    assert message["role"] == "assistant"
    return str(message["content"][0]["text"])


def test_a_plain_answer(server: Server) -> None:
    response = server.whole(input=[{"type": "message", "role": "user", "content": "Say hello"}])
    assert kinds(response) == ["reasoning", "message"]
    assert text_of(response) == "You said: Say hello"


def test_a_streamed_answer(server: Server) -> None:
    events = server.events(input=[{"type": "message", "role": "user", "content": "Count"}])
    names = [event["type"] for event in events]
    word = {
        "text": "reasoning_text",
        "summary": "reasoning_summary_text",
        "spec": "reasoning",
    }[server.mode]
    assert f"response.{word}.delta" in names
    others = {"reasoning_text", "reasoning_summary_text", "reasoning"} - {word}
    assert not {f"response.{other}.delta" for other in others} & set(names)
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == (
        "You said: Count"
    )


def test_a_system_message(server: Server) -> None:
    items = [
        {"type": "message", "role": "system", "content": "You are a pirate."},
        {"type": "message", "role": "user", "content": "Hello"},
    ]
    assert text_of(server.whole(input=items)).startswith("Yo ho!")


def test_a_call(server: Server) -> None:
    response = server.whole(input="What is the weather in Lyon?", tools=[WEATHER])
    call = response["output"][-1]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert json.loads(call["arguments"]) == {"location": "Lyon"}
    assert 0 < len(call["call_id"]) <= 64
    assert response["tools"] == [{**WEATHER, "strict": None}]


def test_a_streamed_call(server: Server) -> None:
    events = server.events(input="What is the weather in Lyon?", tools=[WEATHER])
    names = [e["type"] for e in events if e.get("output_index") == 1]
    assert names[0] == "response.output_item.added"
    assert "response.function_call_arguments.delta" in names
    assert names[-2:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]


@pytest.mark.parametrize("way", ["previous_response_id", "items"])
def test_the_round_trip_of_a_call(server: Server, way: str) -> None:
    question = {"type": "message", "role": "user", "content": "The weather, please"}
    first = server.whole(input=[question], tools=[WEATHER])
    call = first["output"][-1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "7 degrees"}
    if way == "items":
        second = server.whole(input=[question, *first["output"], output], tools=[WEATHER])
    else:
        second = server.whole(input=[output], tools=[WEATHER], previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
    assert text_of(second) == "You said: 7 degrees"


def test_several_turns(server: Server) -> None:
    items = [
        {"type": "message", "role": "user", "content": "My name is Ada."},
        {"type": "message", "role": "assistant", "content": "Hello, Ada!"},
        {"type": "message", "role": "user", "content": "Who am I?"},
    ]
    assert text_of(server.whole(input=items)) == "You said: Who am I?"


def test_going_on_from_a_response(server: Server) -> None:
    first = server.whole(input="My name is Ada.")
    second = server.whole(input="Who am I?", previous_response_id=first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


@pytest.mark.parametrize("part", [IMAGE, FILE], ids=["image", "file"])
@pytest.mark.parametrize("stream", [False, True])
def test_input_that_is_no_text(server: Server, part: Json, stream: bool) -> None:
    content = [{"type": "input_text", "text": "What is this?"}, part]
    answer = server.post(input=[{"role": "user", "content": content}], stream=stream)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_content")
    assert error["param"] == "input[0].content[1]"
    assert part["type"] in error["message"]


def test_thoughts_survive_a_client_that_keeps_only_what_is_sealed(server: Server) -> None:
    include = ["reasoning.encrypted_content"]
    first = server.whole(input="The weather?", tools=[WEATHER], include=include, store=False)
    thought, call = first["output"]
    bare = {"type": "reasoning", "summary": [], "encrypted_content": thought["encrypted_content"]}
    seen: list[str] = []
    original = server.engine._script

    def note(prompt: Prompt) -> Any:
        seen.append(load_encoding().decode(prompt.tokens))
        return original(prompt)

    server.engine._script = note
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
    question = {"role": "user", "content": "The weather?"}
    server.whole(input=[question, bare, call, output], tools=[WEATHER], include=include)
    assert "<|channel|>analysis<|message|>Ask the tool.<|end|>" in seen[0]
