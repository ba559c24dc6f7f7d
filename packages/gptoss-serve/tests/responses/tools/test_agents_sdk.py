"""OpenAI's Agents SDK runs our shell, patch and remote calls with its own tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agents
import openai
import pytest
from agents.apply_diff import apply_diff
from agents.editor import ApplyPatchOperation, ApplyPatchResult

from gptoss_serve import ServerSettings

pytestmark = [pytest.mark.mcp, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Editor:
    """Applies operations below a folder with the SDK's own reading of diffs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        text = apply_diff("", operation.diff or "", mode="create")
        (self._root / operation.path).write_text(text)
        return ApplyPatchResult(output=f"Created {operation.path}")

    def update_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        path = self._root / operation.path
        path.write_text(apply_diff(path.read_text(), operation.diff or ""))
        return ApplyPatchResult(output=f"Updated {operation.path}")

    def delete_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        (self._root / operation.path).unlink()
        return ApplyPatchResult(output=f"Deleted {operation.path}")


def run(server: Any, *tools: Any) -> str:
    agents.set_tracing_disabled(True)

    async def ask() -> str:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", timeout=60)
        async with client:
            model = agents.OpenAIResponsesModel(model="scripted", openai_client=client)
            agent = agents.Agent(name="a", tools=list(tools), model=model)
            result = await agents.Runner.run(agent, "Go on.")
        return str(result.final_output)

    return asyncio.run(ask())


def test_a_shell_tool(serve: Any, called: Callable[[str, str], str], done: str) -> None:
    server = serve([called("shell", '{"commands": ["ls", "pwd"]}'), done])
    ran: list[str] = []

    def execute(request: agents.ShellCommandRequest) -> agents.ShellResult:
        ran.extend(request.data.action.commands)
        outputs = [agents.ShellCommandOutput(stdout="out", command=name) for name in ran]
        return agents.ShellResult(output=outputs)

    assert run(server, agents.ShellTool(executor=execute)) == "Done."
    assert ran == ["ls", "pwd"]


def test_a_local_shell_tool(serve: Any, called: Callable[[str, str], str], done: str) -> None:
    server = serve([called("shell", json.dumps({"command": ["ls", "-l"]})), done])
    ran: list[list[str]] = []

    def execute(request: agents.LocalShellCommandRequest) -> str:
        ran.append(request.data.action.command)
        return "a.txt"

    assert run(server, agents.LocalShellTool(executor=execute)) == "Done."
    assert ran == [["ls", "-l"]]


def test_a_patch_tool(serve: Any, done: str, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("x\na\ny\n")
    (tmp_path / "gone.txt").write_text("z\n")
    patch = (
        "*** Begin Patch\n*** Add File: new.txt\n+one\n+two\n*** Update File: old.txt\n@@\n x\n-a\n"
        "+b\n y\n*** Delete File: gone.txt\n*** End Patch"
    )
    reply = f"<|channel|>commentary to=functions.apply_patch<|message|>{patch}<|call|>"
    server = serve([reply, done])
    assert run(server, agents.ApplyPatchTool(editor=Editor(tmp_path))) == "Done."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.txt", "old.txt"]
    assert (tmp_path / "old.txt").read_text() == "x\nb\ny\n"
    assert (tmp_path / "new.txt").read_text().splitlines() == ["one", "two"]


@pytest.mark.parametrize("approval", ["never", "always"])
def test_a_hosted_mcp_tool(
    serve: Any, shop: Any, called: Callable[[str, str], str], done: str, approval: str
) -> None:
    settings = ServerSettings(drain_seconds=2, mcp=shop.access)
    server = serve([called("shop__order", '{"fruit": "fig"}'), done], settings=settings)
    config: Any = shop.tool(require_approval=approval)
    asked: list[str] = []

    def decide(request: agents.MCPToolApprovalRequest) -> agents.MCPToolApprovalFunctionResult:
        asked.append(request.data.name)
        return {"approve": True}

    tool = agents.HostedMCPTool(tool_config=config, on_approval_request=decide)
    assert run(server, tool) == "Done."
    assert shop.calls == [("order", {"fruit": "fig", "count": 1})]
    assert asked == (["order"] if approval == "always" else [])
