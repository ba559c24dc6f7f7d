"""Calls that go to the client, as items with their events.

Functions and freeform tools, the shell and patch tools whose shape the Responses API fixes, and
what asks for a user's approval of a remote tool.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from gptoss_serve.events import PartDelta, PartDone
from gptoss_serve.functions import ClientFunction
from gptoss_serve.responses.parts import Item, Json, new_id
from gptoss_serve.responses.patch_sections import patch_operations
from gptoss_serve.responses.shell_calls import local_shell_action, shell_action


class FunctionCallItem(Item):
    """A call of the client's function."""

    def __init__(self, index: int, function: ClientFunction) -> None:
        super().__init__(index, _call_item("function_call", "fc", function, arguments=""))

    def grow(self, delta: PartDelta) -> list[Json]:
        """More arguments."""
        return [self.event("function_call_arguments.delta", delta=delta.text)]

    def close(self, done: PartDone) -> list[Json]:
        """Arguments and item are done."""
        self.item["arguments"] = done.text
        name = self.item["name"]
        return [
            self.event("function_call_arguments.done", arguments=done.text, name=name),
            self.done(complete=done.complete),
        ]


class CustomCallItem(Item):
    """A call of the client's freeform tool; its text may come wrapped in JSON."""

    def __init__(self, index: int, function: ClientFunction) -> None:
        super().__init__(index, _call_item("custom_tool_call", "ctc", function, input=""))
        self._held = ""
        self._is_plain = False

    def grow(self, delta: PartDelta) -> list[Json]:
        """More input; held back while it may be JSON around the text."""
        if self._is_plain:
            return [self.event("custom_tool_call_input.delta", delta=delta.text)]
        self._held += delta.text
        if not self._held.strip() or self._held.lstrip()[0] in '{"':
            return []
        self._is_plain = True
        return [self.event("custom_tool_call_input.delta", delta=self._held)]

    def close(self, done: PartDone) -> list[Json]:
        """Input and item are done."""
        text = done.text if self._is_plain else unwrapped(done.text)
        self.item["input"] = text
        late = not self._is_plain and bool(text)
        events = [self.event("custom_tool_call_input.delta", delta=text)] if late else []
        return [
            *events,
            self.event("custom_tool_call_input.done", input=text),
            self.done(complete=done.complete),
        ]


class LocalShellItem(Item):
    """A `local_shell_call`: one command for the client to run."""

    def __init__(self, index: int) -> None:
        item = {"id": new_id("lsh"), "type": "local_shell_call", "call_id": new_id("call")}
        action: Json = {"type": "exec", "command": [], "env": {}}
        super().__init__(index, {**item, "action": action, "status": "in_progress"})

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: there is no event for half a command."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """The command is whole."""
        self.item["action"] = local_shell_action(done.text)
        return [self.done(complete=done.complete)]


class ShellItem(Item):
    """A `shell_call`: commands for the client to run."""

    def __init__(self, index: int) -> None:
        item = {"id": new_id("sh"), "type": "shell_call", "call_id": new_id("call")}
        action: Json = {"commands": [], "timeout_ms": None, "max_output_length": None}
        more = {"action": action, "environment": {"type": "local"}, "status": "in_progress"}
        super().__init__(index, {**item, **more})

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: the text is JSON around the commands, which are shown once they are whole."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """Commands one by one, then the item."""
        self.item["action"] = shell_action(done.text)
        events = []
        for number, command in enumerate(self.item["action"]["commands"]):
            events += [
                self._command("added", number, command=""),
                self._command("delta", number, delta=command),
                self._command("done", number, command=command),
            ]
        return [*events, self.done(complete=done.complete)]

    def _command(self, what: str, number: int, **text: str) -> Json:
        """An event about a command; the API gives these no id of an item."""
        kind = f"response.shell_call_command.{what}"
        return {"type": kind, "output_index": self.index, "command_index": number, **text}


class PatchItem(Item):
    """`apply_patch_call` items: one for each file of a patch.

    Args:
        index: of the first.
        more_indexes: gives the indexes of the others.
    """

    def __init__(self, index: int, more_indexes: Callable[[], int]) -> None:
        super().__init__(index, {"id": new_id("apc"), "type": "apply_patch_call"})
        self._more_indexes = more_indexes
        self._items: list[Json] = []

    @property
    def items(self) -> list[Json]:
        """The items of all files."""
        return self._items

    def open(self) -> list[Json]:
        """Nothing yet: an item must say which file it changes."""
        return []

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: a file's section is shown once it is whole."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """Every file's operation, begun and done; one that was cut short stays in progress."""
        events = []
        for number, operation in enumerate(patch_operations(unwrapped(done.text))):
            if number:
                self.index = self._more_indexes()
            call = {"id": new_id("apc"), "type": "apply_patch_call", "call_id": new_id("call")}
            self.item = {**call, "operation": operation, "status": "in_progress"}
            events.append(self.added())
            if done.complete:
                self.item["status"] = "completed"
            self._items.append(self.item)
            events.append(self.finished())
        return events


class ApprovalItem(Item):
    """An `mcp_approval_request`: shown once the call is whole, for a user to decide."""

    def __init__(self, index: int, function: ClientFunction) -> None:
        super().__init__(index, {"id": new_id("mcpr"), "type": "mcp_approval_request"})
        self.item |= {"name": function.name, "server_label": function.namespace, "arguments": ""}

    def open(self) -> list[Json]:
        """Nothing yet."""
        return []

    def grow(self, delta: PartDelta) -> list[Json]:
        """Nothing: half a call is not to be approved."""
        return []

    def close(self, done: PartDone) -> list[Json]:
        """The request; a call that was cut short is shown as such, not put to anybody."""
        self.item["arguments"] = done.text
        if not done.complete:
            self.item |= {"type": "mcp_call", "status": "incomplete"}
        return [self.added(), self.finished()]


def _call_item(kind: str, prefix: str, function: ClientFunction, **text: str) -> Json:
    item: Json = {"id": new_id(prefix), "type": kind, "status": "in_progress"}
    item |= {"call_id": new_id("call"), "name": function.name, **text}
    if function.namespace is not None:
        item["namespace"] = function.namespace
    return item


def unwrapped(text: str) -> str:
    """The text of a freeform call that came as a JSON string or as `{"input": text}`."""
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return text
    if isinstance(value, dict) and set(value) == {"input"}:
        value = value["input"]
    return value if isinstance(value, str) else text
