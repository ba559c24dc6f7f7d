"""What is left open about an upstream is found out, and mistakes are said in a sentence."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gptoss_harmony.errors import UsageError
from gptoss_serve.upstream.discover import find_endpoint
from gptoss_serve.upstream.endpoint import Endpoint, base_url
from gptoss_serve.upstream.options import add_upstream_options, upstream_session

SECRET = "sk-secret-key"


def app(*, status: int = 404, body: Any = None, models: Any = None, key: str | None = None) -> Any:
    """A server whose answer to `POST /responses` is given."""

    async def listing(request: Request) -> Response:
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "no"}}, status_code=401)
        return JSONResponse(models if models is not None else {"data": [{"id": "m"}]})

    async def responses(request: Request) -> Response:
        assert (await request.json())["input"] == 0, "a probe must never make a model work"
        return JSONResponse(body or {}, status_code=status)

    paths = [Route("/v1/models", listing), Route("/v1/responses", responses, methods=["POST"])]
    return Starlette(routes=paths)


@pytest.mark.parametrize(
    ("status", "body", "api"),
    [
        (400, {"error": {"message": "input must be a string"}}, "responses"),
        (422, {"detail": []}, "responses"),
        (404, {"error": {"code": "model_not_found"}}, "responses"),
        (404, {"detail": "Not Found"}, "chat"),
        (405, {}, "chat"),
        (200, {"error": "Unexpected endpoint or method. (POST /v1/responses)"}, "chat"),
    ],
)
def test_the_api_is_found_out(running: Any, status: int, body: Any, api: str) -> None:
    endpoint = find_endpoint(running(app(status=status, body=body)).url)
    assert (endpoint.api, endpoint.model) == (api, "m")


def test_our_own_server_is_recognised_without_making_it_work(behind: Any) -> None:
    engine, url = behind([])
    endpoint = find_endpoint(url.removesuffix("/v1"))
    assert (endpoint.api, endpoint.model, endpoint.url) == ("responses", "behind", url)
    assert endpoint.context_length == engine.spec.context_length
    assert engine.prompts == []


def test_the_first_model_is_taken_unless_one_is_named(fake: Any) -> None:
    _, url = fake([])
    assert find_endpoint(url, api="chat").model == "first"
    assert find_endpoint(url, api="chat").context_length == 4096
    named = find_endpoint(url, model="second")
    assert (named.model, named.context_length) == ("second", 131_072)


def test_what_is_given_is_not_asked_for() -> None:
    endpoint = find_endpoint("http://127.0.0.1:9", api="chat", model="m", key=SECRET)
    assert endpoint.post_url == "http://127.0.0.1:9/v1/chat/completions"
    assert SECRET not in repr(endpoint)


def test_keys_are_sent_and_asked_for(running: Any) -> None:
    url = running(app(key=SECRET)).url
    assert find_endpoint(url, key=SECRET).model == "m"
    with pytest.raises(UsageError, match="GPTOSS_UPSTREAM_KEY") as wrong:
        find_endpoint(url, key="sk-other-key")
    assert "sk-other-key" not in str(wrong.value)


def test_mistakes_are_said(running: Any) -> None:
    with pytest.raises(UsageError, match="start it first"):
        find_endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="--upstream-model"):
        find_endpoint(running(app(models={"data": []})).url)
    with pytest.raises(UsageError, match="--upstream-model"):
        find_endpoint(running(app(models=["odd"])).url)
    for wrong in ("localhost:8000", "ftp://host/v1", "http://host/v1?key=secret"):
        with pytest.raises(UsageError, match="base URL") as said:
            base_url(wrong)
        assert "secret" not in str(said.value)
    for amounts in ({"retries": -1}, {"silence_seconds": 0}):
        with pytest.raises(UsageError, match="must be"):
            Endpoint(url="http://h/v1", model="m", api="chat", **amounts)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/api/v1/", "https://h/api/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/v1/responses", "https://h/v1"),
        ("https://u:p@h/openai", "https://u:p@h/openai"),
    ],
)
def test_addresses_as_users_write_them(given: str, base: str) -> None:
    assert base_url(given) == base
    assert "u:p" not in Endpoint(url=base, model="m", api="chat").shown


def test_an_engine_and_an_upstream_exclude_each_other() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--engine", default="auto")
    add_upstream_options(parser)
    for extra in (["--checkpoint", "x"], ["--engine", "torch"]):
        args = parser.parse_args(["--upstream", "http://127.0.0.1:9", *extra])
        with pytest.raises(UsageError, match="in place of an engine"):
            upstream_session(args)
