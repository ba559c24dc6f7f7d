"""What LiteLLM gets from the server whose base URL, key and model are given, as one JSON object.

A program of its own: LiteLLM is not in the environment of the tests, but beside it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm

BASE, KEY, MODEL = sys.argv[1:]
ASKED: dict[str, Any] = {
    "model": f"openai/{MODEL}",
    "api_base": BASE,
    "api_key": KEY,
    "temperature": 0,
    "timeout": 240,
}
HELLO = [{"role": "user", "content": "Hello"}]


async def streamed() -> str:
    stream = await litellm.acompletion(messages=HELLO, stream=True, **ASKED)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def response() -> str:
    asked = {**ASKED, "input": "Hello"}
    answer = await litellm.aresponses(**asked)
    return str(answer.output_text)


async def response_events() -> list[str]:
    events = await litellm.aresponses(input="Hello", stream=True, **ASKED)
    return [str(getattr(event.type, "value", event.type)) async for event in events]


def tools(weather: dict[str, Any]) -> dict[str, Any]:
    offered = [{"type": "function", "function": weather}]
    messages: list[Any] = [
        {"role": "user", "content": "Call get_weather with city Paris and days 3."}
    ]
    first = litellm.completion(messages=messages, tools=offered, **ASKED).choices[0].message
    (call,) = first.tool_calls
    messages += [
        first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    second = litellm.completion(messages=messages, tools=offered, **ASKED).choices[0].message
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "answer": second.content,
    }


async def main() -> None:
    message = litellm.completion(messages=HELLO, **ASKED).choices[0].message
    said = {
        "completion": message.content,
        "reasoning": message.reasoning_content,
        "streamed": await streamed(),
        "response": await response(),
        "events": await response_events(),
        "tools": tools(json.load(sys.stdin)),
    }
    sys.stdout.write(json.dumps(said))


asyncio.run(main())
