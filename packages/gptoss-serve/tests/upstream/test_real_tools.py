"""Our real tools in front of a server that has none: a jail, a corpus with citations, Codex."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_harmony.testing import require
from gptoss_tools import CorpusBackend, PythonTool, SimpleBrowserTool
from gptoss_tools.browser.backends.corpus import build_index

CODE = {"type": "code_interpreter", "container": {"type": "auto"}}


def call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "index": 0,
        "id": "a",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def respond(url: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/responses", json={"model": "behind", **body}, timeout=120)
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = answer.json()
    return whole


@pytest.mark.bubblewrap
def test_code_of_the_model_runs_in_our_jail(fake: Any, front: Any, piece: Any) -> None:
    require(shutil.which("bwrap") is not None, "bubblewrap is not installed")
    code = '{"code": "print(6 * 7)"}'
    first = [piece(tool_calls=[call("python", code)]), piece("tool_calls")]
    upstream, url = fake([first, [piece(content="42."), piece("stop")]])
    server = front(url, tools=[PythonTool("bubblewrap")])
    response = respond(server.url, input="6 * 7?", tools=[CODE])
    assert response["output"][-1]["content"][0]["text"] == "42."
    assert upstream.bodies[1]["messages"][-1]["content"].strip() == "42"


def test_pages_are_found_here_and_cited(fake: Any, front: Any, piece: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "otters.md").write_text("# Otters\n\nOtters hold hands while asleep.\n")
    build_index(tmp_path / "docs", tmp_path / "index.db")
    backend = CorpusBackend(tmp_path / "index.db")
    browser = SimpleBrowserTool(backend)
    answers = [
        [piece(tool_calls=[call("browser_search", '{"query": "otters"}')]), piece("tool_calls")],
        [piece(tool_calls=[call("browser_open", '{"id": 0}')]), piece("tool_calls")],
        [piece(content="They hold hands 【1†L"), piece(content="1-L2】."), piece("stop")],
    ]
    upstream, url = fake(answers)
    server = front(url, tools=[browser])
    response = respond(server.url, input="Otters?", tools=[{"type": "web_search"}])
    offered = [tool["function"]["name"] for tool in upstream.bodies[0]["tools"]]
    assert offered == ["browser_search", "browser_open", "browser_find"]
    assert "browser_search" in upstream.bodies[0]["messages"][0]["content"]
    assert "Otters hold hands" in upstream.bodies[2]["messages"][-1]["content"]
    part = response["output"][-1]["content"][0]
    assert part["annotations"][0]["type"] == "url_citation"
    assert "【" not in part["text"]
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["web_search_call", "web_search_call", "message"]
