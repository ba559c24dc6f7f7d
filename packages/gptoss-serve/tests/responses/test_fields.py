"""The audit: every field of a request, every kind of item and every query does what it means, or
is refused with a 400 that names it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any, get_args

import httpx
import pytest
from openai.types.responses import response_create_params, response_input_item_param
from openai.types.responses.response_includable import ResponseIncludable
from typing_extensions import get_type_hints

from gptoss_harmony import load_encoding
from gptoss_harmony.engine import Prompt, Sampling, TokenOutput
from gptoss_harmony.scripted import ScriptedEngine, ScriptedOptions
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.responses.schema import INCLUDABLE, ResponsesRequest
from gptoss_serve.responses.store import ResponseStore
from gptoss_serve.toolbox import Toolbox

Json = dict[str, Any]
FINAL = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi."
TWO_CALLS = (
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|end|><|start|>assistant"
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
)
CODE = "<|channel|>analysis to=python code<|message|>1<|call|>"
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}


class Recorder(ScriptedEngine):
    """Plays one text, remembers what it was asked, obeys constraints, reports probabilities."""

    def __init__(self, text: str) -> None:
        tokens = load_encoding().encode(text, allowed_special="all")
        super().__init__(lambda _: tokens, ScriptedOptions(context=20_000))
        supports = self.spec.supports | {"constraint", "logprobs"}
        self.spec = dataclasses.replace(self.spec, supports=supports)
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.constraints: list[Any] = []

    def generate(self, prompt: Any, sampling: Sampling, *, constraint: Any = None) -> Any:
        self.prompts.append(load_encoding().decode(Prompt.of(prompt).tokens))
        self.samplings.append(sampling)
        self.constraints.append(constraint)
        plain = dataclasses.replace(sampling, logprobs=None)
        replay = super().generate(prompt, plain)
        return replay if sampling.logprobs is None else _Scored(replay, sampling.logprobs)


class _Scored:
    """The same reply with a probability for each token."""

    cached_tokens = 0
    prompt_logprobs = None

    def __init__(self, replay: Any, top: int) -> None:
        self._replay = replay
        self._top = top

    def __iter__(self) -> Any:
        for output in self._replay:
            top = tuple((token, -1.0 - token) for token in range(self._top))
            yield TokenOutput(
                output.token,
                logprob=-0.5,
                top_logprobs=top,
                finish_reason=output.finish_reason,
            )

    def cancel(self) -> None:
        self._replay.cancel()


class Place:
    """A server for one question, in process."""

    def __init__(self, text: str, *, with_tools: bool = False, store: bool = True) -> None:
        self.engine = Recorder(text)
        self.store = ResponseStore(None) if store else None
        box = Toolbox({"python": lambda _: _Python()}) if with_tools else None
        settings = ServerSettings(drain_seconds=1)
        self.app = create_app(self.engine, settings=settings, toolbox=box, store=self.store)

    def ask(self, body: Any, *, path: str = "/v1/responses", method: str = "POST") -> Any:
        return self.talk([(method, path, body)])[0]

    def talk(self, requests: list[tuple[str, str, Any]]) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                answers: list[httpx.Response] = []
                for method, path, body in requests:
                    before = answers[-1].json() if answers and path.count("{id}") else {}
                    url = path.replace("{id}", before.get("id", ""))
                    answers.append(await http.request(method, url, json=body))
                return answers

        return asyncio.run(run())

    @property
    def prompt(self) -> str:
        return self.engine.prompts[-1]

    @property
    def sampling(self) -> Sampling:
        return self.engine.samplings[-1]


class _Python:
    """Python that says 2."""

    name = "python"

    def __init__(self) -> None:
        from openai_harmony import ToolNamespaceConfig

        self.tool_config = ToolNamespaceConfig.python()

    def instruction(self) -> str:
        return ""

    def process(self, call: Any) -> Any:
        from gptoss_harmony import tool_message
        from gptoss_harmony.tool import ToolReply

        async def reply() -> Any:
            yield tool_message("python", "2", channel="analysis")

        return ToolReply(reply())


@pytest.fixture
def place() -> Any:
    made: list[Place] = []

    def make(text: str = FINAL + "<|return|>", **options: Any) -> Place:
        made.append(Place(text, **options))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()
        if one.store is not None:
            one.store.close()


@pytest.fixture(scope="module")
def refusing() -> Any:
    """One server for everything that gets no answer."""
    server = Place(FINAL)
    yield server
    assert server.engine.prompts == []
    server.engine.close()
    assert server.store is not None
    server.store.close()


def outputs(response: Json, kind: str) -> list[Json]:
    return [item for item in response["output"] if item["type"] == kind]


# What a field does: (field, value, what the server plays, how it shows). The check gets the place,
# the response and the value.
Check = Callable[[Place, Json, Any], bool]
HONOURED: list[tuple[str, Any, str, Check]] = [
    ("model", "scripted", FINAL, lambda p, r, v: r["model"] == v),
    ("input", "What is up?", FINAL, lambda p, r, v: f"<|message|>{v}<|end|>" in p.prompt),
    ("input", [{"role": "user", "content": "Ho"}], FINAL, lambda p, r, v: ">Ho<" in p.prompt),
    ("instructions", "Be kind.", FINAL, lambda p, r, v: v in p.prompt and r["instructions"] == v),
    ("stream", False, FINAL, lambda p, r, v: r["object"] == "response"),
    ("tools", [FUNCTION], FINAL, lambda p, r, v: "type f = " in p.prompt and len(r["tools"]) == 1),
    ("tool_choice", "none", FINAL, lambda p, r, v: "type f =" not in p.prompt),
    (
        "tool_choice",
        {"type": "function", "name": "f"},
        TWO_CALLS,
        lambda p, r, v: p.engine.constraints[0] is not None and r["tool_choice"] == v,
    ),
    (
        "parallel_tool_calls",
        False,
        TWO_CALLS,
        lambda p, r, v: len(outputs(r, "function_call")) == 1 and r["parallel_tool_calls"] is v,
    ),
    (
        "parallel_tool_calls",
        True,
        TWO_CALLS,
        lambda p, r, v: len(outputs(r, "function_call")) == 2,
    ),
    (
        "max_output_tokens",
        4,
        FINAL,
        lambda p, r, v: r["status"] == "incomplete" and r["usage"]["output_tokens"] == v,
    ),
    (
        "max_tool_calls",
        2,
        CODE,
        lambda p, r, v: (
            sum(item["status"] == "completed" for item in outputs(r, "code_interpreter_call")) == v
        ),
    ),
    ("temperature", 0.25, FINAL, lambda p, r, v: p.sampling.temperature == v == r["temperature"]),
    ("top_p", 0.5, FINAL, lambda p, r, v: p.sampling.top_p == v == r["top_p"]),
    ("presence_penalty", 0.5, FINAL, lambda p, r, v: p.sampling.presence_penalty == v),
    ("frequency_penalty", 0.5, FINAL, lambda p, r, v: p.sampling.frequency_penalty == v),
    ("seed", 11, FINAL, lambda p, r, v: p.sampling.seed == v),
    ("top_k", 5, FINAL, lambda p, r, v: p.sampling.top_k == v),
    ("min_p", 0.1, FINAL, lambda p, r, v: p.sampling.min_p == v),
    (
        "top_logprobs",
        2,
        FINAL,
        lambda p, r, v: (
            len(outputs(r, "message")[0]["content"][0]["logprobs"][0]["top_logprobs"]) == v
        ),
    ),
    (
        "include",
        ["message.output_text.logprobs"],
        FINAL,
        lambda p, r, v: outputs(r, "message")[0]["content"][0]["logprobs"] != [],
    ),
    (
        "include",
        ["reasoning.encrypted_content"],
        FINAL,
        lambda p, r, v: outputs(r, "reasoning")[0]["encrypted_content"].startswith("gptoss1."),
    ),
    (
        "include",
        ["code_interpreter_call.outputs"],
        CODE,
        lambda p, r, v: (
            outputs(r, "code_interpreter_call")[0]["outputs"] == [{"type": "logs", "logs": "2"}]
        ),
    ),
    (
        "text",
        {"format": {"type": "json_object"}},
        FINAL,
        lambda p, r, v: p.engine.constraints[0] is not None and r["text"]["format"] == v["format"],
    ),
    (
        "text",
        {"format": {"type": "json_schema", "name": "n", "schema": {"type": "string"}}},
        FINAL,
        lambda p, r, v: p.engine.constraints[0] is not None and "# Response Formats" in p.prompt,
    ),
    ("text", {"verbosity": "low"}, FINAL, lambda p, r, v: "short" in p.prompt),
    (
        "text",
        {"verbosity": "high"},
        FINAL,
        lambda p, r, v: "thorough" in p.prompt and r["text"]["verbosity"] == "high",
    ),
    *(
        (
            "reasoning",
            {"effort": asked},
            FINAL,
            lambda p, r, v, given=given: (
                f"Reasoning: {given}" in p.prompt and r["reasoning"]["effort"] == given
            ),
        )
        for asked, given in {
            "none": "low",
            "minimal": "low",
            "low": "low",
            "medium": "medium",
            "high": "high",
            "xhigh": "high",
            "max": "high",
        }.items()
    ),
    *(
        (
            "reasoning",
            {name: length},
            FINAL,
            lambda p, r, v: (
                outputs(r, "reasoning")[0]["summary"] == [{"type": "summary_text", "text": "Hm."}]
                and r["reasoning"]["summary"] == "detailed"
            ),
        )
        for name in ("summary", "generate_summary")
        for length in ("auto", "concise", "detailed")
    ),
    ("reasoning", {"mode": "standard"}, FINAL, lambda p, r, v: True),  # the only one there is
    ("store", True, FINAL, lambda p, r, v: r["store"] is True),
    ("background", True, FINAL, lambda p, r, v: r["background"] is True),
    ("truncation", "auto", FINAL, lambda p, r, v: r["truncation"] == v),
    # Labels: what they are for happens elsewhere, or (caching) happens anyway.
    ("metadata", {"a": "b"}, FINAL, lambda p, r, v: r["metadata"] == v),
    ("user", "u", FINAL, lambda p, r, v: r["user"] == v),
    ("prompt_cache_key", "k", FINAL, lambda p, r, v: r["prompt_cache_key"] == v),
    ("prompt_cache_retention", "24h", FINAL, lambda p, r, v: r["prompt_cache_retention"] == v),
    ("prompt_cache_options", {"mode": "implicit", "ttl": "30m"}, FINAL, lambda p, r, v: True),
    ("safety_identifier", "s", FINAL, lambda p, r, v: r["safety_identifier"] == v),
    ("client_metadata", {"a": 1}, FINAL, lambda p, r, v: "a" not in r["metadata"]),
    *(
        ("service_tier", tier, FINAL, lambda p, r, v: r["service_tier"] == "default")
        for tier in ("auto", "default", "flex", "priority")
    ),
]
REFUSED: list[tuple[Json, str]] = [
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"access_programs": {"cyber": "standard"}}, "access_programs"),
    ({"background_options": {"completion_window": "2h"}}, "background_options"),
    ({"image": {"context_compression": "auto"}}, "image"),
    ({"nonsense": 1}, "nonsense"),
    ({"model": 5}, "model"),
    ({"input": 5}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": [5]}, "input.0"),
    ({"instructions": [{"role": "user", "content": "x"}]}, "instructions"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": 10**12}, "max_output_tokens"),
    ({"max_tool_calls": -1}, "max_tool_calls"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"seed": 2**63}, "seed"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"include": ["web_search_call.results"]}, "include[0]"),
    ({"include": ["reasoning.encrypted_content", "nonsense"]}, "include[1]"),
    ({"text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_object", "strict": True}}}, "text.format.strict"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"reasoning": {"context": "some"}}, "reasoning.context"),
    ({"store": False, "background": True}, "background"),
    ({"truncation": "middle"}, "truncation"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: ""}}, "metadata"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"user": 1}, "user"),
    ({"service_tier": "gold"}, "service_tier"),
    ({"prompt_cache_retention": "1h"}, "prompt_cache_retention"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode"),
    ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
    ({"safety_identifier": 1}, "safety_identifier"),
    ({"client_metadata": "x"}, "client_metadata"),
]
# Told in tests of their own, below or beside this file.
ELSEWHERE = {"previous_response_id", "stream_options"}


@pytest.mark.parametrize(
    ("field", "value", "text", "check"),
    HONOURED,
    ids=[f"{field}={json.dumps(value)[:40]}" for field, value, _, _ in HONOURED],
)
def test_a_field_does_what_it_means(
    place: Any, field: str, value: Any, text: str, check: Check
) -> None:
    is_code = text == CODE
    end = "" if text.endswith("<|call|>") else "<|return|>"
    server = place(text + end, with_tools=is_code)
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}] if is_code else [FUNCTION]
    more = {"max_tool_calls": 1} if is_code else {}
    answer = server.ask({"input": "Hello", "tools": tools, **more, field: value})
    assert answer.status_code == 200, answer.text
    response = answer.json()
    if field == "background":
        assert response["status"] in ("queued", "in_progress")
    assert check(server, response, value)


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[json.dumps(f)[:50] for f, _ in REFUSED])
def test_a_field_is_refused_by_name(refusing: Place, fields: Json, param: str) -> None:
    answer = refusing.ask({"input": "Hello", **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_the_audit_misses_no_field() -> None:
    told = {field for field, *_ in HONOURED} | ELSEWHERE
    assert told == set(ResponsesRequest.model_fields)
    refused = {param for fields, _ in REFUSED for param in fields}
    known = get_type_hints(response_create_params.ResponseCreateParamsBase)
    assert set(known) <= told | refused
    assert set(get_args(ResponseIncludable)) - INCLUDABLE == {"web_search_call.results"}


def test_null_is_absence(place: Any) -> None:
    body = {**dict.fromkeys(ResponsesRequest.model_fields), "input": "Hello"}
    body |= dict.fromkeys(("prompt", "conversation", "context_management", "moderation"))
    assert place().ask(body).json()["status"] == "completed"


def test_a_strict_schema_needs_an_engine_that_enforces_and_a_loose_one_does_not() -> None:
    engine = ScriptedEngine(lambda _: load_encoding().encode(FINAL, allowed_special="all"))
    app = create_app(engine)
    for strict, status in ((True, 400), (None, 400), (False, 200)):
        format = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
        body = {"input": "x", "text": {"format": {**format, "strict": strict}}}
        assert _post(app, body).status_code == status
    engine.close()


def _post(app: Any, body: Json) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post("/v1/responses", json=body)

    return asyncio.run(run())


def test_old_reasoning_is_dropped_unless_all_turns_are_wanted(place: Any) -> None:
    items = [
        {"role": "user", "content": "One"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "T1"}]},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "Two"},
    ]
    for context, is_there in (("auto", False), ("current_turn", False), ("all_turns", True)):
        server = place()
        response = server.ask({"input": items, "reasoning": {"context": context}}).json()
        assert ("T1" in server.prompt) is is_there
        assert response["reasoning"]["context"] == context


def test_instructions_hold_for_one_response_and_developer_messages_for_all(place: Any) -> None:
    server = place()
    items = [{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": "Hello"}]
    first = server.ask({"input": items, "instructions": "Shout."}).json()
    assert "Shout." in server.prompt
    second = server.ask({"input": "More", "previous_response_id": first["id"]}).json()
    assert "Shout." not in server.prompt
    assert "Rhyme." in server.prompt
    assert second["instructions"] is None
    server.ask({"input": "More", "previous_response_id": second["id"], "instructions": "Whisper."})
    assert server.prompt.index("Whisper.") < server.prompt.index("Rhyme.")


def test_a_padded_delta_does_not_tell_its_length(place: Any) -> None:
    server = place()
    for wanted in (True, False):
        options = {"stream_options": {"include_obfuscation": wanted}}
        answer = server.ask({"input": "Hello", "stream": True, **options})
        lines = [x for x in answer.text.split("\n") if x.startswith("data: {")]
        deltas = [x for x in lines if '.delta"' in x]
        assert deltas
        assert all(("obfuscation" in x) is wanted for x in deltas)
        if wanted:
            assert {len(x.removeprefix("data: ").encode()) % 64 for x in deltas} == {0}


# Kinds of input items: what the prompt then says, or the parameter that is refused.
ITEMS: list[tuple[Json, str]] = [
    ({"role": "user", "content": "U"}, "<|start|>user<|message|>U<|end|>"),
    ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "U"}]}, ">U<"),
    ({"role": "system", "content": "S"}, "# Instructions\n\nS"),
    ({"role": "developer", "content": "D"}, "# Instructions\n\nD"),
    ({"role": "assistant", "content": "A"}, "<|channel|>final<|message|>A<|end|>"),
    (
        {"role": "assistant", "content": "A", "phase": "commentary"},
        "<|channel|>commentary<|message|>A<|end|>",
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
        "<|channel|>final<|message|>No<|end|>",
    ),
    (
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "R"}]},
        "<|channel|>analysis<|message|>R<|end|>",
    ),
    (
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "R"}]},
        "<|channel|>analysis<|message|>R<|end|>",
    ),
    (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
        "to=functions.f<|channel|>commentary <|constrain|>json<|message|>",
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "raw"},
        "to=functions.f<|channel|>commentary<|message|>raw<|call|>",
    ),
    (
        {"type": "web_search_call", "action": {"type": "search", "query": "owls"}},
        "to=browser.search<|channel|>analysis",
    ),
    (
        {"type": "code_interpreter_call", "code": "1+1", "outputs": None},
        "to=python<|channel|>analysis",
    ),
]
REFUSED_ITEMS: list[tuple[Json, str]] = [
    ({"type": "strange"}, "input[0].type"),
    ({"role": "king", "content": "x"}, "input[0].role"),
    ({"role": "user", "content": 5}, "input[0].content"),
    ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "content[0]"),
    ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, "content[0]"),
    ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "content[0]"),
    ({"role": "user", "content": "x", "id": 5}, "input[0].id"),
    ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[0].name"),
    ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
    (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
        "input[0].arguments",
    ),
    ({"type": "function_call_output", "call_id": "c", "output": ""}, "input[0].call_id"),
    ({"type": "custom_tool_call_output", "call_id": "c", "output": ""}, "input[0].call_id"),
    (
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
        "input[0].encrypted_content",
    ),
    ({"type": "reasoning", "summary": [], "content": 0}, "input[0].content"),
    ({"type": "reasoning", "summary": 5, "content": "R"}, "input[0].summary"),
    ({"type": "compaction", "encrypted_content": "gAAAA"}, "input[0].encrypted_content"),
    ({"type": "compaction"}, "input[0].encrypted_content"),
    ({"type": "item_reference"}, "input[0].id"),
    ({"type": "file_search_call", "id": "x", "queries": [], "status": "completed"}, "type"),
    ({"type": "computer_call", "id": "x"}, "input[0].type"),
    ({"type": "image_generation_call", "id": "x"}, "input[0].type"),
]


@pytest.mark.parametrize(("item", "text"), ITEMS, ids=[json.dumps(i)[:60] for i, _ in ITEMS])
def test_an_item_reaches_the_model(place: Any, conformance: Any, item: Json, text: str) -> None:
    server = place()
    items = [item, {"role": "user", "content": "Go on"}]
    if item.get("type") == "reasoning":
        items = items[::-1]  # thoughts of the turn at hand
    answers = server.talk(
        [
            ("POST", "/v1/responses", {"input": items}),
            ("GET", "/v1/responses/{id}/input_items?order=asc", None),
        ]
    )
    assert answers[0].status_code == 200, answers[0].text
    assert text in server.prompt
    listing = answers[1].json()
    assert len(listing["data"]) == 2
    if item.get("type") not in ("web_search_call", "code_interpreter_call"):  # given without id
        conformance.item_list(listing)


@pytest.mark.parametrize(("item", "param"), REFUSED_ITEMS, ids=str)
def test_an_item_is_refused_by_name(refusing: Place, item: Json, param: str) -> None:
    answer = refusing.ask({"input": [item]})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].endswith(param)
    assert error["message"]


def test_the_output_of_a_patch_is_a_text(refusing: Place) -> None:
    operation = {"type": "delete_file", "path": "a"}
    call = {"type": "apply_patch_call", "call_id": "c", "operation": operation}
    answered = {"type": "apply_patch_call_output", "call_id": "c", "status": "failed"}
    for output in ([1], [{"type": "input_text", "text": "No such file"}], {"text": "No"}):
        answer = refusing.ask({"input": [call, {**answered, "output": output}]})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "input[1].output"


def test_no_kind_of_item_is_dropped_in_silence(place: Any) -> None:
    """Every kind that OpenAI's client can send is read, or answered by an error."""
    kinds = set()
    for entry in get_args(response_input_item_param.ResponseInputItemParam):
        hint = get_type_hints(entry).get("type")
        kinds |= {value for value in _strings(hint)}
    assert "function_call" in kinds
    server = place()
    for kind in sorted(kinds - {"message"}):
        answer = server.ask({"input": [{"type": kind}]})
        was_read = answer.status_code == 200 and kind.replace("_call", "") and server.prompt
        assert answer.status_code == 400 or was_read, kind


