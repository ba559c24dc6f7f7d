"""Citations: from the model's brackets to links with positions, also while text streams.

```
【0†L3-L5】   ->   " ([example.org](https://example.org/page)) "   and a `url_citation` over it
```

An unfinished bracket at the end of a piece is held back until it is complete or turns out to be
something else. Brackets with an unknown cursor stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from gptoss_tools.browser.page import host_of

_CITATION = re.compile(r"【(?P<cursor>\d+)†[^†】]+(?:†[^†】]+)?】")
_UNFINISHED = re.compile(r"【\d*(?:(?<=\d)†[^†】【\n]*(?:†[^†】【\n]*)?)?\Z")
_LONGEST = 256  # characters of a bracket; a longer one is not a citation


@dataclass(frozen=True, slots=True)
class UrlCitation:
    """A link in the new text: half-open range of characters, title and URL."""

    start_index: int
    end_index: int
    title: str
    url: str

    def to_json(self) -> dict[str, Any]:
        """The annotation as the Responses API writes it."""
        return {
            "type": "url_citation",
            "start_index": self.start_index,
            "end_index": self.end_index,
            "title": self.title,
            "url": self.url,
        }


class CitationNormalizer:
    """Rewrites one text that comes in pieces.

    Args:
        url_of: the URL of a cursor; empty where there is none.
    """

    def __init__(self, url_of: Callable[[int], str]) -> None:
        self._url_of = url_of
        self._held = ""
        self._length = 0  # of the new text so far

    def feed(self, piece: str) -> tuple[str, list[UrlCitation]]:
        """Take a piece; returns the new text that is certain and the citations in it."""
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        if unfinished and len(text) - unfinished.start() <= _LONGEST:
            self._held = text[unfinished.start() :]
            text = text[: unfinished.start()]
        else:
            self._held = ""
        return self._rewrite(text)

    def finish(self) -> tuple[str, list[UrlCitation]]:
        """The text that was held back; the next piece starts a new text."""
        held, self._held = self._held, ""
        result = self._rewrite(held)
        self._length = 0
        return result

    @property
    def holds_back(self) -> bool:
        """Whether an unfinished bracket waits."""
        return bool(self._held)

    def _rewrite(self, text: str) -> tuple[str, list[UrlCitation]]:
        parts: list[str] = []
        citations: list[UrlCitation] = []
        position, start = 0, self._length
        for match in _CITATION.finditer(text):
            url = self._url_of(int(match["cursor"][:9]))
            if not url:
                continue
            before = text[position : match.start()]
            host = host_of(unquote(url)) or url
            link = f" ([{host}]({url})) "
            start += len(before)
            citations.append(UrlCitation(start, start + len(link), host, url))
            start += len(link)
            parts += [before, link]
            position = match.end()
        parts.append(text[position:])
        self._length = start + len(parts[-1])
        return "".join(parts), citations
