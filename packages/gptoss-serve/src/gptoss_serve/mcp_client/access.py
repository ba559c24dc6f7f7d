"""Which MCP servers this server may talk to: what the operator named, and nobody else.

A client names a URL and our machine connects to it, so a client could reach through us what it
cannot reach itself. Nothing is allowed until the operator says so:

- `HOST` or `HOST:PORT`: that host, wherever its name leads, also on this machine or network.
- `any`: every host whose addresses are all on the public internet; `transport` sees to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from gptoss_harmony.errors import UsageError
from gptoss_serve.errors import InvalidRequest

ANY = "any"
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class McpAccess:
    """The operator's decision.

    Attributes:
        entries: `HOST`, `HOST:PORT` or `any`.
    """

    entries: tuple[str, ...] = ()

    @classmethod
    def parse(cls, lists: Iterable[str]) -> McpAccess:
        """Read lists such as `example.org,localhost:8001`.

        Raises:
            UsageError: an entry that is no host.
        """
        entries = [entry.strip().lower() for text in lists for entry in text.split(",")]
        for entry in entries:
            if not entry or "/" in entry or "@" in entry or _split(f"//{entry}") is None:
                raise UsageError(
                    f"--mcp-allow takes HOST, HOST:PORT or any, not {entry!r}; leave the scheme "
                    "and the path out"
                )
        return cls(tuple(dict.fromkeys(entries)))

    def check(self, url: str, *, param: str) -> None:
        """Refuse a URL that is not one, or whose host may not be asked.

        Raises:
            InvalidRequest: it names the parameter.
        """
        parts = _split(url)
        if parts is None or parts.scheme not in PORTS or not parts.hostname:
            raise InvalidRequest(f"{param} is no http or https URL", param=param)
        if parts.username is not None or parts.password is not None:
            raise InvalidRequest(
                f"{param} holds a name or password; use authorization or headers", param=param
            )
        host, port = parts.hostname.lower(), parts.port or PORTS[parts.scheme]
        if ANY not in self.entries and not self.names(host, port):
            raise InvalidRequest(
                f"this server may not talk to MCP servers at {host}:{port}; its operator allows "
                "hosts with --mcp-allow",
                param=param,
                code="mcp_server_not_allowed",
            )

    def names(self, host: str, port: int) -> bool:
        """Whether the operator named a host."""
        bare = f"[{host}]" if ":" in host else host
        return bare in self.entries or f"{bare}:{port}" in self.entries


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts
