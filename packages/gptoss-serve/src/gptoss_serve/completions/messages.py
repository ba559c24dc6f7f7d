"""Messages and tools of Chat Completions -> harmony.

An assistant message with calls was, in the model's own words, analysis, then a preamble, then one
message per call; thoughts are read from `reasoning` or `reasoning_content`, whichever is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gptoss_harmony import ResponseFormat, assistant_message, call_message, tool_message
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.names import callable_name
from gptoss_serve.responses.tools import ToolPlan, plan_tools
from gptoss_serve.responses.translate import Translation, text_of
from gptoss_serve.toolbox import Toolbox


def translate_messages(messages: list[dict[str, Any]]) -> Translation:
    """Read the messages of a request.

    Raises:
        InvalidRequest: one that cannot be understood; it is named.
    """
    translation = Translation()
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role = message.get("role")
        if role == "assistant":
            _assistant(translation, message, where)
        elif role == "tool":
            _tool(translation, message, where)
        elif role in ("user", "system", "developer"):
            item = {"type": "message", "role": role, "content": message.get("content")}
            translation.add_item(item, where)
        else:
            raise InvalidRequest(
                f"{where}: the role is system, developer, user, assistant or tool, not {role!r}",
                param=f"{where}.role",
            )
    return translation


def _assistant(translation: Translation, message: Mapping[str, Any], where: str) -> None:
    thoughts = message.get("reasoning") or message.get("reasoning_content")
    text = text_of(message.get("content"), f"{where}.content")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where}.tool_calls is a list", param=f"{where}.tool_calls")
    if isinstance(thoughts, str) and thoughts:
        translation.messages.append(assistant_message(thoughts, channel="analysis"))
    if text:
        channel = "commentary" if calls else "final"
        translation.messages.append(assistant_message(text, channel=channel))
    for position, call in enumerate(calls):
        _call(translation, call, f"{where}.tool_calls[{position}]")


def _call(translation: Translation, call: Any, where: str) -> None:
    inner = call.get("function") or call.get("custom") if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise InvalidRequest(f"{where} is a call with a function and its name", param=where)
    text = inner.get("arguments", inner.get("input")) or ""
    if isinstance(text, Mapping):  # as other servers' clients write arguments
        text = json.dumps(text, ensure_ascii=False)
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}: the arguments of a call are a string", param=where)
    recipient = f"functions.{callable_name(inner['name'])}"
    translation.calls[str(call.get("id"))] = recipient
    translation.messages.append(call_message(recipient, text))


def _tool(translation: Translation, message: Mapping[str, Any], where: str) -> None:
    call_id = message.get("tool_call_id")
    recipient = translation.calls.get(str(call_id))
    if recipient is None:
        raise InvalidRequest(
            f"{where}: no tool call with the id {call_id!r} comes before this answer",
            param=f"{where}.tool_call_id",
        )
    text = text_of(message.get("content"), f"{where}.content")
    translation.messages.append(tool_message(recipient, text))


def plan_chat_tools(tools: list[dict[str, Any]], choice: Any, toolbox: Toolbox) -> ToolPlan:
    """Read the tools, whose descriptions are one level deeper than in the Responses API."""
    flat = []
    for position, tool in enumerate(tools):
        kind = tool.get("type")
        inner = tool.get(kind) if isinstance(kind, str) else None
        if kind in ("function", "custom") and not isinstance(inner, Mapping):
            raise InvalidRequest(
                f"tools[{position}] needs the field {kind!r}", param=f"tools[{position}].{kind}"
            )
        flat.append({**inner, "type": kind} if isinstance(inner, Mapping) else tool)
    return plan_tools(flat, choice, toolbox)


def response_format(
    given: Mapping[str, Any] | None,
) -> tuple[Mapping[str, Any] | None, ResponseFormat | None]:
    """The schema to enforce, and the one to show the model."""
    kind = "text" if given is None else given.get("type")
    if given is None or kind == "text":
        return None, None
    if kind == "json_object":
        return {"type": "object"}, None
    inner = given.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if kind != "json_schema" or not isinstance(inner, Mapping) or not isinstance(schema, Mapping):
        raise InvalidRequest(
            "response_format is text, json_object, or json_schema with a name and a schema",
            param="response_format",
        )
    name = str(inner.get("name") or "response")
    description = inner.get("description")
    shown = ResponseFormat(schema, name, description if isinstance(description, str) else None)
    return schema, shown
