"""Who watches the work: the seam between answering and telling an operator about it.

`Unwatched` tells nobody; `tracing.Tracing` writes OpenTelemetry spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from gptoss_harmony import Message, Sampling
from gptoss_serve.access_log import Exchange
from gptoss_serve.events import ToolAnswered, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStart:
    """What an answer of the model begins with.

    Attributes:
        operation: `chat` or `text_completion`.
        model: its id.
        sampling: how it is sampled.
        messages: the conversation.
    """

    operation: str
    model: str
    sampling: Sampling
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEnd:
    """What it came to.

    Attributes:
        usage: its tokens.
        reason: why it ended, in the engine's word.
        messages: what the model wrote.
    """

    usage: Usage
    reason: str | None
    messages: tuple[Message, ...] = ()


class Watch(Protocol):
    """Hears when work begins and ends; what is called inside tells how it went."""

    def request(
        self, exchange: Exchange, headers: Mapping[bytes, bytes]
    ) -> AbstractContextManager[None]:
        """A request over HTTP."""
        ...

    def generation(
        self, start: GenerationStart
    ) -> AbstractContextManager[Callable[[GenerationEnd], None]]:
        """One answer of the model."""
        ...

    def tool(self, call: Message) -> AbstractContextManager[Callable[[ToolAnswered], None]]:
        """One call of a tool that runs here."""
        ...


class Unwatched:
    """Nobody watches."""

    def request(
        self, exchange: Exchange, headers: Mapping[bytes, bytes]
    ) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def generation(
        self, start: GenerationStart
    ) -> AbstractContextManager[Callable[[GenerationEnd], None]]:
        """Nothing."""
        return nullcontext(_forget)

    def tool(self, call: Message) -> AbstractContextManager[Callable[[ToolAnswered], None]]:
        """Nothing."""
        return nullcontext(_forget)


def _forget(what: object) -> None:
    """Take no notice."""
