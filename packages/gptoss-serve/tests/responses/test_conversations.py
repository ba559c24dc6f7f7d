"""Whatever the model writes in a conversation, every event, response and list keeps its promises.

A generated script is played through the whole application: thoughts, preambles, calls of the
client's tools and of ours, malformed headers, cuts. `GPTOSS_EXAMPLES` sets how many conversations.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_harmony import load_encoding, tool_message
from gptoss_harmony.scripted import ScriptedEngine, ScriptedOptions
from gptoss_harmony.tool import ToolReply
from gptoss_serve import ServerSettings, create_app
from gptoss_serve.events import PartDelta, PartDone, TurnDone
from gptoss_serve.responses.events_in import EventReader
from gptoss_serve.responses.store import ResponseStore
from gptoss_serve.toolbox import Toolbox
from gptoss_tools import SimpleBrowserTool
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.page import Page

EXAMPLES = int(os.environ.get("GPTOSS_EXAMPLES", "40"))
Json = dict[str, Any]

TOOLS = [
    {
        "type": "function",
        "name": "look up",
        "description": "Find a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
        "strict": False,
    },
    {"type": "function", "name": "clock", "parameters": None, "strict": None},
    {"type": "custom", "name": "apply_patch", "description": "Patch."},
    {
        "type": "namespace",
        "name": "agents",
        "description": "Others.",
        "tools": [{"type": "function", "name": "spawn", "parameters": {"type": "object"}}],
    },
    {"type": "web_search"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
]
CLOCK = TOOLS[1]
TOOL_SETS = [
    TOOLS,
    [CLOCK, {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}],
    [CLOCK, {"type": "local_shell"}, {"type": "web_search_preview"}],
]
TEXT = st.text(max_size=24).map(lambda text: text.replace("<|", "< |"))
ANSWER = st.one_of(TEXT, st.sampled_from(["See 【0†L1-L2】 and 【1†L0】.", "【9†L1】", "cut 【0†"]))
JSON_TEXT = st.sampled_from(
    ['{"word": "é"}', "{}", "", '{"query": "owls", "topn": 2}', '{"id": 0}', '{"pattern": "owl"}']
)
FILES = (
    "*** Begin Patch\n*** Add File: a\n+é\n*** Update File: b\n@@\n-x\n+y\n"
    "*** Delete File: c\n*** End Patch"
)
PATCH = st.sampled_from(
    ['{"input": "*** x"}', '"quoted"', "*** Begin Patch\n*** End Patch", "{", FILES]
)
SHELL = st.sampled_from(
    ['{"commands": ["ls", "pwd"], "timeout_ms": 9}', '{"command": ["ls", "-l"]}', "{", ""]
)


def message(header: str, text: Any, end: str = "<|end|>") -> st.SearchStrategy[str]:
    return text.map(lambda body: f"{header}<|message|>{body}{end}")


CALL = " <|constrain|>json"
KINDS = [
    message("<|channel|>analysis", TEXT),
    message("<|channel|>commentary", TEXT),
    message(f"<|channel|>commentary to=functions.look_up{CALL}", JSON_TEXT, "<|call|>"),
    message(" to=functions.clock<|channel|>commentary", JSON_TEXT, "<|call|>"),
    message(f"<|channel|>commentary to=functions.clock{CALL}", JSON_TEXT),  # and another follows
    message(f"<|channel|>commentary to=functions.agents__spawn{CALL}", JSON_TEXT, "<|call|>"),
    message("<|channel|>commentary to=functions.apply_patch", PATCH, "<|call|>"),
    message(f"<|channel|>commentary to=functions.shell{CALL}", SHELL, "<|call|>"),
    message("<|channel|>analysis to=python code", TEXT, "<|call|>"),
    message("<|channel|>analysis to=browser.search code", JSON_TEXT | TEXT, "<|call|>"),
    message("<|channel|>analysis to=browser.open code", JSON_TEXT, "<|call|>"),
    message("<|channel|>analysis to=browser.find code", JSON_TEXT),
    message("<|channel|>commentary to=functions.unknown", JSON_TEXT, "<|call|>"),
    message("<|channel|>final", ANSWER, "<|return|>"),
    # Malformed: no header, a doubled one, a header that never ends, another role, stray text.
    message("", TEXT),
    message("<|channel|>commentary<|channel|>final", TEXT),
    st.just("<|channel|>final"),
    st.just("<|channel|>analysis to=functions.clock to=python"),
    message("user", TEXT),
    TEXT,
]
ROUND = st.lists(st.one_of(*KINDS), min_size=1, max_size=4).map("<|start|>assistant".join)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "max_output_tokens": st.integers(1, 40),
        "max_tool_calls": st.integers(0, 2),
        "parallel_tool_calls": st.booleans(),
        "reasoning": st.sampled_from([{"summary": "auto"}, {"effort": "none"}, {}]),
        "include": st.lists(
            st.sampled_from(
                [
                    "reasoning.encrypted_content",
                    "code_interpreter_call.outputs",
                    "web_search_call.action.sources",
                ]
            ),
            unique=True,
        ),
        "instructions": TEXT,
        "metadata": st.dictionaries(TEXT, TEXT, max_size=2),
        "tool_choice": st.sampled_from(
            ["auto", "none", {"type": "allowed_tools", "mode": "auto", "tools": []}]
        ),
        "text": st.sampled_from([{"verbosity": "low"}, {"format": {"type": "text"}}]),
        "truncation": st.sampled_from(["auto", "disabled"]),
        "stream_options": st.just({"include_obfuscation": True}),
        "user": TEXT,
    },
)
WAY = st.sampled_from(["stream", "background", "whole"])
ON = st.sampled_from(["previous", "echo", "reference"])
TURN = st.tuples(REQUEST, WAY, ON, st.lists(ROUND, min_size=1, max_size=3))


class Owls:
    """Two pages."""

    source = "web"

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        if "é" in query:
            raise RuntimeError("no")
        return [SearchResult("Owl", "https://owls.example/a", f"About {query}")][:topn]

    async def fetch(self, url: str) -> Page:
        return Page(url, "Owl", "An owl\nis a bird")


class Echo:
    """Python that answers with its code."""

    name = "python"

    def __init__(self) -> None:
        from openai_harmony import ToolNamespaceConfig

        self.tool_config = ToolNamespaceConfig.python()

    def instruction(self) -> str:
        return ""

    def process(self, call: Any) -> ToolReply:
        async def reply() -> AsyncIterator[Any]:
            yield tool_message("python", f"> {call.content[0].text}", channel="analysis")

        return ToolReply(reply())


class Script:
    """Plays rounds in turn, then says Done."""

    def __init__(self) -> None:
        self.rounds: list[str] = []

    def __call__(self, _: Any) -> list[int]:
        text = self.rounds.pop(0) if self.rounds else "<|channel|>final<|message|>Done.<|return|>"
        return list(load_encoding().encode(text, allowed_special="all"))


OUTPUTS: Mapping[str, Json] = {
    "function_call": {"type": "function_call_output", "output": "ok"},
    "custom_tool_call": {"type": "custom_tool_call_output", "output": "ok"},
    "local_shell_call": {"type": "local_shell_call_output", "output": "ok"},
    "apply_patch_call": {"type": "apply_patch_call_output", "status": "failed", "output": "no"},
    "shell_call": {
        "type": "shell_call_output",
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
    },
}


class Talk:
    """One conversation with one server."""

    def __init__(
        self, http: httpx.AsyncClient, script: Script, check: Any, *, mode: str, tools: list[Json]
    ) -> None:
        self._http = http
        self._tools = tools
        self._script = script
        self._check = check
        self._mode = mode
        self._last: Json | None = None
        self._history: list[Json] = []

    async def turn(self, request: Mapping[str, Any], way: str, on: str, rounds: list[str]) -> None:
        self._script.rounds = list(rounds)
        new = [*self._outputs(), {"role": "user", "content": "And now?"}]
        body = {**request, "tools": self._tools, **self._context(on, new)}
        if way == "whole":
            body.pop("stream_options", None)
            answer = await self._http.post("/v1/responses", json=body)
            assert answer.status_code == 200, answer.text
            final = answer.json()
            self._check.response(final)
        else:
            body |= {"stream": True, "background": way == "background"}
            answer = await self._http.post("/v1/responses", json=body)
            events = read_events(answer)
            final = self._check.stream(events, mode=self._mode)
            assert_read(events, final)
            await self._resume(final["id"], events, way)
        self._assert_echoed(body, final)
        self._last, self._history = final, [*self._history, *new, *final["output"]]
        await self._look_again(final, len(body["input"]))

    def _outputs(self) -> list[Json]:
        """Answers to the calls that wait for the client."""
        return [
            {**OUTPUTS[item["type"]], "call_id": item["call_id"]}
            for item in (self._last or {"output": []})["output"]
            if item["type"] in OUTPUTS
        ]

    def _context(self, on: str, new: list[Json]) -> Json:
        if self._last is None:
            return {"input": new}
        if on == "previous":
            return {"input": new, "previous_response_id": self._last["id"]}
        if on == "echo":
            return {"input": [*self._history, *new]}
        named = [
            {"type": "item_reference", "id": item["id"]} if "id" in item else item
            for item in self._history
        ]
        return {"input": [*named, *new]}

    def _assert_echoed(self, body: Json, final: Json) -> None:
        for key in ("max_output_tokens", "max_tool_calls", "instructions", "metadata", "user"):
            if key in body:
                assert final[key] == body[key], key
        assert final["background"] is body.get("background", False)
        if final["status"] == "incomplete":
            assert final["incomplete_details"] == {"reason": "max_output_tokens"}

    async def _resume(self, response_id: str, events: list[Json], way: str) -> None:
        url = f"/v1/responses/{response_id}"
        if way == "stream":
            assert (await self._http.get(url, params={"stream": "true"})).status_code == 400
            return
        plain = [{k: v for k, v in event.items() if k != "obfuscation"} for event in events]
        for after in range(-1, len(events) + 1):
            query = {"stream": "true", **({"starting_after": str(after)} if after >= 0 else {})}
            assert read_events(await self._http.get(url, params=query)) == plain[after + 1 :]

    async def _look_again(self, final: Json, count: int) -> None:
        url = f"/v1/responses/{final['id']}"
        assert (await self._http.get(url)).json() == final
        seen: list[Json] = []
        query = {"limit": "3", "order": "asc"}
        while True:
            page = (await self._http.get(f"{url}/input_items", params=query)).json()
            self._check.item_list(page)
            seen += page["data"]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert len(seen) == count


def assert_read(events: list[Json], final: Json) -> None:
    """Our own client makes the same of the events, also where a server leaves some out."""
    names = ("output_item.added", "output_item.done", "completed", "incomplete")
    bare = [e for e in events if e["type"].removeprefix("response.") in names]
    for some in (events, bare, [e for e in bare if not e["type"].endswith("added")]):
        reader = EventReader()
        parts = [part for event in some for part in reader.read(event)]
        assert reader.response == final
        done = [part for part in parts if isinstance(part, PartDone)]
        assert len(done) == len(final["output"])
        answers = [part.text for part in done if part.kind in ("answer", "preamble")]
        texts = [i["content"][0]["text"] for i in final["output"] if i["type"] == "message"]
        assert answers == texts
        deltas = [part.text for part in parts if isinstance(part, PartDelta)]
        assert "".join(texts) in "".join(deltas) or len(texts) != 1
        assert isinstance(parts[-1], TurnDone)
        assert parts[-1].usage.output_tokens == final["usage"]["output_tokens"]


def read_events(answer: httpx.Response) -> list[Json]:
    assert answer.status_code == 200, answer.text
    blocks = [b for b in answer.text.split("\n\n") if b and not b.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    events = []
    for block in blocks[:-1]:
        name, data = block.split("\n", 1)
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def talk(turns: list[Any], mode: str, tools: list[Json], check: Any) -> None:
    script = Script()
    engine = ScriptedEngine(script, ScriptedOptions(context=100_000))
    store = ResponseStore(None)
    makers = {"browser": lambda _: SimpleBrowserTool(Owls()), "python": lambda _: Echo()}
    app = create_app(
        engine,
        settings=ServerSettings(reasoning=mode),  # type: ignore[arg-type]
        toolbox=Toolbox(makers),
        store=store,
    )
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            conversation = Talk(http, script, check, mode=mode, tools=tools)
            for turn in turns:
                await conversation.turn(*turn)
    finally:
        store.close()
        engine.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(
    turns=st.lists(TURN, min_size=1, max_size=3),
    mode=st.sampled_from(["text", "summary", "spec"]),
    tools=st.sampled_from(TOOL_SETS),
)
def test_any_conversation_keeps_every_promise(
    turns: list[Any], mode: str, tools: list[Json], conformance: Any
) -> None:
    asyncio.run(talk(turns, mode, tools, conformance))
