"""Links inside page text: numbered, written as `【id†text】`, and taken out again."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit, urlunsplit

from gptoss_tools.browser.page import Link, host_of

_SKIPPED = ("mailto:", "javascript:", "data:", "tel:")
_LINK = re.compile(r"【\d+†(?P<text>[^†】]+)(?:†[^†】]+)?】")
_LOOKALIKES = str.maketrans({"【": "〖", "】": "〗", "◼": "◾", "\u200b": None, "\x00": None})
_ASTRAL = re.compile("[\U00010000-\U0001ffff]")


def page_characters(text: str) -> str:
    """Text of a page without the characters that mean something on display."""
    return _ASTRAL.sub("", text.translate(_LOOKALIKES))


class LinkTable:
    """Numbers the distinct URLs of one page, from 0 in the order they come.

    Args:
        base: URL of the page; relative links are resolved against it.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._host = host_of(base)
        self._ids: dict[str, int] = {}

    def render(self, href: str, text: str) -> str:
        """The link as the page shows it; plain text where it leads nowhere else."""
        text = " ".join(text.split()).replace("†", "‡")
        url = self._absolute(href.strip())
        if not text or url is None:
            return text
        identifier = self._ids.setdefault(url, len(self._ids))
        host = page_characters(host_of(url)).replace("†", "‡")
        shown = "" if host_of(url) == self._host else f"†{host}"
        return f"【{identifier}†{text}{shown}】"

    def _absolute(self, href: str) -> str | None:
        if not href or href.startswith("#") or href.lower().startswith(_SKIPPED):
            return None
        try:
            url = urljoin(self._base, href) if self._base else href
            parts = urlsplit(url)
        except ValueError:
            return None
        if not parts.netloc:
            return None
        if parts.hostname in ("arxiv.org", "www.arxiv.org"):
            parts = parts._replace(netloc="ar5iv.org")
        return urlunsplit(parts)

    @property
    def links(self) -> dict[int, Link]:
        """Every link by its id."""
        return {identifier: Link(url) for url, identifier in self._ids.items()}


def without_links(text: str) -> str:
    """Text with links replaced by their words; wrapped lines stay as many as they were."""

    def words(match: re.Match[str]) -> str:
        kept = match.group("text")
        return kept + "\n" * (match.group().count("\n") - kept.count("\n"))

    return _LINK.sub(words, text)
