"""Pages straight from the web, with plain HTTP: no key, no search, no JavaScript.

Bounds on time, size (also of what is compressed) and redirects; robots.txt is respected; addresses
that are not public are refused.
"""

from __future__ import annotations

import asyncio
import urllib.robotparser
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from gptoss_tools.browser.backends.address import PublicTransport
from gptoss_tools.browser.backends.document import decoded, document_page, text_page
from gptoss_tools.browser.backends.protocol import SearchResult
from gptoss_tools.browser.page import Page
from gptoss_tools.errors import AddressRefused, BackendError

VIEW_SOURCE = "view-source:"
USER_AGENT = "gptoss-browser/0.1"
_ACCEPTED = "text/html,application/xhtml+xml,text/*;q=0.9,application/pdf;q=0.8,*/*;q=0.5"
_MAX_HOPS = 6
_MAX_ROBOTS = 500_000
_ROBOTS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a server answered, decompressed."""

    url: str
    status: int
    content_type: str
    charset: str | None
    data: bytes
    location: str = ""  # where a redirect leads


class WebBackend:
    """Fetches URLs as they are.

    Args:
        source: what the backend is called.
        allow_private: also open private, loopback and link-local addresses.
        respect_robots: ask robots.txt first.
        max_bytes: of one page, decompressed.
        seconds: for one page, redirects and robots.txt included.
        transport: how requests are sent; None is the guarded transport of `address`.
    """

    def __init__(
        self,
        *,
        source: str = "web",
        allow_private: bool = False,
        respect_robots: bool = True,
        max_bytes: int = 10_000_000,
        seconds: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.source = source
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._respect_robots = respect_robots
        self._allow_private = allow_private
        self._transport = transport
        self._robots: dict[str, urllib.robotparser.RobotFileParser] = {}

    async def search(self, query: str, *, topn: int) -> list[SearchResult]:
        """Not possible here.

        Raises:
            BackendError: always.
        """
        raise BackendError("this browser cannot search; open a URL instead")

    async def fetch(self, url: str) -> Page:
        """See `Backend.fetch`."""
        as_source = url.startswith(VIEW_SOURCE)
        target = _checked(url.removeprefix(VIEW_SOURCE))
        try:
            async with asyncio.timeout(self._seconds), self._client() as client:
                fetched = await self._page(client, target)
        except TimeoutError as error:
            raise BackendError(f"no answer within {self._seconds:g} seconds") from error
        except httpx.UnsupportedProtocol as error:
            raise AddressRefused("only http and https addresses are opened") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendError(f"{type(error).__name__}: {error}") from error
        # Parsing takes time: other conversations go on meanwhile.
        return await asyncio.to_thread(_as_page, fetched, as_source=as_source)

    def _client(self) -> httpx.AsyncClient:
        transport = self._transport
        if transport is None and not self._allow_private:
            transport = PublicTransport()
        return httpx.AsyncClient(
            transport=transport,
            trust_env=False,  # a proxy would connect for us, past the check of addresses
            max_redirects=_MAX_HOPS - 1,
            timeout=self._seconds,
            headers={
                "User-Agent": USER_AGENT,
                "Accept": _ACCEPTED,
                "Accept-Encoding": "gzip, deflate",
            },
        )

    async def _page(self, client: httpx.AsyncClient, url: str) -> Fetched:
        """Follow redirects by hand: every hop is checked before it is asked for."""
        for _ in range(_MAX_HOPS):
            if self._respect_robots and not await self._allowed(client, url):
                raise BackendError("the site's robots.txt does not allow it")
            fetched = await _get(client, url, self._max_bytes)
            if fetched.status >= 400:
                raise BackendError(f"the server answered {fetched.status}")
            if not fetched.location:
                return fetched
            url = _checked(urljoin(url, fetched.location))
        raise BackendError(f"more than {_MAX_HOPS - 1} redirects")

    async def _allowed(self, client: httpx.AsyncClient, url: str) -> bool:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._robots:
            while len(self._robots) >= _ROBOTS_KEPT:
                del self._robots[next(iter(self._robots))]
            self._robots[origin] = await _read_robots(client, origin)
        return self._robots[origin].can_fetch(USER_AGENT, url)


async def _read_robots(
    client: httpx.AsyncClient, origin: str
) -> urllib.robotparser.RobotFileParser:
    """The rules of a site: none where it has no file, closed where its server fails (RFC 9309)."""
    rules = urllib.robotparser.RobotFileParser()
    answer = await _get(client, f"{origin}/robots.txt", _MAX_ROBOTS, follow_redirects=True)
    if answer.status >= 500:
        rules.parse(["User-agent: *", "Disallow: /"])
    elif answer.status >= 400:
        rules.parse([])
    else:
        rules.parse(decoded(answer.data).splitlines())
    return rules


def _checked(url: str) -> str:
    """A complete http or https URL."""
    text = url.strip()
    if "://" not in text and not text.lower().startswith(("file:", "data:", "javascript:")):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise BackendError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise AddressRefused(f"{parts.scheme}: addresses are not opened, only http and https")
    if not host:
        raise BackendError("not a URL: it names no host")
    if parts.username or parts.password:
        raise AddressRefused("URLs with a user name or password are not opened")
    return text


async def _get(
    client: httpx.AsyncClient, url: str, max_bytes: int, *, follow_redirects: bool = False
) -> Fetched:
    async with client.stream("GET", url, follow_redirects=follow_redirects) as response:
        moved = response.is_redirect and "location" in response.headers
        kind, _, _ = response.headers.get("content-type", "").partition(";")
        return Fetched(
            str(response.url),
            response.status_code,
            kind.strip(),
            response.charset_encoding,
            b"" if moved else await _body(response, max_bytes),
            response.headers["location"] if moved else "",
        )


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    """The decompressed body; compressed data is let out bit by bit, so that no bomb goes off."""
    inflate = _decompressor(response.headers.get("content-encoding", "identity"))
    body = bytearray()
    async for chunk in response.aiter_raw(65_536):
        if inflate is None:
            body += chunk
        else:
            try:
                body += inflate.decompress(chunk, max_bytes + 1 - len(body))
            except zlib.error as error:
                raise BackendError("the server sent damaged compressed data") from error
        if len(body) > max_bytes:
            raise BackendError(f"the page has more than {max_bytes:,} bytes")
    return bytes(body)


def _decompressor(encoding: str) -> Any:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        case "deflate":
            return zlib.decompressobj()
        case other:
            raise BackendError(f"the server compressed the page with {other}, which was not asked")


def _as_page(fetched: Fetched, *, as_source: bool) -> Page:
    if not as_source:
        return document_page(
            fetched.data,
            fetched.url,
            content_type=fetched.content_type,
            charset=fetched.charset,
        )
    text = decoded(fetched.data, fetched.charset, html=True)
    url = VIEW_SOURCE + fetched.url
    return text_page(text, url, title=url)
