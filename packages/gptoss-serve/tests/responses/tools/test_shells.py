"""`local_shell`, `shell`, `apply_patch`: calls to the client in the API's own items, and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_function_shell_tool_call import ResponseFunctionShellToolCall
from openai.types.responses.response_output_item import LocalShellCall

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.responses.patch_sections import patch_operations, patch_text_of
from gptoss_serve.responses.shell_calls import local_shell_action, shell_action
from gptoss_tools.patch.apply import apply_patch

Called = Callable[[str, str], str]

LOCAL = {"type": "local_shell"}
SHELL = {"type": "shell", "environment": {"type": "local"}}
PATCH = {"type": "apply_patch"}
TWO_FILES = (
    "*** Begin Patch\n*** Add File: new.txt\n+one\n+two\n*** Update File: old.txt\n@@\n-a\n+b\n"
    "*** Delete File: gone.txt\n*** End Patch"
)


def test_a_local_shell_call_and_its_output(ask: Any, called: Called, done: str) -> None:
    arguments = {"command": ["bash", "-lc", "ls"], "workdir": "/tmp", "timeout_ms": 500}
    asker = ask(called("shell", json.dumps(arguments)), done)

    async def talk() -> None:
        first = await asker(input="List", tools=[LOCAL])
        (call,) = first["output"]
        assert call["type"] == "local_shell_call"
        assert call["action"] == {
            "type": "exec",
            "command": ["bash", "-lc", "ls"],
            "env": {},
            "timeout_ms": 500,
            "working_directory": "/tmp",
        }
        LocalShellCall.model_validate(call, strict=True)
        # OpenAI's types name the call by `id` here, Codex by `call_id`.
        for name in ("id", "call_id"):
            output = {"type": "local_shell_call_output", name: call["call_id"], "output": "a.txt"}
            ended = {"previous_response_id": first["id"], "tools": [LOCAL]}
            second = await asker(input=[output], **ended)
            assert second["output"][0]["content"][0]["text"] == "Done."
            replay = [{"role": "user", "content": "List"}, call, output]
            await asker(input=replay, tools=[LOCAL])

    asyncio.run(talk())
    assert "type shell = (_: {" in asker.prompts[0]
    wanted = "<|start|>functions.shell to=assistant<|channel|>commentary<|message|>a.txt<|end|>"
    for prompt in asker.prompts[1:]:
        assert prompt.count(wanted) == 1
        assert '"workdir": "/tmp"' in prompt


def test_shell_commands_stream_one_by_one(ask: Any, called: Called, done: str) -> None:
    arguments = {"commands": ["ls", "pwd"], "timeout_ms": 1000, "max_output_length": 99}
    asker = ask(called("shell", json.dumps(arguments)), done)

    async def talk() -> None:
        events, first = await asker.events(input="Look", tools=[SHELL])
        (call,) = first["output"]
        assert call["type"] == "shell_call"
        assert call["action"] == arguments
        assert call["environment"] == {"type": "local"}
        ResponseFunctionShellToolCall.model_validate(call, strict=True)
        names = [e["type"].rpartition(".")[2] for e in events if "shell_call_command" in e["type"]]
        assert names == ["added", "delta", "done"] * 2
        result = {
            "type": "shell_call_output",
            "call_id": call["call_id"],
            "output": [
                {"stdout": "a\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
                {"stdout": "", "stderr": "no!", "outcome": {"type": "timeout"}},
            ],
        }
        await asker(input=[result], previous_response_id=first["id"], tools=[SHELL])
        assert "a\n[exit code 0]\nno!\n[timed out]<|end|>" in asker.prompts[-1]
        bad = {**result, "output": 7}
        with pytest.raises(InvalidRequest) as refused:
            await asker(input=[bad], previous_response_id=first["id"])
        assert refused.value.param == "input[0].output"

    asyncio.run(talk())


def test_a_patch_is_one_item_a_file(ask: Any, done: str) -> None:
    reply = f"<|channel|>commentary to=functions.apply_patch<|message|>{TWO_FILES}<|call|>"
    asker = ask(reply, done)

    async def talk() -> None:
        first = await asker(input="Patch", tools=[PATCH])
        calls = first["output"]
        assert [call["operation"] for call in calls] == [
            {"type": "create_file", "path": "new.txt", "diff": "+one\n+two\n"},
            {"type": "update_file", "path": "old.txt", "diff": "@@\n-a\n+b\n"},
            {"type": "delete_file", "path": "gone.txt"},
        ]
        assert len({call["call_id"] for call in calls}) == 3
        assert {call["status"] for call in calls} == {"completed"}
        outputs = [
            {"type": "apply_patch_call_output", "call_id": call["call_id"], **result}
            for call, result in zip(
                calls,
                [
                    {"status": "completed"},
                    {"status": "failed", "output": "no line a"},
                    {"status": "completed", "output": "Deleted gone.txt"},
                ],
                strict=True,
            )
        ]
        await asker(input=outputs, previous_response_id=first["id"], tools=[PATCH])
        replay = [{"role": "user", "content": "Patch"}, *calls, *outputs]
        await asker(input=replay, tools=[PATCH])

    asyncio.run(talk())
    assert "The patch language" in asker.prompts[0]
    for prompt in asker.prompts[1:]:
        for said in ("Done!", "Error: no line a", "Deleted gone.txt"):
            assert f"commentary<|message|>{said}<|end|>" in prompt
    assert asker.prompts[2].count("*** Begin Patch\n*** Update File: old.txt\n@@\n-a\n+b\n") == 1


def test_a_patch_that_was_cut_short_is_in_progress(ask: Any) -> None:
    reply = f"<|channel|>commentary to=functions.apply_patch<|message|>{TWO_FILES * 9}"
    response = asyncio.run(ask(reply)(input="Patch", tools=[PATCH], max_output_tokens=40))
    assert response["status"] == "incomplete"
    assert {item["status"] for item in response["output"]} == {"in_progress"}


@pytest.mark.parametrize("kind", ["local_shell", "shell", "apply_patch"])
def test_a_kind_can_be_demanded(ask: Any, called: Called, obedient: Any, kind: str) -> None:
    arguments = {"local_shell": '{"command": ["ls"]}', "shell": '{"commands": ["ls"]}'}
    text = arguments.get(kind, TWO_FILES)
    name = "apply_patch" if kind == "apply_patch" else "shell"
    tools = [{"type": kind}, {"type": "function", "name": "other", "parameters": {}}]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": kind}]}
    for choice in ({"type": kind}, allowed):
        asker = ask(engine=obedient([called(name, text)]))
        response = asyncio.run(asker(input="Hi", tools=tools, tool_choice=choice))
        assert response["output"][0]["type"] == f"{kind}_call"
        # OpenAI's types have no choice of local_shell: it is echoed as the only allowed tool.
        echoed = allowed if kind == "local_shell" else choice
        assert response["tool_choice"] == echoed


def test_a_demanded_patch_obeys_the_patch_language(ask: Any, called: Called, obedient: Any) -> None:
    asker = ask(engine=obedient([called("apply_patch", "*** Begin Patch\nnonsense")]))
    with pytest.raises(InvalidRequest, match="not allowed"):  # the recording is found out
        asyncio.run(asker(input="Hi", tools=[PATCH]))


def test_skills_are_told(ask: Any) -> None:
    skill = {"name": "pdf", "description": "Reads PDF files.", "path": "/skills/pdf"}
    asker = ask()
    tool = {"type": "shell", "environment": {"type": "local", "skills": [skill]}}
    response = asyncio.run(asker(input="Hi", tools=[tool]))
    assert "Skill pdf (read /skills/pdf first): Reads PDF files." in asker.prompts[0]
    assert response["tools"] == [tool]


def test_a_function_of_the_same_name_is_another(ask: Any, called: Called) -> None:
    own = {"type": "function", "name": "shell", "parameters": {"type": "object"}}
    asker = ask(called("shell", "{}"), called("shell_2", '{"commands": ["ls"]}'))

    async def talk() -> None:
        first = await asker(input="Hi", tools=[own, SHELL])
        assert first["output"][0]["type"] == "function_call"
        second = await asker(input="Hi", tools=[own, SHELL])
        assert second["output"][0]["type"] == "shell_call"

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "shell", "environment": {"type": "container_auto"}}, "tools[0].environment.type"),
        ({"type": "local_shell", "environment": {"type": "local"}}, "tools[0].environment"),
        (
            {"type": "apply_patch", "allowed_callers": ["programmatic"]},
            "tools[0].allowed_callers.0",
        ),
        ({"type": "shell", "frobnicate": 1}, "tools[0].frobnicate"),
    ],
)
def test_mistakes_are_named(ask: Any, tool: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(ask()(input="Hi", tools=[tool]))
    assert refused.value.param == param


@pytest.mark.parametrize("item", ["local_shell_call_output", "shell_call_output"])
def test_outputs_without_a_call_are_refused(ask: Any, item: str) -> None:
    for fields in ({"call_id": "call_0"}, {}):
        with pytest.raises(InvalidRequest) as refused:
            asyncio.run(ask()(input=[{"type": item, "output": "x", **fields}]))
        assert refused.value.param == "input[0].call_id"


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ('{"commands": ["a", "b"]}', ["a", "b"]),
        ('{"commands": "a"}', ["a"]),
        ('{"command": ["bash", "-lc", "a | b"]}', ["a | b"]),
        ('{"cmd": ["ls", "a b"]}', ["ls 'a b'"]),
        ('["ls", "-l"]', ["ls -l"]),
        ("ls -l", ["ls -l"]),
        ("{}", []),
        ("", []),
        ('{"commands": [{"x": 1}]}', ["{'x': 1}"]),
    ],
)
def test_models_write_shells_in_many_ways(text: str, commands: list[str]) -> None:
    assert shell_action(text)["commands"] == commands


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_text_is_an_action(text: str) -> None:
    call = {"id": "x", "call_id": "y", "status": "completed"}
    local = {**call, "type": "local_shell_call", "action": local_shell_action(text)}
    LocalShellCall.model_validate(local, strict=True)
    shell = {**call, "type": "shell_call", "action": shell_action(text)}
    ResponseFunctionShellToolCall.model_validate(shell, strict=True)


def test_operations_say_what_the_patch_says(tmp_path: Any) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "old.txt").write_text("x\na\ny\n")
        (folder / "gone.txt").write_text("z\n")
    apply_patch(TWO_FILES, whole)
    for operation in patch_operations(TWO_FILES):
        apply_patch(patch_text_of(operation), parts)
    for folder in (whole, parts):
        assert sorted(path.name for path in folder.glob("*.txt")) == ["new.txt", "old.txt"]
    assert (whole / "old.txt").read_text() == (parts / "old.txt").read_text() == "x\nb\ny\n"
    assert (whole / "new.txt").read_text() == (parts / "new.txt").read_text()


def test_text_that_is_no_patch_reaches_the_client() -> None:
    assert patch_operations("hm") == [{"type": "update_file", "path": "", "diff": "hm"}]
