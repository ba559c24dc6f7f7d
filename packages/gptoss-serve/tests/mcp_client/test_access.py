"""Which MCP servers may be asked: what the operator named, checked again where we connect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from gptoss_harmony.errors import UsageError
from gptoss_serve.errors import InvalidRequest
from gptoss_serve.mcp_client import transport
from gptoss_serve.mcp_client.access import McpAccess
from gptoss_tools.errors import AddressRefused

pytestmark = pytest.mark.mcp


@pytest.mark.parametrize("text", ["", "a,,b", "http://a", "a/b", "a:port", "user@a", "a, "])
def test_entries_that_are_no_hosts(text: str) -> None:
    with pytest.raises(UsageError, match="--mcp-allow"):
        McpAccess.parse([text])


def test_lists_are_joined() -> None:
    access = McpAccess.parse(["A.org, b.org:81", "[::1]:8001", "a.org"])
    assert access.entries == ("a.org", "b.org:81", "[::1]:8001")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://a.org/mcp", True),
        ("http://A.ORG:9/x", True),
        ("https://b.org:81/", True),
        ("https://b.org/", False),
        ("http://[::1]:8001/mcp", True),
        ("http://[::1]/mcp", False),
        ("https://xa.org", False),
        ("https://a.org.evil.com", False),
        ("https://a.org@evil.com", False),
        ("https://a.org\\@evil.com", False),
        ("ftp://a.org", False),
        ("a.org", False),
        ("https://", False),
        ("http://[", False),
    ],
)
def test_only_named_hosts(url: str, allowed: bool) -> None:
    access = McpAccess.parse(["a.org,b.org:81,[::1]:8001"])
    if allowed:
        access.check(url, param="url")
        return
    with pytest.raises(InvalidRequest) as refused:
        access.check(url, param="url")
    assert refused.value.param == "url"


class Inner(httpx2.AsyncBaseTransport):
    """Notes where it was sent."""

    def __init__(self) -> None:
        self.hosts: list[tuple[str, str]] = []

    async def handle_async_request(self, request: Any) -> Any:
        self.hosts.append((request.url.host, request.headers["host"]))
        return httpx2.Response(200)


def send(access: McpAccess, url: str) -> list[tuple[str, str]]:
    inner = Inner()

    async def ask() -> None:
        allowed = transport.AllowedTransport(access, inner=inner)
        async with httpx2.AsyncClient(transport=allowed) as http:
            await http.get(url)

    asyncio.run(ask())
    return inner.hosts


def test_public_hosts_are_reached_at_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolved(host: str, port: int) -> str:
        if host == "inside.org":
            raise AddressRefused(f"{host} leads to 10.0.0.1, which is not on the public internet")
        return "93.184.216.34"

    monkeypatch.setattr(transport, "public_address", resolved)
    anybody = McpAccess.parse(["any"])
    assert send(anybody, "https://out.org/mcp") == [("93.184.216.34", "out.org")]
    with pytest.raises(httpx2.ConnectError, match="public internet"):
        send(anybody, "https://inside.org/mcp")
    # A named host is the operator's own business, wherever it leads.
    named = McpAccess.parse(["any,inside.org"])
    assert send(named, "https://inside.org/mcp") == [("inside.org", "inside.org")]


def test_no_way_around_through_redirects() -> None:
    with pytest.raises(httpx2.ConnectError, match="not among the allowed"):
        send(McpAccess.parse(["a.org"]), "http://169.254.169.254/latest")
    for url in ("http://127.0.0.1:1/", "http://[::ffff:127.0.0.1]/", "http://2130706433/"):
        with pytest.raises(httpx2.ConnectError):
            send(McpAccess.parse(["any"]), url)


class Endless(httpx2.AsyncByteStream):
    """A body that never ends; notes whether it was closed."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" " * 2**20

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("headers", "words"), [({}, "longer than"), ({"content-encoding": "gzip"}, "packed")]
)
def test_an_answer_without_end_is_cut_off(headers: dict[str, str], words: str) -> None:
    body = Endless()

    class Flood(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            assert request.headers["accept-encoding"] == "identity"
            return httpx2.Response(200, headers=headers, stream=body)

    async def ask() -> None:
        allowed = transport.AllowedTransport(McpAccess.parse(["a.org"]), inner=Flood())
        async with httpx2.AsyncClient(transport=allowed) as http:
            await http.get("http://a.org/mcp")

    with pytest.raises(httpx2.TransportError, match=words):
        asyncio.run(ask())
    assert body.closed
