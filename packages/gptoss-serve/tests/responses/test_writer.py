"""Whatever the model writes, the events are well-formed, typed as OpenAI's client types them, and
add up to the response."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from gptoss_harmony.scripted import Recording, ScriptedEngine
from gptoss_serve import ServerSettings, Session, Toolbox
from gptoss_serve.limits import Admission
from gptoss_serve.models import ModelNames
from gptoss_serve.responses.schema import ResponsesRequest
from gptoss_serve.responses.service import ResponseService

REQUIRED = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model"),
    *("previous_response_id", "instructions", "output", "error", "tools", "tool_choice"),
    *("truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty", "usage"),
    *("frequency_penalty", "top_logprobs", "temperature", "reasoning", "max_output_tokens"),
    *("max_tool_calls", "store", "background", "service_tier", "metadata"),
    *("safety_identifier", "prompt_cache_key"),
}

TOOLS = [
    {"type": "function", "name": "look up", "parameters": {"type": "object"}},
    {"type": "custom", "name": "apply_patch", "description": "Patch."},
    {
        "type": "namespace",
        "name": "agents",
        "description": "",
        "tools": [{"type": "function", "name": "spawn", "parameters": {"type": "object"}}],
    },
    {"type": "web_search"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
]
HEADERS = [
    "<|channel|>analysis",
    "<|channel|>commentary",
    "<|channel|>final",
    "<|channel|>commentary to=functions.look_up <|constrain|>json",
    " to=functions.apply_patch<|channel|>commentary",
    "<|channel|>commentary to=functions.agents__spawn",
    "<|channel|>analysis to=browser.search",
    "<|channel|>analysis to=python code",
    "<|channel|>commentary to=functions.unknown",
    "",
    "<|channel|>commentary<|channel|>commentary",
]
TEXT = st.text(max_size=30) | st.sampled_from(['{"input": "x"}', '"quoted"', "{", "【0†L1】 ok"])
MESSAGES = st.lists(
    st.tuples(st.sampled_from(HEADERS), TEXT, st.sampled_from(["<|end|>", "<|call|>"])),
    min_size=1,
    max_size=5,
)


class EchoTool:
    """Answers with what it was sent."""

    def __init__(self, name: str) -> None:
        from openai_harmony import ToolNamespaceConfig

        self.name = name
        self.tool_config = getattr(ToolNamespaceConfig, name)()

    def instruction(self) -> str:
        return ""

    def process(self, message: Any) -> Any:
        from gptoss_harmony.tool import ToolReply
        from gptoss_serve.session import _tool_reply

        async def reply() -> Any:
            yield _tool_reply(message, "echo: " + message.content[0].text)

        return ToolReply(reply())


@functools.cache
def strict_events() -> TypeAdapter[Any]:
    return TypeAdapter(ResponseStreamEvent)


def assert_complete(model: Any, value: Any, path: str = "") -> None:
    """Every field that OpenAI's model has as required is really there, at every depth."""
    if isinstance(model, BaseModel):
        for name, info in type(model).model_fields.items():
            if info.is_required():
                assert name in model.model_fields_set, f"{path}.{name} is missing"
            assert_complete(getattr(model, name, None), value, f"{path}.{name}")
    elif isinstance(model, list):
        for position, entry in enumerate(model):
            assert_complete(entry, value, f"{path}[{position}]")


def respond(reply: str, *, mode: str = "text", **fields: Any) -> tuple[list[dict[str, Any]], Any]:
    engine = ScriptedEngine(Recording([reply, "<|channel|>final<|message|>Done.<|return|>"]))
    makers = {name: (lambda _, n=name: EchoTool(n)) for name in ("browser", "python")}
    service = ResponseService(
        Session(engine),
        toolbox=Toolbox(makers),
        models=ModelNames(engine.spec),
        admission=Admission(),
        settings=ServerSettings(reasoning=mode),  # type: ignore[arg-type]
        store=None,
    )

    async def collect() -> tuple[list[dict[str, Any]], Any]:
        answering = await service.create(ResponsesRequest(input="Hi", tools=TOOLS, **fields))
        batches = [batch async for batch in answering.batches()]
        return [event for batch in batches for event in batch], answering.response

    return asyncio.run(collect())


@settings(max_examples=40, deadline=None)
@given(
    messages=MESSAGES,
    mode=st.sampled_from(["text", "summary", "spec"]),
    limit=st.none() | st.integers(1, 40),
    include=st.lists(
        st.sampled_from(["reasoning.encrypted_content", "code_interpreter_call.outputs"])
    ),
)
def test_any_answer_is_valid_and_adds_up(
    messages: list[tuple[str, str, str]],
    mode: str,
    limit: int | None,
    include: list[str],
    rebuilt: Any,
) -> None:
    reply = "<|start|>assistant".join(
        f"{header}<|message|>{text.replace('<|', '')}{end}" for header, text, end in messages
    )
    reply = reply.removesuffix("<|end|>") + "<|return|>"
    fields = {"max_output_tokens": limit, "include": include, "reasoning": {"summary": "auto"}}
    events, response = respond(reply, mode=mode, **fields)
    assert rebuilt(events) == response
    adapter = strict_events()
    for event in events:
        if mode == "spec" and event["type"].startswith("response.reasoning."):
            continue  # names that only Open Responses knows
        parsed = adapter.validate_python(event, strict=True)
        assert_complete(parsed, event, event["type"])
    assert set(response) >= REQUIRED
    Response.model_validate(response, strict=True)
    wanted = {"completed"} if limit is None else {"completed", "incomplete"}
    assert response["status"] in wanted


def test_a_call_names_the_clients_function_and_namespace() -> None:
    _, response = respond(
        "<|channel|>commentary to=functions.agents__spawn <|constrain|>json<|message|>{}<|call|>"
    )
    call = response["output"][0]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "spawn", "agents")
    assert call["status"] == "completed"


def test_a_freeform_call_is_unwrapped() -> None:
    _, response = respond(
        '<|channel|>commentary to=functions.apply_patch<|message|>{"input": "*** x"}<|call|>'
    )
    assert response["output"][0]["input"] == "*** x"


def test_our_tools_run_and_are_shown() -> None:
    events, response = respond(
        "<|channel|>analysis to=python code<|message|>print(1)<|call|>",
        include=["code_interpreter_call.outputs"],
    )
    code, message = response["output"]
    assert code["outputs"] == [{"type": "logs", "logs": "echo: print(1)"}]
    assert code["status"] == "completed"
    assert message["content"][0]["text"] == "Done."
    names = [event["type"] for event in events if "code_interpreter" in event["type"]]
    # How many deltas there are is a matter of timing.
    assert list(dict.fromkeys(names)) == [
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
    ]


def test_a_limit_makes_the_response_and_its_last_item_incomplete() -> None:
    long = "<|channel|>final<|message|>" + "word " * 50 + "<|return|>"
    _, response = respond(long, max_output_tokens=16)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][-1]["status"] == "incomplete"


def test_every_event_of_the_union_is_known() -> None:
    assert len(get_args(get_args(ResponseStreamEvent)[0])) > 40
