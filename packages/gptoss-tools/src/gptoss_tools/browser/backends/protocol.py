"""The backend contract: find pages, fetch a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gptoss_tools.browser.page import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """One hit of a search."""

    title: str
    url: str
    summary: str


class Backend(Protocol):
    """Where a browser gets its pages. May be shared by many conversations."""

    source: str  # one word for where the pages come from, for example `web`

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """The best hits first, at most `topn`.

        Raises:
            BackendError: the search failed; the message goes to the model.
        """
        ...

    async def fetch(self, url: str) -> Page:
        """The page at a URL; behind the prefix `view-source:` its source as text.

        Raises:
            BackendError: there is no such page; the message goes to the model.
        """
        ...
