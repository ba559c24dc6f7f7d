"""The arguments of a browser call, from the model's JSON: checked, converted, never trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from gptoss_tools.browser.state import CallError

FUNCTIONS = ("search", "open", "find")
_WHOLE = re.compile(r"\s*-?\d+\s*")


def _string(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise CallError(f"`{name}` should be a string, not `{type(value).__name__}`.")


def _integer(name: str, value: Any) -> int:
    """A whole number; models also write 3.0 and "3"."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value.strip()[:18])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise CallError(f"`{name}` should be an integer, not `{type(value).__name__}`.")


def _link_or_url(name: str, value: Any) -> int | str:
    """A link id, also one written as a string; any other string is a URL."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        return value.strip()
    return _integer(name, value)


def _boolean(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, bool):
        return value
    raise CallError(f"`{name}` should be a boolean, not `{type(value).__name__}`.")


_Rule = tuple[Callable[[str, Any], Any], Any]
_REQUIRED = object()
_RULES: dict[str, dict[str, _Rule]] = {
    "search": {
        "query": (_string, _REQUIRED),
        "topn": (_integer, 10),
        "source": (_string, None),
    },
    "open": {
        "id": (_link_or_url, -1),
        "cursor": (_integer, -1),
        "loc": (_integer, -1),
        "num_lines": (_integer, -1),
        "view_source": (_boolean, False),
        "source": (_string, None),
    },
    "find": {
        "pattern": (_string, _REQUIRED),
        "cursor": (_integer, -1),
    },
}
_ALIASES = {("search", "top_n"): "topn"}


def parse_arguments(text: str) -> dict[str, Any] | None:
    """The JSON object in a call; None where there is none. No text means no arguments."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_arguments(function: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of a function, with defaults.

    Raises:
        CallError: naming the argument that is missing, unknown or of the wrong type.
    """
    rules = _RULES[function]
    named = {_ALIASES.get((function, name), name): value for name, value in given.items()}
    if unknown := sorted(named.keys() - rules.keys()):
        raise CallError(
            f"`{function}` has no argument `{unknown[0]}`; it takes: {', '.join(rules)}."
        )
    checked: dict[str, Any] = {}
    for name, (convert, default) in rules.items():
        value = named.get(name)
        if value is None:  # also an explicit null
            if default is _REQUIRED:
                raise CallError(f"`{function}` needs the argument `{name}`.")
            checked[name] = default
        else:
            checked[name] = convert(name, value)
    return checked
