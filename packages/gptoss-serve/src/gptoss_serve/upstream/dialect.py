"""How the two APIs are spoken: a round of a turn -> a body, and what reads the answer.

A server that refuses a field of ours which has another name, or which is only nice to have, is
asked again without it and remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gptoss_harmony import Message
from gptoss_serve.errors import InvalidRequest, ServeError
from gptoss_serve.events import Event, Usage
from gptoss_serve.rounds import RoundStart
from gptoss_serve.turn import Turn
from gptoss_serve.upstream.chat_body import chat_body, chat_messages
from gptoss_serve.upstream.chat_reader import ChatReader
from gptoss_serve.upstream.endpoint import Endpoint
from gptoss_serve.upstream.offered import Offer
from gptoss_serve.upstream.parts import PartLine
from gptoss_serve.upstream.responses_body import input_items, responses_body
from gptoss_serve.upstream.responses_reader import ResponsesReader
from gptoss_serve.upstream.steps import instructions_of, steps_of

Json = dict[str, Any]


class Reader(Protocol):
    """Reads the events of one answer."""

    finish_reason: str | None
    usage: Usage
    thoughts_field: str | None

    def read(self, wire: Mapping[str, Any], /) -> Iterator[Event]:
        """Take one event."""
        ...

    def failure(self) -> ServeError | None:
        """Why an answer whose stream is over is no answer."""
        ...


class Dialect(Protocol):
    """One API."""

    def body(self, turn: Turn, offer: Offer, start: RoundStart, messages: list[Message]) -> Json:
        """The request for a round with a conversation."""
        ...

    def reader(self, offer: Offer, line: PartLine) -> Reader:
        """What reads the answer."""
        ...

    def learn(self, reader: Reader) -> None:
        """Remember what an answer shows of the server."""
        ...

    def can_adapt(self, body: Json, error: InvalidRequest) -> bool:
        """Whether a refused request can be written another way; it is from then on."""
        ...


class ChatDialect:
    """Chat Completions."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._thoughts_field: str | None = None
        self._tokens_field = "max_tokens"
        self._with_usage = True

    def body(self, turn: Turn, offer: Offer, start: RoundStart, messages: list[Message]) -> Json:
        """Messages, tools and settings."""
        tokens: Json = {}
        if self._with_usage:
            tokens["stream_options"] = {"include_usage": True}
        if start.max_tokens is not None:
            tokens[self._tokens_field] = start.max_tokens
        written = chat_messages(
            instructions_of(messages, offer),
            steps_of(messages, offer, turn.style),
            thoughts_field=self._thoughts_field,
        )
        model = self._endpoint.model
        return chat_body(turn, offer, written, model=model, first=start.first, tokens=tokens)

    def reader(self, offer: Offer, line: PartLine) -> ChatReader:
        """What reads the answer."""
        return ChatReader(self._endpoint, offer, line)

    def learn(self, reader: Reader) -> None:
        """Thoughts go back under the name under which they came."""
        self._thoughts_field = reader.thoughts_field or self._thoughts_field

    def can_adapt(self, body: Json, error: InvalidRequest) -> bool:
        """Newer models want `max_completion_tokens`; some servers know no `stream_options`."""
        said = f"{error.param} {error}"
        if "stream_options" in body and "stream_options" in said:
            self._with_usage = False
            return True
        if "max_tokens" in body and "max_completion_tokens" in said:
            self._tokens_field = "max_completion_tokens"
            return True
        return False


class ResponsesDialect:
    """The Responses API."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def body(self, turn: Turn, offer: Offer, start: RoundStart, messages: list[Message]) -> Json:
        """Items, tools and settings."""
        return responses_body(
            turn,
            offer,
            input_items(steps_of(messages, offer, turn.style)),
            instructions=instructions_of(messages, offer),
            model=self._endpoint.model,
            first=start.first,
            max_tokens=start.max_tokens,
        )

    def reader(self, offer: Offer, line: PartLine) -> ResponsesReader:
        """What reads the answer."""
        return ResponsesReader(self._endpoint, offer, line)

    def learn(self, reader: Reader) -> None:
        """Nothing: reasoning items have one name."""

    def can_adapt(self, body: Json, error: InvalidRequest) -> bool:
        """Nothing has another name."""
        return False


def dialect_of(endpoint: Endpoint) -> Dialect:
    """The API that an endpoint is asked through."""
    return ChatDialect(endpoint) if endpoint.api == "chat" else ResponsesDialect(endpoint)
