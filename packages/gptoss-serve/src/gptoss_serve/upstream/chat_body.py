"""A turn -> the body of a Chat Completions request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_serve.turn import Turn
from gptoss_serve.upstream.fields import effort_of, format_of, sampling_of
from gptoss_serve.upstream.offered import Offer, Offered
from gptoss_serve.upstream.steps import Answered, Called, Said, Step

Json = dict[str, Any]


def chat_messages(
    instructions: str, steps: Sequence[Step], *, thoughts_field: str | None
) -> list[Json]:
    """The messages; what the model did between two answers is one assistant message.

    Args:
        instructions: the system prompt, or "".
        steps: the conversation.
        thoughts_field: under which name thoughts go back; None leaves them out, for servers that
            never showed any refuse fields that they do not know.
    """
    messages: list[Json] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for step in steps:
        if isinstance(step, Answered):
            messages.append({"role": "tool", "tool_call_id": step.call_id, "content": step.text})
        elif isinstance(step, Said) and step.who == "user":
            messages.append({"role": "user", "content": step.text})
        elif not isinstance(step, Said) or step.who != "thought" or thoughts_field:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            _grow(messages[-1], step, thoughts_field or "")
    # Thoughts with nothing after them would be a message without content.
    return [message for message in messages if _has_content(message)]


def chat_body(
    turn: Turn, offer: Offer, messages: list[Json], *, model: str, first: bool, tokens: Json
) -> Json:
    """The whole request; `tokens` says how many may come, in the server's words."""
    body: Json = {"model": model, "messages": messages, "stream": True, **tokens}
    body |= sampling_of(turn)
    wishes = turn.wishes
    effort = effort_of(turn)
    if effort is not None:
        body["reasoning_effort"] = effort
    format = format_of(turn)
    if format is not None:
        body["response_format"] = _nested_format(format)
    if len(offer):
        body["tools"] = [_tool(entry) for entry in offer]
        body["tool_choice"] = _choice(offer.choice(first=first))
        if wishes.parallel_calls is not None:
            body["parallel_tool_calls"] = wishes.parallel_calls
    return body


def _grow(message: Json, step: Step, thoughts_field: str) -> None:
    if isinstance(step, Called):
        function = {"name": step.name, "arguments": step.arguments}
        call = {"id": step.call_id, "type": "function", "function": function}
        message.setdefault("tool_calls", []).append(call)
    elif isinstance(step, Said):
        name = thoughts_field if step.who == "thought" else "content"
        message[name] = "\n\n".join(filter(None, (message.get(name), step.text)))


def _has_content(message: Json) -> bool:
    return message["content"] is not None or "tool_calls" in message


def _tool(entry: Offered) -> Json:
    function: Json = {
        "name": entry.name,
        "description": entry.description,
        "parameters": entry.parameters,
    }
    if entry.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: str | Offered) -> Any:
    if isinstance(choice, str):
        return choice
    return {"type": "function", "function": {"name": choice.name}}


def _nested_format(format: Mapping[str, Any]) -> Json:
    """Chat Completions has the fields of a schema one level deeper."""
    if format["type"] != "json_schema":
        return dict(format)
    inner = {key: value for key, value in format.items() if key != "type"}
    return {"type": "json_schema", "json_schema": inner}
