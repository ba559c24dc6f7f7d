"""Events of a turn -> chunks of Chat Completions, and the whole completion.

Thoughts go to `reasoning`, preambles and answers to `content`, calls to `tool_calls`. Our own
tools run unseen: Chat Completions has no words for them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from gptoss_harmony import Encoding
from gptoss_serve.completions.stops import StopTexts
from gptoss_serve.events import (
    Event,
    PartDelta,
    PartDone,
    PartStarted,
    TurnDone,
    TurnEnd,
    Usage,
)
from gptoss_serve.functions import ClientFunctions
from gptoss_serve.responses.parts import scored

Json = dict[str, Any]
_REASONS: dict[TurnEnd, str] = {"call": "tool_calls", "length": "length", "time": "length"}


class ChatChoice:
    """One of the answers to a request.

    Args:
        index: of the choice.
        functions: of the client.
        encoding: for log probabilities.
        stops: texts that end the answer.
        thoughts: names of the fields for thoughts; () leaves them out.

    Attributes:
        usage: known at the end.
        stopped: whether a stop text was found.
    """

    def __init__(
        self,
        index: int,
        *,
        functions: ClientFunctions,
        encoding: Encoding,
        stops: Sequence[str] = (),
        thoughts: Sequence[str] = ("reasoning",),
    ) -> None:
        self.index = index
        self.usage = Usage()
        self._functions = functions
        self._encoding = encoding
        self._stops = StopTexts(stops)
        self._thoughts = thoughts
        self._message: Json = {"role": "assistant", "content": None}
        self._logprobs: list[Json] = []
        self._scores: list[Json] = []  # of text that may be the beginning of a stop text
        self._calls: list[Json] = []
        self._finish: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found; nothing more is wanted then."""
        return self._stops.hit

    def first(self) -> Json:
        """The delta that opens a stream."""
        return self._choice({"role": "assistant", "content": ""})

    def read(self, event: Event) -> list[Json]:
        """The deltas that an event comes to."""
        if isinstance(event, PartStarted) and event.kind == "call":
            return [self._begin_call(event.name or "")]
        if isinstance(event, PartDelta):
            return self._grow(event)
        if isinstance(event, PartDone) and event.kind in ("answer", "preamble"):
            return self._content(self._stops.finish(), [])
        if isinstance(event, TurnDone):
            self.usage = event.usage
            self._finish = _REASONS.get(event.reason, "stop")
        return []

    def last(self) -> Json:
        """The delta that ends the choice."""
        return self._choice({}, finish=self._finish or "stop")

    def whole(self) -> Json:
        """The choice for clients that do not stream."""
        message = {**self._message, "refusal": None}
        if self._calls:
            message["tool_calls"] = self._calls
        return {
            "index": self.index,
            "message": message,
            "logprobs": self._logprobs_object(self._logprobs),
            "finish_reason": self._finish or "stop",
        }

    def _grow(self, delta: PartDelta) -> list[Json]:
        if delta.kind == "reasoning":
            for name in self._thoughts:
                self._message[name] = self._message.get(name, "") + delta.text
            thoughts = dict.fromkeys(self._thoughts, delta.text)
            return [self._choice(thoughts)] if thoughts else []
        if delta.kind == "call":
            call = self._calls[-1]
            body = call[call["type"]]
            field = "arguments" if call["type"] == "function" else "input"
            body[field] += delta.text
            piece = {"index": len(self._calls) - 1, call["type"]: {field: delta.text}}
            return [self._choice({"tool_calls": [piece]})]
        if delta.kind == "builtin":
            return []
        scores = [scored(self._encoding, score) for score in delta.logprobs]
        return self._content(self._stops.feed(delta.text), scores)

    def _content(self, text: str, scores: list[Json]) -> list[Json]:
        self._scores += scores
        if not text:
            return []
        scores, self._scores = self._scores, []
        self._message["content"] = (self._message["content"] or "") + text
        self._logprobs += scores
        return [self._choice({"content": text}, scores=scores)]

    def _begin_call(self, name: str) -> Json:
        function = self._functions[name]
        call: Json = {"id": f"call_{uuid.uuid4().hex}", "type": function.kind}
        field = "arguments" if function.kind == "function" else "input"
        call[function.kind] = {"name": function.name, field: ""}
        self._calls.append(call)
        opening = {**call, function.kind: dict(call[function.kind]), "index": len(self._calls) - 1}
        return self._choice({"tool_calls": [opening]})

    def _choice(
        self, delta: Json, *, finish: str | None = None, scores: Sequence[Json] = ()
    ) -> Json:
        logprobs = self._logprobs_object(scores)
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    @staticmethod
    def _logprobs_object(scores: Sequence[Json]) -> Json | None:
        return {"content": list(scores), "refusal": None} if scores else None


def envelope(kind: str, completion_id: str, model: str, choices: list[Json], **more: Any) -> Json:
    """A completion, or a chunk of one."""
    return {
        "id": completion_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "service_tier": "default",
        "system_fingerprint": "gptoss",
        **more,
    }


def usage_object(usage: Usage) -> Json:
    """Tokens as Chat Completions writes them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
