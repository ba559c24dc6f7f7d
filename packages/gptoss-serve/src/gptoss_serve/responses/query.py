"""What stands behind the `?` of a URL, checked and named in errors."""

from __future__ import annotations

from starlette.datastructures import QueryParams

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.schema import check_include


def flag(query: QueryParams, name: str) -> bool:
    """`true` or `false`, the latter where it is absent.

    Raises:
        InvalidRequest: something else.
    """
    text = query.get(name, "false").lower()
    if text not in ("true", "1", "false", "0"):
        raise InvalidRequest(f"{name} is true or false, not {text!r}", param=name)
    return text in ("true", "1")


def number(query: QueryParams, name: str, *, default: int) -> int:
    """A whole number.

    Raises:
        InvalidRequest: it is none, or below 0.
    """
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidRequest(f"{name} must be a whole number, not {text[:40]!r}", param=name)
    return int(text)


def include(query: QueryParams) -> list[str]:
    """What is to be included, in either spelling of a list.

    Raises:
        InvalidRequest: something that cannot be.
    """
    values = [*query.getlist("include"), *query.getlist("include[]")]
    check_include(values)
    return values
