"""Items about tools whose shape the API fixes -> harmony messages.

| item | message |
|---|---|
| local_shell_call, shell_call, apply_patch_call | a call of `shell` or `apply_patch` |
| their outputs | the tool's message |
| web_search_call, code_interpreter_call | a call on analysis and what is known of its result |
| mcp_list_tools | none: the server is not asked again |
| mcp_call | a call and its result |
| mcp_approval_request | a call |
| mcp_approval_response | the call runs before the model goes on; or its refusal as its result |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gptoss_harmony import Message, Role, call_message, tool_message
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.names import callable_name
from gptoss_serve.responses.patch_sections import patch_text_of
from gptoss_serve.responses.shell_calls import shell_arguments, shell_output

if TYPE_CHECKING:
    from gptoss_serve.responses.translate import Translation

Item = Mapping[str, Any]

_LOST = "[The result of this earlier call was not kept.]"
_SHELL, _PATCH = "functions.shell", "functions.apply_patch"


def web_search(translation: Translation, item: Item, where: str) -> None:
    """A call of the browser; its page is gone unless the server kept the conversation."""
    action = item.get("action")
    action = action if isinstance(action, Mapping) else {}
    function, arguments = {
        "open_page": ("open", {"id": action.get("url") or -1}),
        "find_in_page": ("find", {"pattern": action.get("pattern") or ""}),
    }.get(str(action.get("type")), ("search", {"query": _query(action)}))
    recipient = f"browser.{function}"
    call = call_message(recipient, json.dumps(arguments), channel="analysis")
    translation.messages += [call, tool_message(recipient, _LOST, channel="analysis")]


def _query(action: Mapping[str, Any]) -> str:
    queries = action.get("queries")
    first = queries[0] if isinstance(queries, list) and queries else ""
    return str(action.get("query") or first or "")


def code(translation: Translation, item: Item, where: str) -> None:
    """A call of python, with its logs if the client asked for them."""
    outputs = item.get("outputs")
    logs = [
        str(output.get("logs", ""))
        for output in (outputs if isinstance(outputs, list) else [])
        if isinstance(output, Mapping) and output.get("type") == "logs"
    ]
    call = call_message("python", str(item.get("code") or ""), channel="analysis")
    result = "\n".join(logs) if logs else _LOST
    translation.messages += [call, tool_message("python", result, channel="analysis")]
    container = item.get("container_id")
    if isinstance(container, str) and container:
        translation.containers.insert(0, container)


def shell_call(translation: Translation, item: Item, where: str) -> None:
    """A call of a shell."""
    _call(translation, _SHELL, shell_arguments(item.get("action")), item, where)


def patch_call(translation: Translation, item: Item, where: str) -> None:
    """A call of the patch tool, for one file."""
    _call(translation, _PATCH, patch_text_of(item.get("operation")), item, where)
    translation.messages[-1].content_type = None


def shell_result(translation: Translation, item: Item, where: str) -> None:
    """What a `shell_call` printed."""
    recipient = called(translation, item, where)
    text = shell_output(item.get("output"), f"{where}.output")
    translation.messages.append(tool_message(recipient, text))


def patch_result(translation: Translation, item: Item, where: str) -> None:
    """Whether a file was patched."""
    recipient = called(translation, item, where)
    text = item.get("output") or ""
    if not isinstance(text, str):
        raise InvalidRequest(f"{where}.output must be a string", param=f"{where}.output")
    if item.get("status") == "failed":
        text = f"Error: {text}" if text else "Error: the patch could not be applied"
    translation.messages.append(tool_message(recipient, text or "Done!"))


def listing(translation: Translation, item: Item, where: str) -> None:
    """The tools of a server that was asked before."""
    label, tools = _text(item, "server_label", where), item.get("tools")
    entries = tools if isinstance(tools, list) else []
    for position, tool in enumerate(entries):
        if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
            place = f"{where}.tools[{position}]"
            raise InvalidRequest(f"{place} is a tool with a name", param=place)
    if not item.get("error"):
        translation.listings[label] = entries


def remote_call(translation: Translation, item: Item, where: str) -> None:
    """A call of a remote tool and its result."""
    recipient = _remote(item, where)
    approved = translation.approved.pop(str(item.get("approval_request_id")), None)
    call = approved or call_message(recipient, str(item.get("arguments") or "{}"))
    error, output = item.get("error"), item.get("output")
    result = output if isinstance(output, str) else _LOST
    if error:
        said = error.get("message") if isinstance(error, Mapping) else error
        result = f"Error: {said or json.dumps(error, ensure_ascii=False)}"
    translation.messages += [call, tool_message(recipient, result)]


def approval_request(translation: Translation, item: Item, where: str) -> None:
    """A call that waits for a user."""
    recipient = _remote(item, where)
    translation.calls[_text(item, "id", where)] = recipient
    translation.messages.append(call_message(recipient, str(item.get("arguments") or "{}")))


def approval_response(translation: Translation, item: Item, where: str) -> None:
    """The user's word: the call goes to the end of the conversation, to run or to be refused."""
    request_id = _text(item, "approval_request_id", where)
    recipient = translation.calls.get(request_id)
    if recipient is None:
        raise InvalidRequest(
            f"{where}: there is no approval request {request_id!r} before this answer",
            param=f"{where}.approval_request_id",
        )
    approve = item.get("approve")
    if not isinstance(approve, bool):
        raise InvalidRequest(f"{where}.approve is true or false", param=f"{where}.approve")
    call = _take_waiting(translation.messages, recipient)
    if call is None or request_id in translation.approved:
        raise InvalidRequest(
            f"{where}: the approval request {request_id!r} was answered before",
            param=f"{where}.approval_request_id",
        )
    if approve:
        translation.approved[request_id] = call
        return
    reason = item.get("reason")
    words = f": {reason}" if isinstance(reason, str) and reason else "."
    refusal = f"The user did not allow this call{words}"
    translation.messages += [call, tool_message(recipient, refusal)]


