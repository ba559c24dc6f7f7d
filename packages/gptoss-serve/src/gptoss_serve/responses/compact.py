"""`/v1/responses/compact`: a long conversation as one item, sealed.

The model itself writes a summary, in a turn of its own. The item holds it together with the user's
messages and the system and developer messages, word for word. They are inside of it because the
output of a response, as OpenAI's client types it, has no place for a user's message.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import AsyncIterator, Sequence

from gptoss_harmony import Message, Role, TextContent, user_message
from gptoss_serve.errors import ServeError
from gptoss_serve.events import Event, PartDone, TurnDone, Usage
from gptoss_serve.responses.parts import Json, new_id
from gptoss_serve.responses.prepare import Prepared
from gptoss_serve.responses.translate import seal
from gptoss_serve.responses.writer import usage_object

_ASK = (
    "Write a summary of this conversation, from which you can go on without the rest of it. State "
    "what was asked, what was done and found (names, numbers, file paths and commands word for "
    "word), what was decided and what is still open. Write the summary only."
)


def asked_for_summary(prepared: Prepared) -> Prepared:
    """The same conversation with the request for a summary at its end."""
    conversation = [*prepared.conversation, user_message(_ASK)]
    return dataclasses.replace(prepared, conversation=conversation)


async def compacted(prepared: Prepared, events: AsyncIterator[Event]) -> Json:
    """The answer of `/v1/responses/compact`.

    Args:
        prepared: the conversation, without the request for a summary.
        events: of the turn that writes it.

    Raises:
        ServeError: the model wrote no summary.
    """
    texts: list[str] = []
    usage = Usage()
    async for event in events:
        if isinstance(event, PartDone) and event.kind == "answer":
            texts.append(event.text)
        elif isinstance(event, TurnDone):
            usage = event.usage
    summary = "\n".join(texts).strip()
    if not summary:
        raise ServeError(
            "the model wrote no summary; try again, or send a part of the conversation",
            code="no_summary",
        )
    content = {
        "developer": prepared.developer,
        "user": _user_texts(prepared.conversation),
        "summary": summary,
    }
    sealed = seal(json.dumps(content))
    return {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [{"id": new_id("cmp"), "type": "compaction", "encrypted_content": sealed}],
        "usage": usage_object(usage),
    }


def _user_texts(messages: Sequence[Message]) -> list[str]:
    return [
        "".join(part.text for part in message.content if isinstance(part, TextContent))
        for message in messages
        if message.author.role == Role.USER
    ]
