"""A real server on a real port, over a recording that also obeys constraints."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from gptoss_harmony.engine import EngineSpec
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.store import ResponseStore


class ObedientScript(ScriptedEngine):
    """A recording whose replies are checked against the constraint, token by token."""

    def __init__(self, replies: list[Any], **options: Any) -> None:
        super().__init__(Recording(replies), ScriptedOptions(**options))
        supports = self.spec.supports | {"constraint"}
        self.spec: EngineSpec = dataclasses.replace(self.spec, supports=supports)

    def _refuse(self, sampling: Any, constraint: Any) -> None:
        super()._refuse(sampling, None)

    def _begin(self, prompt: Any, sampling: Any, constraint: Any) -> Any:
        tokens, reason = super()._begin(prompt, sampling, constraint)
        for token in tokens if constraint is not None else ():
            constraint.accept(token)
        return tokens, reason


class Server:
    """A server in a thread."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        await self.server.serve()
        await asyncio.sleep(0.05)  # transports that were told to close do so in the next steps

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers over replies; `engine` and the keywords of `create_app` may be given."""
    with contextlib.ExitStack() as stack:

        def start(replies: list[Any] | None = None, *, engine: Any = None, **app: Any) -> Server:
            engine = engine or ObedientScript(replies or [FINAL])
            if "store" not in app:
                app["store"] = ResponseStore(None)
            app.setdefault("settings", ServerSettings(drain_seconds=2))
            server = Server(create_app(engine, **app))
            stack.callback(engine.close)
            if app["store"] is not None:
                stack.callback(app["store"].close)
            stack.callback(server.stop)
            return server

        yield start


FINAL = (
    "<|channel|>analysis<|message|>Just greet.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hello, world!<|return|>"
)
CALL = (
    "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>One moment.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
    '<|constrain|>json<|message|>{"city": "Lyon"}<|call|>'
)


@pytest.fixture(scope="session")
def obedient() -> type[ObedientScript]:
    return ObedientScript


@pytest.fixture
def final() -> str:
    return FINAL


@pytest.fixture
def call() -> str:
    return CALL


def rebuild(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that a client puts together from its events, checking the order on the way."""
    events = [dict(event) for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    final = events[-1]["response"]
    assert events[-1]["type"].split(".")[1] in ("completed", "incomplete", "failed")
    items: dict[int, dict[str, Any]] = {}
    is_open: dict[int, str] = {}
    texts: dict[tuple[str, str], str] = {}
    for event in events:
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            assert index == len(items), "items begin in order"
            items[index], is_open[index] = event["item"], event["item"]["id"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == is_open.pop(index)
            assert event["item"]["type"] == items[index]["type"]
            items[index] = event["item"]
        elif index is not None:
            # Events about the commands of a shell have no id.
            event.setdefault("item_id", is_open[index])
            assert is_open[index] == event["item_id"], "an item keeps its id and index"
        if kind.endswith(".delta"):
            key = (event["item_id"], _stream_of(event))
            texts[key] = texts.get(key, "") + event["delta"]
        elif kind.endswith(".done") and "item_id" in event and "part" not in event:
            names = ("text", "arguments", "input", "code", "command")
            whole = next(event[name] for name in names if name in event)
            assert texts.get((event["item_id"], _stream_of(event)), "") == whole
    assert not is_open, "every item is done"
    assert [items[i] for i in range(len(items))] == final["output"]
    return final


def _stream_of(event: dict[str, Any]) -> str:
    """What the deltas of an item add up to: a shell call has one text for each command."""
    return f"{event['type'].rpartition('.')[0]}{event.get('command_index', '')}"


def read_events(body: str) -> list[dict[str, Any]]:
    """The events of a stream, whose names must be their types."""
    blocks = [b for b in body.split("\n\n") if b and not b.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    events = []
    for block in blocks[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


@pytest.fixture(scope="session")
def events_of() -> Callable[[str], list[dict[str, Any]]]:
    return read_events


@pytest.fixture(scope="session")
def rebuilt() -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    return rebuild
