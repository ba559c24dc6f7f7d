"""`tool_choice`: which tools stay in force, and which of them must be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.functions import ClientFunctions
from gptoss_serve.responses.hosted import CLIENT_KINDS, builtin_name, text_field
from gptoss_serve.responses.tool_plan import ToolPlan


def choose(plan: ToolPlan, choice: Any, *, is_draft: bool = False) -> None:
    """Apply a choice to a plan.

    Args:
        plan: with all tools; changed in place.
        choice: as the client sent it.
        is_draft: the tools of remote servers are not known yet; only mistakes are looked for.

    Raises:
        InvalidRequest: a choice that makes no sense.
    """
    plan.wire_choice = "auto" if choice is None else choice
    if choice is None or choice == "auto":
        return
    if choice == "none":
        plan.choice, plan.functions, plan.builtin, plan.mcp = "none", ClientFunctions(), [], {}
    elif choice == "required":
        _require(plan, is_draft=is_draft)
    elif isinstance(choice, Mapping):
        _choose_named(plan, choice, is_draft=is_draft)
    else:
        raise InvalidRequest(
            f"tool_choice is auto, none, required or an object, not {choice!r}",
            param="tool_choice",
        )


def _choose_named(plan: ToolPlan, choice: Mapping[str, Any], *, is_draft: bool) -> None:
    kind = choice.get("type")
    if kind == "allowed_tools":
        _allow(plan, choice, is_draft=is_draft)
        return
    if kind in ("local_shell", "web_search"):
        # OpenAI's types do not have these as choices; this means the same and they know it.
        only = {"type": "allowed_tools", "mode": "required", "tools": [{"type": kind}]}
        plan.wire_choice = only
    if isinstance(kind, str) and builtin_name(kind) in plan.builtin:
        plan.forced_builtin = builtin_name(kind) or ""
        return
    nested = choice.get("function")
    named = _named(plan, nested if isinstance(nested, Mapping) else choice, kind, is_draft=is_draft)
    if named is None:
        raise InvalidRequest(
            f"tool_choice asks for {kind!r}, which is not among the tools in force",
            param="tool_choice",
        )
    if len(named) == 1:
        plan.choice = next(iter(named))
    else:
        plan.choice, plan.required_from = "required", frozenset(named)


def _named(
    plan: ToolPlan, entry: Mapping[str, Any], kind: Any, *, is_draft: bool
) -> set[str] | None:
    """The functions that an entry means, by callable name; None for a kind without functions.

    Raises:
        InvalidRequest: it names something that does not exist.
    """
    if kind in ("function", "custom"):
        name = text_field(entry, "name", "tool_choice")
        found = plan.functions.find(name, namespace=entry.get("namespace"))
        if found is None:
            raise _unknown(name)
        return {found.callable_name}
    if kind == "mcp":
        return _remote(plan, entry, is_draft=is_draft)
    if kind in CLIENT_KINDS:
        return {function.callable_name for function in plan.functions.of_kind(kind)} or None
    return None


def _remote(plan: ToolPlan, entry: Mapping[str, Any], *, is_draft: bool) -> set[str]:
    label, name = text_field(entry, "server_label", "tool_choice"), entry.get("name")
    if label not in plan.mcp:
        raise _unknown(label)
    if is_draft:
        return set()
    here = [f for f in plan.functions.of_kind("mcp") if f.namespace == label]
    found = {f.callable_name for f in here if name is None or f.name == name}
    if not found:
        raise _unknown(f"{label}.{name}" if name else label)
    return found


def _allow(plan: ToolPlan, choice: Mapping[str, Any], *, is_draft: bool) -> None:
    entries = choice.get("tools")
    mode = choice.get("mode", "auto")
    if not isinstance(entries, list) or mode not in ("auto", "required"):
        raise InvalidRequest(
            "allowed_tools has a mode (auto or required) and a list of tools", param="tool_choice"
        )
    names: set[str] = set()
    builtin: list[str] = []
    labels: set[str] = set()
    for entry in entries:
        entry = entry if isinstance(entry, Mapping) else {}
        kind = entry.get("type")
        name = builtin_name(kind) if isinstance(kind, str) else None
        if name is not None and name in plan.builtin:
            builtin.append(name)
        names |= _named(plan, entry, kind, is_draft=is_draft) or set()
        labels |= {str(entry.get("server_label"))} if kind == "mcp" else set()
    plan.functions, plan.builtin = plan.functions.only(names), builtin
    plan.mcp = {label: asked for label, asked in plan.mcp.items() if label in labels}
    if mode == "required":
        _require(plan, is_draft=is_draft)


def _require(plan: ToolPlan, *, is_draft: bool) -> None:
    if len(plan.functions) or len(plan.builtin) > 1 or (is_draft and plan.mcp):
        plan.choice = "required"
    elif plan.builtin:
        plan.forced_builtin = plan.builtin[0]
    else:
        raise InvalidRequest("a tool is required, but there is none to call", param="tool_choice")


def _unknown(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"tool_choice names {name!r}, which is not among the tools", param="tool_choice"
    )
