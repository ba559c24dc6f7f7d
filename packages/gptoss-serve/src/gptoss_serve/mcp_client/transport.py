"""The HTTP transport under an MCP client: it connects to allowed hosts only.

A host that the operator did not name is resolved here, every address is checked, and the connection
goes to a checked address: a name that answers differently a moment later changes nothing. Answers
are bounded, because a client may name any server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from gptoss_serve.mcp_client.access import ANY, PORTS, McpAccess
from gptoss_tools.browser.backends.address import public_address
from gptoss_tools.errors import BackendError

MOST_BYTES = 32 * 2**20  # of one answer


class AllowedTransport(httpx2.AsyncBaseTransport):
    """Connects to allowed hosts only, also where a server redirects.

    Args:
        access: what is allowed.
        inner: does the transfer; None makes httpx2's own.
    """

    def __init__(
        self, access: McpAccess, *, inner: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._access = access
        # Pinned connections are known by address: kept open, one whose certificate was checked
        # for a name could serve another name of that address unchecked.
        single = httpx2.Limits(max_keepalive_connections=0)
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False, limits=single)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; its answer is cut off where it gets too long."""
        request.headers["accept-encoding"] = "identity"  # what is packed could unfold to anything
        response = await self._sent(request)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("it packed its answer, although asked not to")
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        return response

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; to a host that nobody named, only to a checked public address."""
        url = request.url
        port = url.port or PORTS.get(url.scheme, 0)
        if self._access.names(url.host.lower(), port):
            return await self._inner.handle_async_request(request)
        if ANY not in self._access.entries or url.scheme not in PORTS:
            raise httpx2.ConnectError(f"{url.host} is not among the allowed MCP servers")
        try:
            address = await public_address(url.host, port)
        except BackendError as error:
            raise httpx2.ConnectError(str(error)) from error
        pinned = httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,  # the Host header still has the name
            stream=request.stream,
            # The certificate is checked against the name.
            extensions={**request.extensions, "sni_hostname": url.host},
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body that fails where it gets too long."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > MOST_BYTES:
                raise httpx2.ReadError(f"its answer is longer than {MOST_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
