"""Codex on a server that has Chat Completions only: a command and a patch through our Responses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_harmony.testing import require

PATCH = "*** Begin Patch\n*** Add File: made.txt\n+hello from the patch\n*** End Patch\n"
CONFIG = """
model = "behind"
model_provider = "local"
model_catalog_json = "{catalog}"
web_search = "disabled"
[model_providers.local]
name = "local"
base_url = "{url}"
wire_api = "responses"
[features]
plugins = false
remote_plugin = false
apps = false
[analytics]
enabled = false
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A fresh folder, which Codex wants outside /tmp."""
    (Path.home() / ".cache").mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=Path.home() / ".cache", prefix="gptoss-codex-test-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def call(name: str, **arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": 0, "id": f"id {name}", "type": "function", "function": function}


@pytest.mark.codex
def test_codex_runs_a_command_and_applies_a_patch(
    fake: Any, front: Any, piece: Any, folder: Path
) -> None:
    program = shutil.which("codex")
    require(program is not None, "the codex program is not on PATH")
    answers = [
        [
            piece(reasoning_content="Look first."),
            piece(tool_calls=[call("exec_command", cmd="echo ran > ran.txt")]),
            piece("tool_calls"),
        ],
        [piece(tool_calls=[call("apply_patch", input=PATCH)]), piece("tool_calls")],
        [piece(content="All done."), piece("stop")],
    ]
    upstream, url = fake(answers)
    home, work = folder / "home", folder / "work"
    home.mkdir()
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    catalog = home / "catalog.json"
    server = front(url)
    catalog.write_text(httpx.get(f"{server.url.removesuffix('/v1')}/codex/catalog.json").text)
    (home / "config.toml").write_text(CONFIG.format(catalog=catalog, url=server.url))
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    codex = subprocess.run(
        [
            str(program),
            *("exec", "--skip-git-repo-check", "--json"),
            *("--dangerously-bypass-approvals-and-sandbox", "Do it"),
        ],
        cwd=work,
        env={**environment, "CODEX_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (work / "ran.txt").read_text() == "ran\n", (codex.stdout, codex.stderr)
    assert (work / "made.txt").read_text() == "hello from the patch\n", codex.stdout
    assert '"turn.completed"' in codex.stdout
    assert "All done." in codex.stdout
    before = upstream.bodies[1]["messages"]
    assert before[-2]["reasoning_content"] == "Look first."
    assert before[-1]["role"] == "tool"
