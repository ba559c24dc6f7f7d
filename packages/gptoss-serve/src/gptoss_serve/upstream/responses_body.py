"""A turn -> the body of a Responses request; the upstream keeps nothing, we hold the turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptoss_serve.turn import Turn
from gptoss_serve.upstream.fields import effort_of, format_of, sampling_of
from gptoss_serve.upstream.offered import Offer, Offered
from gptoss_serve.upstream.steps import Answered, Called, Said, Step

Json = dict[str, Any]


def input_items(steps: Sequence[Step]) -> list[Json]:
    """The conversation as input items."""
    return [_item(step, position) for position, step in enumerate(steps)]


def responses_body(
    turn: Turn,
    offer: Offer,
    items: list[Json],
    *,
    instructions: str,
    model: str,
    first: bool,
    max_tokens: int | None,
) -> Json:
    """The whole request."""
    body: Json = {"model": model, "input": items, "stream": True, "store": False}
    if instructions:
        body["instructions"] = instructions
    if max_tokens is not None:
        body["max_output_tokens"] = max_tokens
    body |= sampling_of(turn)
    wishes = turn.wishes
    reasoning = {"effort": effort_of(turn), "summary": wishes.summary}
    if any(reasoning.values()):
        body["reasoning"] = {name: value for name, value in reasoning.items() if value}
    format = format_of(turn)
    if format is not None:
        body["text"] = {"format": format}
    if len(offer):
        body["tools"] = [_tool(entry) for entry in offer]
        body["tool_choice"] = _choice(offer.choice(first=first))
        if wishes.parallel_calls is not None:
            body["parallel_tool_calls"] = wishes.parallel_calls
    return body


def _item(step: Step, position: int) -> Json:
    if isinstance(step, Called):
        return {
            "type": "function_call",
            "id": f"fc_{position}",
            "call_id": step.call_id,
            "name": step.name,
            "arguments": step.arguments,
            "status": "completed",
        }
    if isinstance(step, Answered):
        return {"type": "function_call_output", "call_id": step.call_id, "output": step.text}
    assert isinstance(step, Said)
    if step.who == "thought":
        content = [{"type": "reasoning_text", "text": step.text}]
        return {"type": "reasoning", "id": f"rs_{position}", "summary": [], "content": content}
    if step.who == "user":
        return _message("user", [{"type": "input_text", "text": step.text}])
    part = {"type": "output_text", "text": step.text, "annotations": []}
    phase = "commentary" if step.who == "preamble" else "final_answer"
    message = _message("assistant", [part])
    return {**message, "id": f"msg_{position}", "status": "completed", "phase": phase}


def _message(role: str, content: list[Json]) -> Json:
    return {"type": "message", "role": role, "content": content}


def _tool(entry: Offered) -> Json:
    return {
        "type": "function",
        "name": entry.name,
        "description": entry.description,
        "parameters": entry.parameters,
        "strict": entry.strict,
    }


def _choice(choice: str | Offered) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "name": choice.name}
