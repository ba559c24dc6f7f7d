"""A conversation that can be undone, saved and loaded.

```
dialogue = Dialogue(effort="high")
dialogue.say("Hi")
turn = dialogue.turn(tools)
dialogue.answer(messages)
dialogue.undo()
```
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gptoss_harmony import (
    Message,
    Role,
    Sampling,
    Tool,
    developer_message,
    system_message,
    user_message,
)
from gptoss_harmony.errors import UsageError
from gptoss_harmony.render import RenderStyle
from gptoss_serve.turn import Turn

Effort = Literal["low", "medium", "high"]
EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")


class Dialogue:
    """What was said, and how the model is set up.

    Args:
        effort: how long the model thinks.
        instructions: the developer message; "" for none.

    Attributes:
        messages: user, assistant and tool messages.
    """

    def __init__(self, *, effort: Effort = "medium", instructions: str = "") -> None:
        self.effort: Effort = effort
        self.instructions = instructions
        self.messages: list[Message] = []
        self._date = datetime.datetime.now(datetime.UTC).date().isoformat()

    def say(self, text: str) -> None:
        """The user speaks."""
        self.messages.append(user_message(text))

    def answer(self, messages: Sequence[Message]) -> None:
        """The model and its tools have spoken."""
        self.messages += messages

    def undo(self) -> bool:
        """Take back the last question and everything after it; returns whether there was one."""
        places = [i for i, m in enumerate(self.messages) if m.author.role == Role.USER]
        if not places:
            return False
        del self.messages[places[-1] :]
        return True

    def prompt_messages(self, tools: Sequence[Tool]) -> list[Message]:
        """The whole conversation, system and developer message included."""
        functions = [tool for tool in tools if tool.tool_config.name == "functions"]
        builtin = [tool for tool in tools if tool not in functions]
        head = [system_message(effort=self.effort, date=self._date, tools=builtin)]
        texts = [self.instructions, *(tool.instruction() for tool in tools)]
        instructions = "\n\n".join(text for text in texts if text)
        if instructions or functions:
            described = [f for tool in functions for f in tool.tool_config.tools]
            head.append(developer_message(instructions or None, functions=described))
        return [*head, *self.messages]

    def turn(self, tools: Sequence[Tool], sampling: Sampling) -> Turn:
        """What to ask the session for next."""
        messages = self.prompt_messages(tools)
        style = RenderStyle(schemas="complete")
        return Turn(messages=messages, tools=tools, sampling=sampling, style=style)

    def save(self, path: Path) -> None:
        """Write the conversation as JSON.

        Raises:
            UsageError: the file cannot be written.
        """
        document = {
            "effort": self.effort,
            "instructions": self.instructions,
            "messages": [message.to_dict() for message in self.messages],
        }
        try:
            path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error

    def load(self, path: Path) -> None:
        """Go on with a conversation that `save` wrote.

        Raises:
            UsageError: the file cannot be read, or holds something else.
        """
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            messages = [Message.from_dict(message) for message in document["messages"]]
            effort = EFFORTS[EFFORTS.index(document["effort"])]
            instructions = str(document["instructions"])
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is not a saved conversation ({error})") from error
        self.effort, self.instructions, self.messages = effort, instructions, messages
