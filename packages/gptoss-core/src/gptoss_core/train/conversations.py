"""JSONL conversations -> tokenised documents with loss on the assistant's chosen channels.

One conversation a line, either harmony's own JSON or the chat form that most data sets use:

```
{"messages": [{"role": "user", "content": "Hi"},
              {"role": "assistant", "channel": "final", "content": "Hello."}]}
{"effort": "low",
 "messages": [{"role": "user", "content": "Hi"},
              {"role": "assistant", "thinking": "Greet.", "content": "Hello."}]}
```

A conversation without a system message gets the default one, which every engine sends, with the
effort of its line (medium where it names none).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openai_harmony import Author, Conversation, DeveloperContent, Message, Role

from gptoss_core.train.documents import LOSS, Documents
from gptoss_harmony import tokens as special
from gptoss_harmony.conversation import system_message
from gptoss_harmony.errors import HarmonyError, UsageError
from gptoss_harmony.spans import Span

PROSE = 5 << 4  # position class of an answer's tokens where nothing finer is known


def load_conversations(paths: Sequence[Path], *, channels: Sequence[str]) -> Documents:
    """Read, render and label every conversation of the files.

    Args:
        paths: `.jsonl` files.
        channels: assistant channels that carry loss.

    Raises:
        UsageError: a file cannot be read, holds a line that is no conversation, or nothing to
            learn.
    """
    from gptoss_harmony.encoding import load_encoding
    from gptoss_harmony.render import Renderer, RenderStyle

    encoding, style = load_encoding(), RenderStyle(drop_analysis="never")
    tokens: list[int] = []
    labels: list[int] = []
    starts = [0]
    for place, line in _lines(paths):
        renderer = Renderer(encoding, style)
        try:
            renderer.conversation(read_conversation(line), training=True)
        except (HarmonyError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{place}: not a harmony conversation ({error})") from error
        marks = loss_labels(renderer.tokens, renderer.spans, channels)
        if any(marks):
            tokens += renderer.tokens
            labels += marks
            starts.append(len(tokens))
    if len(starts) == 1:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no assistant message on channel "
            f"{' or '.join(channels)}: there is nothing to learn"
        )
    return Documents(
        tokens=np.array(tokens, dtype=np.uint32),
        labels=np.array(labels, dtype=np.uint8),
        starts=np.array(starts, dtype=np.int64),
        task=np.zeros(len(starts) - 1, dtype=np.uint8),
        tasks=("conversation",),
    )


def loss_labels(tokens: Sequence[int], spans: Sequence[Span], channels: Sequence[str]) -> list[int]:
    """The label of each token: loss on the assistant's messages whose channel is chosen.

    The header counts, since the model writes it; only `<|start|>assistant` of a turn's first
    message does not, because the prompt already holds it.
    """
    labels = [0] * len(tokens)
    previous = None
    for span in spans:
        if span.role == "assistant" and span.channel in channels:
            start = span.start
            if previous != "assistant" and tokens[start] == special.START:
                start += 2
            labels[start : span.stop] = [LOSS | PROSE] * (span.stop - start)
        previous = span.role
    return labels


def read_conversation(line: str) -> Conversation:
    """One line of JSONL as a conversation."""
    record = json.loads(line)
    messages = record["messages"] if isinstance(record, dict) else record
    if not isinstance(messages, list) or not messages:
        raise ValueError("expected a list of messages under the key 'messages'")
    made = [message for item in messages for message in _messages(item)]
    if made[0].author.role != Role.SYSTEM:
        effort: Any = record.get("effort", "medium") if isinstance(record, dict) else "medium"
        made.insert(0, system_message(effort=effort))
    return Conversation.from_messages(made)


def _messages(item: dict[str, Any]) -> Iterable[Message]:
    """The harmony messages of one entry: chat form may carry reasoning and calls in one."""
    content, role = item.get("content"), Role(item["role"])
    if not isinstance(content, str | None) or not _is_chat(item, role):
        yield Message.from_dict(item)
        return
    if role == Role.SYSTEM:
        role = Role.DEVELOPER if content else role
    if role == Role.DEVELOPER:
        yield Message.from_role_and_content(
            role, DeveloperContent.new().with_instructions(content or "")
        )
    elif role == Role.TOOL:
        author = Author.new(role, item.get("name") or "functions.tool")
        yield Message.from_author_and_content(author, content or "").with_channel("commentary")
    elif role == Role.ASSISTANT:
        yield from _assistant(item, content)
    else:
        yield Message.from_role_and_content(role, content or "")


def _is_chat(item: dict[str, Any], role: Role) -> bool:
    """Whether an entry is in chat form: harmony's own JSON names channels and recipients."""
    return not ({"channel", "recipient"} & set(item)) and role in Role


def _assistant(item: dict[str, Any], content: str | None) -> Iterable[Message]:
    """Analysis, calls and the final answer of one chat entry."""
    reasoning = item.get("thinking") or item.get("reasoning") or item.get("reasoning_content")
    if reasoning:
        yield Message.from_role_and_content(Role.ASSISTANT, reasoning).with_channel("analysis")
    for call in item.get("tool_calls") or ():
        function = call["function"]
        message = Message.from_role_and_content(Role.ASSISTANT, function["arguments"])
        message = message.with_channel("commentary").with_recipient(f"functions.{function['name']}")
        yield message.with_content_type("<|constrain|>json")
    if content:
        yield Message.from_role_and_content(Role.ASSISTANT, content).with_channel("final")


def _lines(paths: Sequence[Path]) -> Iterable[tuple[str, str]]:
    """(file:line, text) of every line that is not blank."""
    for path in paths:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"{path}:{number}", line
