"""The tools of a request: which run here, which the client runs, and what must be called.

| wire | here |
|---|---|
| `function`, `custom`, `namespace` | functions of the client |
| `local_shell`, `shell`, `apply_patch` | functions that the client runs, in the API's own items |
| `mcp` | functions of a remote server, called by us, if the operator allows the server |
| `web_search` and its dated names, `browser_search` | our browser, if the server has one |
| `code_interpreter` | our python, if the server has one |
| other hosted types | not in force: left out of the echoed `tools`, listed in a header |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gptoss_harmony.grammar import Lark, Regex, Source
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.responses.hosted import add_hosted, text_field
from gptoss_serve.responses.tool_choice import choose
from gptoss_serve.responses.tool_plan import ToolPlan
from gptoss_serve.toolbox import Toolbox

__all__ = ["ToolPlan", "plan_tools"]


def plan_tools(
    tools: list[dict[str, Any]],
    choice: Any,
    toolbox: Toolbox,
    *,
    access: McpAccess | None = None,
) -> ToolPlan:
    """Sort out the tools of a request.

    Args:
        tools: as the client sent them.
        choice: its `tool_choice`.
        toolbox: the tools that run here.
        access: which MCP servers may be asked; None in an API that has no items for `mcp`, the
            shells and `apply_patch`, which are then not in force.

    Raises:
        InvalidRequest: a tool or choice that makes no sense; it is named.
    """
    plan = ToolPlan()
    for position, tool in enumerate(tools):
        _add(plan, tool, f"tools[{position}]", toolbox, access)
    if not plan.mcp:
        choose(plan, choice)
        return plan
    # What the servers have is not known yet: this looks for mistakes, `settle` chooses.
    draft = dataclasses.replace(plan)
    choose(draft, choice, is_draft=True)
    if draft.choice == "none":
        return draft
    plan.mcp, plan.wire_choice = draft.mcp, draft.wire_choice
    return plan


def _add(
    plan: ToolPlan,
    tool: Mapping[str, Any],
    where: str,
    toolbox: Toolbox,
    access: McpAccess | None,
) -> None:
    kind = text_field(tool, "type", where)
    if kind == "function":
        plan.echo.append(_add_function(plan, tool, where))
    elif kind == "custom":
        plan.echo.append(_add_custom(plan, tool, where))
    elif kind == "namespace":
        plan.echo.append(_add_namespace(plan, tool, where))
    else:
        add_hosted(plan, tool, where, toolbox=toolbox, access=access)


def _add_function(
    plan: ToolPlan, tool: Mapping[str, Any], where: str, namespace: str | None = None
) -> dict[str, Any]:
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequest(
            "the parameters of a function are a JSON Schema", param=f"{where}.parameters"
        )
    strict = tool.get("strict")
    name = text_field(tool, "name", where)
    description = tool.get("description")
    plan.functions.add(
        name,
        namespace=namespace,
        description=description if isinstance(description, str) else "",
        parameters=parameters,
        strict=strict is True,
    )
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": parameters,
        "strict": strict,
    }


def _add_custom(
    plan: ToolPlan, tool: Mapping[str, Any], where: str, namespace: str | None = None
) -> dict[str, Any]:
    name = text_field(tool, "name", where)
    description = tool.get("description")
    plan.functions.add(
        name,
        namespace=namespace,
        kind="custom",
        description=description if isinstance(description, str) else "",
        grammar=_grammar(tool.get("format"), f"{where}.format"),
    )
    kept = ("type", "name", "description", "format")
    return {key: tool[key] for key in kept if tool.get(key) is not None}


def _add_namespace(plan: ToolPlan, tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    namespace = text_field(tool, "name", where)
    inner = tool.get("tools")
    if not isinstance(inner, list):
        raise InvalidRequest("a namespace holds a list of tools", param=f"{where}.tools")
    echo: list[dict[str, Any]] = []
    for position, entry in enumerate(inner):
        place = f"{where}.tools[{position}]"
        if not isinstance(entry, Mapping) or entry.get("type") not in ("function", "custom"):
            raise InvalidRequest("a namespace holds function and custom tools", param=place)
        add = _add_function if entry["type"] == "function" else _add_custom
        echo.append(add(plan, entry, place, namespace))
    description = tool.get("description")
    described = description if isinstance(description, str) else ""
    plan.note(namespace, described)
    return {"type": "namespace", "name": namespace, "description": described, "tools": echo}


def _grammar(format: Any, where: str) -> Source | None:
    if format is None or (isinstance(format, Mapping) and format.get("type") == "text"):
        return None
    if not isinstance(format, Mapping) or format.get("type") != "grammar":
        raise InvalidRequest("the format is text or grammar", param=f"{where}.type")
    definition = text_field(format, "definition", where)
    match format.get("syntax"):
        case "lark":
            return Lark(definition)
        case "regex":
            return Regex(definition)
    raise InvalidRequest("the syntax of a grammar is lark or regex", param=f"{where}.syntax")
