"""The command as a process: what a signal to stop leaves behind."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

REPLY = "<|channel|>final<|message|>" + "word " * 40 + "<|return|>"
COMMAND = "from gptoss_harmony.cli import main; raise SystemExit(main())"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": [REPLY]}))
    flags = ["--checkpoint", str(script), "--inference-backend", "scripted", "--port", "0"]
    flags += ["--tokens-per-second", "40", "--store", str(tmp_path / "store.sqlite"), "--quiet"]
    command = [sys.executable, "-c", COMMAND, "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def address(process: subprocess.Popen[str]) -> str:
    """Where it says that it listens."""
    assert process.stderr
    said = ""
    while not (found := re.search(r"serving on (\S+)", said)):
        line = process.stderr.readline()
        assert line, said
        said += line
    return found[1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_answer_finish_and_closes_the_store(
    process: subprocess.Popen[str], tmp_path: Path, sent: int
) -> None:
    asked = {"input": "Hi", "stream": True}
    with httpx.stream("POST", f"{address(process)}/responses", json=asked, timeout=60) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert any("output_text.delta" in line for line in lines)
        process.send_signal(sent)
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert process.wait(60) == 0
    assert not list(tmp_path.glob("store.sqlite-*")), "the store was not closed"
    with closing(sqlite3.connect(tmp_path / "store.sqlite")) as store:
        assert store.execute("select count(*) from responses").fetchone() == (1,)
