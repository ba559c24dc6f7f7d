"""Events of a turn on a terminal: thoughts dimmed, calls and results framed, citations as links."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gptoss_serve.chat.flow import Flow
from gptoss_serve.events import (
    Event,
    Mended,
    PartDelta,
    PartDone,
    PartKind,
    PartStarted,
    ToolAnswered,
    TurnDone,
)

_MOST_LINES = 12  # of a tool's result
_ENDS = {
    "length": "the limit of tokens was reached",
    "tool_calls": "the limit of tool calls was reached",
    "time": "the time is up",
    "cancelled": "stopped",
}


class Display:
    """Prints one turn after the other.

    Args:
        console: where to; parts are wrapped and set apart if it is a terminal.
        show_results: print results of the browser, which are long.
    """

    def __init__(self, console: Console, *, show_results: bool = False) -> None:
        self._console = console
        self._show_results = show_results
        self._position = 0  # in the text of the answer
        self._flow: Flow | None = None
        self._last: PartKind | None = None  # of this turn

    def show(self, event: Event) -> None:
        """Print what an event adds."""
        if isinstance(event, PartStarted):
            self._start(event)
        elif isinstance(event, PartDelta):
            self._grow(event)
        elif isinstance(event, PartDone):
            self._end()
        elif isinstance(event, ToolAnswered):
            self._result(event)
        elif isinstance(event, Mended):
            self._note(f"the model's output was mended: {event.problem}")
        elif isinstance(event, TurnDone):
            self._end()
            if event.reason in _ENDS:
                self._note(_ENDS[event.reason])
            self._last = None
            self._gap()

    def _end(self) -> None:
        """Close what was begun; a turn may be stopped in the middle."""
        if self._flow is not None:
            self._flow.end()
            self._flow = None

    def _start(self, event: PartStarted) -> None:
        if self._last not in (None, event.kind):
            self._gap()
        self._last, self._position = event.kind, 0
        if event.kind in ("call", "builtin"):
            self._console.print(Text(f"┌ {event.name}", style="cyan"))
            self._flow = self._framed("cyan")
        else:
            self._flow = Flow(self._console, width=self._width)

    def _grow(self, delta: PartDelta) -> None:
        if self._flow is None:
            return
        if delta.kind in ("call", "builtin"):
            text = Text(delta.text, style="cyan")
        elif delta.kind == "answer":
            text = self._linked(delta)
        else:
            text = Text(delta.text, style="dim")
        self._flow.put(text)

    def _linked(self, delta: PartDelta) -> Text:
        text = Text(delta.text)
        for citation in delta.citations:
            start, end = citation.start - self._position, citation.end - self._position
            text.stylize(f"link {citation.url}", max(0, start), end)
        self._position += len(delta.text)
        return text

    def _result(self, event: ToolAnswered) -> None:
        lines = event.text.splitlines() or [""]
        hidden = event.name.startswith("browser") and not self._show_results and not event.failed
        shown = lines[:1] if hidden else lines[:_MOST_LINES]
        self._console.print(Text("├", style="green"))
        flow = self._framed("green")
        flow.put(Text("\n".join(shown), style="green"))
        flow.end()
        rest = len(lines) - len(shown)
        self._console.print(Text(f"└ {rest} more lines" if rest else "└", style="green"))

    def _framed(self, style: str) -> Flow:
        return Flow(self._console, prefix=Text("│ ", style=style), width=self._width)

    @property
    def _width(self) -> int | None:
        return self._console.width if self._console.is_terminal else None

    def _gap(self) -> None:
        if self._console.is_terminal:
            self._console.print()

    def _note(self, text: str) -> None:
        self._console.print(f"[magenta]\\[{escape(text)}][/magenta]", highlight=False)
