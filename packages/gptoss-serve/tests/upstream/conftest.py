"""Two servers: ours in front, and behind it ours again, or a fake that says what it is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from openai_harmony import Message, ToolNamespaceConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gptoss_harmony import load_encoding, tool_message
from gptoss_harmony.scripted import ScriptedEngine
from gptoss_harmony.tool import ToolReply
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.store import ResponseStore
from gptoss_serve.toolbox import Toolbox
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.session import UpstreamSession


class Running:
    """An application on a free port of this machine, in a thread."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def _serve(self) -> None:
        await self._server.serve()
        await asyncio.sleep(0.05)  # transports that were told to close do so in the next steps

    def tell_to_stop(self) -> None:
        self._server.should_exit = True

    def stop(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the server did not stop"


class ListeningScript(ScriptedEngine):
    """Plays replies in order, keeps the prompts, and takes note of constraints."""

    def __init__(self, replies: list[str]) -> None:
        super().__init__(self._next)
        self._replies = iter(replies)
        self._encoding = load_encoding()
        self.prompts: list[str] = []
        self.sources: list[Any] = []
        features = self.spec.supports | {"constraint"}
        self.spec = type(self.spec)(
            name="scripted",
            model_id="behind",
            context_length=self.spec.context_length,
            vocabulary_size=self.spec.vocabulary_size,
            device="none",
            supports=features,
        )

    def _next(self, prompt: Any) -> list[int]:
        self.prompts.append(self._encoding.decode(prompt.tokens))
        return self._encoding.encode(next(self._replies), allowed_special="all")

    def _refuse(self, sampling: Any, constraint: Any) -> None:
        super()._refuse(sampling, None)
        if constraint is not None:
            self.sources.append(constraint.source)


class Sums:
    """A tool named python that adds numbers."""

    name = "python"
    tool_config = ToolNamespaceConfig.python()

    def __init__(self) -> None:
        self.seen: list[str] = []

    def instruction(self) -> str:
        return ""

    def process(self, message: Message) -> ToolReply:
        async def reply() -> AsyncIterator[Message]:
            code = message.content[0].text  # type: ignore[union-attr]
            self.seen.append(code)
            total = sum(int(word) for word in code.split("+"))
            yield tool_message("python", str(total), channel="analysis")

        return ToolReply(reply())


class Fake:
    """Answers each post with the next of `answers`: (status, body), or a list of chunks.

    An exception among the chunks breaks the connection off; `None` waits for the client to leave.
    """

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.left = threading.Event()
        routes = [
            Route("/v1/chat/completions", self.post, methods=["POST"]),
            Route("/v1/responses", self.post, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes)

    async def models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": "first", "max_model_len": 4096}, {"id": "second"}]})

    async def post(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        answer = next(self._answers)
        if isinstance(answer, tuple):
            return JSONResponse(answer[1], status_code=answer[0], headers=dict(answer[2:]))
        return StreamingResponse(self._chunks(answer), media_type="text/event-stream")

    async def _chunks(self, answer: list[Any]) -> AsyncIterator[str]:
        try:
            for chunk in answer:
                if isinstance(chunk, Exception):
                    raise chunk
                if chunk is None:
                    await asyncio.Event().wait()
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of Chat Completions."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.fixture
def running() -> Iterator[Callable[[Any], Running]]:
    """Run an application until the test is over."""
    servers: list[Running] = []

    def start(app: Any) -> Running:
        servers.append(Running(app))
        return servers[-1]

    yield start
    for server in servers:
        server.tell_to_stop()
    for server in servers:
        server.stop()


@pytest.fixture
def front(running: Callable[[Any], Running]) -> Callable[..., Running]:
    """Start our server in front of the base URL of another."""

    def start(url: str, *, api: str = "chat", tools: Any = (), **options: Any) -> Running:
        settings = options.pop("settings", ServerSettings(drain_seconds=2))
        options = {"retries": 0, "backoff_seconds": 0.001, "model": "behind", **options}
        session = UpstreamSession(Endpoint(url=url, api=api, **options))
        toolbox = Toolbox({tool.name: lambda _, tool=tool: tool for tool in tools})
        store = ResponseStore(None)
        app = create_app(session, settings=settings, toolbox=toolbox, store=store)
        return running(app)

    return start


@pytest.fixture
def fake(running: Callable[[Any], Running]) -> Callable[[list[Any]], tuple[Fake, str]]:
    """Start a fake upstream."""

    def start(answers: list[Any]) -> tuple[Fake, str]:
        upstream = Fake(answers)
        return upstream, running(upstream.app).url

    return start


@pytest.fixture
def behind(running: Callable[[Any], Running]) -> Callable[[list[str]], tuple[ListeningScript, str]]:
    """Start our own server over replies of a model, as an upstream."""

    def start(replies: list[str]) -> tuple[ListeningScript, str]:
        engine = ListeningScript(replies)
        settings = ServerSettings(drain_seconds=2)
        return engine, running(create_app(engine, settings=settings)).url

    return start


@pytest.fixture
def sums() -> Sums:
    return Sums()


@pytest.fixture(scope="session")
def piece() -> Callable[..., dict[str, Any]]:
    return chunk
