"""Server-side request forgery: every way to a private address that we know of is refused."""

import asyncio
import socket
from typing import Any

import httpx
import pytest

from gptoss_tools import WebBackend
from gptoss_tools.browser.backends.address import PublicTransport, is_public
from gptoss_tools.errors import AddressRefused, BackendError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1",
        "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
        "168.63.129.16", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
        "64:ff9b:1:7f00:0:100::", "192.0.0.8", "3fff::1", "5f00::1",
        "2001:0:7f00:1::", "2001:0:1:1:1:1:80ff:fffe", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://127.1/", "http://2130706433/",
        "http://0x7f000001/", "http://0x7f.1/", "http://017700000001/", "http://0/",
        "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[0:0:0:0:0:ffff:7f00:1]/",
        "http://[fe80::1]/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1:8080/",
        "https://192.168.0.1/", "file:///etc/passwd", "file:/etc/passwd", "gopher://127.0.0.1/x",
        "ftp://127.0.0.1/", "data:text/html,x", "javascript:alert(1)", "unix:///run/docker.sock",
        "dict://127.0.0.1/", "ws://127.0.0.1/", "http://user:password@1.1.1.1/",
        "view-source:file:///etc/passwd", "http://①②⑦.⓪.⓪.①/", "http://127.0.0.1.:80/",
        "http://localhost.localdomain/", "http:///x", "http://[::1", "",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(BackendError):
        asyncio.run(WebBackend(seconds=10).fetch(url))


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to one answer after the other; returns the names asked for."""
    asked: list[str] = []

    async def getaddrinfo(self: Any, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


class Recorder(httpx.AsyncBaseTransport):
    """Notes where requests go, and answers them."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.hosts: list[str] = []
        self.requests: list[httpx.Request] = []
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        self.requests.append(request)
        if request.url.path == "/robots.txt":
            return httpx.Response(404, stream=httpx.ByteStream(b""))
        return self._answer or httpx.Response(
            200, headers={"content-type": "text/plain"}, stream=httpx.ByteStream(b"hello")
        )


def backend(recorder: Recorder) -> WebBackend:
    return WebBackend(transport=PublicTransport(recorder))


def test_a_rebinding_name_is_pinned_to_the_checked_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = resolver(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    recorder = Recorder()
    with pytest.raises(AddressRefused):
        asyncio.run(backend(recorder).fetch("http://rebind.example/x"))
    assert asked == ["rebind.example", "rebind.example"]
    # The first request went to the address that was checked, none to the second.
    assert recorder.hosts == ["93.184.216.34"]
    assert recorder.requests[0].headers["host"] == "rebind.example"


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver(monkeypatch, ["93.184.216.34", "10.0.0.5"])
    recorder = Recorder()
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.5"):
        asyncio.run(backend(recorder).fetch("https://mixed.example/"))
    assert recorder.hosts == []


def test_certificates_are_checked_against_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["93.184.216.34"])
    recorder = Recorder()
    page = asyncio.run(backend(recorder).fetch("https://good.example/a"))
    assert "hello" in page.text
    assert page.url == "https://good.example/a"
    assert {r.extensions["sni_hostname"] for r in recorder.requests} == {"good.example"}
    assert set(recorder.hosts) == {"93.184.216.34"}


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/", "http://[::1]:80/", "//127.0.0.1/x", "file:///etc/passwd",
        "gopher://x.example/", "http://2130706433/", "http://169.254.169.254/latest/",
    ],
)  # fmt: skip
def test_redirects_to_private_addresses_are_refused(location: str) -> None:
    moved = httpx.Response(302, headers={"location": location}, stream=httpx.ByteStream(b""))
    recorder = Recorder(moved)
    with pytest.raises(BackendError):
        asyncio.run(backend(recorder).fetch("http://1.1.1.1/start"))
    assert set(recorder.hosts) == {"1.1.1.1"}


def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, site: Any
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, site.url)
    with pytest.raises(BackendError):
        asyncio.run(WebBackend(seconds=5).fetch("http://10.255.255.1/"))
    assert site.asked == []


def test_private_addresses_open_only_when_asked(site: Any) -> None:
    site.html("/a", "<p>private")
    with pytest.raises(AddressRefused):
        asyncio.run(WebBackend().fetch(f"{site.url}/a"))
    assert site.asked == []
    page = asyncio.run(WebBackend(allow_private=True).fetch(f"{site.url}/a"))
    assert "private" in page.text
