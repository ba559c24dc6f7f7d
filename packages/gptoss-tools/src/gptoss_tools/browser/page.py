"""A page as the model sees it: text with numbered links, and what its lines look like.

A page is told apart by its own identity, not by its URL: two searches are two pages.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

WIDTH = 80  # columns of a line on display
_LONGEST_WRAPPED = 8_000  # characters that are wrapped at once; wrapping is quadratic in them

Kind = Literal["page", "search", "find"]


@dataclass(frozen=True, slots=True)
class Link:
    """Where a link leads: a URL, or a line of a page that is open already (find results)."""

    url: str
    page: int | None = None
    line: int | None = None


@dataclass(frozen=True)
class Page:
    """Text, its title and its links.

    Attributes:
        url: where it came from; empty for search results.
        title: shown in the header and in citations.
        text: with links as `【id†text】`.
        links: by the id that the text shows.
        kind: search and find results are told apart from pages.
    """

    url: str
    title: str
    text: str
    links: Mapping[int, Link] = field(default_factory=dict)
    kind: Kind = "page"

    @cached_property
    def lines(self) -> list[str]:
        """The text wrapped to 80 columns; line numbers on display count these."""
        return list(_wrapped(self.text.split("\n")))

    def to_json(self) -> dict[str, Any]:
        """The page as plain data."""
        links = {str(key): [link.url, link.page, link.line] for key, link in self.links.items()}
        return {
            "url": self.url,
            "title": self.title,
            "text": self.text,
            "links": links,
            "kind": self.kind,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Page:
        """The page that `to_json` wrote."""
        links = {int(key): Link(*value) for key, value in data["links"].items()}
        return cls(data["url"], data["title"], data["text"], links, data["kind"])


def _wrapped(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if not line:
            yield ""
        for start in range(0, len(line), _LONGEST_WRAPPED):
            yield from textwrap.wrap(
                line[start : start + _LONGEST_WRAPPED],
                width=WIDTH,
                replace_whitespace=False,
                drop_whitespace=False,
            )


def host_of(url: str) -> str:
    """The host (and port) of a URL, also of one without a scheme; empty if there is none."""
    try:
        netloc = urlsplit(url if "://" in url else f"//{url}").netloc
    except ValueError:
        return ""
    return netloc.rpartition("@")[2]
