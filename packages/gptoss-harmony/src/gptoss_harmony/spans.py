"""Which tokens belong to what: the labels that a renderer attaches to ranges of a prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A labelled half-open range of token positions.

    Attributes:
        start: first position.
        stop: one past the last position.
        role: system, developer, user, assistant or tool.
        channel: analysis, commentary or final; None where the message names none.
        message: index of the message in the rendered conversation (dropped messages do not count).
        tool: the tool that wrote the message or is called by it, for example `browser.open`.
        heading: the Markdown heading above the range inside a system or developer message,
            for example `# Tools`; None outside.
    """

    start: int
    stop: int
    role: str
    channel: str | None = None
    message: int | None = None
    tool: str | None = None
    heading: str | None = None

    def __post_init__(self) -> None:
        """Refuse a range that runs backwards."""
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"span [{self.start}, {self.stop}) runs backwards")
