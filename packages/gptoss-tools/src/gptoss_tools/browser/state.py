"""The pages of one conversation: an append-only stack of views, saved and loaded as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony.errors import UsageError
from gptoss_tools.browser.page import Page


class CallError(Exception):
    """A call that cannot be served; its text goes to the model."""


@dataclass(slots=True)
class BrowserState:
    """What one conversation has opened.

    Attributes:
        pages: every page by its identity, a number from 0.
        stack: the identity shown at each cursor.
    """

    pages: list[Page] = field(default_factory=list)
    stack: list[int] = field(default_factory=list)

    def add(self, page: Page) -> int:
        """Keep a new page and return its identity."""
        self.pages.append(page)
        return len(self.pages) - 1

    def push(self, number: int) -> int:
        """Show a page at the next cursor, which is returned."""
        self.stack.append(number)
        return len(self.stack) - 1

    def number_at(self, cursor: int) -> int:
        """Identity of the page at a cursor; -1 is the latest.

        Raises:
            CallError: there is no such cursor.
        """
        if not self.stack:
            raise CallError("No page is open yet: search, or open a URL.")
        if cursor == -1:
            return self.stack[-1]
        if not 0 <= cursor < len(self.stack):
            raise CallError(
                f"Cursor `{cursor}` is out of range. "
                f"Available cursor indices: [0 - {len(self.stack) - 1}]."
            )
        return self.stack[cursor]

    def number_of_url(self, url: str) -> int | None:
        """The latest page with this URL, if it was opened before."""
        for number in range(len(self.pages) - 1, -1, -1):
            page = self.pages[number]
            if page.kind == "page" and page.url == url:
                return number
        return None

    def source_url(self, cursor: int) -> str:
        """The URL that a citation of this cursor refers to; empty if there is none."""
        if not 0 <= cursor < len(self.stack):
            return ""
        page = self.pages[self.stack[cursor]]
        if page.kind == "find":
            return next((link.url for link in page.links.values()), "")
        return page.url if page.kind == "page" else ""

    def to_json(self) -> dict[str, Any]:
        """The state as plain data."""
        return {"pages": [page.to_json() for page in self.pages], "stack": list(self.stack)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BrowserState:
        """The state that `to_json` wrote.

        Raises:
            UsageError: it was something else.
        """
        try:
            state = cls([Page.from_json(page) for page in data["pages"]], list(data["stack"]))
            known = range(len(state.pages))
            targets = [link.page for page in state.pages for link in page.links.values()]
            whole = all(number in known for number in state.stack) and all(
                target is None or target in known for target in targets
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError("not the saved state of a browser; start a new one") from error
        if not whole:
            raise UsageError("the saved state of the browser lacks pages; start a new one")
        return state
