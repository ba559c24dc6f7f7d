"""Errors of the upstream in OpenAI's shape: what it said, where, and what helps.

| upstream | here |
|---|---|
| 400, 413, 422, other 4xx | 400, same `param` and `code`; too long: `context_length_exceeded` |
| 401, 403 | 401: the key of this server is wrong, not the client's |
| 404 | 404 |
| 429, 503 | the same |
| other 5xx, an error within a stream, no answer | 502 |
"""

from __future__ import annotations

import json
import re
from typing import Any

from gptoss_serve.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    ServeError,
    Unauthorized,
    UpstreamError,
)
from gptoss_serve.upstream.endpoint import Endpoint, shown_url

# Another attempt may succeed where these came before anything else did.
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum context|prompt is too long|too many tokens", re.I
)
_LONGEST = 1000


def refusal(endpoint: Endpoint, status: int, text: str) -> ServeError:
    """The error for an answer that is not 200; `text` is its body."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    return relayed(endpoint, body, status=status)


def relayed(endpoint: Endpoint, body: Any, *, status: int | None = None) -> ServeError:
    """The error for a body that reports one; without a status it came within a stream."""
    said, param, code = _details(body)
    if endpoint.key:
        said = said.replace(endpoint.key, "***")
    said = said[:_LONGEST]
    status = status if status is not None else _status_of(code)
    code = _word(code)
    what = f"the upstream {endpoint.shown} answered {status}: {said or 'no explanation'}"
    if status in (401, 403):
        return Unauthorized(f"{what} (set GPTOSS_UPSTREAM_KEY to a key that it accepts)")
    if status == 429:
        return RateLimited(f"{what} (try again later)", code=code)
    if status == 404:
        advice = f"check --upstream and --upstream-model, which is {endpoint.model!r}"
        return NotFound(f"{what} ({advice})", param=param, code=code)
    if status == 503:
        return Overloaded(f"{what} (try again later)")
    if status >= 500 or status < 400:
        return UpstreamError(f"{what} (its log says more)", code=code)
    if _is_too_long(said, code):
        param, code = param or "input", "context_length_exceeded"
    return InvalidRequest(what, param=param, code=code)


def unreachable(endpoint: Endpoint, problem: str) -> UpstreamError:
    """The error for a server that cannot be reached or fell silent."""
    return UpstreamError(f"the upstream {shown_url(endpoint.post_url)} {problem}")


def _word(code: str | None) -> str | None:
    """A code for programs; some servers write the status once more, which is none."""
    return None if code is None or code.isdigit() else code


def _is_too_long(said: str, code: str | None) -> bool:
    return code == "context_length_exceeded" or _TOO_LONG.search(said) is not None


def _status_of(code: str | None) -> int:
    """The status that an error within a stream would have had."""
    if code is not None and code.isdigit() and 400 <= int(code) < 600:
        return int(code)
    known = {"rate_limit_exceeded": 429, "context_length_exceeded": 400, "invalid_prompt": 400}
    return known.get(code or "", 502)


def _details(body: Any) -> tuple[str, str | None, str | None]:
    """Message, parameter and code, in any of the shapes that servers use."""
    error = body
    if isinstance(body, dict):
        error = next((body[k] for k in ("error", "detail", "message") if body.get(k)), body)
    if not isinstance(error, dict):
        return _words(error), None, None
    param, code = error.get("param"), error.get("code")
    return (
        _words(error.get("message") or error),
        param if isinstance(param, str) else None,
        None if code is None else str(code),
    )


def _words(said: Any) -> str:
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
