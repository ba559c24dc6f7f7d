"""Conversations -> tokens, with a label for every token.

A message is written as

```
<|start|>role[:name][ to=recipient][<|channel|>channel][ content_type]<|message|>text<|end|>
```

and a call of a tool ends in `<|call|>`. Each piece between markers is encoded on its own and as
plain text, so nothing that a user, a tool or a model wrote can become a marker. The defaults give
the tokens of openai-harmony 0.0.8; `RenderStyle` has what can be done differently.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openai_harmony import (
    Author,
    Conversation,
    DeveloperContent,
    Message,
    Role,
    SystemContent,
    TextContent,
)

from gptoss_harmony import tokens as special
from gptoss_harmony.errors import ConversationError
from gptoss_harmony.sections import developer_text, headings, system_text
from gptoss_harmony.spans import Span

if TYPE_CHECKING:
    from gptoss_harmony.encoding import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderStyle:
    """How a conversation is written.

    Attributes:
        header_order: `recipient_first` writes a past call as
            `assistant to=functions.f<|channel|>commentary`, as openai-harmony 0.0.8 and the model
            cards do; `channel_first` as `assistant<|channel|>commentary to=functions.f`, as models
            write it themselves and oss-harmony renders it.
        schemas: `compatible` writes tool parameters as openai-harmony 0.0.8 does; `complete` also
            writes anyOf, allOf, const, $ref, enums of any type and descriptions of many lines.
        drop_analysis: which old reasoning is left out. `harmony`: when the last assistant message
            is final, analysis before the first final message. `before_last_final`: analysis before
            the last final message, as vLLM does. `never`: none.
    """

    header_order: Literal["recipient_first", "channel_first"] = "recipient_first"
    schemas: Literal["compatible", "complete"] = "compatible"
    drop_analysis: Literal["harmony", "before_last_final", "never"] = "harmony"

    def __post_init__(self) -> None:
        """Refuse words that name no style."""
        choices = {
            "header_order": ("recipient_first", "channel_first"),
            "schemas": ("compatible", "complete"),
            "drop_analysis": ("harmony", "before_last_final", "never"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ConversationError(
                    f"unknown {name} {value!r} in a RenderStyle; choose one of {', '.join(known)}"
                )

    def replace(self, **changes: str) -> RenderStyle:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def kept_messages(messages: Sequence[Message], style: RenderStyle) -> list[Message]:
    """Return the messages that a prompt holds, old analysis dropped as `style` says.

    While the model is at work (the last assistant message is not final) its analysis stays: it
    is reasoning between tool calls that belongs to the answer still being written.
    """
    finals = [i for i, message in enumerate(messages) if message.channel == "final"]
    spoken = [message for message in messages if message.author.role == Role.ASSISTANT]
    if style.drop_analysis == "never" or not finals:
        return list(messages)
    if style.drop_analysis == "before_last_final":
        edge = finals[-1]
    elif spoken and spoken[-1].channel == "final":
        edge = finals[0]
    else:
        return list(messages)
    return [m for i, m in enumerate(messages) if i >= edge or m.channel != "analysis"]


class Renderer:
    """Collects the tokens and spans of one prompt.

    Attributes:
        tokens: ids so far.
        spans: disjoint, in order, covering every token.
    """

    def __init__(self, encoding: Encoding, style: RenderStyle | None = None) -> None:
        self.tokens: list[int] = []
        self.spans: list[Span] = []
        self._encoding = encoding
        self._style = style or RenderStyle()
        self._count = 0  # messages rendered

    def conversation(
        self, conversation: Conversation | Sequence[Message], *, training: bool = False
    ) -> None:
        """Append the messages that the style keeps.

        Args:
            conversation: the messages.
            training: end a last final message with `<|return|>`, as the model does.
        """
        messages = list(conversation)
        functions = any(
            isinstance(content, DeveloperContent)
            and content.tools is not None
            and "functions" in content.tools
            and bool(content.tools["functions"].tools)
            for message in messages
            for content in message.content
        )
        for message in kept_messages(messages, self._style):
            self.message(message, has_functions=functions)
        last = messages[-1] if messages else None
        if training and last and last.author.role == Role.ASSISTANT and last.channel == "final":
            self.tokens[-1] = special.RETURN

    def message(self, message: Message, *, has_functions: bool = False) -> None:
        """Append one message.

        Args:
            message: what to write.
            has_functions: whether the conversation defines function tools, which adds a line to
                the system message.

        Raises:
            ConversationError: a tool without a name, or content that its role cannot have.
        """
        start = len(self.tokens)
        self._header(message)
        marks: list[tuple[int, str]] = []  # (position, heading)
        for content in message.content:
            text = self._content_text(message, content, has_functions=has_functions)
            position = len(self.tokens)
            self._write(text)
            if not isinstance(content, TextContent) or message.author.role in _HEADED:
                marks += self._heading_positions(text, position)
        is_call = message.author.role == Role.ASSISTANT and message.recipient is not None
        self.tokens.append(special.CALL if is_call else special.END)
        self._label(message, start, marks)
        self._count += 1

    def next_turn(
        self, role: Role, *, channel: str | None = None, recipient: str | None = None
    ) -> None:
        """Append `<|start|>role`; with a channel or recipient, the header up to `<|message|>`.

        Args:
            role: who speaks.
            channel: of the message; a call without one is on `commentary`.
            recipient: the tool that is called; the arguments of a function are JSON.
        """
        start = len(self.tokens)
        if channel is None and recipient is None:
            self.tokens.append(special.START)
            self._write(role.value)
        else:
            channel = channel or "commentary"
            is_function = (recipient or "").startswith("functions.")
            kind = "<|constrain|>json" if is_function else None
            author = Author(role=role)
            self._header(
                Message(author=author, channel=channel, recipient=recipient, content_type=kind)
            )
        self.spans.append(
            Span(
                start=start,
                stop=len(self.tokens),
                role=role.value,
                channel=channel,
                message=self._count,
                tool=recipient,
            )
        )

    def _write(self, text: str) -> None:
        if text:
            self.tokens += self._encoding.encode_text(text)

    def _header(self, message: Message) -> None:
        self.tokens.append(special.START)
        self._write(_author(message))
        recipient = message.recipient if message.recipient != "all" else None
        channel_first = self._style.header_order == "channel_first" and message.channel is not None
        if recipient is not None and not channel_first:
            self._write(f" to={recipient}")
        if message.channel is not None:
            self.tokens.append(special.CHANNEL)
            self._write(message.channel)
        if recipient is not None and channel_first:
            self._write(f" to={recipient}")
        if message.content_type is not None:
            kind = message.content_type.removeprefix("<|constrain|>")
            if kind != message.content_type:
                self._write(" ")
                self.tokens.append(special.CONSTRAIN)
                self._write(kind)
            else:
                self._write(f" {kind}")
        self.tokens.append(special.MESSAGE)

    def _content_text(self, message: Message, content: object, *, has_functions: bool) -> str:
        complete = self._style.schemas == "complete"
        role = message.author.role
        match content:
            case TextContent():
                return content.text
            case SystemContent() if role == Role.SYSTEM:
                return system_text(content, has_functions=has_functions, complete=complete)
            case DeveloperContent() if role == Role.DEVELOPER:
                return developer_text(content, complete=complete)
        kind = type(content).__name__
        allowed = {"SystemContent": "system", "DeveloperContent": "developer"}.get(kind, "no")
        raise ConversationError(
            f"message {self._count} has the role {role.value} and a {kind}, "
            f"which belongs into {allowed} messages"
        )

    def _heading_positions(self, text: str, position: int) -> list[tuple[int, str]]:
        """Token positions, from `position` on, where the headings of `text` begin."""
        table = self._encoding.token_bytes
        sizes = [len(table[token]) for token in self.tokens[position:]]
        begins = list(itertools.accumulate(sizes, initial=0))
        return [(position + bisect_left(begins, at), line) for at, line in headings(text)]

    def _label(self, message: Message, start: int, marks: list[tuple[int, str]]) -> None:
        """Append the message's spans: one up to its first heading, then one per heading."""
        role = message.author.role
        tool = message.author.name if role == Role.TOOL else None
        if role == Role.ASSISTANT and message.recipient not in (None, "all"):
            tool = message.recipient
        edges = [(start, None), *marks]
        stops = [position for position, _ in edges[1:]] + [len(self.tokens)]
        for (begin, heading), stop in zip(edges, stops, strict=True):
            self.spans.append(
                Span(
                    start=begin,
                    stop=stop,
                    role=role.value,
                    channel=message.channel,
                    message=self._count,
                    tool=tool,
                    heading=heading,
                )
            )


_HEADED = (Role.SYSTEM, Role.DEVELOPER)


def _author(message: Message) -> str:
    """The first word of a header."""
    role, name = message.author.role, message.author.name
    if role != Role.TOOL:
        return role.value if name is None else f"{role.value}:{name}"
    if name is None:
        raise ConversationError(
            "a tool message needs the tool's name, because it takes the place of the role: "
            "use Author.new(Role.TOOL, 'functions.name')"
        )
    return name
