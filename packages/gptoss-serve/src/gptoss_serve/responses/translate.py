"""Input items of the Responses API -> harmony messages.

| item | message |
|---|---|
| user message | user |
| system and developer messages | joined into the one developer message |
| assistant message | final; with `phase: commentary` a preamble |
| reasoning | analysis: its content, else `encrypted_content`, else its summary |
| compaction | the developer and user messages of then, and the summary as final |
| function_call, custom_tool_call | a call on commentary |
| their outputs | the tool's message, named by `call_id` |
| calls and results of other tools | see `translate_calls` |
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony import Message, assistant_message, call_message, tool_message, user_message
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.names import callable_name
from gptoss_serve.responses.translate_calls import READERS, called

_SEAL = "gptoss1."
_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def seal(text: str) -> str:
    """Put reasoning into `encrypted_content`: opaque to clients, but not a secret."""
    return _SEAL + base64.urlsafe_b64encode(zlib.compress(text.encode(), 1)).decode()


def unseal(sealed: str) -> str | None:
    """Read what `seal` wrote; None if it is somebody else's."""
    try:
        packed = base64.urlsafe_b64decode(sealed.removeprefix(_SEAL).encode())
        unpacked = zlib.decompressobj().decompress(packed, 1 << 24)
        return unpacked.decode() if sealed.startswith(_SEAL) else None
    except (binascii.Error, zlib.error, ValueError):
        return None


@dataclass(slots=True)
class Translation:
    """What input items come to.

    Attributes:
        messages: user, assistant and tool messages.
        instructions: texts for the developer message.
        calls: recipient of each call by its id.
        approved: calls that a user approved and that have not run, by the id of the request.
        listings: tools of remote servers by label, as items told them.
        containers: ids of containers that ran code, the latest first.
    """

    messages: list[Message] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    approved: dict[str, Message] = field(default_factory=dict)
    listings: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)

    @property
    def conversation(self) -> list[Message]:
        """The messages; calls that are to run before the model goes on stand at the end."""
        return [*self.messages, *self.approved.values()]

    def add(self, items: str | Iterable[Mapping[str, Any]], *, where: str = "input") -> None:
        """Take in items, or a text as one user message.

        Raises:
            InvalidRequest: an item that cannot be understood; it is named.
        """
        if isinstance(items, str):
            self.messages.append(user_message(items))
            return
        for position, item in enumerate(items):
            self.add_item(item, f"{where}[{position}]")

    def add_item(self, item: Mapping[str, Any], where: str) -> None:
        """Take in one item, named `where` in errors; see `add`."""
        kind = item.get("type") or ("message" if "role" in item else None)
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise InvalidRequest(
                f"{where}: items of type {kind!r} are not supported; "
                f"supported: {', '.join(sorted(_READERS))}",
                param=f"{where}.type",
                code="unsupported_item",
            )
        reader(self, item, where)

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role = item.get("role")
        text = text_of(item.get("content"), f"{where}.content")
        if role == "user":
            self.messages.append(user_message(text))
        elif role in ("system", "developer"):
            self.instructions.append(text)
        elif role == "assistant":
            channel = "commentary" if item.get("phase") == "commentary" else "final"
            self.messages.append(assistant_message(text, channel=channel))
        else:
            raise InvalidRequest(
                f"{where}: the role is user, assistant, system or developer, not {role!r}",
                param=f"{where}.role",
            )

    def _reasoning(self, item: Mapping[str, Any], where: str) -> None:
        text = text_of(item.get("content"), f"{where}.content")
        summary = text_of(item.get("summary"), f"{where}.summary")
        sealed = item.get("encrypted_content")
        if not text and isinstance(sealed, str):
            text = unseal(sealed) or ""
        text = text or summary
        if isinstance(sealed, str) and not text and unseal(sealed) is None:
            raise _foreign(where)
        if text:
            self.messages.append(assistant_message(text, channel="analysis"))

    def _compaction(self, item: Mapping[str, Any], where: str) -> None:
        text = unseal(_string(item, "encrypted_content", where))
        try:
            content = json.loads(text or "")
            summary = str(content["summary"])
            developer, user = (list(map(str, content[role])) for role in ("developer", "user"))
        except (ValueError, TypeError, KeyError) as error:
            raise _foreign(where) from error
        self.instructions += developer
        self.messages += map(user_message, user)
        self.messages.append(assistant_message(summary, channel="final"))

    def _call(self, item: Mapping[str, Any], where: str) -> None:
        field_name = "input" if item.get("type") == "custom_tool_call" else "arguments"
        name = callable_name(_string(item, "name", where), namespace=item.get("namespace"))
        text = item.get(field_name, "")
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{where}.{field_name} must be a string", param=f"{where}.{field_name}"
            )
        recipient = f"functions.{name}"
        self.calls[_string(item, "call_id", where)] = recipient
        message = call_message(recipient, text)
        if field_name == "input":
            message.content_type = None
        self.messages.append(message)

    def _output(self, item: Mapping[str, Any], where: str) -> None:
        recipient = called(self, item, where)
        output = item.get("output")
        if isinstance(output, dict):
            output = json.dumps(output, ensure_ascii=False)
        self.messages.append(tool_message(recipient, text_of(output, f"{where}.output")))


Reader = Callable[[Translation, Mapping[str, Any], str], None]
_READERS: Mapping[str, Reader] = {
    "message": Translation._message,
    "reasoning": Translation._reasoning,
    "compaction": Translation._compaction,
    "function_call": Translation._call,
    "custom_tool_call": Translation._call,
    "function_call_output": Translation._output,
    "custom_tool_call_output": Translation._output,
    "local_shell_call_output": Translation._output,
    **READERS,
}


def text_of(content: Any, where: str) -> str:
    """The text of a message's content: a string, or a list of text parts.

    Raises:
        InvalidRequest: content that is not text, such as an image; the model reads text only.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be a string or a list of parts", param=where)
    return "".join(_part(part, f"{where}[{position}]") for position, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    raise InvalidRequest(
        f"{where}: gpt-oss reads text only; {kind!r} cannot be taken in",
        param=where,
        code="unsupported_content",
    )


def _foreign(where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where}.encrypted_content was not made by this server, so nothing can read it; "
        "send the content itself, or leave the item out",
        param=f"{where}.encrypted_content",
        code="invalid_encrypted_content",
    )


def _string(item: Mapping[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{key} must be a non-empty string", param=f"{where}.{key}")
    return value
