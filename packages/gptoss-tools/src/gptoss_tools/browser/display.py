"""What a tool message shows of a page: a header, the window's bounds, and numbered lines."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gptoss_harmony.encoding import load_encoding
from gptoss_tools.browser.links import page_characters
from gptoss_tools.browser.page import Page

VIEW_TOKENS = 1024
_MAX_URL = 1024
_MAX_TITLE = 300
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MAX_CHARACTERS_PER_TOKEN = 128


def display(
    page: Page,
    cursor: int,
    *,
    loc: int = 0,
    num_lines: int = -1,
    view_tokens: int = VIEW_TOKENS,
) -> str:
    """The message for lines from `loc` on.

    Args:
        page: what to show.
        cursor: its place in the conversation.
        loc: first line; must exist.
        num_lines: how many lines; 0 or less shows as many as fit `view_tokens`.
        view_tokens: size of the window, counted on the numbered lines.
    """
    lines = page.lines
    stop = min(loc + _count(lines, loc, num_lines, view_tokens), len(lines))
    header = shortened(_one_line(page.title), _MAX_TITLE)
    if page.url:
        header += f" ({shortened(_one_line(unquote(page.url)))})"
    body = _numbered(lines[loc:stop], loc)
    bounds = f"**viewing lines [{loc} - {stop - 1}] of {len(lines) - 1}**"
    return f"[{cursor}] {header}\n{bounds}\n\n{body}"


def shortened(text: str, limit: int = _MAX_URL) -> str:
    """Text of at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _one_line(text: str) -> str:
    """A title or URL that cannot pass for lines, links or citations of the page."""
    return page_characters(_CONTROLS.sub(" ", text))


def _numbered(lines: list[str], start: int) -> str:
    return "\n".join(f"L{start + offset}: {line}" for offset, line in enumerate(lines))


def _count(lines: list[str], loc: int, num_lines: int, view_tokens: int) -> int:
    if num_lines > 0:
        return num_lines
    # Every line has at least four characters ("L0: "), so this many are enough to look at.
    limit = (view_tokens + 1) * _MAX_CHARACTERS_PER_TOKEN
    text = _numbered(lines[loc : loc + limit // 4], loc)[:limit]
    if len(text) <= view_tokens:  # a token has at least one character
        return len(lines)
    fitting = _prefix_of_tokens(text, view_tokens)
    return len(lines) if fitting is None else fitting.count("\n") + 1


def _prefix_of_tokens(text: str, count: int) -> str | None:
    """The text of the first `count` tokens; None if there are no more than that."""
    encoding = load_encoding()
    size = count * 8
    while True:
        tokens = encoding.encode_text(text[:size])
        # The last tokens of a cut text may differ from those of the whole: look a little further.
        if len(tokens) > count + 8 or size >= len(text):
            return encoding.decode(tokens[:count]) if len(tokens) > count else None
        size *= 2
