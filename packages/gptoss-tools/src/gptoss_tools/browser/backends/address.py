"""Which addresses the browser may connect to: public ones, checked at the moment of connecting.

A name is resolved here, every answer is checked, and the connection goes to a checked address: a
name that answers differently a moment later changes nothing. Redirects pass the same gate.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator

import httpx

from gptoss_tools.errors import AddressRefused, BackendError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 inside IPv6, RFC 6052
_COMPATIBLE = ipaddress.ip_network("::/96")
# Carrier-grade, documentation and benchmark ranges are not global by Python's account; these
# global-looking ones lead to this machine or its neighbours on some clouds.
_ALSO_PRIVATE = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's host
    ipaddress.ip_network("fec0::/10"),  # site-local, deprecated but routed
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba's metadata
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    # Global by the account of older Pythons only:
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments
    ipaddress.ip_network("64:ff9b:1::/48"),  # a network's own translators, RFC 8215
    ipaddress.ip_network("3fff::/20"),  # documentation
    ipaddress.ip_network("5f00::/16"),  # segment routing inside a provider
)


def is_public(address: str) -> bool:
    """Whether an IP address, and every address hidden inside it, is on the public internet."""
    try:
        outer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(inner) for inner in _unfolded(outer))


def _unfolded(address: _Address) -> Iterator[_Address]:
    """The address and the IPv4 addresses that it embeds."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _COMPATIBLE or address in _TRANSLATED:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_public(address: _Address) -> bool:
    if any(address.version == net.version and address in net for net in _ALSO_PRIVATE):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
        and not address.is_link_local
        and not address.is_private
    )


async def public_address(host: str, port: int) -> str:
    """Resolve a name to an address that may be connected to.

    Raises:
        AddressRefused: one of its addresses is private, loopback, link-local or otherwise special.
        BackendError: it has no address.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BackendError(f"{host} has no address") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise AddressRefused(f"{host} leads to {address}, which is not on the public internet")
    if not addresses:
        raise BackendError(f"{host} has no address")
    return addresses[0]


class PublicTransport(httpx.AsyncBaseTransport):
    """An HTTP transport that connects to public addresses only.

    Args:
        inner: does the transfer; None makes httpx's own.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport | None = None) -> None:
        # Connections are known by address here: kept open, one whose certificate was checked for
        # a name could serve another name of that address unchecked.
        single = httpx.Limits(max_keepalive_connections=0)
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False, limits=single)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the checked address of its host, under the host's own name."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise AddressRefused(f"{url.scheme}: addresses are not opened, only http and https")
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await public_address(url.host, port)
        pinned = httpx.Request(
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
