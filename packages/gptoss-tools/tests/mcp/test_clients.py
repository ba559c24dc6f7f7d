"""Programs of others that speak MCP, against our servers: agents, Codex, the conformance runner."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gptoss_harmony.testing import require

pytestmark = pytest.mark.mcp


@pytest.fixture
def node() -> Path:
    """The folder with the programs from npm."""
    folder = os.environ.get("GPTOSS_NODE")
    require(folder is not None, "GPTOSS_NODE does not name a folder of node modules")
    return Path(str(folder)) / "node_modules"


def stdio_command(corpus: Path) -> list[str]:
    module = ["-m", "gptoss_harmony.cli", "tool", "serve", "browser", "--transport", "stdio"]
    return [sys.executable, *module, "--index", str(corpus)]


@pytest.mark.parametrize("kind", ["stdio", "sse", "http"])
def test_the_clients_of_openai_agents(
    serve: Callable[..., int], corpus: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    mcp = pytest.importorskip("agents.mcp")

    def client() -> Any:
        if kind == "stdio":
            command, *arguments = stdio_command(corpus)
            params = {"command": command, "args": arguments}
            return mcp.MCPServerStdio(params=params, client_session_timeout_seconds=60)
        port = serve("browser", "--index", str(corpus))
        if kind == "sse":
            return mcp.MCPServerSse(params={"url": f"http://127.0.0.1:{port}/sse"})
        return mcp.MCPServerStreamableHttp(params={"url": f"http://127.0.0.1:{port}/mcp"})

    async def talk() -> None:
        async with client() as server:
            names = [tool.name for tool in await server.list_tools()]
            assert names == ["search", "open", "find"]
            result = await server.call_tool("search", {"query": "tea"})
            assert "Search Results" in result.content[0].text
            result = await server.call_tool("open", {"id": 0})
            assert result.content[0].text.startswith("[1] ")

    asyncio.run(talk())


@pytest.mark.node
@pytest.mark.parametrize(
    "scenario", ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"]
)
def test_the_conformance_runner(
    serve: Callable[..., int], corpus: Path, node: Path, scenario: str
) -> None:
    port = serve("browser", "--index", str(corpus))
    runner = node / "@modelcontextprotocol/conformance/dist/index.js"
    command = [str(node / ".bin/bun"), str(runner), "server"]
    command += ["--url", f"http://127.0.0.1:{port}/mcp", "--scenario", scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


class ScriptedResponses:
    """A Responses API that asks for one tool call and then ends; it keeps what it was sent."""

    def __init__(self, namespace_hint: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self._hint = namespace_hint

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        self.requests.append(request)
        if any(item.get("type") == "function_call_output" for item in request["input"]):
            text = {"type": "output_text", "text": "Done.", "annotations": []}
            item = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
        else:
            item = {
                "type": "function_call",
                "id": "f",
                "call_id": "c1",
                "arguments": json.dumps({"query": "tea"}),
                **self._tool(request["tools"]),
            }
        response = {"id": "r", "object": "response", "status": "completed", "output": [item]}
        return [
            {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ]

    def _tool(self, tools: list[dict[str, Any]]) -> dict[str, str]:
        """The search tool, as Codex lists it: in a namespace, or with it in the name."""
        for tool in tools:
            if tool.get("type") == "namespace" and self._hint in tool["name"]:
                inner = next(entry["name"] for entry in tool["tools"] if "search" in entry["name"])
                return {"name": inner, "namespace": tool["name"]}
            name = tool.get("name", "")
            if self._hint in name and name.endswith("search"):
                return {"name": name}
        raise AssertionError(f"no search tool of {self._hint} in {json.dumps(tools)[:3000]}")


@pytest.fixture
def model() -> Iterator[tuple[int, ScriptedResponses]]:
    """A scripted model behind the Responses API."""
    script = ScriptedResponses("ours")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            events = script.answer(json.loads(body))
            data = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(data.encode())))
            self.end_headers()
            self.wfile.write(data.encode())

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1], script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.codex
@pytest.mark.node
@pytest.mark.parametrize("kind", ["command", "url"])
def test_codex_lists_and_calls_the_tools(
    serve: Callable[..., int],
    corpus: Path,
    node: Path,
    model: tuple[int, ScriptedResponses],
    kind: str,
) -> None:
    port, script = model
    home = Path.home() / f".gptoss-codex-test-{os.getpid()}"  # Codex wants none below /tmp
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    command, *arguments = stdio_command(corpus)
    server = (
        f"command = {json.dumps(command)}\nargs = {json.dumps(arguments)}"
        if kind == "command"
        else f'url = "http://127.0.0.1:{serve("browser", "--index", str(corpus))}/mcp"'
    )
    (home / "config.toml").write_text(
        f"""
model = "gpt-oss-20b"
model_provider = "local"
web_search = "disabled"
[model_providers.local]
name = "local"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
[mcp_servers.ours]
{server}
startup_timeout_sec = 60
required = true
[features]
plugins = false
remote_plugin = false
apps = false
[analytics]
enabled = false
"""
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")}
    try:
        done = subprocess.run(
            [
                str(node / ".bin/codex"),
                "exec",
                "--skip-git-repo-check",
                "--dangerously-bypass-approvals-and-sandbox",
                "--json",
                "find tea",
            ],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=home,
            env=environment | {"CODEX_HOME": str(home)},
            timeout=180,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [
        json.dumps(item, ensure_ascii=False)
        for item in script.requests[-1]["input"]
        if item.get("type") == "function_call_output"
    ]
    assert any("Search Results" in output for output in outputs), outputs
