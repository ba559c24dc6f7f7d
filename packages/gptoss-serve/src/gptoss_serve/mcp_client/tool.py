"""One tool of an MCP server, as a tool that runs in the loop of a turn."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from gptoss_harmony import Message, ToolNamespaceConfig
from gptoss_harmony.tool import ToolReply
from gptoss_serve.functions import ClientFunction
from gptoss_serve.mcp_client.connection import McpConnection
from gptoss_serve.mcp_client.failure import McpFailure
from gptoss_tools.reply import answer, call_text

_MOST_CHARACTERS = 400_000  # of one answer; far more than any context holds


class McpTool:
    """Calls one tool of a server.

    Args:
        function: what the model is told and calls.
        connection: to the server.
    """

    def __init__(self, function: ClientFunction, connection: McpConnection) -> None:
        self._function = function
        self._connection = connection
        self._report: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What the model calls, without `functions.`."""
        return self._function.callable_name

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The function as the developer message describes it."""
        return ToolNamespaceConfig(
            name="functions", description=None, tools=[self._function.described()]
        )

    def instruction(self) -> str:
        """Nothing beyond the description."""
        return ""

    def report(self) -> Mapping[str, Any]:
        """Whether the last call failed, and the `error` of its `mcp_call`."""
        return self._report

    def process(self, message: Message) -> ToolReply:
        """Make one call; whatever goes wrong comes back as text."""

        async def reply() -> AsyncGenerator[Message, None]:
            name = message.recipient or f"functions.{self.name}"
            yield answer(message, await self._answer(call_text(message)), name=name)

        return ToolReply(reply())

    async def _answer(self, text: str) -> str:
        self._report = {}
        try:
            arguments = json.loads(text or "{}", strict=False)
        except (ValueError, RecursionError) as error:
            return self._failed(McpFailure.protocol(-32602, f"the arguments are not JSON: {error}"))
        if not isinstance(arguments, dict):
            return self._failed(McpFailure.protocol(-32602, "the arguments are no JSON object"))
        try:
            result = await self._connection.call(self._function.name, arguments)
        except McpFailure as failure:
            return self._failed(failure)
        words = result_text(result)
        if result.is_error:
            content = [_plain(part) for part in result.content]
            said = {"type": "mcp_tool_execution_error", "content": content}
            self._report = {"failed": True, "error": said}
        return words

    def _failed(self, failure: McpFailure) -> str:
        self._report = {"failed": True, "error": failure.error}
        return f"Error: {failure}"


def result_text(result: Any) -> str:
    """What the model reads of a result: its texts, and a word for everything else."""
    parts = [_words(part) for part in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    text = "\n".join(parts)
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}\n[cut: {len(text)} characters]"
    return text


def _words(part: Any) -> str:
    if part.type == "text":
        return str(part.text)
    if part.type == "resource":
        text = getattr(part.resource, "text", None)
        return str(text) if text is not None else f"[a file: {part.resource.uri}]"
    if part.type == "resource_link":
        return f"[a link: {part.uri}]"
    return f"[{part.type} {part.mime_type}: not readable as text]"


def _plain(part: Any) -> dict[str, Any]:
    plain: dict[str, Any] = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return plain if part.type == "text" else {"type": part.type, "text": _words(part)}
