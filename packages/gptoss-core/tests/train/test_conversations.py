from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai_harmony import Conversation, Message, Role, SystemContent

from gptoss_core.train.conversations import load_conversations, read_conversation
from gptoss_core.train.documents import LOSS
from gptoss_core.train.settings import CHANNELS
from gptoss_harmony.encoding import load_encoding
from gptoss_harmony.errors import UsageError

CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Add 2 and 2."},
    {"role": "assistant", "channel": "analysis", "content": "Easy."},
    {"role": "assistant", "channel": "final", "content": "4"},
]


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def learned(path: Path, *channels: str) -> str:
    documents = load_conversations([path], channels=channels or CHANNELS)
    return load_encoding().decode(documents.tokens[(documents.labels & LOSS) > 0].tolist())


def test_loss_is_on_the_assistant_and_begins_after_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": CHAT})
    expected = (
        "<|channel|>analysis<|message|>Easy.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>4<|return|>"
    )
    assert learned(path) == expected


def test_channels_are_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": CHAT})
    assert learned(path, "final") == ("<|start|>assistant<|channel|>final<|message|>4<|return|>")


def test_harmony_json_is_rendered_as_the_library_does(tmp_path: Path) -> None:
    conversation = Conversation.from_messages(
        [
            Message.from_role_and_content(Role.SYSTEM, SystemContent.new()),
            Message.from_role_and_content(Role.USER, "Hi"),
            Message.from_role_and_content(Role.ASSISTANT, "{}")
            .with_channel("commentary")
            .with_recipient("functions.f")
            .with_content_type("<|constrain|>json"),
        ]
    )
    path = tmp_path / "h.jsonl"
    path.write_text(conversation.to_json().replace("\n", " ") + "\n")
    documents = load_conversations([path], channels=CHANNELS)
    expected = load_encoding().render_conversation_for_training(conversation)
    assert np.array_equal(documents.tokens, expected)
    assert load_encoding().decode(documents.tokens.tolist()).endswith("<|call|>")


def test_chat_form_with_reasoning_and_calls() -> None:
    record = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "thinking": "Call it.",
                "tool_calls": [{"function": {"name": "weather", "arguments": '{"city":"Rome"}'}}],
            },
            {"role": "tool", "name": "functions.weather", "content": "sunny"},
            {"role": "assistant", "content": "Sunny."},
        ]
    }
    messages = read_conversation(json.dumps(record)).messages
    assert [m.author.role for m in messages] == [
        Role.SYSTEM,
        Role.DEVELOPER,
        Role.USER,
        Role.ASSISTANT,
        Role.ASSISTANT,
        Role.TOOL,
        Role.ASSISTANT,
    ]
    assert [m.channel for m in messages[3:]] == ["analysis", "commentary", "commentary", "final"]
    assert messages[4].recipient == "functions.weather"


@pytest.mark.parametrize(
    "line", ["{", "{}", '{"messages": []}', '{"messages": [{"role": "king"}]}']
)
def test_lines_that_are_no_conversation_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(UsageError, match=r"bad\.jsonl:2: not a harmony conversation"):
        load_conversations([path], channels=CHANNELS)


@pytest.mark.parametrize("effort", ["low", "high"])
def test_the_default_system_message_carries_the_effort(tmp_path: Path, effort: str) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": CHAT, "effort": effort})
    text = load_encoding().decode(load_conversations([path], channels=CHANNELS).tokens.tolist())
    assert text.startswith("<|start|>system<|message|>You are ChatGPT")
    assert f"Reasoning: {effort}" in text


def test_nothing_to_learn_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": CHAT[:2]})
    with pytest.raises(UsageError, match="nothing to learn"):
        load_conversations([path], channels=CHANNELS)
