"""The chat on nano: a long talk costs what its new words cost."""

from __future__ import annotations

import asyncio
import importlib.util
import io
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from gptoss_harmony import Sampling
from gptoss_harmony.plugins import open_engine
from gptoss_harmony.testing import require
from gptoss_serve import Session
from gptoss_serve.chat.dialogue import Dialogue
from gptoss_serve.chat.loop import ChatLoop
from gptoss_serve.events import Event, TurnDone

QUESTIONS = ("What is 2+3?", "/tokens", "Say hi.", "/effort high", "Say ho.", "/undo", "Say no.")


@pytest.mark.slow
def test_every_turn_finds_the_ones_before_it_in_the_cache() -> None:
    require(importlib.util.find_spec("gptoss_core") is not None, "gptoss-core is not installed")
    usages = []

    def note(event: Event) -> None:
        if isinstance(event, TurnDone):
            usages.append(event.usage)

    async def lines() -> AsyncIterator[str]:
        for line in QUESTIONS:
            yield line

    engine = open_engine("torch", "nano", device="cpu")
    out = io.StringIO()
    loop = ChatLoop(
        Session(engine),
        Dialogue(),
        tools=(),
        sampling=Sampling(max_tokens=60, temperature=0.0),
        show=note,
        console=Console(file=out, width=100),
    )
    try:
        asyncio.run(loop.run(lines()))
    finally:
        engine.close()
    first, second, new_effort, after_undo = usages
    assert first.cached_tokens == 0
    assert second.cached_tokens >= first.input_tokens
    assert new_effort.cached_tokens < first.input_tokens, "the system message has changed"
    assert after_undo.cached_tokens > second.input_tokens, "what was taken back costs nothing"
    assert "0 cached" in out.getvalue()
