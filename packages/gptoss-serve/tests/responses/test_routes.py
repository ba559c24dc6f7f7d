"""The Responses API over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Serve = Callable[..., Any]
WEATHER = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def client(server: Any) -> httpx.Client:
    return httpx.Client(base_url=f"{server.url}/v1", timeout=30)


def eventually(happens: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stored_responses_are_continued_listed_and_really_deleted(
    serve: Serve, call: str, final: str
) -> None:
    with client(serve([call, final])) as http:
        first = http.post("/responses", json={"input": "Weather?", "tools": [WEATHER]}).json()
        function_call = first["output"][-1]
        output = {"type": "function_call_output", "output": "7 degrees"}
        items = [{**output, "call_id": function_call["call_id"]}]
        second = http.post(
            "/responses",
            json={"input": items, "tools": [WEATHER], "previous_response_id": first["id"]},
        ).json()
        assert second["status"] == "completed"
        assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]
        assert http.get(f"/responses/{first['id']}").json() == first
        listed = http.get(f"/responses/{second['id']}/input_items").json()
        assert [item["output"] for item in listed["data"]] == ["7 degrees"]
        assert http.delete(f"/responses/{first['id']}").json()["deleted"] is True
        gone = http.get(f"/responses/{first['id']}")
        assert gone.status_code == 404
        again = http.post("/responses", json={"input": "x", "previous_response_id": first["id"]})
        assert again.status_code == 404
        assert again.json()["error"]["code"] == "previous_response_not_found"


def test_store_false_is_not_kept(serve: Serve) -> None:
    with client(serve()) as http:
        response = http.post("/responses", json={"input": "Hi", "store": False}).json()
        assert response["store"] is False
        assert http.get(f"/responses/{response['id']}").status_code == 404


def test_a_stream_adds_up(serve: Serve, call: str, events_of: Any, rebuilt: Any) -> None:
    with client(serve([call])) as http:
        body = {"input": "Weather?", "tools": [WEATHER], "stream": True}
        response = rebuilt(events_of(http.post("/responses", json=body).text))
        assert [item["type"] for item in response["output"]] == [
            "reasoning",
            "message",
            "function_call",
        ]
        assert http.get(f"/responses/{response['id']}").json() == response


def test_background_polling_and_resumed_streams(serve: Serve, events_of: Any) -> None:
    with client(serve()) as http:
        queued = http.post("/responses", json={"input": "Hi", "background": True}).json()
        assert queued["status"] in ("queued", "in_progress", "completed")
        eventually(lambda: http.get(f"/responses/{queued['id']}").json()["status"] == "completed")
        body = {"input": "Hi", "background": True, "stream": True}
        events = events_of(http.post("/responses", json=body).text)
        response_id = events[-1]["response"]["id"]
        query = {"stream": "true", "starting_after": 5}
        resumed = events_of(http.get(f"/responses/{response_id}", params=query).text)
        assert resumed == events[6:]


def test_a_background_response_can_be_cancelled(serve: Serve) -> None:
    long = "<|channel|>final<|message|>" + "word " * 500 + "<|return|>"
    from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions

    engine = ScriptedEngine(Recording([long]), ScriptedOptions(tokens_per_second=20))
    with client(serve(engine=engine)) as http:
        queued = http.post("/responses", json={"input": "Hi", "background": True}).json()
        eventually(lambda: engine.stats().generated_tokens > 20)
        cancelled = http.post(f"/responses/{queued['id']}/cancel").json()
        assert cancelled["status"] == "cancelled"
        assert cancelled["output"][0]["status"] == "incomplete"
        assert cancelled["output"][0]["content"][0]["text"].startswith("word")
        assert engine.stats().running == 0


def test_a_client_that_leaves_stops_the_engine(serve: Serve) -> None:
    long = "<|channel|>final<|message|>" + "word " * 2000 + "<|return|>"
    from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions

    engine = ScriptedEngine(Recording([long]), ScriptedOptions(tokens_per_second=50))
    with client(serve(engine=engine)) as http:
        body = {"input": "Hi", "stream": True}
        with http.stream("POST", "/responses", json=body) as stream:
            lines = stream.iter_lines()  # an iterator that nobody holds closes the connection
            next(lines)
            assert engine.stats().running == 1
        eventually(lambda: engine.stats().running == 0)
        assert engine.stats().generated_tokens < 1000


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x", "nonsense": 1}, 400, "nonsense"),
        ({"input": "x", "temperature": 3}, 400, "temperature"),
        ({"input": "x", "temperature": "hot"}, 400, "temperature"),
        ({"input": "x", "text": {"format": {"type": "yaml"}}}, 400, "text.format.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, 400, "text.format.schema"),
        ({"input": [{"type": "strange"}]}, 400, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400, None),
        ({"input": [{"role": "king", "content": "x"}]}, 400, "input[0].role"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]},
            400,
            "input[0].call_id",
        ),
        ({"input": "x", "tools": [{"type": "function"}]}, 400, "tools[0].name"),
        ({"input": "x", "tool_choice": "required"}, 400, "tool_choice"),
        ({"input": "x", "conversation": "conv_1"}, 400, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, 400, "prompt"),
        ({"input": "x", "top_logprobs": 2}, 400, "top_logprobs"),
        ({"input": "x", "background": True, "store": False}, 400, "background"),
        ({"input": "x", "model": "gpt-9"}, 404, "model"),
        ({"input": "x", "previous_response_id": "resp_0"}, 404, "previous_response_id"),
    ],
)
def test_mistakes_are_named(serve: Serve, body: Any, status: int, param: str | None) -> None:
    with client(serve()) as http:
        answer = http.post("/responses", json=body)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if param is not None:
            assert error["param"] == param


def test_too_long_a_conversation_says_so(serve: Serve) -> None:
    from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions

    script = Recording(["<|channel|>final<|message|>Hi<|return|>"])
    server = serve(engine=ScriptedEngine(script, ScriptedOptions(context=300)))
    old = [
        {"role": "user", "content": "word " * 300},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "Hi"},
    ]
    with client(server) as http:
        for stream in (False, True):
            answer = http.post("/responses", json={"input": old, "stream": stream})
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "context_length_exceeded"
        shortened = http.post("/responses", json={"input": old, "truncation": "auto"})
        assert shortened.json()["status"] == "completed"


def test_bodies_that_are_no_json(serve: Serve) -> None:
    with client(serve()) as http:
        for content in (b"", b"{", b"\xff\xfe", b"[1]", b'{"input": NaN}', b"[" * 100_000):
            answer = http.post("/responses", content=content)
            assert answer.status_code == 400, content[:10]
            assert answer.json()["error"]["type"] == "invalid_request_error"


def test_halves_of_surrogate_pairs_become_replacement_characters(serve: Serve) -> None:
    with client(serve()) as http:
        for body in (b'{"input": "a\\ud800b"}', b'{"input": "x", "\\ud800": 1}'):
            answer = http.post("/responses", content=body)
            assert answer.status_code in (200, 400)
            assert answer.json()


def test_a_million_letters_without_a_break_are_refused_or_read(serve: Serve) -> None:
    with client(serve()) as http:
        answer = http.post("/responses", json={"input": "x" * 1_000_000})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


def test_ten_thousand_items_are_read(serve: Serve) -> None:
    items = [{"role": "user", "content": f"item {number}"} for number in range(10_000)]
    with client(serve()) as http:
        assert http.post("/responses", json={"input": items}).json()["status"] == "completed"
