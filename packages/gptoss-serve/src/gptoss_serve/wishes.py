"""What a request sets itself, in the client's own words: for models with defaults of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_serve.completions.schema import ChatRequest
from gptoss_serve.responses.schema import ResponsesRequest
from gptoss_serve.turn import Wishes


def response_wishes(request: ResponsesRequest) -> Wishes:
    """The wishes of a request of the Responses API."""
    reasoning = request.reasoning
    format = request.text.format if request.text else None
    return Wishes(
        temperature=request.temperature,
        top_p=request.top_p,
        effort=reasoning.effort if reasoning else None,
        summary=reasoning.summary or reasoning.generate_summary if reasoning else None,
        parallel_calls=request.parallel_tool_calls,
        format=None if format is None else _format(format.model_dump(by_alias=True)),
    )


def chat_wishes(request: ChatRequest) -> Wishes:
    """The wishes of a request of Chat Completions."""
    effort = request.reasoning_effort
    if effort is None and request.reasoning is not None:
        effort = request.reasoning.effort
    given = request.response_format or {}
    return Wishes(
        temperature=request.temperature,
        top_p=request.top_p,
        effort=effort,
        parallel_calls=request.parallel_tool_calls,
        format=_format({"type": given.get("type"), **(given.get("json_schema") or {})}),
    )


def _format(format: Mapping[str, Any]) -> dict[str, Any] | None:
    """A format as the Responses API writes it; None for plain text."""
    if format["type"] in (None, "text"):
        return None
    return {name: value for name, value in format.items() if value is not None}
