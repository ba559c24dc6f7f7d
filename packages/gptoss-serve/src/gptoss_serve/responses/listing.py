"""Input as `input_items` lists it: every item with an id and the fields that a list promises.

Clients may write less than they read: a message without `type`, a text instead of parts, a call
without a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.parts import Json, new_id

_PREFIXES: Mapping[str, str] = {
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "web_search_call": "ws",
    "code_interpreter_call": "ci",
    "shell_call_output": "sho",
    "apply_patch_call_output": "apco",
    "mcp_approval_response": "mcpa",
    "compaction": "cmp",
}
_WITHOUT_STATUS = (
    "reasoning",
    "compaction",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
)


def listed(given: str | list[dict[str, Any]] | None) -> list[Json]:
    """Input as a list of whole items.

    Raises:
        InvalidRequest: an id that is no text.
    """
    if given is None:
        return []
    if isinstance(given, str):
        return [_item({"role": "user", "content": given}, "input")]
    return [_item(item, f"input[{position}]") for position, item in enumerate(given)]


def page_of(items: list[Json], *, order: str, after: str | None, limit: int) -> Json:
    """A page of a list, newest first unless `order` is `asc`.

    Raises:
        InvalidRequest: it names the argument that makes no sense.
    """
    if order not in ("asc", "desc"):
        raise InvalidRequest("order is asc or desc", param="order")
    if not 1 <= limit <= 100:
        raise InvalidRequest("limit is 1 to 100", param="limit")
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        place = next((i for i, item in enumerate(ordered) if item["id"] == after), None)
        if place is None:
            raise InvalidRequest(f"there is no item {after!r} here", param="after")
        ordered = ordered[place + 1 :]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(ordered) > limit,
    }


def _item(item: Mapping[str, Any], where: str) -> Json:
    kind = item.get("type") or "message"
    given = item.get("id")
    if given is not None and not (isinstance(given, str) and given):
        raise InvalidRequest(f"{where}.id must be a text", param=f"{where}.id")
    whole = {**item, "id": given or new_id(_PREFIXES.get(kind, "msg")), "type": kind}
    if kind not in _WITHOUT_STATUS:
        whole["status"] = item.get("status") or "completed"
    if kind == "message":
        whole["content"] = _content(item)
    elif kind == "reasoning":
        whole["summary"] = _parts(item.get("summary"), "summary_text")
        if item.get("content") is not None:
            whole["content"] = _parts(item["content"], "reasoning_text")
    elif kind.endswith("_output") and isinstance(item.get("output"), list):
        whole["output"] = _parts(item["output"], "input_text")
    return whole


def _content(item: Mapping[str, Any]) -> list[Json]:
    if item.get("role") != "assistant":
        return _parts(item.get("content"), "input_text")
    return [
        part if part.get("type") == "refusal" else {"annotations": [], **part}
        for part in _parts(item.get("content"), "output_text")
    ]


def _parts(content: Any, kind: str) -> list[Json]:
    """Text as parts; parts of clients that name all text alike get the name of their place."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": kind, "text": content}]
    return [
        {"type": kind, "text": part} if isinstance(part, str) else _named(part, kind)
        for part in content
    ]


def _named(part: Mapping[str, Any], kind: str) -> Json:
    return {**part, "type": kind} if isinstance(part.get("text"), str) else dict(part)
