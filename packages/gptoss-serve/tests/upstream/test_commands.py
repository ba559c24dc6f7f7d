"""The commands as processes: `gptoss serve --upstream` and `gptoss chat --upstream`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest

SECRET = "sk-secret-key"
COMMAND = [sys.executable, "-c", "from gptoss_harmony.cli import main; raise SystemExit(main())"]


def done(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}


@pytest.mark.slow
def test_serve_finds_its_upstream_and_answers(fake: Any) -> None:
    refused = (400, {"error": {"message": "input must be a string or a list"}})
    events = [
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]},
        },
        {"type": "response.completed", "response": {"status": "completed"}},
    ]
    upstream, url = fake([refused, events])
    flags = ["serve", "--upstream", url, "--port", "0", "--store", "off", "--alias", "gpt-oss-20b"]
    environment = {**os.environ, "GPTOSS_UPSTREAM_KEY": SECRET}
    with subprocess.Popen(
        [*COMMAND, *flags], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr
        said = ""
        while not (found := re.search(r"serving on (\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        body = {"model": "gpt-oss-20b", "input": "Hi"}
        answer = httpx.post(f"{found[1]}/responses", json=body, timeout=60)
        process.terminate()
        said += process.stderr.read()
        assert process.wait(60) == 0
    assert answer.json()["output"][0]["content"][0]["text"] == "Hello."
    assert "model first over the Responses API" in said
    assert upstream.bodies[1]["model"] == "first"
    assert upstream.keys == [f"Bearer {SECRET}"] * 2
    assert SECRET not in said


@pytest.mark.slow
def test_chat_talks_to_an_upstream(fake: Any) -> None:
    upstream, url = fake([[done("Hello there.")], [done("Still here.")]])
    flags = ["chat", "--upstream", url, "--upstream-api", "chat", "--upstream-model", "m"]
    chat = subprocess.run(
        [*COMMAND, *flags], input="Hi\nAnd now?\n", capture_output=True, text=True, timeout=120
    )
    assert chat.returncode == 0, chat.stderr
    assert "Hello there." in chat.stdout
    said = [message["content"] for message in upstream.bodies[1]["messages"]]
    assert said == ["Hi", "Hello there.", "And now?"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--upstream", "http://127.0.0.1:9"], "start it first"),
        (["--upstream", "http://127.0.0.1:9", "--backend", "torch"], "in place of an engine"),
        (["--upstream", "http://127.0.0.1:9", "--raw"], "--raw"),
    ],
)
def test_mistakes_are_one_sentence(flags: list[str], words: str) -> None:
    chat = subprocess.run(
        [*COMMAND, "chat", *flags], input="", capture_output=True, text=True, timeout=120
    )
    assert chat.returncode == 2
    assert words in chat.stderr
    assert "Traceback" not in chat.stderr
