"""MCP servers under the SDK's own client: all transports, state by session, prompts, safety."""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_harmony import Conversation, Message, Role, SystemContent

from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.testing import require
from gptoss_tools import ApplyPatchTool, CorpusBackend, SimpleBrowserTool

try:
    import mcp
except ImportError:
    mcp = None  # type: ignore[assignment]

pytestmark = pytest.mark.mcp


@pytest.fixture(autouse=True)
def _needs_mcp() -> None:
    require(mcp is not None, "the mcp package is not installed")


async def connect(stack: AsyncExitStack, port: int, kind: str, **headers: str) -> Any:
    """An initialised session of the SDK's client."""
    from mcp import ClientSession
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

    if kind == "sse":
        streams = await stack.enter_async_context(
            sse_client(f"http://127.0.0.1:{port}/sse", headers=headers)
        )
    else:
        http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
        streams = await stack.enter_async_context(
            streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
        )
    session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
    await session.initialize()
    return session


async def text_of(session: Any, name: str, arguments: dict[str, Any]) -> str:
    result = await session.call_tool(name, arguments)
    return "".join(part.text for part in result.content)


@pytest.mark.parametrize("kind", ["sse", "http"])
def test_two_sessions_never_see_each_others_pages(
    serve: Callable[..., int], corpus: Path, kind: str
) -> None:
    port = serve("browser", "--index", str(corpus))

    async def talk() -> None:
        async with AsyncExitStack() as stack:
            one = await connect(stack, port, kind)
            two = await connect(stack, port, kind)
            first = await text_of(one, "search", {"query": "tea"})
            assert first.startswith("[0] tea\n")
            assert "No page is open yet" in await text_of(two, "open", {"id": 0})
            assert (await text_of(two, "search", {"query": "water"})).startswith("[0] water\n")
            assert (await text_of(one, "open", {"id": 0})).startswith("[1] ")
            assert (await text_of(two, "open", {"id": 0})).startswith("[1] ")

    asyncio.run(talk())


def test_the_session_header_of_vllm_joins_and_separates(
    serve: Callable[..., int], corpus: Path
) -> None:
    port = serve("browser", "--index", str(corpus))

    async def talk() -> None:
        async with AsyncExitStack() as stack:
            one = await connect(stack, port, "sse", **{"x-session-id": "a"})
            same = await connect(stack, port, "sse", **{"x-session-id": "a"})
            other = await connect(stack, port, "sse", **{"x-session-id": "b"})
            await text_of(one, "search", {"query": "tea"})
            assert (await text_of(same, "open", {"id": 0})).startswith("[1] ")
            assert "No page is open yet" in await text_of(other, "open", {"id": 0})

    asyncio.run(talk())


def test_standard_input_and_output(corpus: Path) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    arguments = ["-m", "gptoss_harmony.cli", "tool", "serve", "browser", "--transport", "stdio"]
    server = StdioServerParameters(
        command=sys.executable, args=[*arguments, "--index", str(corpus)]
    )

    async def talk() -> None:
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            hello = await session.initialize()
            assert hello.server_info.name == "browser"
            assert "green tea" in (await text_of(session, "search", {"query": "tea"})).lower()
            assert (await text_of(session, "open", {"id": 0})).startswith("[1] ")

    asyncio.run(talk())


def test_a_prompt_from_the_listing_equals_the_native_prompt(
    serve: Callable[..., int], corpus: Path, backend: CorpusBackend
) -> None:
    from gptoss_tools.mcp import namespace_from_listing

    port = serve("browser", "--index", str(corpus))

    async def listed() -> Any:
        async with AsyncExitStack() as stack:
            session = await connect(stack, port, "sse")
            hello = session.initialize_result
            tools = await session.list_tools()
            return namespace_from_listing(hello.server_info.name, hello.instructions, tools.tools)

    def prompt(config: Any) -> list[int]:
        system = Message.from_role_and_content(Role.SYSTEM, SystemContent.new().with_tools(config))
        conversation = Conversation.from_messages([system])
        return load_encoding().render_conversation_for_completion(conversation, Role.ASSISTANT)

    native = SimpleBrowserTool(backend=backend).tool_config
    assert prompt(asyncio.run(listed())) == prompt(native)
    browser = SystemContent.new().with_browser_tool()
    conversation = Conversation.from_messages([Message.from_role_and_content(Role.SYSTEM, browser)])
    expected = load_encoding().render_conversation_for_completion(conversation, Role.ASSISTANT)
    assert prompt(native) == expected


@pytest.mark.bubblewrap
def test_python_over_http_stays_out_of_the_prompt_and_keeps_state(
    serve: Callable[..., int], stop: Callable[[], None]
) -> None:
    import shutil

    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    from gptoss_tools.mcp import namespace_from_listing

    port = serve("python", "--jail", "bubblewrap")

    async def talk() -> None:
        async with AsyncExitStack() as stack:
            one = await connect(stack, port, "http")
            two = await connect(stack, port, "http")
            tools = (await one.list_tools()).tools
            assert [tool.name for tool in tools] == ["python"]
            assert namespace_from_listing("python", "x", tools).tools == []
            assert await text_of(one, "python", {"code": "open('a', 'w').write('1')"})
            listing = {"code": "import os; print(os.listdir('/mnt/data'))"}
            assert await text_of(one, "python", listing) == "['a']"
            assert await text_of(two, "python", listing) == "[]"

    before = set(Path(tempfile.gettempdir()).glob("gptoss-*"))
    asyncio.run(talk())
    made = set(Path(tempfile.gettempdir()).glob("gptoss-*")) - before
    stop()
    assert not [folder for folder in made if folder.exists()], "files of ended conversations"


def test_apply_patch_over_http(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve("apply_patch", "--root", str(tmp_path))
    patch = "*** Begin Patch\n*** Add File: a.txt\n+x\n*** End Patch"

    async def talk() -> str:
        async with AsyncExitStack() as stack:
            session = await connect(stack, port, "http")
            return await text_of(session, "apply_patch", {"input": patch})

    assert asyncio.run(talk()) == "Done!"
    assert (tmp_path / "a.txt").read_text() == "x"


def test_bad_calls_are_answers_and_unknown_tools_are_errors(
    serve: Callable[..., int], corpus: Path
) -> None:
    port = serve("browser", "--index", str(corpus))

    async def talk() -> None:
        async with AsyncExitStack() as stack:
            session = await connect(stack, port, "http")
            assert "needs the argument `query`" in await text_of(session, "search", {})
            result = await session.call_tool("explode", {})
            assert result.is_error

    asyncio.run(talk())


def test_requests_under_a_foreign_name_are_refused(serve: Callable[..., int], corpus: Path) -> None:
    port = serve("browser", "--index", str(corpus))
    for path in ("mcp", "sse"):
        for headers in ({"Host": f"evil.example:{port}"}, {"Origin": "http://evil.example"}):
            method = "POST" if path == "mcp" else "GET"
            response = httpx.request(
                method,
                f"http://127.0.0.1:{port}/{path}",
                headers={**headers, "Content-Type": "application/json"},
                content=b"{}",
                trust_env=False,
            )
            assert response.status_code in (403, 421), (path, headers)


def test_the_instructions_of_apply_patch_are_its_sheet(tmp_path: Path) -> None:
    from gptoss_tools.mcp import tool_server

    server = tool_server("apply_patch", lambda: ApplyPatchTool(tmp_path))
    assert server.server_info.name == "apply_patch"
