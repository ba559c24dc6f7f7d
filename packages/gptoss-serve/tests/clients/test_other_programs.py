"""Clients that run as programs of their own: OpenAI's JavaScript SDKs, LiteLLM and curl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gptoss_harmony.testing import require

HERE = Path(__file__).parent
GREETING = "Hello! How can I help?"
WEATHER = {"city": "Paris", "days": 3}
MARIA = {"name": "Maria Lopez", "age": 34, "city": "Berlin"}


def said(command: Sequence[str], *, given: str = "", **variables: str) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        command,
        input=given,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.node
def test_openai_and_agents_in_javascript(nano: Any) -> None:
    modules = Path(os.environ.get("GPTOSS_SERVE_NODE", "")) / "node_modules"
    node = shutil.which("node")
    found = node is not None and (modules / "@openai" / "agents").is_dir()
    require(found, "GPTOSS_SERVE_NODE names no folder with @openai/agents, or there is no node")
    program = [str(node), str(HERE / "sdk.mjs")]
    got = json.loads(said([*program, nano.base, nano.key, nano.model, str(modules.parent)]))
    greetings = {"created": GREETING, "streamed": GREETING}
    assert got["responses"] == {**greetings, "final": GREETING, "parsed": MARIA}
    assert got["responsesTools"] == {
        "name": "get_weather",
        "arguments": WEATHER,
        "answer": "The result: sunny.",
    }
    assert got["background"].pop("begun") in ("queued", "in_progress")
    assert got["background"] == {"answer": GREETING, "gone": 404}
    assert got["chat"].pop("reasoning")
    assert got["chat"] == {**greetings, "parsed": MARIA}
    assert got["rest"]["completion"] == GREETING
    assert nano.model in got["rest"]["models"]
    assert got["rest"]["unknown"] == "model_not_found"
    for loop in ("chatTools", "agentResponses", "agentChat"):
        assert got[loop] == {"answer": "The result: sunny.", "asked": [WEATHER]}, loop


@pytest.mark.slow
def test_litellm(nano: Any, weather: Any) -> None:
    folder = os.environ.get("GPTOSS_LITELLM", "")
    found = bool(folder) and Path(folder, "litellm").is_dir()
    require(found, "GPTOSS_LITELLM names no folder with LiteLLM")
    program = [sys.executable, str(HERE / "litellm_asks.py"), nano.base, nano.key, nano.model]
    # Its prices of hosted models come from the network unless it is told to use its own list.
    alone = {"PYTHONPATH": folder, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    got = json.loads(said(program, given=json.dumps(weather), **alone))
    assert got["completion"] == got["streamed"] == got["response"] == GREETING
    assert got["reasoning"]
    assert got["events"][0] == "response.created"
    assert got["events"][-1] == "response.completed"
    assert got["tools"] == {
        "name": "get_weather",
        "arguments": WEATHER,
        "answer": "The result: sunny.",
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", ["responses", "chat/completions"])
def test_curl_streams(nano: Any, path: str) -> None:
    require(shutil.which("curl") is not None, "the curl program is not on PATH")
    body: dict[str, Any] = {"model": nano.model, "stream": True, "temperature": 0}
    if path == "responses":
        body |= {"input": "Hello", "reasoning": {"effort": "low"}}
    else:
        body |= {
            "messages": [{"role": "user", "content": "Hello"}],
            "reasoning_effort": "low",
        }
    command = ["curl", "-sS", "-N", "--fail-with-body", f"{nano.base}/{path}", "-d", "@-"]
    headers = ["content-type: application/json", f"authorization: Bearer {nano.key}"]
    lines = said([*command, "-H", headers[0], "-H", headers[1]], given=json.dumps(body)).split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    events = [json.loads(line) for line in data]
    if path == "responses":
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    else:
        deltas = [c["delta"].get("content", "") for e in events for c in e["choices"]]
    assert "".join(deltas) == GREETING
