"""Ctrl-C between steps: the first one asks the loop to stop after its step, the second one kills.

A step that is broken off in the middle would leave half of the weights updated, and a state that
cannot be resumed exactly.

```
with Interrupt() as interrupt:
    for batch in batches:
        step(batch)
        if interrupt.asked:
            break
```
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupt:
    """Holds back the first interrupt, as a context manager; does nothing outside the main thread.

    Attributes:
        asked: whether an interrupt came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
