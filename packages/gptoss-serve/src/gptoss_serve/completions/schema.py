"""The requests of Chat Completions and of plain completions, checked and named in errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gptoss_serve.errors import InvalidRequest

_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(BaseModel):
    """The field `stream_options`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Sampled(BaseModel):
    """Fields about sampling that both requests have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    user: str | None = None
    logit_bias: Any = None
    # Ours, as other local servers have them.
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(given) > 16 or not all(given):
            raise InvalidRequest("stop holds up to 16 non-empty strings", param="stop")
        return given

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def refuse(self, *names: str) -> None:
        """Refuse fields that this server does not have.

        Raises:
            InvalidRequest: the first that is set.
        """
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            raise InvalidRequest(
                "stream_options.include_obfuscation: only the Responses API pads its deltas here",
                param="stream_options.include_obfuscation",
                code="unsupported_parameter",
            )
        for name in names:
            if getattr(self, name) not in (None, {}, []):
                raise InvalidRequest(
                    f"{name} is not supported by this server; leave it out",
                    param=name,
                    code="unsupported_parameter",
                )


class ReasoningConfig(BaseModel):
    """The field `reasoning`, as Ollama and OpenRouter write it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    effort: _Effort | None = None
    exclude: bool | None = None
    enabled: bool | None = None

    @property
    def wanted(self) -> _Effort | None:
        """The effort asked for; switched off without one means none."""
        return "none" if self.effort is None and self.enabled is False else self.effort


class ChatRequest(_Sampled):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: _Effort | None = None
    reasoning: ReasoningConfig | None = None
    include_reasoning: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    # About OpenAI's service: no effect here.
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    # Not supported: refused.
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    functions: Any = None
    function_call: Any = None


class TextRequest(_Sampled):
    """The body of `POST /v1/completions`; the last fields are those of vLLM.

    `stop_token_ids` end the answer beside the model's message ends, or with `ignore_eos` instead
    of them. `skip_special_tokens` leaves all markers out of the text; False keeps all of them, and
    without it only the one that ends the answer is left out.
    """

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Any = None
    suffix: Any = None
    return_token_ids: bool | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    cache_salt: str | None = None
