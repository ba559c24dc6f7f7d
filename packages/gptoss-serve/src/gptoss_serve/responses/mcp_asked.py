"""The `mcp` tool of a request: which server, which of its tools, and whom to ask before a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gptoss_serve.errors import InvalidRequest
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_serve.mcp_client.connection import McpServer

_LABEL = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
# Of the connection, not of the request: `Host` could lead past what the operator allows, the others
# could say where a message ends.
_NOT_THEIRS = (
    *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "te"),
    *("trailer", "upgrade", "expect", "accept-encoding"),
)


class StrictField(BaseModel):
    """A part of a tool, of which every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ToolFilter(StrictField):
    """Some of a server's tools: by name, and by whether they change anything."""

    tool_names: list[str] | None = None
    read_only: bool | None = None

    def matches(self, tool: Mapping[str, Any]) -> bool:
        """Whether a listed tool is meant."""
        if self.tool_names is not None and tool["name"] not in self.tool_names:
            return False
        notes = tool.get("annotations")
        hint = notes.get("readOnlyHint") if isinstance(notes, Mapping) else None
        return self.read_only is None or (hint is True) == self.read_only


class ApprovalFilter(StrictField):
    """Tools that are always and never to be approved by a user; the others always are."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpField(StrictField):
    """The wire form of the tool."""

    type: Literal["mcp"]
    server_label: Annotated[str, Field(pattern=_LABEL)]
    server_url: str | None = None
    server_description: str | None = None
    headers: dict[str, str] | None = None
    authorization: str | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    defer_loading: bool | None = None


@dataclass(frozen=True, slots=True)
class McpAsked:
    """A server that a request names.

    Attributes:
        given: the tool as the client sent it.
        server: where it is.
    """

    given: McpField
    server: McpServer

    @classmethod
    def read(cls, given: McpField, where: str, access: McpAccess) -> McpAsked:
        """Check what the schema cannot.

        Raises:
            InvalidRequest: it names the field.
        """
        for name in ("connector_id", "tunnel_id", "defer_loading"):
            if getattr(given, name):
                raise InvalidRequest(
                    f"{where}.{name} is not supported by this server; give the server_url of an "
                    "MCP server, all of whose tools are listed at once",
                    param=f"{where}.{name}",
                    code="unsupported_parameter",
                )
        if not given.server_url:
            raise InvalidRequest(
                f"{where}.server_url must be the URL of an MCP server", param=f"{where}.server_url"
            )
        access.check(given.server_url, param=f"{where}.server_url")
        headers = _headers(given, where)
        return cls(
            given, McpServer(label=given.server_label, url=given.server_url, headers=headers)
        )

    @property
    def echo(self) -> dict[str, Any]:
        """The tool as the response repeats it: without what is secret."""
        secret = {"headers", "authorization"}
        return self.given.model_dump(exclude=secret, exclude_none=True)

    @property
    def key(self) -> dict[str, Any]:
        """What a kept listing depends on."""
        shown = self.given.model_dump(include={"server_url", "allowed_tools"})
        return {"url": shown["server_url"], "allowed": shown["allowed_tools"]}

    def shows(self, tool: Mapping[str, Any]) -> bool:
        """Whether the model may know of a tool."""
        allowed = self.given.allowed_tools
        if allowed is None:
            return True
        if isinstance(allowed, ToolFilter):
            return allowed.matches(tool)
        return tool["name"] in allowed

    def asks(self, tool: Mapping[str, Any]) -> bool:
        """Whether a user has to approve each call of a tool."""
        rule = self.given.require_approval
        if rule is None or isinstance(rule, str):
            return rule != "never"
        if rule.always is not None and rule.always.matches(tool):
            return True
        return not (rule.never is not None and rule.never.matches(tool))


def _headers(given: McpField, where: str) -> dict[str, str]:
    headers = dict(given.headers or {})
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise InvalidRequest(
                f"{where}.headers holds {name!r}, whose name or value no header can hold",
                param=f"{where}.headers",
            )
        if name.lower() in _NOT_THEIRS:
            raise InvalidRequest(
                f"{where}.headers holds {name!r}, which the connection decides; leave it out",
                param=f"{where}.headers",
            )
    if given.authorization is not None:
        if any(name.lower() == "authorization" for name in headers):
            raise InvalidRequest(
                f"{where} holds authorization twice: as a field and among the headers",
                param=f"{where}.authorization",
            )
        if not given.authorization or not _HEADER_VALUE.fullmatch(given.authorization):
            raise InvalidRequest(
                f"{where}.authorization is a token of printable characters, without blanks around",
                param=f"{where}.authorization",
            )
        headers["Authorization"] = f"Bearer {given.authorization}"
    return headers
