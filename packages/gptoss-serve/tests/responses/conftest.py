"""What every response must be: typed as OpenAI's client types it, and the sum of its events."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any, get_args

import pytest
from openai.types.responses import (
    CompactedResponse,
    Response,
    ResponseItemList,
    ResponseStreamEvent,
)
from pydantic import BaseModel

Json = dict[str, Any]

# The keys that Open Responses requires of a response.
REQUIRED = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model"),
    *("previous_response_id", "instructions", "output", "error", "tools", "tool_choice"),
    *("truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty", "usage"),
    *("frequency_penalty", "top_logprobs", "temperature", "reasoning", "max_output_tokens"),
    *("max_tool_calls", "store", "background", "service_tier", "metadata"),
    *("safety_identifier", "prompt_cache_key"),
}
# Keys that OpenAI's models do not know: three of Open Responses, states of items without any.
BEYOND = {
    "Response": {"presence_penalty", "frequency_penalty", "store"},
    "ResponseCustomToolCall": {"status"},
    "ResponseFunctionCallArgumentsDoneEvent": {"name"},
    "LocalShellCallOutput": {"call_id"},  # as clients send it
    "Logprob": {"bytes"},
    "LogprobTopLogprob": {"bytes"},
}
# The events of an item between `added` and `done`, as a pattern of their names.
TEXT_END = r"content_part\.done "
SUMMARY = (
    r"reasoning_summary_part\.added (reasoning_summary_text\.delta )*"
    r"reasoning_summary_text\.done reasoning_summary_part\.done "
)
PATTERNS = {
    ("reasoning", "text"): r"content_part\.added (reasoning_text\.delta )*reasoning_text\.done "
    rf"{TEXT_END}({SUMMARY})?",
    ("reasoning", "spec"): r"content_part\.added (reasoning\.delta )*reasoning\.done "
    rf"{TEXT_END}({SUMMARY})?",
    ("reasoning", "summary"): SUMMARY,
    "message": r"content_part\.added (output_text\.delta |output_text\.annotation\.added )*"
    rf"output_text\.done {TEXT_END}",
    "function_call": r"(function_call_arguments\.delta )*function_call_arguments\.done ",
    "custom_tool_call": r"(custom_tool_call_input\.delta )*custom_tool_call_input\.done ",
    "web_search_call": r"web_search_call\.in_progress "
    r"(web_search_call\.searching (web_search_call\.completed )?)?",
    "local_shell_call": "",
    "apply_patch_call": "",
    "shell_call": r"(shell_call_command\.added (shell_call_command\.delta )*"
    r"shell_call_command\.done )*",
    "code_interpreter_call": r"code_interpreter_call\.in_progress "
    r"(code_interpreter_call_code\.delta )*code_interpreter_call_code\.done "
    r"(code_interpreter_call\.interpreting (code_interpreter_call\.completed )?)?",
}
ENDS = {
    "completed": "completed",
    "incomplete": "incomplete",
    "cancelled": "incomplete",
    "failed": "failed",
}


@functools.cache
def event_models() -> dict[str, type[BaseModel]]:
    """The model of each event by its type."""
    models = get_args(get_args(ResponseStreamEvent)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


def assert_exact(model: Any, path: str) -> None:
    """At every depth: what OpenAI's model requires is there, and nothing that it does not know."""
    if isinstance(model, BaseModel):
        kind = type(model)
        for name, info in kind.model_fields.items():
            if info.is_required():
                assert name in model.model_fields_set, f"{path}.{name} is missing"
            assert_exact(getattr(model, name, None), f"{path}.{name}")
        unknown = set(model.model_extra or ()) - BEYOND.get(kind.__name__, set())
        assert not unknown, f"{path} has {unknown}, which {kind.__name__} does not know"
    elif isinstance(model, list):
        for position, entry in enumerate(model):
            assert_exact(entry, f"{path}[{position}]")


class Conformance:
    """Checks on the wire form of responses, events and lists."""

    def response(self, response: Json) -> None:
        """A response object."""
        assert set(response) >= REQUIRED, REQUIRED - set(response)
        assert_exact(Response.model_validate(response, strict=True), "response")
        ids = [item["id"] for item in response["output"]]
        assert len(ids) == len(set(ids))
        if response["status"] == "completed":
            assert response["completed_at"] >= response["created_at"]
            assert response["error"] is None
            assert response["incomplete_details"] is None
        assert (response["error"] is not None) == (response["status"] == "failed")
        usage = response["usage"]
        if usage is not None:
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            thoughts = usage["output_tokens_details"]["reasoning_tokens"]
            assert 0 <= thoughts <= usage["output_tokens"]

    def item_list(self, listing: Json) -> None:
        """A page of items."""
        assert_exact(ResponseItemList.model_validate(listing, strict=True), "list")

    def compaction(self, compaction: Json) -> None:
        """The answer of `/v1/responses/compact`."""
        assert_exact(CompactedResponse.model_validate(compaction, strict=True), "compaction")

    def event(self, event: Json) -> None:
        """One event."""
        kind = event["type"]
        if kind in ("response.reasoning.delta", "response.reasoning.done"):
            word = "delta" if kind.endswith("delta") else "text"
            keys = {"type", "sequence_number", "item_id", "output_index", "content_index", word}
            assert set(event) - {"obfuscation"} == keys, "names that only Open Responses knows"
            return
        if kind.endswith(".delta"):  # OpenAI's documents have the padding, its models do not
            event = {key: value for key, value in event.items() if key != "obfuscation"}
        parsed = event_models()[kind].model_validate(event, strict=True)
        assert_exact(parsed, kind)

    def stream(self, events: list[Json], *, mode: str = "text") -> Json:
        """All events of a response; returns the response that they add up to."""
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        for event in events:
            self.event(event)
        names = [event["type"].removeprefix("response.") for event in events]
        first = names[: 1 + names.index("in_progress")] if "in_progress" in names else names[:2]
        in_background = events[0]["response"]["background"]
        wanted = ["created", *(["queued"] if in_background else []), "in_progress"]
        assert first == wanted or names[-1] in ("failed", "incomplete")
        middle = names[len(first) : -1]
        assert not {"created", "queued", "in_progress", *ENDS.values()} & set(middle)
        rebuilt = _Rebuilt(mode)
        for event in events[len(first) : -1]:
            rebuilt.add(event)
        final: Json = events[-1]["response"]
        assert names[-1] == ENDS[final["status"]]
        assert rebuilt.output() == final["output"]
        for event in events[: len(first)]:
            _assert_same_request(event["response"], final)
            assert event["response"]["status"] == (
                "in_progress" if event["type"].endswith(".in_progress") or not in_background
                else "queued"
            )  # fmt: skip
        self.response(final)
        return final


_CHANGING = {"status", "output", "usage", "error", "incomplete_details", "completed_at"}


def _assert_same_request(early: Json, late: Json) -> None:
    assert early["output"] == []
    assert early.keys() == late.keys()
    for key in early.keys() - _CHANGING:
        assert early[key] == late[key], key


class _Rebuilt:
    """Puts items together from their events, as a client does, and checks their order."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._items: list[Json] = []
        self._done: dict[int, Json] = {}
        self._names: dict[int, str] = {}

    def add(self, event: Json) -> None:
        name, index = event["type"].removeprefix("response."), event["output_index"]
        if name == "output_item.added":
            assert index == len(self._items), "output indexes count up"
            self._items.append(copy.deepcopy(event["item"]))
            self._names[index] = ""
            return
        assert index not in self._done, "nothing happens to an item that is done"
        item = self._items[index]
        if name == "output_item.done":
            self._finish(index, item, event["item"])
            return
        if not name.startswith("shell_call_command."):  # which OpenAI's models know by index only
            assert event["item_id"] == item["id"]
        self._names[index] += f"{name} "
        self._change(item, name, event)

    def output(self) -> list[Json]:
        assert len(self._done) == len(self._items), "every item is done"
        return [self._done[index] for index in range(len(self._items))]

    def _finish(self, index: int, item: Json, final: Json) -> None:
        kind = item["type"]
        key: Any = (kind, self._mode) if kind == "reasoning" else kind
        if key in PATTERNS:
            assert re.fullmatch(PATTERNS[key], self._names[index]), (kind, self._names[index])
        cut = "in_progress" if kind == "apply_patch_call" else "incomplete"
        assert final["status"] in ("completed", cut, "failed")
        late = {"status", "encrypted_content", "outputs"}
        if kind == "local_shell_call":
            late.add("action")
        elif "action" in item:  # what has no event of its own
            known = {"sources", "timeout_ms", "max_output_length"}
            item["action"].update({k: v for k, v in final["action"].items() if k in known})
        assert {**item, **{k: final[k] for k in late & final.keys()}} == final
        self._done[index] = final

    def _change(self, item: Json, name: str, event: Json) -> None:
        kind, _, what = name.rpartition(".")
        if kind in ("content_part", "reasoning_summary_part"):
            is_content = kind == "content_part"
            parts = item["content" if is_content else "summary"]
            number = event["content_index" if is_content else "summary_index"]
            if what == "added":
                assert number == len(parts)
                parts.append(copy.deepcopy(event["part"]))
            assert parts[number] == event["part"]
        elif kind in ("output_text", "reasoning_text", "reasoning"):
            _change_text(item["content"][event["content_index"]], what, event)
        elif kind == "reasoning_summary_text":
            _change_text(item["summary"][event["summary_index"]], what, event)
        elif kind == "output_text.annotation":
            part, note = item["content"][event["content_index"]], event["annotation"]
            assert event["annotation_index"] == len(part["annotations"])
            assert 0 <= note["start_index"] < note["end_index"] <= len(part["text"])
            part["annotations"].append(note)
        elif kind == "shell_call_command":
            _change_command(item["action"]["commands"], what, event)
        else:
            _change_call(item, kind, what, event)


def _change_text(part: Json, what: str, event: Json) -> None:
    if what == "delta":
        part["text"] += event["delta"]
        part.setdefault("logprobs", []).extend(event.get("logprobs", ()))
        if part["type"] != "output_text":
            del part["logprobs"]
    else:
        assert part["text"] == event["text"]
        assert part.get("logprobs", []) == event.get("logprobs", [])


def _change_command(commands: list[str], what: str, event: Json) -> None:
    number = event["command_index"]
    if what == "added":
        assert number == len(commands)
        commands.append(event["command"])
    elif what == "delta":
        commands[number] += event["delta"]
    else:
        assert commands[number] == event["command"]


_CALL_FIELDS = {
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
    "code_interpreter_call_code": "code",
    "mcp_call_arguments": "arguments",
}


def _change_call(item: Json, kind: str, what: str, event: Json) -> None:
    field = _CALL_FIELDS.get(kind)
    if field is None:
        return  # a state of the call: its order is checked as a whole
    if what == "delta":
        item[field] += event["delta"]
    else:
        assert item[field] == event[field]
        assert event.get("name", item.get("name")) == item.get("name")


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    """The checks."""
    return Conformance()
