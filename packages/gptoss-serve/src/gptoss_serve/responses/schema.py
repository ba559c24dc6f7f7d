"""The request of the Responses API: every field that clients send, checked and named in errors.

A field that is not here is refused by name; one that is here either does what it means or, where
it is about OpenAI's own service (billing, caching, abuse), is echoed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gptoss_serve.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


class TextFormat(BaseModel):
    """What the final answer looks like."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(BaseModel):
    """The field `text`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningConfig(BaseModel):
    """The field `reasoning`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: str | None = None
    mode: str | None = None


class StreamOptions(BaseModel):
    """The field `stream_options`; our stream is never obfuscated."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_obfuscation: bool | None = None


class ResponsesRequest(BaseModel):
    """The body of `POST /v1/responses`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: list[str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    # About OpenAI's service: echoed.
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    safety_identifier: str | None = None
    client_metadata: dict[str, Any] | None = None
    # Not supported: refused by `refuse_unsupported`.
    prompt: Any = None
    conversation: Any = None
    context_management: Any = None
    moderation: Any = None
    # Ours, as other local servers have them.
    seed: int | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None

    def refuse_unsupported(self) -> None:
        """Name what this server does not do.

        Raises:
            InvalidRequest: the first such field.
        """
        for name in ("prompt", "conversation", "context_management", "moderation"):
            if getattr(self, name) is not None:
                raise InvalidRequest(
                    f"{name} is not supported by this server; leave it out",
                    param=name,
                    code="unsupported_parameter",
                )
        if self.background and self.store is False:
            raise InvalidRequest("background needs store: true", param="background")
        if self.metadata is not None and len(self.metadata) > 16:
            raise InvalidRequest("metadata holds at most 16 pairs", param="metadata")


def checked(model: type[Model], body: Any) -> Model:
    """Read a request body.

    Raises:
        InvalidRequest: it names the field and says what is wrong with it.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in _public(first["loc"], body))
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(
                f"unknown parameter: {param!r}", param=param, code="unknown_parameter"
            ) from error
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        message = f"invalid value for {param!r}: {first['msg']}"
        raise InvalidRequest(message, param=param, code=code) from error


def _public(location: tuple[int | str, ...], body: dict[str, Any]) -> list[int | str]:
    """The part of a location that exists in the body: pydantic adds the arms of unions."""
    path: list[int | str] = []
    value: Any = body
    for part in location:
        if isinstance(value, dict) and (part in value or not path):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
        path.append(part)
    return path or list(location)
