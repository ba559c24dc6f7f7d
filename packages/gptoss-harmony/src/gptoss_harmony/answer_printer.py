"""Showing an answer while it comes: the final channel apart from everything else.

```
printer = HarmonyPrinter(load_encoding(), sys.stdout, sys.stderr)
for token in answer:
    printer.show(token)
printer.finish()          # {"messages": [...]}
```
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TextIO

from gptoss_harmony.conversation import Role
from gptoss_harmony.encoding import Encoding
from gptoss_harmony.events import MessageDone, MessageStarted, Repaired, TextDelta
from gptoss_harmony.parse import StreamParser

_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_LONGEST_CHARACTER: Final = 4  # bytes, and so tokens, that one character of UTF-8 may take


class Printer(Protocol):
    """Shows tokens as they come."""

    def show(self, token: int) -> None:
        """Print what a token adds."""
        ...

    def finish(self) -> dict[str, Any]:
        """Print the rest; return what `--json` adds about the answer."""
        ...


class HarmonyPrinter:
    """Prints the final channel to one stream and everything else to another.

    Args:
        encoding: from `load_encoding`.
        out: gets the text of final messages; None prints none of it.
        notes: gets all other text, each message after its channel and recipient, and what had to
            be repaired.
        dim: whether `notes` is a terminal that shows faint text.
    """

    def __init__(
        self, encoding: Encoding, out: TextIO | None, notes: TextIO | None, *, dim: bool = False
    ) -> None:
        self._parser = StreamParser(encoding, role=Role.ASSISTANT)
        self._out = out
        self._notes = notes
        self._dim = dim
        self._current: TextIO | None = None

    def show(self, token: int) -> None:
        """Print what a token adds to the answer."""
        for event in self._parser.process(token):
            self._print(event)

    def finish(self) -> dict[str, Any]:
        """Flush the parser and return the messages."""
        for event in self._parser.finish():
            self._print(event)
        return {"messages": [message.to_dict() for message in self._parser.messages]}

    def _print(self, event: object) -> None:
        if isinstance(event, MessageStarted):
            answer = event.channel in (None, "final") and event.recipient in (None, "all")
            self._current = self._out if answer else self._notes
            if not answer:
                to = f" to {event.recipient}" if event.recipient else ""
                _write(self._notes, f"{self._style(_DIM)}[{event.channel}{to}] ")
        elif isinstance(event, TextDelta):
            _write(self._current, event.text)
        elif isinstance(event, MessageDone):
            _write(self._current, f"{self._style(_PLAIN)}\n")
        elif isinstance(event, Repaired):
            _write(self._notes, f"[repaired: {event.problem}]\n")

    def _style(self, code: str) -> str:
        return code if self._dim and self._current is self._notes else ""


class RawPrinter:
    """Prints the continuation of plain text, special tokens spelled out.

    Args:
        encoding: from `load_encoding`.
        out: gets the text; None prints none of it.
    """

    def __init__(self, encoding: Encoding, out: TextIO | None) -> None:
        self._encoding = encoding
        self._out = out
        self._held: list[int] = []
        self._shown: list[str] = []

    def show(self, token: int) -> None:
        """Print what a token adds, holding back the bytes of an unfinished character."""
        self._held.append(token)
        text = self._encoding.decode(self._held)
        unfinished = text.endswith("\N{REPLACEMENT CHARACTER}")
        if unfinished and len(self._held) < _LONGEST_CHARACTER:
            return
        self._held.clear()
        self._shown.append(text)
        _write(self._out, text)

    def finish(self) -> dict[str, Any]:
        """Print what was held back and a last line end; return the whole text."""
        rest = self._encoding.decode(self._held)
        self._held.clear()
        self._shown.append(rest)
        _write(self._out, rest + "\n")
        return {"text": "".join(self._shown)}


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush, so that each token is seen when it comes."""
    if stream is not None:
        stream.write(text)
        stream.flush()
