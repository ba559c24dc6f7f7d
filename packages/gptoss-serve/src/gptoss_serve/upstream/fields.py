"""What of a turn's settings travels to the upstream.

An upstream has defaults of its own. What the client set itself travels in the client's own words;
what it left open is left out, so that the upstream's default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_harmony import Sampling, SystemContent
from gptoss_harmony.errors import Unsupported
from gptoss_harmony.grammar import JsonSchema
from gptoss_serve.turn import Turn

_DEFAULT = Sampling()
_SAMPLED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
)


def sampling_of(turn: Turn) -> dict[str, Any]:
    """The fields of sampling; both APIs and those who extend them use the same names.

    Raises:
        Unsupported: log probabilities or token ids, which no upstream can be asked for.
    """
    sampling, wishes = turn.sampling, turn.wishes
    for name in ("logprobs", "prompt_logprobs", "stop_tokens", "extra"):
        if getattr(sampling, name):
            raise Unsupported(f"{name} cannot be asked of an upstream; leave it out")
    fields = {
        name: value
        for name in _SAMPLED
        if (value := getattr(sampling, name)) != getattr(_DEFAULT, name)
    }
    for name in ("temperature", "top_p"):
        wished = getattr(wishes, name)
        if wished is not None:
            fields[name] = wished
    return fields


def effort_of(turn: Turn) -> str | None:
    """How long to think; None leaves it to the upstream."""
    if turn.wishes.effort is not None:
        return turn.wishes.effort
    for message in turn.messages:
        for content in message.content:
            if isinstance(content, SystemContent) and content.reasoning_effort is not None:
                word = content.reasoning_effort.value.lower()
                return None if word == "medium" else word
    return None


def format_of(turn: Turn) -> Mapping[str, Any] | None:
    """What the answer must look like, as the Responses API writes it."""
    if turn.wishes.format is not None:
        return turn.wishes.format
    source = None if turn.format is None else turn.format.channels.get("final")
    if source is None:
        return None
    if not isinstance(source, JsonSchema):
        raise Unsupported("an upstream can be held to a JSON Schema only")
    if source.schema == {"type": "object"}:
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "response", "schema": source.schema}
