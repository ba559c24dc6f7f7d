"""Servers of Chat Completions as they are: odd fields, several calls at once, refused fields."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}}
CODE = {"type": "code_interpreter", "container": {"type": "auto"}}


def post(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/responses", json={"model": "behind", **body}, timeout=60)


def respond(url: str, **body: Any) -> dict[str, Any]:
    answer = post(url, **body)
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return whole


def call(index: int, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"id{index}", "type": "function", "function": function, **more}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_go_back_under_the_name_they_came_under(
    fake: Any, front: Any, piece: Any, sums: Any, name: str
) -> None:
    first = [
        piece(role="assistant", content=""),
        piece(**{name: "Let me "}),
        piece(**{name: "add."}),
        piece(tool_calls=[call(0, "python", '{"code"')]),
        piece(tool_calls=[more(0, ': "1 + 2"}')]),
        piece("tool_calls"),
    ]
    upstream, url = fake([first, [piece(content="3"), piece("stop")]])
    response = respond(front(url, tools=[sums]).url, input="1 + 2?", tools=[CODE])
    assert sums.seen == ["1 + 2"]
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["reasoning", "code_interpreter_call", "message"]
    assert response["output"][0]["content"][0]["text"] == "Let me add."
    before = upstream.bodies[1]["messages"]
    assert [message["role"] for message in before] == ["user", "assistant", "tool"]
    assert before[1][name] == "Let me add."
    assert before[1]["tool_calls"][0]["function"]["arguments"] == '{"code": "1 + 2"}'
    assert before[2] == {
        "role": "tool",
        "tool_call_id": before[1]["tool_calls"][0]["id"],
        "content": "3",
    }


def test_several_calls_at_once_come_whole_and_in_order(
    fake: Any, front: Any, piece: Any, sums: Any
) -> None:
    mixed = [
        piece(content="Both."),
        piece(tool_calls=[call(0, "add", '{"a"'), call(1, "python", '{"code": ')]),
        piece(tool_calls=[more(1, '"4 + 5"}')]),
        piece(tool_calls=[more(0, ": 1}")]),
        piece("tool_calls"),
    ]
    upstream, url = fake([mixed, [piece(content="Done."), piece("stop")]])
    server = front(url, tools=[sums])
    response = respond(server.url, input="Hi", tools=[ADD, CODE])
    assert [item["type"] for item in response["output"]] == [
        "message",
        "function_call",
        "code_interpreter_call",
    ]
    assert response["output"][1]["arguments"] == '{"a": 1}'
    assert sums.seen == ["4 + 5"], "ours is run although the client's was called too"
    answer = {
        "type": "function_call_output",
        "call_id": response["output"][1]["call_id"],
        "output": "one",
    }
    respond(server.url, input=[answer], previous_response_id=response["id"], tools=[ADD, CODE])
    roles = [message["role"] for message in upstream.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]
    answers = {m["tool_call_id"]: m["content"] for m in upstream.bodies[1]["messages"][2:]}
    calls = upstream.bodies[1]["messages"][1]["tool_calls"]
    assert [answers[c["id"]] for c in calls] == ["one", "9"]


def test_calls_that_share_an_index_are_told_apart(fake: Any, front: Any, piece: Any) -> None:
    calls = [call(0, "add", '{"a": 1}', id="x"), call(0, "add", '{"a": 2}', id="y")]
    _, url = fake([[piece(tool_calls=calls), piece("tool_calls")]])
    response = respond(front(url).url, input="Hi", tools=[ADD])
    assert [item["arguments"] for item in response["output"]] == ['{"a": 1}', '{"a": 2}']


def test_one_call_at_a_time_where_the_client_wants_it(fake: Any, front: Any, piece: Any) -> None:
    calls = [call(0, "add", '{"a": 1}'), call(1, "add", '{"a": 2}')]
    upstream, url = fake([[piece(tool_calls=calls), piece("tool_calls")]])
    response = respond(front(url).url, input="Hi", tools=[ADD], parallel_tool_calls=False)
    assert [item["arguments"] for item in response["output"]] == ['{"a": 1}']
    assert upstream.bodies[0]["parallel_tool_calls"] is False


def test_freeform_tools_travel_as_one_string(fake: Any, front: Any, piece: Any) -> None:
    patch = {"type": "custom", "name": "apply_patch", "format": {"type": "text"}}
    arguments = '{"input": "*** Begin Patch\\n"}'
    upstream, url = fake([[piece(tool_calls=[call(0, "apply_patch", arguments)]), piece("stop")]])
    response = respond(front(url).url, input="Hi", tools=[patch])
    assert response["output"][0]["type"] == "custom_tool_call"
    assert response["output"][0]["input"] == "*** Begin Patch\n"
    parameters = upstream.bodies[0]["tools"][0]["function"]["parameters"]
    assert parameters["required"] == ["input"]


def test_a_function_that_nobody_has_is_answered_here(fake: Any, front: Any, piece: Any) -> None:
    strange = [piece(tool_calls=[call(0, "nonsense", "{}")]), piece("tool_calls")]
    upstream, url = fake([strange, [piece(content="Sorry."), piece("stop")]])
    response = respond(front(url).url, input="Hi", tools=[ADD])
    assert response["output"][-1]["content"][0]["text"] == "Sorry."
    assert "There is no tool" in upstream.bodies[1]["messages"][-1]["content"]


def test_what_the_client_left_open_is_left_open(fake: Any, front: Any, piece: Any) -> None:
    upstream, url = fake([[piece(content="Hi"), piece("stop")]] * 3)
    server = front(url)
    respond(server.url, input="Hi")
    settings = {"temperature", "top_p", "reasoning_effort", "max_tokens", "tools", "seed"}
    assert not settings & set(upstream.bodies[0])
    respond(
        server.url,
        input="Hi",
        temperature=1.0,
        top_p=0.5,
        reasoning={"effort": "minimal"},
        seed=3,
        max_output_tokens=5,
    )
    sent = {name: upstream.bodies[1][name] for name in settings - {"tools"}}
    assert sent == {
        "temperature": 1.0,
        "top_p": 0.5,
        "reasoning_effort": "minimal",
        "max_tokens": 5,
        "seed": 3,
    }
    format = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": False}
    respond(server.url, input="Hi", text={"format": format})
    inner = upstream.bodies[2]["response_format"]["json_schema"]
    assert (inner["name"], inner["schema"], inner["strict"]) == ("n", {"type": "object"}, False)


def test_refused_fields_are_written_another_way(fake: Any, front: Any, piece: Any) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    refused = (400, {"error": {"message": said, "param": "max_tokens"}})
    strict = (400, {"error": {"message": "extra field", "param": "stream_options"}})
    done = [piece(content="Hi"), piece("stop")]
    upstream, url = fake([refused, strict, done, done])
    server = front(url)
    for _ in range(2):
        respond(server.url, input="Hi", max_output_tokens=7)
    assert len(upstream.bodies) == 4, "what was learned is remembered"
    assert upstream.bodies[3]["max_completion_tokens"] == 7
    assert not {"max_tokens", "stream_options"} & set(upstream.bodies[3])


def test_a_conversation_that_is_too_long_is_shortened_where_asked(
    fake: Any, front: Any, piece: Any
) -> None:
    said = "This model's maximum context length is 10 tokens."
    long = (400, {"error": {"message": said, "code": 400}})
    upstream, url = fake([long, [piece(content="Hi"), piece("stop")], long])
    server = front(url)
    turns: list[Any] = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    ]
    respond(server.url, input=turns, truncation="auto")
    assert [m["content"] for m in upstream.bodies[1]["messages"]] == ["Three"]
    refused = post(server.url, input=turns)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_a_server_that_does_not_stream_is_read_whole(fake: Any, front: Any) -> None:
    message = {"role": "assistant", "content": "Hello", "tool_calls": None}
    whole = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    _, url = fake([(200, whole)])
    response = respond(front(url).url, input="Hi")
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"]["total_tokens"] == 7


def test_text_with_odd_line_separators_stays_whole(fake: Any, front: Any, piece: Any) -> None:
    text = "one\u2028two\x85three\r\nfour"
    _, url = fake([[piece(content=text), piece("stop")]])
    response = respond(front(url).url, input="Hi")
    assert response["output"][0]["content"][0]["text"] == text
