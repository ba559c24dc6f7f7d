"""OpenAI's Agents SDK over both APIs: an agent whose function is really called by nano."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import agents
import openai
import pytest
from pydantic import BaseModel

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODELS = {
    "responses": agents.OpenAIResponsesModel,
    "chat completions": agents.OpenAIChatCompletionsModel,
}
SETTINGS = agents.ModelSettings(temperature=0)


class Person(BaseModel):
    name: str
    age: int
    city: str


@pytest.fixture(params=list(MODELS))
def run(nano: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Let a function use a model over one of the APIs."""
    agents.set_tracing_disabled(True)

    def start(use: Callable[[agents.Model], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            client = openai.AsyncOpenAI(base_url=nano.base, api_key=nano.key, timeout=240)
            async with client:
                return await use(MODELS[request.param](model=nano.model, openai_client=client))

        return asyncio.run(connected())

    return start


def test_an_agent_calls_its_function_and_answers(run: Callable[..., Any]) -> None:
    asked: list[tuple[str, int]] = []

    @agents.function_tool
    def get_weather(city: str, days: int) -> str:
        """Look up the weather."""
        asked.append((city, days))
        return "sunny"

    async def use(model: agents.Model) -> Any:
        agent = agents.Agent(name="a", tools=[get_weather], model=model, model_settings=SETTINGS)
        return await agents.Runner.run(agent, "Call get_weather with city Paris and days 3.")

    result = run(use)
    assert asked == [("Paris", 3)]
    assert result.final_output == "The result: sunny."
    assert result.context_wrapper.usage.requests == 2


def test_an_agent_streams_a_typed_answer(run: Callable[..., Any]) -> None:
    async def use(model: agents.Model) -> Any:
        agent = agents.Agent(name="a", output_type=Person, model=model, model_settings=SETTINGS)
        sentence = "Maria Lopez is 34 years old and lives in Berlin."
        result = agents.Runner.run_streamed(agent, sentence)
        text = ""
        async for event in result.stream_events():
            if getattr(getattr(event, "data", None), "type", "") == "response.output_text.delta":
                text += event.data.delta
        return text, result.final_output

    text, person = run(use)
    assert person == Person(name="Maria Lopez", age=34, city="Berlin")
    assert Person.model_validate_json(text) == person
