"""A server that notes where its processor time goes: `python -m gptoss_serve.benches.sampler`.

The first argument is the file for the result, the others are those of `gptoss`. Twenty times a
second a thread reads the processor time that each thread has used since the last look (Linux), and
puts it down to whoever's code, the standard library's aside, is innermost in its stack: what `json`
does for us is ours.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from gptoss_harmony.cli import main

_PERIOD = 0.05
_OWNERS = ("gptoss_serve", "gptoss_harmony", "uvicorn", "h11", "starlette", "fastapi", "asyncio")


class Sampler:
    """Adds up nanoseconds by owner until stopped."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._before: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """End, and return the nanoseconds of each owner."""
        self._stop.set()
        self._thread.join()
        return dict(self._used.most_common())

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD):
            frames = sys._current_frames()
            for thread in threading.enumerate():
                frame = frames.get(thread.ident or 0)
                if frame is not None and thread is not self._thread:
                    self._add(thread.native_id or 0, frame)

    def _add(self, native_id: int, frame: FrameType) -> None:
        try:
            text = Path(f"/proc/self/task/{native_id}/schedstat").read_text()
        except OSError:  # it has just ended
            return
        used = int(text.split()[0])
        self._used[owner_of(frame)] += used - self._before.get(native_id, used)
        self._before[native_id] = used


def owner_of(frame: FrameType) -> str:
    """Whose code a stack is in."""
    here: FrameType | None = frame
    while here is not None:
        parts = Path(here.f_code.co_filename).parts
        for owner in _OWNERS:
            if owner in parts:
                return "scripted engine" if parts[-1] == "scripted.py" else owner
        here = here.f_back
    return "other"


if __name__ == "__main__":
    sampler = Sampler()
    try:
        code = main(sys.argv[2:])
    finally:
        Path(sys.argv[1]).write_text(json.dumps(sampler.stop()), encoding="utf-8")
    sys.exit(code)
