"""The tools of a request: which run here, which the client runs, and what must be called.

| wire | here |
|---|---|
| `function`, `custom`, `namespace` | functions of the client |
| `web_search` and its dated names, `browser_search` | our browser, if the server has one |
| `code_interpreter` | our python, if the server has one |
| other hosted types | not in force: left out of the echoed `tools`, listed in a header |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_harmony.grammar import Lark, Regex, Source
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.functions import ClientFunctions
from gptoss_serve.toolbox import Toolbox

_BROWSER = ("web_search", "browser_search")
_FORCED = {
    "python": " to=python<|channel|>analysis code<|message|>",
    "browser": " to=browser.search<|channel|>analysis code<|message|>",
}


@dataclass(slots=True)
class ToolPlan:
    """What a request's tools come to.

    Attributes:
        functions: of the client.
        builtin: names of our tools in force.
        choice: `auto`, `none`, `required`, or the callable name of a function.
        forced_builtin: the tool of ours that must be called first, or "".
        echo: the tools in force, as the response repeats them.
        ignored: types of hosted tools that this server does not have.
        wire_choice: `tool_choice` as the response repeats it.
    """

    functions: ClientFunctions = field(default_factory=ClientFunctions)
    builtin: list[str] = field(default_factory=list)
    choice: str = "auto"
    forced_builtin: str = ""
    echo: list[dict[str, Any]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    wire_choice: Any = "auto"

    @property
    def prefill(self) -> str:
        """The header that forces the call of one of our tools."""
        return _FORCED.get(self.forced_builtin, "")


def plan_tools(tools: list[dict[str, Any]], choice: Any, toolbox: Toolbox) -> ToolPlan:
    """Sort out the tools of a request.

    Raises:
        InvalidRequest: a tool or choice that makes no sense; it is named.
    """
    plan = ToolPlan()
    for position, tool in enumerate(tools):
        _add(plan, tool, f"tools[{position}]", toolbox)
    _choose(plan, choice)
    return plan


def _add(plan: ToolPlan, tool: Mapping[str, Any], where: str, toolbox: Toolbox) -> None:
    kind = _text(tool, "type", where)
    if kind == "function":
        plan.echo.append(_add_function(plan, tool, where))
    elif kind == "custom":
        plan.echo.append(_add_custom(plan, tool, where))
    elif kind == "namespace":
        plan.echo.append(_add_namespace(plan, tool, where))
    else:
        _add_hosted(plan, tool, kind, toolbox)


def _add_function(
    plan: ToolPlan, tool: Mapping[str, Any], where: str, namespace: str | None = None
) -> dict[str, Any]:
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequest(
            "the parameters of a function are a JSON Schema", param=f"{where}.parameters"
        )
    strict = tool.get("strict")
    name = _text(tool, "name", where)
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
    name = _text(tool, "name", where)
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
    namespace = _text(tool, "name", where)
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
    return {
        "type": "namespace",
        "name": namespace,
        "description": description if isinstance(description, str) else "",
        "tools": echo,
    }


def _add_hosted(plan: ToolPlan, tool: Mapping[str, Any], kind: str, toolbox: Toolbox) -> None:
    name = _builtin(kind)
    if name is None or name not in toolbox:
        plan.ignored.append(kind)
        return
    if name not in plan.builtin:
        plan.builtin.append(name)
        # Clients know the browser by its current name only.
        echoed: dict[str, Any] = dict(tool) if kind != "browser_search" else {"type": "web_search"}
        if kind == "code_interpreter":
            echoed.setdefault("container", {"type": "auto"})
        plan.echo.append(echoed)


def _builtin(kind: str) -> str | None:
    if kind.startswith(_BROWSER):
        return "browser"
    return "python" if kind == "code_interpreter" else None


def _grammar(format: Any, where: str) -> Source | None:
    if format is None or (isinstance(format, Mapping) and format.get("type") == "text"):
        return None
    if not isinstance(format, Mapping) or format.get("type") != "grammar":
        raise InvalidRequest("the format is text or grammar", param=f"{where}.type")
    definition = _text(format, "definition", where)
    match format.get("syntax"):
        case "lark":
            return Lark(definition)
        case "regex":
            return Regex(definition)
    raise InvalidRequest("the syntax of a grammar is lark or regex", param=f"{where}.syntax")


def _choose(plan: ToolPlan, choice: Any) -> None:
    plan.wire_choice = "auto" if choice is None else choice
    if choice is None or choice == "auto":
        return
    if choice == "none":
        plan.choice, plan.functions, plan.builtin = "none", ClientFunctions(), []
    elif choice == "required":
        _require(plan)
    elif isinstance(choice, Mapping):
        _choose_named(plan, choice)
    else:
        raise InvalidRequest(
            f"tool_choice is auto, none, required or an object, not {choice!r}",
            param="tool_choice",
        )


def _choose_named(plan: ToolPlan, choice: Mapping[str, Any]) -> None:
    kind = choice.get("type")
    if kind in ("function", "custom"):
        nested = choice.get("function")
        named = nested if isinstance(nested, Mapping) else choice
        name = _text(named, "name", "tool_choice")
        found = plan.functions.find(name, namespace=choice.get("namespace"))
        if found is None:
            raise InvalidRequest(
                f"tool_choice names {name!r}, which is not among the tools", param="tool_choice"
            )
        plan.choice = found.callable_name
    elif kind == "allowed_tools":
        _allow(plan, choice)
    elif isinstance(kind, str) and _builtin(kind) in plan.builtin:
        plan.forced_builtin = _builtin(kind) or ""
    else:
        raise InvalidRequest(
            f"tool_choice asks for {kind!r}, which is not among the tools in force",
            param="tool_choice",
        )


def _allow(plan: ToolPlan, choice: Mapping[str, Any]) -> None:
    entries = choice.get("tools")
    mode = choice.get("mode", "auto")
    if not isinstance(entries, list) or mode not in ("auto", "required"):
        raise InvalidRequest(
            "allowed_tools has a mode (auto or required) and a list of tools", param="tool_choice"
        )
    names: set[str] = set()
    builtin: list[str] = []
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        if kind in ("function", "custom"):
            found = plan.functions.find(str(entry.get("name")), namespace=entry.get("namespace"))
            if found is None:
                raise InvalidRequest(
                    f"allowed_tools names {entry.get('name')!r}, which is not among the tools",
                    param="tool_choice",
                )
            names.add(found.callable_name)
        elif isinstance(kind, str) and (name := _builtin(kind)) in plan.builtin and name:
            builtin.append(name)
    plan.functions, plan.builtin = plan.functions.only(names), builtin
    if mode == "required":
        _require(plan)


def _require(plan: ToolPlan) -> None:
    if len(plan.functions):
        plan.choice = "required"
    elif len(plan.builtin) == 1:
        plan.forced_builtin = plan.builtin[0]
    else:
        raise InvalidRequest("a tool is required, but there is none to call", param="tool_choice")


def _text(mapping: Mapping[str, Any], key: str, where: str) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{key} must be a non-empty string", param=f"{where}.{key}")
    return value
