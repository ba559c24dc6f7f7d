"""OpenAI's Python client and the Agents SDK on both APIs, against a real port."""

from __future__ import annotations

import asyncio
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


@pytest.mark.slow
@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_agents_run_their_tool_loop(
    serve: Callable[..., Any], call: str, final: str, api: str
) -> None:
    import agents

    server = serve([call, final])

    @agents.function_tool
    def weather(city: str) -> str:
        """Say the weather."""
        asked.append(city)
        return "7 degrees"

    asked: list[str] = []

    async def run() -> Any:
        agents.set_tracing_disabled(True)
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
            kinds = {
                "responses": agents.OpenAIResponsesModel,
                "chat_completions": agents.OpenAIChatCompletionsModel,
            }
            model = kinds[api](model="scripted", openai_client=client)
            agent = agents.Agent(name="a", instructions="Help.", tools=[weather], model=model)
            return await agents.Runner.run(agent, "Weather in Lyon?")

    assert asyncio.run(run()).final_output == "Hello, world!"
    assert asked == ["Lyon"]


@pytest.mark.slow
@pytest.mark.parametrize("use_responses", [True, False])
def test_langchain_answers_and_calls(
    serve: Callable[..., Any], call: str, final: str, use_responses: bool
) -> None:
    from langchain_openai import ChatOpenAI

    server = serve([final, call])
    model = ChatOpenAI(
        model="scripted",
        base_url=f"{server.url}/v1",
        api_key="x",
        use_responses_api=use_responses,
    )
    answer = model.invoke("Hi")
    assert "Hello, world!" in str(answer.content)
    schema = {"title": "weather", "type": "object", "properties": {"city": {"type": "string"}}}
    called = model.bind_tools([schema | {"description": "weather"}]).invoke("Weather?")
    assert called.tool_calls[0]["args"] == {"city": "Lyon"}
