"""What can go wrong while serving, with the HTTP status and the words that OpenAI's clients know.

```
ServeError               500 server_error
├── InvalidRequest       400 invalid_request_error, names the parameter
├── Unauthorized         401
├── NotFound             404
├── TooLate              408, the body did not arrive in time
├── TooLarge             413
├── RateLimited          429, with retry-after
├── Overloaded           503
└── UpstreamError        502, the server behind us failed
```
"""

from __future__ import annotations

from typing import Any, ClassVar

from gptoss_harmony.errors import (
    ContextOverflow,
    ConversationError,
    GrammarError,
    HarmonyError,
    Unsupported,
    UsageError,
)


class ServeError(HarmonyError):
    """A request that cannot be served.

    Args:
        message: what, where and the remedy.
        param: the request field that is to blame.
        code: a word for programs; None takes the class's.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.default_code

    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        param = None if self.param is None else _short(self.param)
        error = {"message": _short(str(self)), "type": self.kind, "param": param, "code": self.code}
        return {"error": error}


class InvalidRequest(ServeError):
    """The client must change the request."""

    status = 400
    kind = "invalid_request_error"


class Unauthorized(ServeError):
    """No key, or a wrong one."""

    status = 401
    kind = "invalid_request_error"
    default_code = "invalid_api_key"


class NotFound(ServeError):
    """A response, model or path that does not exist."""

    status = 404
    kind = "invalid_request_error"
    default_code = "not_found"


class TooLate(ServeError):
    """The client took too long to send its request."""

    status = 408
    kind = "invalid_request_error"
    default_code = "request_timeout"


class TooLarge(ServeError):
    """A body over the limit."""

    status = 413
    kind = "invalid_request_error"
    default_code = "request_too_large"


class RateLimited(ServeError):
    """The queue is full; come back in a moment."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class Overloaded(ServeError):
    """The server is shutting down or out of memory."""

    status = 503
    default_code = "server_is_overloaded"


class UpstreamError(ServeError):
    """The server that we put our tools in front of failed."""

    status = 502
    default_code = "upstream_error"


def _short(text: str) -> str:
    """What a client sent may be quoted, but not sent back by the megabyte."""
    return text if len(text) <= 1000 else f"{text[:700]} [...] {text[-200:]}"


def as_serve_error(error: BaseException) -> ServeError:
    """Translate any failure; what the client cannot act on becomes a plain 500."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, ContextOverflow):
        return InvalidRequest(str(error), param="input", code="context_length_exceeded")
    if isinstance(error, GrammarError):
        return refused_grammar(error, "text.format")
    if isinstance(error, Unsupported):
        return InvalidRequest(str(error), code="unsupported")
    if isinstance(error, ConversationError | UsageError):
        return InvalidRequest(str(error))
    if isinstance(error, HarmonyError):
        return ServeError(str(error))
    return ServeError(f"internal error: {type(error).__name__}; the log has the details")


def refused_grammar(error: GrammarError, format_param: str) -> InvalidRequest:
    """The refusal of a schema or grammar, which says whose it is.

    Args:
        error: of the grammar.
        format_param: what the API calls the field about the form of the answer.
    """
    param = None
    if error.part is not None:
        param = format_param if error.part == "final" else "tools"
    return InvalidRequest(str(error), param=param, code="invalid_schema")
