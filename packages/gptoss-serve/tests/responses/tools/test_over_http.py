"""The tool kinds over a real port, with OpenAI's own client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import OpenAI

from gptoss_serve import ServerSettings

pytestmark = pytest.mark.mcp


def client(server: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60)


def test_openai_streams_a_remote_call(
    serve: Any, shop: Any, called: Callable[[str, str], str], done: str
) -> None:
    settings = ServerSettings(drain_seconds=2, mcp=shop.access)
    server = serve([called("shop__price", '{"fruit": "pear"}'), done], settings=settings)
    with client(server) as openai:
        with openai.responses.stream(
            model="scripted", input="A pear?", tools=[shop.tool(authorization="secret")]
        ) as stream:
            names = [event.type for event in stream]
            response = stream.get_final_response()
        assert response.output_text == "Done."
        assert [item.type for item in response.output] == ["mcp_list_tools", "mcp_call", "message"]
        assert "response.mcp_list_tools.completed" in names
        assert "response.mcp_call.completed" in names
        assert shop.headers[0]["authorization"] == "Bearer secret"
        kept = httpx.get(f"{server.url}/v1/responses/{response.id}", timeout=60).text
        assert "secret" not in kept


def test_openai_asks_for_approval_and_goes_on(
    serve: Any, shop: Any, called: Callable[[str, str], str], done: str
) -> None:
    settings = ServerSettings(drain_seconds=2, mcp=shop.access)
    server = serve([called("shop__order", '{"fruit": "fig"}'), done], settings=settings)
    tools = [shop.tool(require_approval="always")]
    with client(server) as openai:
        first = openai.responses.create(model="scripted", input="A fig!", tools=tools)
        request = first.output[-1]
        assert request.type == "mcp_approval_request"
        second = openai.responses.create(
            model="scripted",
            previous_response_id=first.id,
            tools=tools,
            input=[
                {
                    "type": "mcp_approval_response",
                    "approval_request_id": request.id,
                    "approve": True,
                }
            ],
        )
        assert second.output[0].type == "mcp_call"
        assert second.output[0].output == "1 x fig ordered"
        assert second.output_text == "Done."


def test_a_background_response_calls_too(
    serve: Any, shop: Any, called: Callable[[str, str], str], done: str, events_of: Any
) -> None:
    settings = ServerSettings(drain_seconds=2, mcp=shop.access)
    server = serve([called("shop__price", '{"fruit": "pear"}'), done], settings=settings)
    body = {"input": "Hi", "tools": [shop.tool()], "background": True, "stream": True}
    events = events_of(httpx.post(f"{server.url}/v1/responses", json=body, timeout=60).text)
    assert events[-1]["response"]["status"] == "completed"
    assert shop.calls == [("price", {"fruit": "pear"})]


def test_what_a_prompt_costs_counts_remote_tools(serve: Any, shop: Any) -> None:
    server = serve(settings=ServerSettings(drain_seconds=2, mcp=shop.access))
    counts = []
    for tools in ([], [shop.tool()]):
        body = {"input": "Hi", "tools": tools}
        answer = httpx.post(f"{server.url}/v1/responses/input_tokens", json=body, timeout=60)
        counts.append(answer.json()["input_tokens"])
    assert counts[0] < counts[1]


def test_chat_completions_leaves_these_kinds_out(serve: Any, shop: Any) -> None:
    server = serve(settings=ServerSettings(drain_seconds=2, mcp=shop.access))
    tools = [{"type": "shell"}, {"type": "apply_patch"}, shop.tool()]
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200
    assert shop.headers == []


def test_a_client_that_leaves_ends_a_remote_call(
    serve: Any, shop: Any, called: Callable[[str, str], str], done: str
) -> None:
    settings = ServerSettings(drain_seconds=2, mcp=shop.access, max_running=1)
    server = serve([called("shop__slow", "{}"), done], settings=settings)
    body = {"input": "Hi", "tools": [shop.tool()], "stream": True}
    url = f"{server.url}/v1/responses"
    with httpx.stream("POST", url, json=body, timeout=60) as stream:
        for line in stream.iter_lines():
            if "mcp_call_arguments.done" in line:
                break
    # The only slot is free again, long before the remote tool would answer.
    answer = httpx.post(url, json={"input": "Hi"}, timeout=60)
    assert answer.json()["output"][0]["content"][0]["text"] == "Done."
