"""One connection to an MCP server, over streamable HTTP, with the MCP SDK's own client.

```
connection = McpConnection(McpServer(label="docs", url="https://mcp.example.org/mcp"), access)
tools = await connection.list_tools()
result = await connection.call("search", {"query": "tea"})
await connection.close()
```

The SDK's client belongs to the task that opened it, while the steps of a streamed answer run in
tasks of their own: so the client lives in a task here, and requests go there and back. The
connection is opened by the first request, and one state of the server serves a whole answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.mcp_client.failure import McpFailure, failure_of

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult

Json = dict[str, Any]
_Work = Callable[["Client"], Awaitable[Any]]
_Job = tuple[_Work, "asyncio.Future[Any]"]

_MOST_PAGES = 64
_MOST_TOOLS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server as a client of ours names it.

    Attributes:
        label: its name in this response.
        url: of its streamable HTTP endpoint.
        headers: sent with every request; they are not kept or shown.
    """

    label: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class McpConnection:
    """Talks to one server.

    Args:
        server: which one.
        access: what the operator allows.
        seconds: longest wait for any one answer.
    """

    def __init__(self, server: McpServer, access: McpAccess, *, seconds: float = 60.0) -> None:
        self._server = server
        self._access = access
        self._seconds = seconds
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def list_tools(self) -> list[Json]:
        """All tools, as `mcp_list_tools` writes them.

        Raises:
            McpFailure: the server cannot be had or does not tell.
        """

        async def work(client: Client) -> list[Json]:
            tools: list[Json] = []
            cursor: str | None = None
            for _ in range(_MOST_PAGES):
                page = await client.list_tools(cursor=cursor)
                tools += [_listed(tool) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None or len(tools) >= _MOST_TOOLS:
                    break
            return tools[:_MOST_TOOLS]

        listed: list[Json] = await self._ask(work)
        return listed

    async def call(self, name: str, arguments: Json) -> CallToolResult:
        """What a tool answers, which may be that it failed.

        Raises:
            McpFailure: the server cannot be had or refuses the call.
        """

        async def work(client: Client) -> CallToolResult:
            return await client.call_tool(name, arguments)

        result: CallToolResult = await self._ask(work)
        return result

    async def close(self) -> None:
        """End the connection and what waits for it. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        self._jobs.put_nowait(None)
        _, late = await asyncio.wait([task], timeout=5.0)
        if late:
            task.cancel()
            await asyncio.wait([task])

    async def _ask(self, work: _Work) -> Any:
        if self._task is None or self._task.done():
            self._jobs = asyncio.Queue()
            self._task = asyncio.create_task(self._serve(self._jobs))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((work, answer))
        try:
            async with asyncio.timeout(self._seconds):
                return await answer
        except TimeoutError:
            await self._abandon()
            raise McpFailure.late(self._server.label, self._seconds) from None
        except asyncio.CancelledError:
            await self._abandon()
            raise

    async def _abandon(self) -> None:
        """Drop a connection that somebody still waits on; the next request opens another."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _serve(self, jobs: asyncio.Queue[_Job | None]) -> None:
        """Open the client, do the jobs one after the other, close the client."""
        job: _Job | None = await jobs.get()
        try:
            async with self._client() as client:
                while job is not None:
                    await _do(client, *job)
                    job = await jobs.get()
        except Exception as error:
            failure = failure_of(error, self._server.label)
            while job is not None:
                if not job[1].done():
                    job[1].set_exception(failure)
                job = None if jobs.empty() else jobs.get_nowait()
        finally:
            if job is not None:
                job[1].cancel()

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[Client, None]:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        from gptoss_serve.mcp_client.transport import AllowedTransport

        seconds = httpx2.Timeout(min(30.0, self._seconds), read=self._seconds)
        transport = AllowedTransport(self._access)
        async with (
            httpx2.AsyncClient(
                transport=transport, headers=dict(self._server.headers), timeout=seconds
            ) as http,
            Client(
                streamable_http_client(self._server.url, http_client=http), cache=None
            ) as client,
        ):
            yield client


async def _do(client: Client, work: _Work, answer: asyncio.Future[Any]) -> None:
    """Do one job; only a failure of the connection itself gets out."""
    from mcp import MCPError

    if answer.done():
        return
    try:
        result = await work(client)
    except MCPError as error:
        result = McpFailure.protocol(error.code, error.message)
    if answer.done():
        return
    with contextlib.suppress(asyncio.InvalidStateError):
        if isinstance(result, McpFailure):
            answer.set_exception(result)
        else:
            answer.set_result(result)


def _listed(tool: Any) -> Json:
    notes = tool.annotations
    if notes is not None:
        notes = notes.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "annotations": notes,
    }
