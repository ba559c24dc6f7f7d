"""`include` of a response that was made before: what can still be added, and what was not kept."""

from __future__ import annotations

from collections.abc import Sequence

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.parts import Json
from gptoss_serve.responses.schema import CODE_OUTPUTS, ENCRYPTED, LOGPROBS, SOURCES
from gptoss_serve.responses.store import Record
from gptoss_serve.responses.translate import seal

_MADE_ONCE = (CODE_OUTPUTS, LOGPROBS, SOURCES)


def with_included(record: Record, include: Sequence[str]) -> Json:
    """The response of a record, with what is to be included.

    Raises:
        InvalidRequest: it had to be asked for when the response was made.
    """
    for position, value in enumerate(include):
        if value in _MADE_ONCE and value not in record.include:
            raise InvalidRequest(
                f"include[{position}]: {value} was not kept; ask for it when creating the response",
                param=f"include[{position}]",
            )
    response: Json = record.response
    return {**response, "output": items_with_included(response["output"], include)}


def items_with_included(items: list[Json], include: Sequence[str]) -> list[Json]:
    """The items with what can be added to any."""
    return [_with_seal(item) for item in items] if ENCRYPTED in include else items


def _with_seal(item: Json) -> Json:
    if item["type"] != "reasoning" or "encrypted_content" in item:
        return item
    parts = item.get("content") or item.get("summary") or []
    return {**item, "encrypted_content": seal("".join(part["text"] for part in parts))}
