"""The short ways to write messages give what openai-harmony's builders give."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai_harmony import (
    DeveloperContent,
    Message,
    ReasoningEffort,
    Role,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)

from gptoss_harmony.conversation import (
    ResponseFormat,
    assistant_message,
    call_message,
    developer_message,
    function_tool,
    system_message,
    tool_message,
    user_message,
)
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import ConversationError

ENCODING = load_encoding()


def shown(message: Message) -> str:
    return ENCODING.decode(ENCODING.render(message))


def test_system_message() -> None:
    content = (
        SystemContent.new()
        .with_reasoning_effort(ReasoningEffort.HIGH)
        .with_conversation_start_date("2026-11-22")
        .with_browser_tool()
        .with_python_tool()
    )
    expected = Message.from_role_and_content(Role.SYSTEM, content)
    made = system_message(effort="high", date="2026-11-22", tools=["python", "browser"])
    assert shown(made) == shown(expected)
    plain = Message.from_role_and_content(Role.SYSTEM, SystemContent.new())
    assert system_message().to_dict() == plain.to_dict()
    assert shown(system_message(effort=None, identity="X", knowledge_cutoff=None, channels=())) == (
        "<|start|>system<|message|>X<|end|>"
    )


def test_a_tool_brings_its_own_description() -> None:
    class Tool:
        tool_config = ToolNamespaceConfig(name="mine", description="Does.", tools=[])

    assert "## mine\n\nDoes." in shown(system_message(tools=[Tool()]))
    assert "## mine\n\nDoes." in shown(developer_message(tools=[Tool.tool_config]))


PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "string"}}}


@pytest.mark.parametrize(
    "tool",
    [
        ToolDescription.new("f", "does", PARAMETERS),
        {"type": "function", "name": "f", "description": "does", "parameters": PARAMETERS},
        {
            "type": "function",
            "function": {"name": "f", "description": "does", "parameters": PARAMETERS},
        },
    ],
)
def test_developer_message(tool: Any) -> None:
    described = ToolDescription.new("f", "does", PARAMETERS)
    content = DeveloperContent.new().with_instructions("Be.").with_function_tools([described])
    expected = Message.from_role_and_content(Role.DEVELOPER, content)
    assert shown(developer_message("Be.", functions=[tool])) == shown(expected)


def test_response_formats_come_last() -> None:
    schema = {"type": "object", "title": "é"}
    made = shown(
        developer_message(
            "Be.",
            functions=[{"name": "f"}],
            response_format=ResponseFormat(schema, name="list", description="One\ntwo"),
        )
    )
    assert made.endswith(
        "} // namespace functions\n\n# Response Formats\n\n## list\n\n// One\n// two\n"
        '{"type":"object","title":"é"}<|end|>'
    )
    assert shown(developer_message(response_format=schema)) == (
        "<|start|>developer<|message|># Response Formats\n\n## response\n\n"
        '{"type":"object","title":"é"}<|end|>'
    )


def test_history() -> None:
    made = [
        user_message("Hi", name="ann"),
        assistant_message("Hm", channel="analysis"),
        call_message("functions.f", {"x": "é"}),
        call_message("python", "print(1)", channel="analysis"),
        tool_message("functions.f", "1"),
        assistant_message("Ho"),
    ]
    assert [shown(message) for message in made] == [
        "<|start|>user:ann<|message|>Hi<|end|>",
        "<|start|>assistant<|channel|>analysis<|message|>Hm<|end|>",
        "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>"
        '{"x": "é"}<|call|>',
        "<|start|>assistant to=python<|channel|>analysis<|message|>print(1)<|call|>",
        "<|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|>",
        "<|start|>assistant<|channel|>final<|message|>Ho<|end|>",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: system_message(effort="huge"), "low, medium or high"),  # type: ignore[arg-type]
        (lambda: system_message(tools=["hammer"]), "browser or python"),
        (lambda: function_tool({"type": "function"}), "needs a name"),
        (lambda: function_tool({"function": "f"}), "needs a name"),
        (lambda: developer_message(response_format={"a": {1}}), "not JSON"),  # type: ignore[dict-item]
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConversationError, match=words):
        make()


def test_messages_survive_json() -> None:
    made = developer_message("Be.", functions=[{"name": "f"}], response_format={})
    again = Message.from_dict(json.loads(made.to_json()))
    assert shown(again) == shown(made)
