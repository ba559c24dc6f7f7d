"""A server that notes where its processor time goes: `python -m gptoss_serve.benches.sampler`.

The first argument is the file for the result, the others are those of `gptoss`. The time of all
threads but the main one is the engine's and the pump's: they are told apart by the thread clocks.
The event loop's own time is put down, every few milliseconds of it, to whoever's code, the standard
library's aside, is innermost in its stack: what `json` does for us is ours. POSIX only.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

from gptoss_harmony.cli import main

_PERIOD = 0.005  # seconds of processor time
_OWNERS = ("gptoss_serve", "gptoss_harmony", "uvicorn", "h11", "starlette", "fastapi", "asyncio")


class Sampler:
    """Adds up seconds by owner until stopped. Make it in the main thread."""

    def __init__(self) -> None:
        self._used: dict[str, float] = defaultdict(float)
        self._last = time.thread_time()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _PERIOD, _PERIOD)

    def stop(self) -> dict[str, float]:
        """End, and return the seconds of each owner."""
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        self._used["threads of the engine"] = time.process_time() - time.thread_time()
        return dict(sorted(self._used.items(), key=lambda entry: -entry[1]))

    def _look(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self._used[owner_of(frame)] += now - self._last
        self._last = now


def owner_of(frame: FrameType | None) -> str:
    """Whose code a stack is in."""
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        for owner in _OWNERS:
            if owner in parts:
                return owner
        frame = frame.f_back
    return "other"


if __name__ == "__main__":
    sampler = Sampler()
    try:
        code = main(sys.argv[2:])
    finally:
        Path(sys.argv[1]).write_text(json.dumps(sampler.stop()), encoding="utf-8")
    sys.exit(code)
