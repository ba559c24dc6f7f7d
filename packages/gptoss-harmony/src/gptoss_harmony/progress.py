"""A progress bar for long copies: one line on a terminal, nothing where nobody watches.

```
with ProgressBar("convert", total_bytes, stream=sys.stderr) as bar:
    bar.advance(1024)
```

```text
convert  [##########..............]  42%  5.8/13.8 GB  1.2 GB/s  0:00:07 left
```
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

_WIDTH = 24
_INTERVAL = 0.1  # seconds between two drawings


class ProgressBar:
    """A context manager that draws how many of `total` bytes are done.

    Args:
        label: stands before the bar.
        total: bytes in all.
        stream: where to draw; a stream that is not a terminal gets nothing.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = max(total, 1)
        self._stream = stream
        self._clock = clock
        self._visible = stream.isatty()
        self._done = 0
        self._started = self._drawn = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._visible:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def advance(self, count: int) -> None:
        """Add `count` bytes and redraw if the last drawing is old enough."""
        self._done += count
        now = self._clock()
        if self._visible and now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        """Overwrite the line."""
        share = min(self._done / self._total, 1.0)
        bar = "#" * int(share * _WIDTH)
        rate = self._done / max(self._clock() - self._started, 1e-9)
        left = timedelta(seconds=round(max(self._total - self._done, 0) / rate)) if rate else "?"
        self._stream.write(
            f"\r{self._label}  [{bar:.<{_WIDTH}}] {share:4.0%}  {self._done / 1e9:.1f}/"
            f"{self._total / 1e9:.1f} GB  {rate / 1e9:.2f} GB/s  {left} left \x1b[K"
        )
        self._stream.flush()
