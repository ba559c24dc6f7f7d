"""One way to ask for an answer, from an agent's side: over a session here, or over a base URL.

```
async with Client.over_url("http://127.0.0.1:8000/v1") as client:
    async for event in client.respond([{"role": "user", "content": "Hi"}], max_output_tokens=100):
        match event:
            case PartDelta(kind="answer", text=text):
                print(text, end="")
```

Input items and options are those of the Responses API; the events are those of `events`, wherever
the answer comes from. `Client.complete` collects them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from gptoss_serve.errors import ServeError, UpstreamError
from gptoss_serve.events import Event, TurnDone, Usage
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.events_in import EventReader
from gptoss_serve.responses.schema import ResponsesRequest, checked
from gptoss_serve.responses.service import ResponseService
from gptoss_serve.session import Session
from gptoss_serve.settings import ServerSettings
from gptoss_serve.sse import event_data
from gptoss_serve.toolbox import Toolbox

Items = str | Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Reply:
    """A whole answer.

    Attributes:
        text: the final answer.
        output: items, to be put into the next input.
        usage: tokens.
        reason: why it ended, as `TurnDone` says.
        response: the response object.
    """

    text: str = ""
    output: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    reason: str = "stop"
    response: dict[str, Any] = field(default_factory=dict)


class _Source(Protocol):
    """Gives the wire events of a request in batches."""

    def batches(self, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]: ...

    async def close(self) -> None: ...


class Client:
    """Asks a model. Make one with `over_session` or `over_url`."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    @classmethod
    def over_session(cls, session: Session, *, toolbox: Toolbox | None = None) -> Self:
        """Ask an engine of this process; `toolbox` has the tools that run here."""
        return cls(_Local(session, toolbox or Toolbox()))

    @classmethod
    def over_url(cls, base_url: str, *, api_key: str | None = None, seconds: float = 600.0) -> Self:
        """Ask a server of the Responses API.

        Args:
            base_url: ends in `/v1`.
            api_key: sent as a bearer key.
            seconds: how long the server may be silent.
        """
        return cls(_Remote(base_url, api_key=api_key, seconds=seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections; the session stays open."""
        await self._source.close()

    async def respond(self, items: Items, **options: Any) -> AsyncGenerator[Event, None]:
        """Ask, and get events as they come; closing the generator stops the answer.

        Args:
            items: input of the Responses API.
            options: other fields of the request, such as `tools` or `reasoning`.

        Raises:
            ServeError: the request was refused, or the server failed.
        """
        async with aclosing(self._respond(items, options, Reply())) as events:
            async for event in events:
                yield event

    async def complete(self, items: Items, **options: Any) -> Reply:
        """Ask, and get the whole answer.

        Raises:
            ServeError: as `respond`.
        """
        reply = Reply()
        async with aclosing(self._respond(items, options, reply)) as events:
            async for event in events:
                if isinstance(event, TurnDone):
                    reply.usage, reply.reason = event.usage, event.reason
        reply.output = reply.response.get("output", [])
        reply.text = "".join(
            part["text"]
            for item in reply.output
            if item["type"] == "message" and item.get("phase") != "commentary"
            for part in item["content"]
            if part["type"] == "output_text"
        )
        return reply

    async def _respond(
        self, items: Items, options: Mapping[str, Any], reply: Reply
    ) -> AsyncGenerator[Event, None]:
        given = items if isinstance(items, str) else [dict(item) for item in items]
        body = {"store": False, **options, "input": given, "stream": True}
        reader = EventReader()
        async with aclosing(self._source.batches(body)) as batches:
            async for batch in batches:
                for wire in batch:
                    for event in reader.read(wire):
                        yield event
        if reader.response is None:
            raise UpstreamError("the stream ended before the response did")
        reply.response = reader.response


class _Local:
    """A session of this process."""

    def __init__(self, session: Session, toolbox: Toolbox) -> None:
        self._service = ResponseService(
            session,
            toolbox=toolbox,
            models=ModelNames(session.engine.spec),
            admission=Admission(),
            settings=ServerSettings(),
            store=None,
        )

    async def batches(self, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        answering = await self._service.create(checked(ResponsesRequest, body))
        async with aclosing(answering.batches()) as batches:
            async for batch in batches:
                yield batch

    async def close(self) -> None:
        await self._service.close()


class _Remote:
    """A server of the Responses API."""

    def __init__(self, base_url: str, *, api_key: str | None, seconds: float) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(seconds, connect=10.0)
        self._url = f"{base_url.rstrip('/')}/responses"
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout)

    async def batches(self, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        try:
            async with self._http.stream("POST", self._url, json=body) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise _refused(answer)
                async for data in event_data(answer.aiter_bytes()):
                    yield [json.loads(data)]
        except httpx.HTTPError as error:
            raise UpstreamError(f"{self._url} cannot be asked: {error!r}") from error
        except json.JSONDecodeError as error:
            raise UpstreamError(f"{self._url} sent an event that is not JSON: {error}") from error

    async def close(self) -> None:
        await self._http.aclose()


def _refused(answer: httpx.Response) -> ServeError:
    try:
        error = answer.json()["error"]
        return UpstreamError(error["message"], param=error.get("param"), code=error.get("code"))
    except (ValueError, KeyError, TypeError):
        return UpstreamError(f"the server answered {answer.status_code}: {answer.text[:500]}")
