"""Headers that lack their frame: no `<|message|>` after them, or no `<|start|>` before them.

```
>>> header_length("<|channel|>commentary to=f <|constrain|>json{}")
44
```
"""

from __future__ import annotations

import re
from typing import Final

from gptoss_harmony.header import CHANNELS, ROLES, read_header

_START: Final = re.compile(rf"\s*(?:<\|c|to=|(?:{'|'.join(ROLES)})\b)")
_PARTS: Final = re.compile(
    rf"""\s*(?:(?:{"|".join(ROLES)})(?=[\s<]|$))*      # a role that the prompt may also have had
    (?:\s*<\|channel\|>\s*(?:{"|".join(CHANNELS)}|[^\s<]*$)?  # a channel
      |\s*to=[^\s<{{]*                                  # a recipient
      |\s*<\|constrain\|>\s*[a-z]*                      # a content type
    )*\s?""",
    re.VERBOSE,
)


def looks_like_header(text: str) -> bool:
    """Whether text that came without `<|start|>` begins as a header does."""
    return _START.match(text) is not None


def header_length(text: str) -> int:
    """Return how many characters at the start of `text` are header; 0 if it is all text."""
    match = _PARTS.match(text)
    length = match.end() if match else 0
    return length if text[:length].strip() else 0


def implied_role(text: str) -> str | None:
    """Return the role of a header that starts with a marker or a recipient: the assistant's."""
    return "assistant" if text.lstrip().startswith(("<|", "to=")) else None


def is_believable(text: str, role: str | None) -> bool:
    """Whether a would-be header in the middle of a message is one.

    Args:
        text: what stands before `<|message|>`.
        role: as for `read_header`.
    """
    header, flaws = read_header(text, role)
    known = header.channel in CHANNELS or (role is None and header.role != "tool")
    return known and not any(flaw.kind in ("unknown_role", "extra_words") for flaw in flaws)
