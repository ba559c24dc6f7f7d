"""What a user leaves open about an upstream: which API it has, its model, how much that reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from gptoss_harmony.errors import UsageError
from gptoss_serve.upstream.endpoint import (
    UNKNOWN_CONTEXT,
    Endpoint,
    UpstreamApi,
    base_url,
    key_headers,
    shown_url,
)

# How servers call the tokens that a model reads, most exact first.
_CONTEXTS = ("max_model_len", "loaded_context_length", "context_length", "context_window")
_KEY_ADVICE = "set GPTOSS_UPSTREAM_KEY to a key that it accepts"


def find_endpoint(
    given: str,
    *,
    api: UpstreamApi | None = None,
    model: str | None = None,
    key: str | None = None,
    silence_seconds: float = 600.0,
    retries: int = 2,
) -> Endpoint:
    """Ask the server for what is not given; one that needs not be asked need not run yet.

    Args:
        given: the URL as the user wrote it.
        api: None finds out; the Responses API where there are both.
        model: None takes the first that the server lists.
        key: bearer key.
        silence_seconds: of `Endpoint`.
        retries: of `Endpoint`.

    Raises:
        UsageError: the server cannot be reached, refuses the key, or lists no model.
    """
    url = base_url(given)
    context = UNKNOWN_CONTEXT
    if api is None or model is None:
        with httpx.Client(headers=key_headers(key), timeout=httpx.Timeout(30.0)) as http:
            listed = _models(http, url, is_needed=model is None)
            entry = _entry(listed, model, url)
            model = model or str(entry["id"])
            context = _context(entry)
            api = api or _api(http, url, model)
    return Endpoint(
        url=url,
        model=model,
        api=api,
        key=key,
        context_length=context,
        silence_seconds=silence_seconds,
        retries=retries,
    )


def _models(http: httpx.Client, url: str, *, is_needed: bool) -> list[Mapping[str, Any]]:
    answer = _asked(http, "GET", f"{url}/models")
    try:
        listed = answer.json()["data"] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError):
        listed = []
    found = [m for m in listed or () if isinstance(m, Mapping) and isinstance(m.get("id"), str)]
    if is_needed and not found:
        raise UsageError(
            f"{shown_url(url)}/models lists no model (status {answer.status_code}); "
            "name one with --upstream-model, or check --upstream"
        )
    return found


def _entry(listed: list[Mapping[str, Any]], model: str | None, url: str) -> Mapping[str, Any]:
    if model is None:
        return listed[0]
    return next((entry for entry in listed if entry["id"] == model), {})


def _context(entry: Mapping[str, Any]) -> int:
    found = (entry.get(name) for name in _CONTEXTS)
    return next((n for n in found if isinstance(n, int) and n > 0), UNKNOWN_CONTEXT)


def _api(http: httpx.Client, url: str, model: str) -> UpstreamApi:
    """Whether there is a Responses API: asked for something that each must refuse.

    A server without it says that there is nothing at this path, with 404 or 405, or, as some do,
    with 200 and an error.
    """
    answer = _asked(http, "POST", f"{url}/responses", {"model": model, "input": 0})
    has_responses = answer.status_code not in (200, 404, 405, 501)
    if answer.status_code == 404:
        has_responses = "model" in answer.text and "model_not_found" in answer.text
    return "responses" if has_responses else "chat"


def _asked(http: httpx.Client, method: str, url: str, body: Any = None) -> httpx.Response:
    try:
        answer = http.request(method, url, json=body)
    except httpx.HTTPError as error:
        raise UsageError(
            f"the upstream {shown_url(url)} cannot be reached ({type(error).__name__}); "
            "start it first, or check --upstream"
        ) from error
    if answer.status_code in (401, 403):
        raise UsageError(
            f"the upstream {shown_url(url)} refused its key ({answer.status_code}); {_KEY_ADVICE}"
        )
    return answer
