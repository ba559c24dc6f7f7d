"""The tools as MCP servers: standard input and output, streamable HTTP, and SSE.

```
server = tool_server("browser", lambda: SimpleBrowserTool(backend=backend))
run_stdio(server)                      # one client, one conversation
run_http(server, port=8001)            # /mcp (streamable HTTP) and /sse, one state per session
```

A server's name is the tool's namespace and its instructions are the namespace's description, so a
prompt built from the listing equals the one built from the tool itself. Needs the extra `mcp`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from openai_harmony import Author, Message, Role, TextContent, ToolDescription, ToolNamespaceConfig

from gptoss_harmony.errors import NotInstalled, UsageError
from gptoss_harmony.tool import Tool
from gptoss_tools.sessions import Sessions

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette

ToolName = Literal["browser", "python", "apply_patch"]
_LOCAL_HOSTS = ["127.0.0.1:*", "localhost:*", "[::1]:*"]
_INCLUDE = "include_in_prompt"
_CODE = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "The Python code to run."}},
    "required": ["code"],
}
_PATCH = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole patch."}},
    "required": ["input"],
}


def tool_server(name: ToolName, make: Callable[[], Tool], *, max_sessions: int = 256) -> Server:
    """An MCP server that keeps one tool object per session.

    Args:
        name: which of the tools `make` makes.
        make: makes the tool of a new session.
        max_sessions: states kept; the one unused for longest goes first.

    Raises:
        NotInstalled: the extra is missing.
    """
    types = _types()
    from mcp.server.lowlevel import Server

    sessions = Sessions(make, most=max_sessions)
    described = make()
    listing = types.ListToolsResult(tools=list(_listed(name, described)))
    instructions = described.tool_config.description or described.instruction()
    sessions.adopt(described)
    atexit.register(sessions.close)  # a server that is told to stop leaves no jail behind

    async def on_list_tools(context: Any, params: Any) -> Any:
        return listing

    async def on_call_tool(context: Any, params: Any) -> Any:
        call = _call(name, params.name, params.arguments or {})
        if params.name not in {tool.name for tool in listing.tools}:
            return _result(f"Unknown tool: {params.name}", is_error=True)
        async with sessions.lend(session_key(context)) as tool:
            messages = await tool.process(call)
        return _result("\n".join(map(_text, messages)), is_error=False)

    server: Server = Server(
        name,
        instructions=instructions,
        on_list_tools=on_list_tools,
        on_call_tool=on_call_tool,
    )
    return server


def session_key(context: Any) -> str | None:
    """What tells one conversation from another; None where every request stands alone.

    In order: the header `x-session-id` (vLLM sends one per response), the protocol's own session
    id, the id in an SSE client's message address. A client on standard input is alone.
    """
    request = context.request
    if request is None:
        return "stdio"
    for header in ("x-session-id", "mcp-session-id"):
        if value := request.headers.get(header):
            return f"{header} {value}"
    value = request.query_params.get("session_id")
    return f"sse {value}" if value else None


def _listed(name: ToolName, tool: Tool) -> Iterable[Any]:
    types = _types()
    if name == "browser":
        for function in tool.tool_config.tools:
            yield types.Tool(
                name=function.name,
                description=function.description,
                input_schema=function.parameters or {"type": "object", "properties": {}},
            )
        return
    schema, description = (
        (_CODE, "Execute Python code.")
        if name == "python"
        else (_PATCH, "Edit files with a patch.")
    )
    # The model was trained to call python with bare code: the function stays out of its prompt.
    meta = {_INCLUDE: False} if name == "python" else None
    yield types.Tool(name=name, description=description, input_schema=schema, _meta=meta)


def _call(name: ToolName, function: str, arguments: Mapping[str, Any]) -> Message:
    """The harmony message that asks for the same."""
    recipient = {"browser": f"browser.{function}", "python": "python"}.get(
        name, f"functions.{function}"
    )
    text = json.dumps(arguments)
    if name == "python":
        text = str(arguments.get("code", ""))
    author = Author(role=Role.ASSISTANT)
    return Message(author=author, content=[TextContent(text=text)]).with_recipient(recipient)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))


def _result(text: str, *, is_error: bool) -> Any:
    types = _types()
    content = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=content, is_error=is_error)


def namespace_from_listing(
    name: str, instructions: str | None, tools: Iterable[Any]
) -> ToolNamespaceConfig:
    """The harmony namespace of any MCP server: what the prompt says about its tools.

    Args:
        name: the server's name.
        instructions: the server's instructions.
        tools: as `list_tools` returned them; those marked `include_in_prompt: false` are left out.
    """
    described = [
        ToolDescription.new(
            tool.name, tool.description or "", parameters=dict(tool.input_schema or {}) or None
        )
        for tool in tools
        if (tool.meta or {}).get(_INCLUDE, True)
    ]
    return ToolNamespaceConfig(name=name, description=instructions, tools=described)


def http_app(
    server: Server, *, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = ()
) -> Starlette:
    """An ASGI application with streamable HTTP at /mcp and SSE at /sse.

    Args:
        server: from `tool_server`.
        host: the address it will listen on.
        allowed_hosts: further values of the Host header, such as `tools.internal:*`. Other hosts
            are refused, so that a web page cannot reach the server by rebinding a name.
    """
    _types()
    from mcp.server.sse import SseServerTransport
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    hosts = [*_LOCAL_HOSTS, f"{host}:*", *allowed_hosts]
    security = TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[f"http://{name}" for name in hosts]
    )
    modern = server.streamable_http_app(transport_security=security, host=host)
    sse = SseServerTransport("/messages/", security_settings=security)

    async def stream(request: Any) -> Response:
        async with sse.connect_sse(request.scope, request.receive, request._send) as streams:
            await server.run(streams[0], streams[1], server.create_initialization_options())
        return Response()

    handshake = Route("/mcp", endpoint=_NeedsSession(modern))
    routes = [
        Route("/sse", endpoint=stream, methods=["GET"]),
        Mount("/messages/", app=sse.handle_post_message),
        handshake,
    ]
    return Starlette(routes=routes, lifespan=lambda app: server.session_manager.run())


class _NeedsSession:
    """Sends clients of the protocol without sessions back to the one that has them.

    From version 2026-07-28 on a request stands alone, and pages opened in one could not be found
    in the next. Such a client falls back to the handshake when its version is not supported; one
    that names its conversation itself (`x-session-id`) is served as it is.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS
        from starlette.requests import Request

        request = Request(scope, receive)
        version = request.headers.get("mcp-protocol-version", "")
        if version not in MODERN_PROTOCOL_VERSIONS or "x-session-id" in request.headers:
            await self._app(scope, receive, send)
            return
        await self._refuse(request, version, send)

    @staticmethod
    async def _refuse(request: Any, version: str, send: Any) -> None:
        from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
        from starlette.responses import JSONResponse

        try:
            identifier = json.loads(await request.body()).get("id")
        except (ValueError, AttributeError):
            identifier = None
        error = {
            "code": _types().UNSUPPORTED_PROTOCOL_VERSION,
            "message": "this server keeps a conversation's state: start with initialize",
            "data": {"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": version},
        }
        answer = JSONResponse({"jsonrpc": "2.0", "id": identifier, "error": error}, status_code=400)
        await answer(request.scope, request.receive, send)


