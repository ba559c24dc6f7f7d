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
    if ENCRYPTED in include:
        response = {**response, "output": [_with_seal(item) for item in response["output"]]}
    return response


def _with_seal(item: Json) -> Json:
    if item["type"] != "reasoning" or "encrypted_content" in item:
        return item
    parts = item.get("content") or item["summary"]
    return {**item, "encrypted_content": seal("".join(part["text"] for part in parts))}
