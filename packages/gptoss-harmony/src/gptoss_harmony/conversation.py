"""Conversations: the messages of openai-harmony, and short ways to write them.

```
conversation = Conversation.from_messages([
    system_message(effort="high", date="2026-11-22", tools=["browser"]),
    developer_message("Answer in French.", functions=[weather]),
    user_message("What is the weather in Lyon?"),
    call_message("functions.weather", {"city": "Lyon"}),
    tool_message("functions.weather", '{"celsius": 7}'),
])
```

`Message`, `Conversation`, `SystemContent` and the rest are openai-harmony's own classes: code that
builds conversations with them needs another import line and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from openai_harmony import (
    Author,
    ChannelConfig,
    Content,
    Conversation,
    DeveloperContent,
    Message,
    ReasoningEffort,
    RenderConversationConfig,
    RenderOptions,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
)

from gptoss_harmony.errors import ConversationError

__all__ = [
    "Author",
    "ChannelConfig",
    "Content",
    "Conversation",
    "DeveloperContent",
    "Message",
    "ReasoningEffort",
    "RenderConversationConfig",
    "RenderOptions",
    "ResponseFormat",
    "Role",
    "SystemContent",
    "TextContent",
    "ToolDescription",
    "ToolNamespaceConfig",
    "assistant_message",
    "call_message",
    "developer_message",
    "function_tool",
    "system_message",
    "tool_message",
    "user_message",
]


class HasToolConfig(Protocol):
    """A tool that says how the model is told about it; every `gptoss_harmony.tool.Tool` does."""

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The namespace, its description and functions."""
        ...


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A JSON Schema that the final answer should follow.

    The developer message shows it to the model, which steers and does not force; `grammar`
    forces.

    Attributes:
        schema: the JSON Schema.
        name: the heading above it.
        description: a comment above it, or None.
    """

    schema: Mapping[str, Any]
    name: str = "response"
    description: str | None = None

    def text(self) -> str:
        """Return the `# Response Formats` section."""
        try:
            schema = json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise ConversationError(f"the response format is not JSON: {error}") from error
        comment = "".join(f"// {line}\n" for line in (self.description or "").splitlines())
        return f"# Response Formats\n\n## {self.name}\n\n{comment}{schema}"


def system_message(
    *,
    effort: Literal["low", "medium", "high"] | ReasoningEffort | None = "medium",
    date: str | None = None,
    identity: str | None = "You are ChatGPT, a large language model trained by OpenAI.",
    knowledge_cutoff: str | None = "2024-06",
    tools: Iterable[str | ToolNamespaceConfig | HasToolConfig] = (),
    channels: Sequence[str] = ("analysis", "commentary", "final"),
) -> Message:
    """Return a system message.

    Args:
        effort: how long to think; None leaves the line out.
        date: of today, such as `2026-11-22`.
        identity: the first line.
        knowledge_cutoff: year and month.
        tools: built-in tools: `browser`, `python`, a namespace, or a `Tool`.
        channels: those that the model may use; () leaves the line out.

    Raises:
        ConversationError: an effort or tool that does not exist.
    """
    content = SystemContent(
        model_identity=identity,
        reasoning_effort=_effort(effort),
        conversation_start_date=date,
        knowledge_cutoff=knowledge_cutoff,
        channel_config=ChannelConfig.require_channels(list(channels)) if channels else None,
    )
    for tool in tools:
        content = content.with_tools(_namespace(tool))
    return Message.from_role_and_content(Role.SYSTEM, content)


def developer_message(
    instructions: str | None = None,
    *,
    functions: Iterable[ToolDescription | Mapping[str, Any]] = (),
    tools: Iterable[ToolNamespaceConfig | HasToolConfig] = (),
    response_format: ResponseFormat | Mapping[str, Any] | None = None,
) -> Message:
    """Return a developer message.

    Args:
        instructions: what other APIs call the system prompt.
        functions: what the model may call, as `ToolDescription` or as the Responses or Chat
            Completions API writes a function tool.
        tools: namespaces beside `functions`.
        response_format: a `ResponseFormat`, or a JSON Schema.

    Raises:
        ConversationError: a function without a name.
    """
    content = DeveloperContent(instructions=instructions)
    described = [f if isinstance(f, ToolDescription) else function_tool(f) for f in functions]
    if described:
        content = content.with_function_tools(described)
    for tool in tools:
        content = content.with_tools(_namespace(tool))
    message = Message.from_role_and_content(Role.DEVELOPER, content)
    if response_format is None:
        return message
    if not isinstance(response_format, ResponseFormat):
        response_format = ResponseFormat(response_format)
    gap = "\n\n" if instructions is not None or content.tools else ""
    return message.adding_content(gap + response_format.text())


def user_message(text: str, *, name: str | None = None) -> Message:
    """Return what a user said."""
    return Message.from_author_and_content(Author(role=Role.USER, name=name), text)


def assistant_message(text: str, *, channel: str = "final") -> Message:
    """Return what the model said, on a channel."""
    return Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel)


def call_message(
    recipient: str, arguments: str | Mapping[str, Any], *, channel: str = "commentary"
) -> Message:
    """Return a call of a tool by the model.

    Args:
        recipient: for example `functions.weather` or `python`.
        arguments: JSON as a mapping, or raw text.
        channel: `commentary` for functions, `analysis` for built-in tools.
    """
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    message = assistant_message(text, channel=channel).with_recipient(recipient)
    if isinstance(arguments, str) and not recipient.startswith("functions."):
        return message
    return message.with_content_type("<|constrain|>json")


def tool_message(name: str, text: str, *, channel: str = "commentary") -> Message:
    """Return a tool's answer to a call.

    Args:
        name: who answers, the call's recipient.
        text: the answer.
        channel: that of the call.
    """
    message = Message.from_author_and_content(Author(role=Role.TOOL, name=name), text)
    return message.with_recipient("assistant").with_channel(channel)


def function_tool(tool: Mapping[str, Any]) -> ToolDescription:
    """Read a function tool as the Responses API (flat) or Chat Completions (nested) writes it.

    Raises:
        ConversationError: it has no name.
    """
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ConversationError(f"a function tool needs a name: {json.dumps(dict(tool))[:200]}")
    return ToolDescription(
        name=name,
        description=function.get("description") or "",
        parameters=function.get("parameters"),
    )


def _effort(effort: str | ReasoningEffort | None) -> ReasoningEffort | None:
    if effort is None or isinstance(effort, ReasoningEffort):
        return effort
    try:
        return ReasoningEffort(effort.capitalize())
    except ValueError as error:
        raise ConversationError(
            f"unknown reasoning effort {effort!r}; choose low, medium or high"
        ) from error


def _namespace(tool: str | ToolNamespaceConfig | HasToolConfig) -> ToolNamespaceConfig:
    if isinstance(tool, ToolNamespaceConfig):
        return tool
    if not isinstance(tool, str):
        return tool.tool_config
    match tool:
        case "browser":
            return ToolNamespaceConfig.browser()
        case "python":
            return ToolNamespaceConfig.python()
    raise ConversationError(f"unknown built-in tool {tool!r}; choose browser or python")