def _strings(hint: Any) -> list[str]:
    if isinstance(hint, str):
        return [hint]
    return [value for part in get_args(hint) for value in _strings(part)]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?stream=maybe", "stream"),
        ("?starting_after=1", "starting_after"),
        ("?stream=true&starting_after=x", "starting_after"),
        ("?stream=true&starting_after=-1", "starting_after"),
        ("?stream=true", "stream"),
        ("?include=nonsense", "include[0]"),
        ("?include[]=message.output_text.logprobs", "include[0]"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=101", "limit"),
        ("/input_items?limit=x", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=nobody", "after"),
        ("/input_items?include=nonsense", "include[0]"),
    ],
)
def test_a_query_is_refused_by_name(place: Any, path: str, param: str) -> None:
    answers = place().talk(
        [("POST", "/v1/responses", {"input": "Hello"}), ("GET", "/v1/responses/{id}" + path, None)]
    )
    assert answers[1].status_code == 400, answers[1].text
    assert answers[1].json()["error"]["param"] == param


def test_thoughts_can_be_sealed_after_the_fact(place: Any) -> None:
    path = "/v1/responses/{id}?include[]=reasoning.encrypted_content"
    server = place()
    answers = server.talk([("POST", "/v1/responses", {"input": "Hello"}), ("GET", path, None)])
    thought = outputs(answers[1].json(), "reasoning")[0]
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": thought["encrypted_content"]}
    path = "/v1/responses/{id}/input_items?include=reasoning.encrypted_content"
    bare = {k: v for k, v in thought.items() if k != "encrypted_content"}
    for item in (sealed, bare):
        body = {"input": [{"role": "user", "content": "Hello"}, item]}
        _, listing = server.talk([("POST", "/v1/responses", body), ("GET", path, None)])
        assert "<|channel|>analysis<|message|>Hm.<|end|>" in server.prompt
        listed = listing.json()["data"][0]
        assert listed["encrypted_content"] == thought["encrypted_content"]
