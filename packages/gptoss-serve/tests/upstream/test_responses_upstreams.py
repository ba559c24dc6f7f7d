"""Servers of the Responses API as they are: items without deltas, ids that change, summaries."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def respond(url: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/responses", json={"model": "behind", **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return whole


def added(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(kind: str, index: int, item_id: str, text: str) -> dict[str, Any]:
    place = {"output_index": index, "item_id": item_id, "delta": text}
    return {"type": f"response.{kind}.delta", **place}


def completed(status: str = "completed", **response: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, **response}}


MESSAGE = {"type": "message", "role": "assistant"}


def test_summaries_stand_in_for_thoughts_that_are_not_shown(fake: Any, front: Any) -> None:
    events = [
        added(0, type="reasoning", id="r", summary=[]),
        delta("reasoning_summary_text", 0, "r", "Adding."),
        done(0, type="reasoning", id="r", summary=[{"type": "summary_text", "text": "Adding."}]),
        added(1, **MESSAGE, id="m", content=[]),
        delta("output_text", 1, "m", "3"),
        done(1, **MESSAGE, id="m", content=[{"type": "output_text", "text": "3"}]),
        completed(usage={"input_tokens": 4, "output_tokens": 2}),
    ]
    upstream, url = fake([events])
    reasoning = {"effort": "xhigh", "summary": "auto"}
    response = respond(front(url, api="responses").url, input="1 + 2?", reasoning=reasoning)
    assert response["output"][0]["content"][0]["text"] == "Adding."
    assert response["output"][1]["content"][0]["text"] == "3"
    assert response["usage"]["total_tokens"] == 6
    assert upstream.bodies[0]["reasoning"] == reasoning
    assert upstream.bodies[0]["store"] is False


def test_items_that_come_only_whole_are_read(fake: Any, front: Any) -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "add"}
    events = [
        done(0, type="reasoning", id="r", content=[{"type": "reasoning_text", "text": "Hm."}]),
        done(1, **MESSAGE, id="m", content=[{"type": "output_text", "text": "Both."}]),
        done(2, **call, arguments='{"a": 1}'),
        completed(),
    ]
    _, url = fake([events])
    response = respond(front(url, api="responses").url, input="Hi", tools=[ADD])
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
    ]
    assert response["output"][2]["arguments"] == '{"a": 1}'


def test_indexes_and_ids_that_do_not_agree(fake: Any, front: Any) -> None:
    events = [
        added(0, type="reasoning", id="r0", summary=[]),
        delta("reasoning_text", -1, "r1", "Hm."),
        done(1, type="reasoning", id="r2", summary=[]),
        added(1, **MESSAGE, id="m0", content=[]),
        delta("output_text", 0, "m1", "Yes."),
        done(0, **MESSAGE, id="m2", content=[{"type": "output_text", "text": "Yes."}]),
        completed(),
    ]
    _, url = fake([events])
    response = respond(front(url, api="responses").url, input="Hi")
    texts = [item["content"][0]["text"] for item in response["output"]]
    assert texts == ["Hm.", "Yes."]


def test_calls_side_by_side_come_in_order(fake: Any, front: Any) -> None:
    events = [
        added(0, type="function_call", id="x", name="add", arguments=""),
        added(1, type="function_call", id="y", name="add", arguments=""),
        delta("function_call_arguments", 1, "y", '{"a": 2}'),
        delta("function_call_arguments", 0, "x", '{"a": 1}'),
        done(1, type="function_call", id="y", name="add", arguments='{"a": 2}'),
        done(0, type="function_call", id="x", name="add", arguments='{"a": 1}'),
        completed(),
    ]
    _, url = fake([events])
    response = respond(front(url, api="responses").url, input="Hi", tools=[ADD])
    assert [item["arguments"] for item in response["output"]] == ['{"a": 1}', '{"a": 2}']


@pytest.mark.parametrize(
    ("reason", "status"), [("max_output_tokens", "incomplete"), ("content_filter", "failed")]
)
def test_an_incomplete_response_says_why(fake: Any, front: Any, reason: str, status: str) -> None:
    events = [
        added(0, **MESSAGE, id="m", content=[]),
        delta("output_text", 0, "m", "Hel"),
        completed("incomplete", incomplete_details={"reason": reason}),
    ]
    _, url = fake([events])
    response = respond(front(url, api="responses").url, input="Hi")
    assert response["status"] == status
    assert response["output"][0]["content"][0]["text"] == "Hel"


def test_thoughts_of_an_unfinished_answer_go_back_as_items(fake: Any, front: Any) -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "add"}
    first = [
        done(0, type="reasoning", id="r", content=[{"type": "reasoning_text", "text": "Hm."}]),
        done(1, **call, arguments='{"a": 1}'),
        completed(),
    ]
    last = [done(0, **MESSAGE, id="m", content=[{"type": "output_text", "text": "1"}]), completed()]
    upstream, url = fake([first, last, last])
    server = front(url, api="responses")
    asked = respond(server.url, input="Hi", tools=[ADD], instructions="Be brief.")
    call_id = asked["output"][-1]["call_id"]
    answer = {"type": "function_call_output", "call_id": call_id, "output": "one"}
    second = respond(server.url, input=[answer], previous_response_id=asked["id"], tools=[ADD])
    sent = upstream.bodies[1]["input"]
    assert [item["type"] for item in sent] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert sent[1]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert sent[3]["call_id"] == sent[2]["call_id"]
    assert upstream.bodies[0]["instructions"] == "Be brief."
    respond(server.url, input="And now?", previous_response_id=second["id"])
    kinds = [item["type"] for item in upstream.bodies[2]["input"]]
    assert "reasoning" not in kinds, "the thoughts of a finished answer are left out"


def test_a_server_that_does_not_stream_is_read_whole(fake: Any, front: Any) -> None:
    output = [MESSAGE | {"id": "m", "content": [{"type": "output_text", "text": "Hello"}]}]
    whole = {"object": "response", "status": "completed", "error": None, "output": output}
    _, url = fake([(200, whole)])
    response = respond(front(url, api="responses").url, input="Hi")
    assert response["output"][0]["content"][0]["text"] == "Hello"
