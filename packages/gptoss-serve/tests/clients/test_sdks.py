"""OpenAI's Python client against a real port and a script; test_openai_python.py asks nano."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

JSON = '<|channel|>final <|constrain|>json<|message|>{"city":"Lyon","celsius":7}<|return|>'


class Weather(BaseModel):
    city: str
    celsius: int


def test_parse_gives_a_typed_answer(serve: Callable[..., Any]) -> None:
    server = serve([JSON])
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        parsed = client.responses.parse(model="scripted", input="Weather?", text_format=Weather)
        assert parsed.output_parsed == Weather(city="Lyon", celsius=7)
        chat = client.chat.completions.parse(
            model="scripted",
            messages=[{"role": "user", "content": "Weather?"}],
            response_format=Weather,
        )
        assert chat.choices[0].message.parsed == Weather(city="Lyon", celsius=7)


def test_stream_gives_the_same_response(serve: Callable[..., Any], call: str) -> None:
    server = serve([call])
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        with client.responses.stream(model="scripted", input="Hi", tools=[tool]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert final.output[-1].arguments == '{"city": "Lyon"}'