def called(translation: Translation, item: Item, where: str) -> str:
    """Whom the call that an output answers was for.

    Raises:
        InvalidRequest: there was no such call.
    """
    # Outputs of local shells name their call by `id`.
    name = "call_id" if item.get("call_id") else "id"
    call_id = _text(item, name if item.get(name) else "call_id", where)
    recipient = translation.calls.get(call_id)
    if recipient is None:
        raise InvalidRequest(
            f"{where}: no tool call with call_id {call_id!r} comes before this output",
            param=f"{where}.call_id",
        )
    return recipient


def _take_waiting(messages: list[Message], recipient: str) -> Message | None:
    """Take out the latest call of a tool, if nothing answered it."""
    for position in range(len(messages) - 1, -1, -1):
        author = messages[position].author
        if author.role == Role.TOOL and author.name == recipient:
            return None
        if author.role == Role.ASSISTANT and messages[position].recipient == recipient:
            return messages.pop(position)
    return None


def _call(translation: Translation, recipient: str, text: str, item: Item, where: str) -> None:
    translation.calls[_text(item, "call_id", where)] = recipient
    translation.messages.append(call_message(recipient, text))


def _remote(item: Item, where: str) -> str:
    label, name = _text(item, "server_label", where), _text(item, "name", where)
    return f"functions.{callable_name(name, namespace=label)}"


def _text(item: Item, key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{key} must be a non-empty string", param=f"{where}.{key}")
    return value


Reader = Callable[["Translation", Item, str], None]
READERS: Mapping[str, Reader] = {
    "web_search_call": web_search,
    "code_interpreter_call": code,
    "local_shell_call": shell_call,
    "shell_call": shell_call,
    "shell_call_output": shell_result,
    "apply_patch_call": patch_call,
    "apply_patch_call_output": patch_result,
    "mcp_list_tools": listing,
    "mcp_call": remote_call,
    "mcp_approval_request": approval_request,
    "mcp_approval_response": approval_response,
}
