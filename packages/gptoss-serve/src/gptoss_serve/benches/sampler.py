"""A server that notes where its processor time goes: `python -m gptoss_serve.benches.sampler`.

The first argument is the file for the result, the others are those of `gptoss`. A thread looks at
all stacks a hundred times a second. A stack that waits is not counted; any other belongs to
whoever's code, the standard library's aside, is innermost: what `json` does for us is ours.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from gptoss_harmony.cli import main

_PERIOD = 0.01
_WAITING = ("selectors.py", "threading.py", "queue.py", "socket.py", "thread.py")
_OWNERS = ("gptoss_serve", "gptoss_harmony", "uvicorn", "h11", "starlette", "fastapi", "asyncio")


class Sampler:
    """Counts samples by owner until stopped."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """End, and return the samples of each owner."""
        self._stop.set()
        self._thread.join()
        return dict(self._counts.most_common())

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._stop.wait(_PERIOD):
            for thread, frame in sys._current_frames().items():
                owner = None if thread == own else owner_of(frame)
                if owner is not None:
                    self._counts[owner] += 1


def owner_of(frame: FrameType) -> str | None:
    """Whose code a stack is in; None where it waits."""
    if Path(frame.f_code.co_filename).name in _WAITING:
        return None
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
