"""The request of the Responses API: every field that clients send, checked and named in errors.

A field that is not here is refused by name. One that is here does what it means or, where it only
labels a request (for billing, caching, abuse), is echoed; a value that asks for something that
this server does not do is refused by name too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gptoss_serve.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)
ServiceTier = Literal["auto", "default", "fast", "flex", "priority", "scale", "ultrafast"]

_MOST = 2**31 - 1
ENCRYPTED = "reasoning.encrypted_content"
CODE_OUTPUTS = "code_interpreter_call.outputs"
LOGPROBS = "message.output_text.logprobs"
SOURCES = "web_search_call.action.sources"
# The last three are about items that no response of this server holds: always included.
INCLUDABLE = frozenset(
    {
        *(ENCRYPTED, CODE_OUTPUTS, LOGPROBS, SOURCES),
        "file_search_call.results",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
    }
)
# Fields of OpenAI's that this server does not have, and what to do instead.
_NOT_HERE: Mapping[str, str] = {
    "prompt": "send the text itself",
    "conversation": "use previous_response_id, or send the items",
    "context_management": "call /v1/responses/compact, or ask for truncation: auto",
    "moderation": "leave it out",
    "access_programs": "leave it out",
    "background_options": "leave it out",
    "image": "gpt-oss reads text only",
    "personality": "say it in the instructions",
}


class TextFormat(BaseModel):
    """What the final answer looks like."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def check(self) -> None:
        """Refuse half a schema, and a schema that nothing asks for.

        Raises:
            InvalidRequest: it names the field.
        """
        if self.type == "json_schema":
            if self.json_schema is None or self.name is None:
                raise InvalidRequest(
                    "a json_schema format needs a name and a schema", param="text.format.schema"
                )
            return
        for name in ("name", "description", "json_schema", "strict"):
            if getattr(self, name) is not None:
                field = "schema" if name == "json_schema" else name
                raise InvalidRequest(
                    f"text.format.{field} belongs to the format json_schema, not {self.type}",
                    param=f"text.format.{field}",
                )


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
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Literal["standard"] | None = None

    @property
    def wants_summary(self) -> bool:
        """Whether a summary was asked for, under its name of today or of yesterday."""
        return (self.summary or self.generate_summary or "none") != "none"


class PromptCacheOptions(BaseModel):
    """The field `prompt_cache_options`: prefixes are always reused, and nothing else is offered."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal["implicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None


class StreamOptions(BaseModel):
    """The field `stream_options`."""

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
    max_output_tokens: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0, le=_MOST)] | None = None
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
    # Labels: echoed.
    metadata: dict[str, str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: str | None = None
    # Wishes that one machine grants as it can: the response says what it got.
    service_tier: ServiceTier | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    # For the operator's logs at OpenAI; no part of the answer.
    client_metadata: dict[str, Any] | None = None
    # Ours, as other local servers have them.
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_MOST)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None

    def check(self) -> None:
        """Look at what the fields say together.

        Raises:
            InvalidRequest: the first that makes no sense; it is named.
        """
        if self.background and self.store is False:
            raise InvalidRequest("background needs store: true", param="background")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options go with stream: true", param="stream_options")
        if not self.input and self.input != "" and self.previous_response_id is None:
            raise InvalidRequest(
                "there is nothing to answer: give input, or previous_response_id to go on from",
                param="input",
                code="missing_required_parameter",
            )
        if self.text is not None and self.text.format is not None:
            self.text.format.check()
        check_include(self.include or ())
        _check_metadata(self.metadata or {})


class CountRequest(BaseModel):
    """The body of `POST /v1/responses/input_tokens`: the fields that shape a prompt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def as_response(self) -> ResponsesRequest:
        """The request whose prompt is counted."""
        return ResponsesRequest.model_validate(self.model_dump(by_alias=True, exclude_none=True))


class CompactRequest(BaseModel):
    """The body of `POST /v1/responses/compact`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    # Wishes and labels, as in `ResponsesRequest`.
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    service_tier: ServiceTier | None = None

    def as_response(self) -> ResponsesRequest:
        """The request that is compacted instead of answered."""
        return ResponsesRequest.model_validate(self.model_dump(by_alias=True, exclude_none=True))


def check_include(include: Iterable[str]) -> None:
    """Refuse what cannot be included.

    Raises:
        InvalidRequest: the first such value.
    """
    for position, value in enumerate(include):
        if value not in INCLUDABLE:
            raise InvalidRequest(
                f"include[{position}]: {value!r} cannot be included; there are: "
                f"{', '.join(sorted(INCLUDABLE))}",
                param=f"include[{position}]",
            )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    """OpenAI's limits, so that what works here works there."""
    if len(metadata) > 16:
        raise InvalidRequest("metadata holds at most 16 pairs", param="metadata")
    for key, value in metadata.items():
        if len(key) > 64 or len(value) > 512:
            raise InvalidRequest(
                "metadata holds keys of at most 64 and values of at most 512 characters",
                param="metadata",
            )


def checked(model: type[Model], body: Any) -> Model:
    """Read a request body.

    Raises:
        InvalidRequest: it names the field and says what is wrong with it.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    given = {key: value for key, value in body.items() if value is not None or key not in _NOT_HERE}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        # Where several forms are possible, the one that was meant is the one read furthest.
        first = max(errors, key=lambda one: len(_public(one["loc"], body)))
        param = ".".join(str(part) for part in _public(first["loc"], body))
        if first["type"] == "extra_forbidden":
            known = param in _NOT_HERE
            raise InvalidRequest(
                f"{param} is not supported by this server; {_NOT_HERE[param]}"
                if known
                else f"unknown parameter: {param!r}",
                param=param,
                code="unsupported_parameter" if known else "unknown_parameter",
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
        elif not isinstance(value, list):
            break
        else:
            continue
        path.append(part)
    return path or list(location)
