"""What the tools of a request come to, as one value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_serve.functions import ClientFunctions
from gptoss_serve.names import callable_name
from gptoss_serve.responses.mcp_asked import McpAsked

_FORCED = {
    "python": " to=python<|channel|>analysis code<|message|>",
    "browser": " to=browser.search<|channel|>analysis code<|message|>",
}
_KINDS = {
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
}


@dataclass(slots=True)
class ToolPlan:
    """The tools of a request.

    Attributes:
        functions: of the client, and of remote servers once they are known.
        builtin: names of our tools in force.
        options: what the client asks of them, by name.
        mcp: remote servers by their label.
        notes: texts about groups of functions, for the developer message.
        choice: `auto`, `none`, `required`, or the callable name of a function.
        required_from: the functions of which one is `required`, by callable name; () any.
        forced_builtin: the tool of ours that must be called first, or "".
        echo: the tools in force, as the response repeats them.
        ignored: types of hosted tools that this server does not have.
        wire_choice: `tool_choice` as the response repeats it.
        approvals: ids of the approval requests that were granted and whose calls run first.
    """

    functions: ClientFunctions = field(default_factory=ClientFunctions)
    builtin: list[str] = field(default_factory=list)
    options: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    mcp: dict[str, McpAsked] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    choice: str = "auto"
    required_from: frozenset[str] = frozenset()
    forced_builtin: str = ""
    echo: list[dict[str, Any]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    wire_choice: Any = "auto"
    approvals: list[str] = field(default_factory=list)

    @property
    def prefill(self) -> str:
        """The header that forces the call of one of our tools."""
        return _FORCED.get(self.forced_builtin, "")

    @property
    def headers(self) -> dict[str, str]:
        """What tells a client which of its tools are not in force."""
        # A header holds no blank at its ends, and clients read only so much of one.
        words = [kind for kind in self.ignored[:64] if re.fullmatch(r"[!-~]{1,64}", kind)]
        return {"gptoss-ignored-tools": ", ".join(words)} if words else {}

    def note(self, namespace: str, description: str) -> None:
        """Tell the model what a group of functions is for."""
        if description.strip():
            prefix = callable_name("", namespace=namespace)
            self.notes.append(f"About the functions named {prefix}*: {description.strip()}")

    def recipient_of(self, item: Mapping[str, Any]) -> tuple[str, str] | None:
        """The id that an answer to an item names, and whom the item called; None if nobody."""
        kind = str(item.get("type"))
        name = item.get("name")
        if kind in ("function_call", "custom_tool_call"):
            found = self.functions.find(str(name), namespace=item.get("namespace"))
        elif kind == "mcp_approval_request":
            remote = self.functions.of_kind("mcp")
            wanted = (item.get("server_label"), name)
            found = next((f for f in remote if (f.namespace, f.name) == wanted), None)
        elif kind in _KINDS:
            found = next(iter(self.functions.of_kind(_KINDS[kind])), None)
        else:
            return None
        answered = item.get("call_id") or item.get("id")
        return None if found is None else (str(answered), f"functions.{found.callable_name}")
