"""Tools whose shape the API fixes: what each field of them means here, or a 400 that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from gptoss_harmony.grammar import Lark
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.responses.mcp_asked import McpAsked, McpField, StrictField
from gptoss_serve.responses.schema import checked
from gptoss_serve.responses.shell_calls import LOCAL_SHELL_PARAMETERS, SHELL_PARAMETERS
from gptoss_serve.responses.tool_plan import ToolPlan
from gptoss_serve.toolbox import Toolbox
from gptoss_tools import ApplyPatchTool

Model = TypeVar("Model", bound=BaseModel)

_BROWSER = ("web_search", "browser_search")
CLIENT_KINDS = ("local_shell", "shell", "apply_patch")
_NO_RENAMING = "Do not use `*** Move to:`; add the new file and delete the old one."


class _Domains(StrictField):
    allowed_domains: list[Annotated[str, Field(min_length=1)]] | None = None


class _Location(StrictField):
    type: Literal["approximate"] | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    timezone: str | None = None


class WebSearchField(StrictField):
    """A web search, of any dated name; the images of pages are not read."""

    type: str
    filters: _Domains | None = None
    user_location: _Location | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_content_types: list[Literal["text"]] | None = None
    external_web_access: bool | None = None


class _NoNetwork(StrictField):
    type: Literal["disabled"]


class ContainerField(StrictField):
    """A container that we make; there is nowhere to upload files for it."""

    type: Literal["auto"]
    file_ids: Annotated[list[str], Field(max_length=0)] | None = None
    memory_limit: Literal["1g"] | None = None  # what every container has
    network_policy: _NoNetwork | None = None


class CodeField(StrictField):
    """Code that runs in a container of ours, which has no network."""

    type: Literal["code_interpreter"]
    container: str | dict[str, Any] | None = None
    allowed_callers: list[Literal["direct"]] | None = None


class _Skill(StrictField):
    name: str
    description: str
    path: str


class _LocalEnvironment(StrictField):
    type: Literal["local"]
    skills: list[_Skill] | None = None


class ShellField(StrictField):
    """A shell or patch tool that the client runs: there is no machine of ours behind it."""

    type: Literal["local_shell", "shell", "apply_patch"]
    environment: _LocalEnvironment | None = None
    allowed_callers: list[Literal["direct"]] | None = None


def builtin_name(kind: str) -> str | None:
    """The tool of ours that a hosted type asks for."""
    if kind.startswith(_BROWSER):
        return "browser"
    return "python" if kind == "code_interpreter" else None


def text_field(mapping: Mapping[str, Any], key: str, where: str) -> str:
    """A field that is a non-empty string.

    Raises:
        InvalidRequest: it is something else.
    """
    value = mapping.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}.{key} must be a non-empty string", param=f"{where}.{key}")
    return value


def add_hosted(
    plan: ToolPlan,
    tool: Mapping[str, Any],
    where: str,
    *,
    toolbox: Toolbox,
    access: McpAccess | None,
) -> None:
    """Take in a tool that is no function of the client's own making.

    Raises:
        InvalidRequest: a field that this server cannot honour.
    """
    kind = tool["type"]
    name = builtin_name(kind)
    if kind in CLIENT_KINDS and access is not None:
        _add_client_kind(plan, tool, where)
    elif kind == "mcp" and access is not None:
        _add_mcp(plan, tool, where, access)
    elif name == "browser" and name in toolbox:
        _add_browser(plan, tool, where, toolbox)
    elif name == "python" and name in toolbox:
        given = _read(CodeField, tool, where)
        if isinstance(given.container, dict):
            _read(ContainerField, given.container, f"{where}.container")
        _put(plan, name, given.model_dump(exclude_none=True), where)
        plan.echo.append({"container": {"type": "auto"}, **_kept(tool)})
    else:
        plan.ignored.append(kind)


def _add_browser(plan: ToolPlan, tool: Mapping[str, Any], where: str, toolbox: Toolbox) -> None:
    given = _read(WebSearchField, tool, where)
    if given.external_web_access is False and not toolbox.is_offline("browser"):
        plan.ignored.append(given.type)  # nothing is searched rather than too much
        return
    _put(plan, "browser", given.model_dump(exclude_none=True), where)
    # Clients know the browser by its current name only.
    echo = _kept(tool)
    plan.echo.append(echo if given.type != "browser_search" else {**echo, "type": "web_search"})


def _put(plan: ToolPlan, name: str, options: Mapping[str, Any], where: str) -> None:
    if name in plan.builtin:
        raise InvalidRequest(f"{where} asks for the tool {name} a second time", param=where)
    plan.builtin.append(name)
    plan.options[name] = options


def _add_client_kind(plan: ToolPlan, tool: Mapping[str, Any], where: str) -> None:
    given = _read(ShellField, tool, where)
    if given.environment is not None and given.type != "shell":
        raise InvalidRequest(
            f"{where}.environment belongs to tools of type shell", param=f"{where}.environment"
        )
    if given.type == "apply_patch":
        sheet, format = _patch_language()
        plan.notes.append(sheet)
        plan.functions.add(
            "apply_patch", kind="apply_patch", description="Patch a file", grammar=format
        )
    else:
        is_local = given.type == "local_shell"
        plan.functions.add(
            "shell",
            kind="local_shell" if is_local else "shell",
            description=_shell_description(given),
            parameters=LOCAL_SHELL_PARAMETERS if is_local else SHELL_PARAMETERS,
            strict=True,
        )
    plan.echo.append(_kept(tool))


def _patch_language() -> tuple[str, Lark]:
    """What the model is told of patches and what they obey: renaming has no item in the API."""
    tool = ApplyPatchTool()
    definition: str = tool.custom_tool()["format"]["definition"]
    lines = [line for line in definition.splitlines() if not line.startswith("move:")]
    grammar = "\n".join(lines).replace(" move?", "") + "\n"
    return f"{tool.instruction().rstrip()}\n\n{_NO_RENAMING}", Lark(grammar)


def _shell_description(given: ShellField) -> str:
    text = "Run a command and return its output."
    if given.type == "shell":
        text = "Run shell commands and return their outputs."
    skills = given.environment.skills if given.environment is not None else None
    for skill in skills or ():
        text += f"\nSkill {skill.name} (read {skill.path} first): {skill.description}"
    return text


def _add_mcp(plan: ToolPlan, tool: Mapping[str, Any], where: str, access: McpAccess) -> None:
    asked = McpAsked.read(_read(McpField, tool, where), where, access)
    label = asked.server.label
    if label in plan.mcp:
        raise InvalidRequest(
            f"two MCP servers are called {label!r}; rename one", param=f"{where}.server_label"
        )
    plan.mcp[label] = asked
    plan.note(label, asked.given.server_description or "")
    plan.echo.append(asked.echo)


def _read(model: type[Model], tool: Mapping[str, Any], where: str) -> Model:
    try:
        return checked(model, dict(tool))
    except InvalidRequest as error:
        param = f"{where}.{error.param}" if error.param else where
        raise InvalidRequest(f"{where}: {error}", param=param, code=error.code) from error


def _kept(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if value is not None}
