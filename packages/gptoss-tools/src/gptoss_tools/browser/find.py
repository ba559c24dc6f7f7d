"""Looking for text on a page: the hits as a page of their own, whose links lead to the lines."""

from __future__ import annotations

from urllib.parse import quote

from gptoss_tools.browser.links import without_links
from gptoss_tools.browser.page import Link, Page

MAX_HITS = 50
_SHOWN_LINES = 4


def find_page(page: Page, number: int, pattern: str) -> Page:
    """Every place where `pattern` occurs, in any letter case, links aside.

    Args:
        page: where to look.
        number: the identity of that page in the conversation, for the links back.
        pattern: plain text within a line.
    """
    lines = without_links("\n".join(page.lines)).split("\n")
    wanted = pattern.lower()
    chunks: list[str] = []
    links: dict[int, Link] = {}
    line = 0
    while line < len(lines) and len(chunks) < MAX_HITS:
        if wanted not in lines[line].lower():
            line += 1
            continue
        hit = len(chunks)
        snippet = "\n".join(lines[line : line + _SHOWN_LINES])
        chunks.append(f"# 【{hit}†match at L{line}】\n{snippet}")
        links[hit] = Link(page.url, page=number, line=line)
        line += _SHOWN_LINES
    return Page(
        url=f"{page.url}/find?pattern={quote(pattern)}",
        title=f"Find results for text: `{pattern}` in `{page.title}`",
        text="\n\n".join(chunks) or f"No `find` results for pattern: `{pattern}`",
        links=links,
        kind="find",
    )
