"""The shapes of what this server answers, in JSON Schema, for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_serve.responses.schema import INCLUDABLE

Json = dict[str, Any]


def _object(required: Mapping[str, Any], **optional: Any) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number"}
_TRUTH: Json = {"type": "boolean"}
_MAP: Json = {"type": "object"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_COUNT_OR_NULL: Json = {"type": ["integer", "null"]}
_MAP_OR_NULL: Json = {"type": ["object", "null"]}

_RESPONSE = {
    "id": _TEXT,
    "object": {"const": "response"},
    "created_at": _COUNT,
    "completed_at": _COUNT_OR_NULL,
    "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
    "background": _TRUTH,
    "error": _MAP_OR_NULL,
    "incomplete_details": _MAP_OR_NULL,
    "instructions": {"type": ["string", "array", "null"]},
    "max_output_tokens": _COUNT_OR_NULL,
    "max_tool_calls": _COUNT_OR_NULL,
    "model": _TEXT,
    "output": _list(_object({"id": _TEXT, "type": _TEXT})),
    "parallel_tool_calls": _TRUTH,
    "previous_response_id": _TEXT_OR_NULL,
    "prompt_cache_key": _TEXT_OR_NULL,
    "reasoning": _MAP,
    "safety_identifier": _TEXT_OR_NULL,
    "service_tier": _TEXT,
    "store": _TRUTH,
    "temperature": _NUMBER,
    "text": _MAP,
    "tool_choice": {"type": ["string", "object"]},
    "tools": _list(_MAP),
    "top_logprobs": _COUNT,
    "top_p": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "truncation": {"enum": ["auto", "disabled"]},
    "usage": _MAP_OR_NULL,
    "metadata": _MAP,
}
_CHAT_USAGE = _object(
    {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT}
)
_MESSAGE = _object({"role": {"const": "assistant"}, "content": _TEXT_OR_NULL})
_FINISH = {"enum": ["stop", "length", "tool_calls"]}
_CHOICE = _object({"index": _COUNT, "message": _MESSAGE, "finish_reason": _FINISH})
_TEXT_CHOICE = _object({"index": _COUNT, "text": _TEXT, "finish_reason": _FINISH})
_COMPLETION = {"id": _TEXT, "created": _COUNT, "model": _TEXT, "usage": _CHAT_USAGE}
_MODEL = _object(
    {"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT},
    max_model_len=_COUNT,
)
_PAGE = {
    "object": {"const": "list"},
    "data": _list(_MAP),
    "first_id": _TEXT_OR_NULL,
    "last_id": _TEXT_OR_NULL,
    "has_more": _TRUTH,
}
_ERROR = _object({"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL})

SHAPES: Mapping[str, Json] = {
    "Error": _object({"error": _ERROR}),
    "Response": _object(_RESPONSE),
    "ResponseDeleted": _object({"id": _TEXT, "object": _TEXT, "deleted": {"const": True}}),
    "ItemList": _object(_PAGE),
    "ChatCompletion": _object(
        {**_COMPLETION, "object": {"const": "chat.completion"}, "choices": _list(_CHOICE)}
    ),
    "Completion": _object(
        {**_COMPLETION, "object": {"const": "text_completion"}, "choices": _list(_TEXT_CHOICE)}
    ),
    "Model": _MODEL,
    "ModelList": _object({"object": {"const": "list"}, "data": _list(_ref("Model"))}),
    "Health": _object({"status": {"enum": ["ok", "draining"]}}),
    "Version": _object({"version": _TEXT}),
}
SUCCESSES: Mapping[str, Json] = {
    "POST /v1/responses": _ref("Response"),
    "GET /v1/responses/{response_id}": _ref("Response"),
    "DELETE /v1/responses/{response_id}": _ref("ResponseDeleted"),
    "POST /v1/responses/{response_id}/cancel": _ref("Response"),
    "GET /v1/responses/{response_id}/input_items": _ref("ItemList"),
    "POST /v1/chat/completions": _ref("ChatCompletion"),
    "POST /v1/completions": _ref("Completion"),
    "GET /v1/models": _ref("ModelList"),
    "GET /v1/models/{model_id}": _ref("Model"),
    "GET /health": _ref("Health"),
    "GET /version": _ref("Version"),
    "GET /api/version": _ref("Version"),
}
_RESPONSE_EVENTS = (
    "With `stream`: server-sent events. Each has `event: TYPE` and `data:` with a JSON object of "
    "that `type` and a `sequence_number` from 0; the last is `response.completed`, "
    "`response.incomplete` or `response.failed` with the whole response, then `data: [DONE]`. "
    "Comments keep the connection alive."
)
_CHUNKS = (
    "With `stream`: server-sent events whose `data:` is a chunk, then `data: [DONE]`. Comments "
    "keep the connection alive."
)
EVENTS: Mapping[str, str] = {
    "POST /v1/responses": _RESPONSE_EVENTS,
    "GET /v1/responses/{response_id}": _RESPONSE_EVENTS,
    "POST /v1/chat/completions": _CHUNKS,
    "POST /v1/completions": _CHUNKS,
}
METRICS: Json = {"text/plain": {"schema": {"type": "string"}}}
UNAVAILABLE: Mapping[str, Json] = {
    "GET /health": {
        "503": {
            "description": "Alive, but shutting down.",
            "content": {"application/json": {"schema": _ref("Health")}},
        }
    }
}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


PARAMETERS: Mapping[str, list[Json]] = {
    "GET /v1/responses/{response_id}": [
        _query("stream", "Give the events of a background response again.", _TRUTH),
        _query("starting_after", "With `stream`: events after this number.", _COUNT),
        _query("include_obfuscation", "With `stream`: pad deltas to hide their lengths.", _TRUTH),
        _query("include[]", "What else the items hold.", _list({"enum": sorted(INCLUDABLE)})),
    ],
    "GET /v1/responses/{response_id}/input_items": [
        _query("order", "Newest or oldest first.", {"enum": ["asc", "desc"], "default": "desc"}),
        _query("after", "Items after the one of this id.", _TEXT),
        _query("limit", "Items per page.", {"type": "integer", "minimum": 1, "maximum": 100}),
        _query("include[]", "What else the items hold.", _list({"enum": sorted(INCLUDABLE)})),
    ],
}
