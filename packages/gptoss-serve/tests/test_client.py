"""The client sees the same events over a session and over a URL."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gptoss_harmony.scripted import Recording, ScriptedEngine
from gptoss_serve import Client, Session
from gptoss_serve.errors import ServeError
from gptoss_serve.events import Event, PartDelta, TurnDone

TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]


def merged(events: list[Event]) -> list[Event]:
    """Deltas that follow each other as one: how text is cut into them is up to timing."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, PartDelta) and isinstance(last, PartDelta):
            out[-1] = dataclasses.replace(last, text=last.text + event.text)
        elif isinstance(event, TurnDone):
            out.append(dataclasses.replace(event, messages=()))
        else:
            out.append(event)
    return out


def test_both_ways_give_the_same_events(serve: Callable[..., Any], call: str) -> None:
    server = serve([call])
    session = Session(ScriptedEngine(Recording([call])))

    async def run() -> tuple[list[Event], list[Event]]:
        seen = []
        for client in (Client.over_session(session), Client.over_url(f"{server.url}/v1")):
            async with client:
                seen.append([event async for event in client.respond("Hi", tools=TOOLS)])
        return seen[0], seen[1]

    local, remote = asyncio.run(run())
    assert merged(local) == merged(remote)
    assert isinstance(local[-1], TurnDone)
    assert local[-1].reason == "call"


def test_complete_goes_on_from_its_own_output(
    serve: Callable[..., Any], call: str, final: str
) -> None:
    server = serve([call, final])

    async def run() -> Any:
        async with Client.over_url(f"{server.url}/v1") as client:
            items: list[Any] = [{"role": "user", "content": "Weather?"}]
            first = await client.complete(items, tools=TOOLS)
            call_id = first.output[-1]["call_id"]
            answer = {"type": "function_call_output", "call_id": call_id, "output": "7"}
            return await client.complete([*items, *first.output, answer], tools=TOOLS)

    reply = asyncio.run(run())
    assert reply.text == "Hello, world!"
    assert reply.usage.reasoning_tokens == 4
    assert reply.response["store"] is False


def test_line_separators_of_unicode_do_not_cut_events(serve: Callable[..., Any]) -> None:
    server = serve(["<|channel|>final<|message|>one\u2028two\x85three<|return|>"])

    async def run() -> Any:
        async with Client.over_url(f"{server.url}/v1") as client:
            return await client.complete("Hi")

    assert asyncio.run(run()).text == "one\u2028two\x85three"


def test_refusals_and_missing_servers_are_errors(serve: Callable[..., Any]) -> None:
    server = serve()

    async def ask(url: str, **options: Any) -> None:
        async with Client.over_url(url) as client:
            await client.complete("Hi", **options)

    with pytest.raises(ServeError, match="nonsense"):
        asyncio.run(ask(f"{server.url}/v1", nonsense=1))
    with pytest.raises(ServeError, match="cannot be asked"):
        asyncio.run(ask("http://127.0.0.1:9/v1"))


def test_an_event_that_is_not_json_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        kind = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=kind, content=b"data: {nonsense\n\n")

    async def run() -> None:
        async with Client.over_url("http://strange.example/v1") as client:
            await client.complete("Hi")

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx.AsyncClient, "_transport_for_url", lambda *_: transport)
    with pytest.raises(ServeError, match="sent an event that is not JSON"):
        asyncio.run(run())
