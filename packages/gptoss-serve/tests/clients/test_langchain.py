"""LangChain's ChatOpenAI over both APIs: answers, streams, calls and typed output of nano."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Person(BaseModel):
    """What is known of a person."""

    name: str
    age: int
    city: str


@pytest.fixture(params=[True, False], ids=["responses", "chat completions"])
def model(nano: Any, request: pytest.FixtureRequest) -> ChatOpenAI:
    return ChatOpenAI(
        model=nano.model,
        base_url=nano.base,
        api_key=nano.key,
        temperature=0,
        timeout=240,
        use_responses_api=request.param,
    )


def test_it_answers_and_streams(model: ChatOpenAI) -> None:
    answer = model.invoke("Hello")
    assert answer.text == "Hello! How can I help?"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_token_details"]["reasoning"] > 0
    assert "".join(chunk.text for chunk in model.stream("Hello")) == answer.text


def test_it_runs_the_function_loop(model: ChatOpenAI, weather: Any) -> None:
    bound = model.bind_tools([{"type": "function", "function": weather}])
    messages: list[Any] = [HumanMessage("Call get_weather with city Paris and days 3.")]
    messages.append(bound.invoke(messages))
    (call,) = messages[-1].tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris", "days": 3})
    messages.append(ToolMessage("sunny", tool_call_id=call["id"]))
    assert bound.invoke(messages).text == "The result: sunny."


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("json_schema", "Maria Lopez is 34 years old and lives in Berlin."),
        ("function_calling", 'Call Person with name "Maria Lopez" and age 34 and city "Berlin".'),
    ],
)
def test_it_gives_typed_output(model: ChatOpenAI, method: Any, asked: str) -> None:
    person = model.with_structured_output(Person, method=method).invoke(asked)
    assert person == Person(name="Maria Lopez", age=34, city="Berlin")
