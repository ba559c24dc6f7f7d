"""Terminal text made plain: colours and cursor moves go, the text stays."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def without_escapes(text: str) -> str:
    """Text without ANSI escape sequences; a line overwritten by carriage returns shows its last."""
    text = _ESCAPE.sub("", text)
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
