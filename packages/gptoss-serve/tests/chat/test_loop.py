"""The chat loop: commands, tools, a stop in the middle."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.console import Console

from gptoss_harmony import Sampling
from gptoss_harmony.scripted import Recording, ScriptedEngine, ScriptedOptions
from gptoss_serve import Session
from gptoss_serve.chat.dialogue import Dialogue
from gptoss_serve.chat.display import Display
from gptoss_serve.chat.loop import ChatLoop
from gptoss_serve.events import (
    Citation,
    PartDelta,
    PartDone,
    PartStarted,
    ToolAnswered,
    TurnDone,
    Usage,
)
from gptoss_tools import ApplyPatchTool

# This terminal does not say where its cursor is.
NO_CPR = {"PROMPT_TOOLKIT_NO_CPR": "1"}
FINAL = (
    "<|channel|>analysis<|message|>Just greet.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hello, world!<|return|>"
)


def chat(
    lines: Sequence[str], replies: Sequence[str] = (FINAL,), *, tools: Sequence[Any] = ()
) -> tuple[str, Dialogue]:
    out = io.StringIO()
    console = Console(file=out, width=100)
    dialogue = Dialogue()
    loop_ = ChatLoop(
        Session(ScriptedEngine(Recording(list(replies)))),
        dialogue,
        tools=tools,
        sampling=Sampling(),
        show=Display(console).show,
        console=console,
    )

    async def given() -> AsyncIterator[str]:
        for line in lines:
            yield line

    asyncio.run(loop_.run(given()))
    return out.getvalue(), dialogue


def test_a_question_shows_thought_and_answer() -> None:
    out, dialogue = chat(["Hi"])
    assert out == "Just greet.\nHello, world!\n"
    assert [m.channel for m in dialogue.messages] == [None, "analysis", "final"]


def test_commands(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    asked = [
        "Hi",
        "/tokens",
        "/effort high",
        "/system Be brief.",
        f"/save {file}",
        "/undo",
        "/undo",
    ]
    then = [f"/load {file}", "/nonsense", "/load", "/tools", f"/load {tmp_path}/none"]
    out, dialogue = chat([*asked, *then])
    assert "17 out (4 reasoning)" in out
    assert "effort is high" in out
    assert "nothing to take back" in out
    assert "there is no /nonsense" in out
    assert "no tools" in out
    assert "cannot read" in out
    assert dialogue.instructions == "Be brief."
    assert len(dialogue.messages) == 3


def test_a_tool_is_framed_and_its_result_goes_back(tmp_path: Path) -> None:
    patch = "*** Begin Patch\n*** Add File: a.txt\n+hi\n*** End Patch\n"
    call = f"<|channel|>commentary to=functions.apply_patch<|message|>{patch}<|call|>"
    out, dialogue = chat(["Make it"], [call, FINAL], tools=[ApplyPatchTool(tmp_path)])
    assert (tmp_path / "a.txt").read_text().strip() == "hi"
    assert "┌ apply_patch" in out
    assert "│ Done!" in out
    assert dialogue.messages[2].author.role.value == "tool"


def test_an_engine_error_takes_the_question_back() -> None:
    engine = ScriptedEngine(Recording([FINAL]), ScriptedOptions(context=10))
    console = Console(file=io.StringIO())
    dialogue = Dialogue()
    loop_ = ChatLoop(
        Session(engine), dialogue, tools=(), sampling=Sampling(), show=None, console=console
    )

    async def given() -> AsyncIterator[str]:
        yield "Hi"

    asyncio.run(loop_.run(given()))
    assert dialogue.messages == []
    assert "context" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "script.json"
    slow = "<|channel|>final<|message|>" + "word " * 400 + "<|return|>"
    file.write_text(f'{{"replies": [{{"when": "slowly", "text": "{slow}"}}, "{FINAL}"]}}')
    return file


def test_the_command_works_when_piped(script: Path) -> None:
    command = [sys.executable, "-m", "gptoss_serve.chat", str(script), "--backend", "scripted"]
    done = subprocess.run(
        command, input="Hi\n", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "Just greet.\nHello, world!\n"


@pytest.mark.slow
def test_ctrl_c_stops_the_turn_and_ctrl_d_leaves(script: Path, tmp_path: Path) -> None:
    arguments = ["-m", "gptoss_serve.chat", str(script), "--backend", "scripted"]
    terminal = pexpect.spawn(
        sys.executable,
        [*arguments, "--tokens-per-second", "20"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", **NO_CPR},
        timeout=120,
        encoding="utf-8",
        dimensions=(24, 40),
    )
    terminal.expect("Ctrl-D leaves")
    terminal.expect(">")
    terminal.send("slowly\r")
    terminal.expect("word word")
    terminal.kill(signal.SIGINT)
    terminal.expect("stopped")
    terminal.expect(">")
    terminal.send("one\x1b\rtwo\r")  # Esc Enter between them
    terminal.expect_exact("\x1b[2mJust")  # thoughts are dimmed
    terminal.expect("Hello, world!")
    terminal.expect(">")
    terminal.send("/tokens\r")
    terminal.expect(r"reasoning\)")
    terminal.send("\x04")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    history = tmp_path / "gptoss" / "history"
    assert [line for line in history.read_text().splitlines() if line.startswith("+")] == [
        *("+slowly", "+one", "+two", "+/tokens")
    ]
    assert history.stat().st_mode & 0o077 == 0, "others may not read what was asked"


def test_citations_are_links_and_long_results_are_cut() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, width=40, force_terminal=True, legacy_windows=False))
    display.show(PartStarted(0, "builtin", "python"))
    display.show(PartDelta(0, "builtin", "print('a long line of code that wraps')\n"))
    display.show(PartDone(0, "builtin", "python", "", True))
    display.show(ToolAnswered(0, "python", "\n".join(map(str, range(30)))))
    display.show(PartStarted(1, "answer"))
    display.show(PartDelta(1, "answer", "It rains"))
    cited = (Citation(8, 30, "host", "https://host/page"),)
    display.show(PartDelta(1, "answer", " ([host](https://host/page))", (), cited))
    display.show(PartDone(1, "answer", None, "", True))
    display.show(TurnDone("length", Usage(), ()))
    shown = out.getvalue()
    assert "https://host/page\x1b\\" in shown, "no hyperlink"
    plain = re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\\\", "", shown)
    assert "┌ python\n│ print('a long line of code that\n│ wraps')\n├\n│ 0\n" in plain
    assert "└ 18 more lines" in plain
    assert "[the limit of tokens was reached]" in plain
