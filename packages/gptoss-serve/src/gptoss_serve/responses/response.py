"""The response object: the 31 fields that the Responses API promises, from a request."""

from __future__ import annotations

import time
from typing import Any

from gptoss_serve.asking import EFFORTS
from gptoss_serve.responses.schema import ReasoningConfig, ResponsesRequest, TextFormat
from gptoss_serve.responses.tools import ToolPlan


def new_response(
    request: ResponsesRequest, plan: ToolPlan, *, response_id: str, model: str, store: bool
) -> dict[str, Any]:
    """A response that has just begun."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": _or(request.parallel_tool_calls, True),
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": _retention(request.prompt_cache_retention),
        "reasoning": _reasoning(request.reasoning),
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",  # the only one there is
        "store": store,
        "temperature": _or(request.temperature, 1.0),
        "text": _text(request),
        "tool_choice": plan.wire_choice,
        "tools": plan.echo,
        "top_logprobs": _or(request.top_logprobs, 0),
        "top_p": _or(request.top_p, 1.0),
        "presence_penalty": _or(request.presence_penalty, 0.0),
        "frequency_penalty": _or(request.frequency_penalty, 0.0),
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _retention(value: str | None) -> str | None:
    return "in_memory" if value == "in-memory" else value


def _reasoning(config: ReasoningConfig | None) -> dict[str, Any]:
    """What is in force, which can be less than what was asked: the model always thinks."""
    effort = EFFORTS[(config.effort if config is not None else None) or "medium"]
    wants_summary = config is not None and config.wants_summary
    # A summary here is the whole text, whatever length was asked for.
    written = {"effort": effort, "summary": "detailed" if wants_summary else None}
    if config is not None and config.context is not None:
        written["context"] = config.context
    return written


def _text(request: ResponsesRequest) -> dict[str, Any]:
    format = (request.text.format if request.text else None) or TextFormat()
    verbosity = (request.text.verbosity if request.text else None) or "medium"
    written: dict[str, Any] = {"type": format.type}
    if format.type == "json_schema":
        written = format.model_dump(by_alias=True)
    return {"format": written, "verbosity": verbosity}
