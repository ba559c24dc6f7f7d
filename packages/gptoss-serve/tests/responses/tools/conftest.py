"""A service over scripted replies, checked against OpenAI's own models; a real MCP server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from gptoss_harmony import Prompt, load_encoding
from gptoss_harmony.scripted import Recording, ScriptedEngine
from gptoss_serve import ServerSettings, Session, Toolbox
from gptoss_serve.limits import Admission
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.schema import ResponsesRequest, checked
from gptoss_serve.responses.service import ResponseService
from gptoss_serve.responses.store import ResponseStore

Json = dict[str, Any]

DONE = "<|channel|>final<|message|>Done.<|return|>"


class Listening:
    """A script that notes the prompts that it answers."""

    def __init__(self, replies: list[str]) -> None:
        self._replies = Recording(replies or [DONE])
        self.prompts: list[str] = []

    def __call__(self, prompt: Prompt) -> Sequence[int]:
        self.prompts.append(load_encoding().decode(list(prompt.tokens)))
        return self._replies(prompt)


class Asker:
    """Asks one service, and checks everything that it says.

    Attributes:
        service: the service.
        prompts: what the model was given, as text.
        conformance: the checks.
    """

    def __init__(
        self, service: ResponseService, prompts: list[str], rebuilt: Any, conformance: Any
    ) -> None:
        self.service = service
        self.prompts = prompts
        self._rebuilt = rebuilt
        self.conformance = conformance

    async def events(self, **fields: Any) -> tuple[list[Json], Json]:
        """The events of a request and the response that they add up to."""
        answering = await self.service.create(checked(ResponsesRequest, fields))
        events = [event async for batch in answering.batches() for event in batch]
        assert self._rebuilt(events) == answering.response
        for event in events:
            self.conformance.event(event)
        self.conformance.response(answering.response)
        return events, answering.response

    async def __call__(self, **fields: Any) -> Json:
        """The response to a request."""
        return (await self.events(**fields))[1]


@pytest.fixture
def ask(rebuilt: Any, conformance: Any) -> Iterator[Callable[..., Asker]]:
    """Make a service; `asker(input=...)` asks it."""
    stores: list[ResponseStore] = []

    def make(
        *replies: str, toolbox: Toolbox | None = None, engine: Any = None, **settings: Any
    ) -> Asker:
        script = Listening(list(replies))
        engine = engine or ScriptedEngine(script)
        stores.append(ResponseStore(None))
        service = ResponseService(
            Session(engine),
            toolbox=toolbox or Toolbox(),
            models=ModelNames(engine.spec),
            admission=Admission(),
            settings=ServerSettings(**settings),
            store=stores[-1],
        )
        return Asker(service, script.prompts, rebuilt, conformance)

    yield make
    for store in stores:
        store.close()


@dataclass
class McpHost:
    """A real MCP server on a loopback port.

    Attributes:
        url: of its endpoint.
        calls: what its tools were called with.
        headers: of the requests that it got.
    """

    url: str
    calls: list[tuple[str, Json]]
    headers: list[Json]

    @property
    def access(self) -> McpAccess:
        return McpAccess.parse(["127.0.0.1"])

    def tool(self, **fields: Any) -> Json:
        given = {"type": "mcp", "server_label": "shop", "server_url": self.url}
        return {**given, "require_approval": "never", **fields}


@pytest.fixture(scope="session")
def _mcp_thread() -> Iterator[McpHost]:
    from mcp.server.mcpserver import MCPServer
    from mcp.types import ToolAnnotations

    server = MCPServer("shop", log_level="CRITICAL")
    host = McpHost("", [], [])

    @server.tool(description="What a fruit costs.", annotations=ToolAnnotations(readOnlyHint=True))
    def price(fruit: str) -> str:
        host.calls.append(("price", {"fruit": fruit}))
        return f"{fruit}: 3 euros"

    @server.tool(description="Order a fruit.")
    def order(fruit: str, count: int = 1) -> str:
        host.calls.append(("order", {"fruit": fruit, "count": count}))
        return f"{count} x {fruit} ordered"

    @server.tool(description="Never works.")
    def broken() -> str:
        raise ValueError("the till is jammed")

    @server.tool(description="Takes very long.")
    async def slow() -> str:
        await asyncio.sleep(600)
        return "at last"

    inner = server.streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await inner(scope, receive, send)

    config = uvicorn.Config(app, port=0, log_level="critical", ws="none", log_config=None)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        assert thread.is_alive(), "the MCP server did not start"
        time.sleep(0.01)
    host.url = f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}/mcp"
    yield host
    runner.force_exit = runner.should_exit = True
    thread.join(30)


@pytest.fixture
def shop(_mcp_thread: McpHost) -> McpHost:
    """The MCP server, with nothing noted yet."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    _mcp_thread.calls.clear()
    _mcp_thread.headers.clear()
    return _mcp_thread


def call(name: str, arguments: str) -> str:
    """A call of a function in the model's words."""
    return (
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"
    )


@pytest.fixture(scope="session")
def called() -> Callable[[str, str], str]:
    return call


@pytest.fixture
def done() -> str:
    return DONE
