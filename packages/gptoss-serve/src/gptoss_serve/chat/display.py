"""Events of a turn on a terminal: thoughts dimmed, calls and results framed, citations as links."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gptoss_serve.events import (
    Event,
    Mended,
    PartDelta,
    PartDone,
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
        console: where to.
        show_results: print results of the browser, which are long.
    """

    def __init__(self, console: Console, *, show_results: bool = False) -> None:
        self._console = console
        self._show_results = show_results
        self._position = 0  # in the text of the answer

    def show(self, event: Event) -> None:
        """Print what an event adds."""
        if isinstance(event, PartStarted):
            self._start(event)
        elif isinstance(event, PartDelta):
            self._grow(event)
        elif isinstance(event, PartDone):
            self._console.print()
        elif isinstance(event, ToolAnswered):
            self._result(event)
        elif isinstance(event, Mended):
            self._note(f"the model's output was mended: {event.problem}")
        elif isinstance(event, TurnDone) and event.reason in _ENDS:
            self._note(_ENDS[event.reason])

    def _start(self, event: PartStarted) -> None:
        self._position = 0
        if event.kind in ("call", "builtin"):
            self._console.print(Text(f"┌ {event.name}", style="cyan"))
            self._console.print(Text("│ ", style="cyan"), end="")

    def _grow(self, delta: PartDelta) -> None:
        if delta.kind in ("call", "builtin"):
            text = Text(delta.text.replace("\n", "\n│ "), style="cyan")
        elif delta.kind == "answer":
            text = self._linked(delta)
        else:
            text = Text(delta.text, style="dim")
        self._console.print(text, end="", soft_wrap=True, highlight=False)

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
        for line in shown:
            self._console.print(Text(f"│ {line}", style="green"), soft_wrap=True, highlight=False)
        rest = len(lines) - len(shown)
        self._console.print(Text(f"└ {rest} more lines" if rest else "└", style="green"))

    def _note(self, text: str) -> None:
        self._console.print(f"[yellow]\\[{escape(text)}][/yellow]", highlight=False)
