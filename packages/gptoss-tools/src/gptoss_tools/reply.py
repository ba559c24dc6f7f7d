"""Messages of tools: what a call says, and answers in the form that the model was trained on.

An answer has the role tool, the name of the function as its author, the recipient `assistant` and
the channel of the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

from openai_harmony import Author, Message, Role, TextContent

from gptoss_harmony.tool import ToolReply


def call_text(message: Message) -> str:
    """All text of a call; content that is not text does not count."""
    return "".join(part.text for part in message.content if isinstance(part, TextContent))


def answer(call: Message, text: str, *, name: str) -> Message:
    """The message that answers `call` in the name of a tool's function."""
    author = Author(role=Role.TOOL, name=name)
    # Half characters (from bad JSON, or bytes of a file that are no text) cannot be sent.
    whole = text.encode("utf-8", "replace").decode("utf-8")
    message = Message(author=author, content=[TextContent(text=whole)]).with_recipient("assistant")
    return message if call.channel is None else message.with_channel(call.channel)


def single_reply(answering: Awaitable[Message]) -> ToolReply:
    """A reply of exactly one message."""

    async def messages() -> AsyncIterator[Message]:
        yield await answering

    return ToolReply(messages())
