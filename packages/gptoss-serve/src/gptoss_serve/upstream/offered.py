"""What a model behind an API may call: all of a turn's tools as function tools, and the way back.

| here | there |
|---|---|
| the client's function `weather` | `weather` with its parameters |
| the client's freeform tool `apply_patch` | `apply_patch` with one string, `input` |
| our `browser.search` | `browser_search` with its parameters |
| our `python` | `python` with one string, `code` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gptoss_harmony import DeveloperContent, ToolDescription, ToolNamespaceConfig
from gptoss_harmony.grammar import JsonSchema
from gptoss_serve.names import callable_name
from gptoss_serve.turn import Turn

_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_FORCED = re.compile(r" to=([^\s<]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One function as the upstream sees it.

    Attributes:
        name: what the upstream calls it.
        recipient: whom a call is for here: `functions.weather`, `browser.search`, `python`.
        kind: `call` of the client, or `builtin` of ours.
        description: for the model.
        parameters: JSON Schema of the arguments.
        text_field: the argument that holds the whole text of a freeform call, or None.
        strict: whether the arguments must obey.
    """

    name: str
    recipient: str
    kind: Literal["call", "builtin"]
    description: str
    parameters: Mapping[str, Any]
    text_field: str | None = None
    strict: bool = False

    def arguments(self, text: str) -> str:
        """The arguments of a call that was made with `text` here."""
        if self.text_field is not None:
            return json.dumps({self.text_field: text}, ensure_ascii=False)
        return object_text(text)

    def text(self, arguments: str) -> str:
        """The text of a call that came with `arguments`; raw text is taken as it is."""
        if self.text_field is None:
            return arguments
        try:
            value = json.loads(arguments, strict=False)
        except ValueError:
            return arguments
        if isinstance(value, dict) and self.text_field in value:
            value = value[self.text_field]
        return value if isinstance(value, str) else arguments


class Offer:
    """All functions of a turn.

    Args:
        turn: what was asked.

    Attributes:
        notes: what the model must know about our tools beside their functions.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._by_name: dict[str, Offered] = {}
        self.notes: list[str] = []
        for description in _functions(turn):
            self._add_function(description)
        for tool in turn.tools:
            if tool.tool_config.name != "functions":
                self._add_namespace(tool.tool_config)

    def __iter__(self) -> Iterator[Offered]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Offered:
        """What the upstream calls by a name; for a strange name something that nobody has."""
        found = self._by_name.get(name)
        return found or Offered(
            name=name, recipient=name, kind="builtin", description="", parameters={}
        )

    def to(self, recipient: str) -> Offered:
        """What a call of this or of an earlier turn was for."""
        found = next((entry for entry in self if entry.recipient == recipient), None)
        name = callable_name(recipient.removeprefix("functions.").replace(".", "_"))
        field = "code" if recipient == "python" else None
        return found or Offered(
            name=name,
            recipient=recipient,
            kind="builtin",
            description="",
            parameters={},
            text_field=field,
        )

    def choice(self, *, first: bool) -> str | Offered:
        """What must be called: `auto`, `required`, or one function."""
        forced = _FORCED.match(self._turn.prefill) if first else None
        if forced is not None:
            return self.to(forced[1])
        wanted = "auto" if self._turn.format is None else self._turn.format.tool_choice
        if wanted in ("auto", "none", "required"):
            return "required" if wanted == "required" else "auto"
        return self.to(f"functions.{wanted}")

    def _add(self, name: str, **fields: Any) -> None:
        chosen = callable_name(name, taken=self._by_name)
        self._by_name[chosen] = Offered(name=chosen, **fields)

    def _add_function(self, description: ToolDescription) -> None:
        parameters = description.parameters
        field = None
        if parameters is not None and parameters.get("type") == "string":
            field, parameters = "input", _one_string("input", parameters.get("description"))
        self._add(
            description.name,
            recipient=f"functions.{description.name}",
            kind="call" if description.name in self._turn.functions else "builtin",
            description=description.description,
            parameters=parameters or _NO_PARAMETERS,
            text_field=field,
            strict=field is None and self._is_strict(description),
        )

    def _add_namespace(self, config: ToolNamespaceConfig) -> None:
        if not config.tools:
            field = "code" if config.name == "python" else "input"
            self._add(
                config.name,
                recipient=config.name,
                kind="builtin",
                description=config.description or "",
                parameters=_one_string(field, None),
                text_field=field,
            )
            return
        if config.description:
            names = ", ".join(f"{config.name}_{entry.name}" for entry in config.tools)
            self.notes.append(f"About the functions {names}:\n{config.description}")
        for entry in config.tools:
            self._add(
                f"{config.name}_{entry.name}",
                recipient=f"{config.name}.{entry.name}",
                kind="builtin",
                description=entry.description,
                parameters=entry.parameters or _NO_PARAMETERS,
            )

    def _is_strict(self, description: ToolDescription) -> bool:
        """Whether the client's function is held to its own parameters."""
        format = self._turn.format
        source = None if format is None else format.functions.get(description.name)
        return isinstance(source, JsonSchema) and source.schema == description.parameters


def object_text(text: str) -> str:
    """Arguments that servers can read: JSON objects as they are, other text wrapped."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        return text or "{}"
    return json.dumps({"input": text}, ensure_ascii=False)


def _functions(turn: Turn) -> list[ToolDescription]:
    """What the developer message offers."""
    return [
        description
        for message in turn.messages
        for content in message.content
        if isinstance(content, DeveloperContent) and content.tools
        for namespace in content.tools.values()
        for description in namespace.tools
    ]


def _one_string(field: str, description: str | None) -> dict[str, Any]:
    string = {"type": "string", **({"description": description} if description else {})}
    return {
        "type": "object",
        "properties": {field: string},
        "required": [field],
        "additionalProperties": False,
    }
