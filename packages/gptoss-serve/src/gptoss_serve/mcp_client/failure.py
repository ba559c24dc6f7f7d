"""What goes wrong with an MCP server, as the API writes it and as the model reads it."""

from __future__ import annotations

from typing import Any, Self

from gptoss_harmony.errors import HarmonyError

_LONGEST = 1000  # characters of a server's own words
_TIMEOUT, _CLOSED = -32001, -32000  # the protocol's codes


class McpFailure(HarmonyError):
    """A server that cannot be had, or that refuses.

    Attributes:
        error: the `error` of an `mcp_call`.
    """

    def __init__(self, message: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.error = error

    @classmethod
    def protocol(cls, code: int, message: str) -> Self:
        """The server answered with an error."""
        words = message[:_LONGEST]
        return cls(words, {"type": "mcp_protocol_error", "code": code, "message": words})

    @classmethod
    def http(cls, code: int, message: str) -> Self:
        """The connection failed."""
        words = message[:_LONGEST]
        return cls(words, {"type": "http_error", "code": code, "message": words})

    @classmethod
    def late(cls, label: str, seconds: float) -> Self:
        """The server took too long."""
        return cls.protocol(_TIMEOUT, f"the MCP server {label} did not answer in {seconds:g} s")


def failure_of(error: BaseException, label: str) -> McpFailure:
    """What a failed connection comes to."""
    import httpx2
    from mcp import MCPError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpFailure):
        return error
    if isinstance(error, MCPError):
        return McpFailure.protocol(error.code, error.message)
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return McpFailure.http(status, f"the MCP server {label} answered with HTTP {status}")
    said = str(error) or type(error).__name__
    if isinstance(error, httpx2.HTTPError | OSError):
        return McpFailure.http(0, f"the MCP server {label} cannot be reached: {said}")
    return McpFailure.protocol(_CLOSED, f"the MCP server {label} failed: {said}")
