"""Renders and parses a corpus and prints the result; run in environments that must agree.

Run as a script by test_two_venvs.py, once where openai-harmony is installed and once where
oss-harmony is, with the package's source folder on the path.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from typing import Any, NoReturn


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("something touched the network")


socket.socket.connect = refuse  # type: ignore[method-assign]
socket.getaddrinfo = refuse

from gptoss_harmony.conversation import (  # noqa: E402
    Conversation,
    Message,
    RenderConversationConfig,
    Role,
    assistant_message,
    call_message,
    developer_message,
    system_message,
    tool_message,
    user_message,
)
from gptoss_harmony.encoding import load_encoding  # noqa: E402
from gptoss_harmony.parse import StreamParser  # noqa: E402
from gptoss_harmony.render import RenderStyle  # noqa: E402

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "description": "Everything",
    "properties": {
        "city": {"type": "string", "description": "Where", "examples": ["Lyon", 3]},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
        "count": {"type": "integer", "default": 0.5, "nullable": True},
        "either": {
            "description": "One",
            "oneOf": [{"type": "string", "description": "One"}, {"type": "null", "default": "x"}],
        },
        "list": {"type": "array", "items": {"type": ["integer", "string"]}},
        "lost": {"anyOf": [{"type": "string"}, {"$ref": "#"}]},
    },
    "required": ["city"],
}
FUNCTIONS = [
    {"name": "weather", "description": "Two\nlines", "parameters": PARAMETERS},
    {"name": "now", "description": ""},
]


def conversations() -> dict[str, list[Message]]:
    system = system_message(effort="high", date="2026-11-22", tools=["browser", "python"])
    developer = developer_message(
        "Be brief.\n## Style\nPlain.", functions=FUNCTIONS, response_format={"type": "object"}
    )
    turn = [
        user_message("Weather in Lyon? <|end|> 👩‍🚀", name="ann"),
        assistant_message("Think", channel="analysis"),
        call_message("functions.weather", {"city": "Lyon"}),
        tool_message("functions.weather", '{"celsius": 7}'),
    ]
    answered = [*turn, assistant_message("More", channel="analysis"), assistant_message("7 °C")]
    return {
        "system": [system_message(effort="low"), user_message("Hi")],
        "bare": [system_message(effort=None, identity=None, knowledge_cutoff=None, channels=())],
        "ongoing": [system, developer, *turn],
        "answered": [system, developer, *answered],
        "second turn": [system, developer, *answered, user_message("And Paris?")],
    }


FINAL = "<|channel|>final<|message|>ok<|return|>"
ANSWERS = [
    f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant{FINAL}",
    "<|channel|>commentary<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}",
    "<|channel|>final <|constrain|>json<|message|>{}<|return|>",
    " to=python<|channel|>analysis code<|message|>print(1)<|call|>junk",
    "plain refusal",
]


def main() -> None:
    encoding = load_encoding()
    result: dict[str, Any] = {
        "vocabulary": hashlib.sha256(b"".join(encoding.token_bytes)).hexdigest(),
        "library": hashlib.sha256(encoding.harmony.decode(range(199_998)).encode()).hexdigest(),
    }
    for name, messages in conversations().items():
        conversation = Conversation.from_messages(messages)
        keep = RenderConversationConfig(auto_drop_analysis=False)
        style = RenderStyle(header_order="channel_first", schemas="complete")
        result[name] = [
            encoding.render_conversation_for_completion(conversation, Role.ASSISTANT),
            encoding.render_conversation_for_training(conversation, keep),
            encoding.render_conversation(conversation, style=style),
        ]
    for answer in ANSWERS:
        parser = StreamParser(encoding, Role.ASSISTANT)
        events = [
            repr(event)
            for token in encoding.encode(answer, allowed_special="all")
            for event in parser.process(token)
        ]
        events += map(repr, parser.finish())
        result[answer] = [events, [message.to_dict() for message in parser.messages]]
    conversation = Conversation.from_messages(conversations()["second turn"])
    result["theirs"] = encoding.harmony.render_conversation(conversation)
    result["ours"] = encoding.render_conversation(conversation)
    result["ours, channel first"] = encoding.render_conversation(
        conversation, style=RenderStyle(header_order="channel_first")
    )
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
