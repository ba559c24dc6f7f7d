"""Every way to ask for structure is enforced on random weights, or refused with the reason."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gptoss_harmony import Engine
from gptoss_harmony.plugins import open_engine
from gptoss_harmony.random_checkpoint import random_checkpoint, tiny_config
from gptoss_harmony.testing import require
from gptoss_serve import create_app

Json = dict[str, Any]
Judge = Callable[[str, Json], None]

WEATHER: Json = {
    "type": "object",
    "properties": {
        "città": {"type": "string", "minLength": 2},
        "day": {"type": "string", "format": "date"},
        "units": {"enum": ["°C", "°F"]},
    },
    "required": ["città", "day", "units"],
    "additionalProperties": False,
}
TREE: Json = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#"}, {"const": None}]},
    },
    "required": ["value", "next"],
    "additionalProperties": False,
}
SUM = 'start: NUMBER ("+" NUMBER)+ "="\nNUMBER: /[1-9][0-9]{0,3}/'
UNENFORCEABLE: dict[str, Json] = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}},
    "minProperties": {"type": "object", "minProperties": 2},
    "foo-format": {"type": "string", "format": "foo-format"},
    "nowhere": {"$ref": "#/$defs/nowhere"},
    "example.com": {"$ref": "https://example.com/schema"},
    "regex": {"type": "string", "pattern": "(?=a)b"},
    "unsatisfiable": {"type": "string", "minLength": 5, "maxLength": 2},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    require(importlib.util.find_spec("gptoss_core") is not None, "gptoss-core is not installed")
    folder = random_checkpoint(
        tmp_path_factory.mktemp("random") / "original", tiny_config(), seed=3
    )
    engine = open_engine("torch", str(folder), device="cpu")
    yield engine
    engine.close()


def post(engine: Engine, path: str, body: Json) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(engine))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://x", timeout=None
        ) as client:
            return await client.post(path, json=body)

    return asyncio.run(ask())


def respond(engine: Engine, **body: Any) -> Json:
    asked = {"input": "Go on.", "max_output_tokens": 120, "seed": 1, "store": False, **body}
    response = post(engine, "/v1/responses", asked)
    assert response.status_code == 200, response.text
    given: Json = response.json()
    assert given["status"] == "completed", given
    return given


def complete(engine: Engine, **body: Any) -> Json:
    asked = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 120, "seed": 1}
    response = post(engine, "/v1/chat/completions", {**asked, **body})
    assert response.status_code == 200, response.text
    choice: Json = response.json()["choices"][0]
    return choice


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get weather"}])
def test_strict_functions_get_valid_arguments(engine: Engine, judged: Judge, choice: Any) -> None:
    tools = [
        {"type": "function", "name": "get weather", "parameters": WEATHER, "strict": True},
        {"type": "function", "name": "tree", "parameters": TREE, "strict": True},
    ]
    call = respond(engine, tools=tools, tool_choice=choice)["output"][-1]
    assert call["type"] == "function_call"
    if choice != "required":
        assert call["name"] == "get weather"
    judged(call["arguments"], WEATHER if call["name"] == "get weather" else TREE)


@pytest.mark.slow
def test_a_function_that_is_not_strict_still_gets_an_object(engine: Engine) -> None:
    tools = [{"type": "function", "name": "lax", "parameters": WEATHER}]
    call = respond(engine, tools=tools, tool_choice="required")["output"][-1]
    assert isinstance(json.loads(call["arguments"]), dict)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        ({"type": "grammar", "syntax": "lark", "definition": SUM}, r"\d{1,4}(\+\d{1,4})+="),
        ({"type": "grammar", "syntax": "regex", "definition": "[ab]{3}/é"}, "[ab]{3}/é"),
    ],
)
def test_custom_tools_get_text_of_their_grammar(engine: Engine, format: Json, pattern: str) -> None:
    tools = [{"type": "custom", "name": "sum", "format": format}]
    call = respond(engine, tools=tools, tool_choice="required")["output"][-1]
    assert call["type"] == "custom_tool_call"
    assert re.fullmatch(pattern, call["input"], re.ASCII)


@pytest.mark.slow
@pytest.mark.parametrize("schema", [TREE, None], ids=["json_schema", "json_object"])
def test_chat_completions_obey_their_response_format(
    engine: Engine, judged: Judge, schema: Json | None
) -> None:
    format: Json = {"type": "json_object"}
    if schema is not None:
        inner = {"name": "tree", "schema": schema, "strict": True}
        format = {"type": "json_schema", "json_schema": inner}
    choice = complete(engine, response_format=format)
    assert choice["finish_reason"] == "stop"
    judged(choice["message"]["content"], schema or {"type": "object"})


@pytest.mark.slow
def test_chat_completions_call_what_they_must(engine: Engine, judged: Judge) -> None:
    function = {"name": "weather", "parameters": WEATHER, "strict": True}
    tools = [{"type": "function", "function": function}]
    named = {"type": "function", "function": {"name": "weather"}}
    for wanted in ("required", named):
        choice = complete(engine, tools=tools, tool_choice=wanted)
        assert choice["finish_reason"] == "tool_calls"
        judged(choice["message"]["tool_calls"][0]["function"]["arguments"], WEATHER)


@pytest.mark.parametrize("word", UNENFORCEABLE)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_enforced_is_refused_by_name(
    serve: Callable[..., Any], word: str, stream: bool
) -> None:
    url = serve().url
    inside = {"inside": UNENFORCEABLE[word]}
    schema = {"type": "object", "properties": inside, "required": ["inside"]}
    format = {"type": "json_schema", "name": "it", "schema": schema}
    tool = {"name": "f", "parameters": schema, "strict": True}
    hello = [{"role": "user", "content": "Hi"}]
    inner = {"name": "it", "schema": schema}
    cases: list[tuple[str, str, Json]] = [
        ("responses", "text.format", {"input": "Hi", "text": {"format": format}}),
        ("responses", "tools", {"input": "Hi", "tools": [{"type": "function", **tool}]}),
        (
            "chat/completions",
            "response_format",
            {"messages": hello, "response_format": {"type": "json_schema", "json_schema": inner}},
        ),
        (
            "chat/completions",
            "tools",
            {"messages": hello, "tools": [{"type": "function", "function": tool}]},
        ),
    ]
    for path, param, body in cases:
        answer = httpx.post(f"{url}/v1/{path}", json={**body, "stream": stream}, timeout=60)
        assert answer.status_code == 400, (path, param, answer.text)
        error = answer.json()["error"]
        assert error["param"] == param
        assert error["code"] == "invalid_schema"
        assert "cannot be enforced" in error["message"]
        assert word in error["message"], error["message"]


def test_a_grammar_that_is_none_is_refused_by_name(serve: Callable[..., Any]) -> None:
    for syntax, definition in (("lark", "start: ("), ("lark", "start: <|end|>"), ("regex", "(")):
        format = {"type": "grammar", "syntax": syntax, "definition": definition}
        body = {"input": "Hi", "tools": [{"type": "custom", "name": "mine", "format": format}]}
        answer = httpx.post(f"{serve().url}/v1/responses", json=body, timeout=60)
        assert answer.status_code == 400, answer.text
        assert "the function mine cannot be enforced" in answer.json()["error"]["message"]
