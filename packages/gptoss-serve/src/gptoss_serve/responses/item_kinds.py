"""Which kind of item a part of a turn becomes."""

from __future__ import annotations

from collections.abc import Callable

from gptoss_serve.events import PartStarted
from gptoss_serve.functions import ClientFunction
from gptoss_serve.responses.call_parts import (
    ApprovalItem,
    CustomCallItem,
    FunctionCallItem,
    LocalShellItem,
    PatchItem,
    ShellItem,
)
from gptoss_serve.responses.parts import Item, ItemStyle, MessageItem, ReasoningItem
from gptoss_serve.responses.tool_parts import CodeItem, McpCallItem, WebSearchItem
from gptoss_serve.responses.tools import ToolPlan


def new_item(
    event: PartStarted, plan: ToolPlan, style: ItemStyle, *, next_index: Callable[[], int]
) -> Item:
    """The item of a part that begins; a call of a tool that does not exist is reasoning.

    Args:
        event: the beginning.
        plan: the request's tools.
        style: how items look.
        next_index: gives output indexes.
    """
    if event.kind in ("answer", "preamble"):
        phase = "final_answer" if event.kind == "answer" else "commentary"
        return MessageItem(next_index(), style, phase=phase)
    name = event.name or ""
    if event.kind in ("call", "builtin") and name in plan.functions:
        function = plan.functions[name]
        if function.kind == "mcp" and event.kind == "builtin":
            # Approved calls are the first parts of a turn.
            approved = plan.approvals[event.index] if event.index < len(plan.approvals) else None
            return McpCallItem(next_index(), function, approval=approved)
        return _call_item(function, next_index)
    tool = name.partition(".")[0]
    if tool in plan.builtin:
        if tool == "browser":
            return WebSearchItem(next_index(), name, style)
        return CodeItem(next_index(), style)
    return ReasoningItem(next_index(), style)


def _call_item(function: ClientFunction, next_index: Callable[[], int]) -> Item:
    index = next_index()
    match function.kind:
        case "custom":
            return CustomCallItem(index, function)
        case "local_shell":
            return LocalShellItem(index)
        case "shell":
            return ShellItem(index)
        case "apply_patch":
            return PatchItem(index, next_index)
        case "mcp":
            return ApprovalItem(index, function)
    return FunctionCallItem(index, function)
