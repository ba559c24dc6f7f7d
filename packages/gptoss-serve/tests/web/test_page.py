"""The chat page in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_harmony import Message, ToolNamespaceConfig

from gptoss_harmony import tool_message
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_harmony.testing import require
from gptoss_harmony.tool import ToolReply
from gptoss_serve import Toolbox
from gptoss_tools import CorpusBackend, SimpleBrowserTool
from gptoss_tools.browser.backends.corpus import build_index

REPLIES = [
    {"when": "slowly", "text": "<|channel|>final<|message|>" + "word " * 900 + "<|return|>"},
    "<|channel|>analysis<|message|>Compute it.<|end|><|start|>assistant<|channel|>analysis "
    "to=python code<|message|>print(6*7)<|call|>",
    "<|channel|>final<|message|>It is 42 & <b>bold</b> and **strong**.\n"
    f"```py\nx = '{'long ' * 80}'\n```\nThat is all.<|return|>",
    '<|channel|>analysis to=browser.search code<|message|>{"query": "rain"}<|call|>',
    '<|channel|>analysis to=browser.open code<|message|>{"id": 0}<|call|>',
    "<|channel|>final<|message|>It rains in `Lyon`【1†L1】 they say.<|return|>",
]


class Python:
    """Always answers 42."""

    name = "python"
    tool_config = ToolNamespaceConfig.python()

    def instruction(self) -> str:
        return ""

    def process(self, message: Message) -> ToolReply:
        async def reply() -> Any:
            yield tool_message("python", "42", channel="analysis")

        return ToolReply(reply())


def test_the_page_asks_nobody_else(serve: Callable[..., Any]) -> None:
    answer = httpx.get(f"{serve().url}/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_chat_tools_and_stop_in_chromium(
    serve: Callable[..., Any], width: int, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    require(chromium is not None, "there is no chromium on PATH")
    node = shutil.which("node")
    require(node is not None, "there is no node on PATH")
    modules = Path(os.environ.get("GPTOSS_SERVE_NODE", "."), "node_modules", "playwright-core")
    require(modules.is_dir(), "GPTOSS_SERVE_NODE names no folder with playwright-core")
    engine = ScriptedEngine(Recording(REPLIES), ScriptedOptions(tokens_per_second=60))
    (tmp_path / "rain.md").write_text("# Rain\n\nIt rains a lot in Lyon.\n")
    build_index(tmp_path, tmp_path / "index.db", base_url="https://weather.example")
    backend = CorpusBackend(tmp_path / "index.db")
    toolbox = Toolbox(
        {"python": lambda _: Python(), "browser": lambda _: SimpleBrowserTool(backend)}
    )
    server = serve(engine=engine, toolbox=toolbox)
    drive = Path(__file__).with_name("drive.cjs")
    done = subprocess.run(
        [str(node), str(drive), str(modules), str(chromium), server.url, str(width)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    backend.close()
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["problems"] == []
    assert seen["origins"] == [server.url]
    assert seen["bold"] == 0, "text of the model became HTML"
    for expected in ("Reasoning", "print(6*7)", "42", "It is 42 & <b>bold</b>", "Stopped."):
        assert expected in seen["text"]
    assert seen["code"] == [f"x = '{'long ' * 80}'"]
    assert seen["strong"] == ["strong"]
    [(title, link)] = seen["links"]
    assert (title.strip(), link) == ("weather.example", "https://weather.example/rain.md")
    assert seen["overflow"] == 0, "the page is wider than its window"
    assert engine.stats().running == 0