def run_http(
    server: Server,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    allowed_hosts: Iterable[str] = (),
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve over HTTP until interrupted.

    Args:
        server: from `tool_server`.
        host: the address to listen on.
        port: 0 takes a free one.
        allowed_hosts: see `http_app`.
        ready: called with the port once it is ours.

    Raises:
        UsageError: the address cannot be listened on.
    """
    _types()
    import uvicorn

    if not 0 <= port < 65_536:
        raise UsageError(f"port {port} is not between 0 and 65535")
    app = http_app(server, host=host, allowed_hosts=allowed_hosts)
    with _listener(host, port) as listener:
        if ready is not None:
            ready(listener.getsockname()[1])
        config = uvicorn.Config(app, host=host, port=port, log_level="warning")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # as `uvicorn.run` takes it: an ordinary end
            return


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another port or host"
        ) from error


def run_stdio(server: Server) -> None:
    """Serve one client on standard input and output until it leaves."""
    _types()
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as streams:
            await server.run(streams[0], streams[1], server.create_initialization_options())

    asyncio.run(serve())


def _types() -> Any:
    try:
        import mcp.types
    except ImportError as error:
        raise NotInstalled(
            "MCP servers need an extra; get it with: pip install 'gptoss-tools[mcp]'"
        ) from error
    return mcp.types
