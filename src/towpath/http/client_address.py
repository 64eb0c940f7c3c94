"""The client's address and scheme, with the headers of trusted proxies.

A proxy's headers are used only if the proxy is one of `trusted_proxies`, because any client can
send such headers. The client's address is the rightmost one that is not a trusted proxy's: the
addresses to the left of it may be forged by the client.
"""

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.requests import HTTPConnection

Network = IPv4Network | IPv6Network

V6_PREFIX = 64
"""The prefix of an IPv6 network that counts as one client: a subscriber has all its addresses."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The rate limit key of a request's client, and its scheme."""

    rate_limit_key: str
    """The key under which failures are counted: an IPv4 address, or an IPv6 network."""
    scheme: str
    """`http` or `https`, as the client used it."""


@functools.lru_cache(maxsize=8)
def networks(trusted_proxies: frozenset[str]) -> tuple[Network, ...]:
    """Return the networks of the validated setting `trusted_proxies`."""
    return tuple(map(ipaddress.ip_network, sorted(trusted_proxies)))


def client_address(request: HTTPConnection, trusted: Sequence[Network]) -> ClientAddress:
    """Return the client of a request or an upgrade.

    Args:
        request: the request, as the server received it.
        trusted: the networks of the proxies whose headers are used.
    """
    direct = request.client.host if request.client else ""
    scheme = "https" if request.url.scheme in ("https", "wss") else "http"
    if not _is_trusted(_address(direct), trusted):
        return ClientAddress(_rate_limit_key(direct), scheme)
    hops = _entries(request, "x-forwarded-for")
    client = next((hop for hop in reversed(hops) if not _is_trusted(_address(hop), trusted)), "")
    forwarded = (_entries(request, "x-forwarded-proto") or [scheme])[-1].lower()
    if forwarded in ("http", "https"):
        scheme = forwarded
    return ClientAddress(_rate_limit_key(client or direct), scheme)


def _entries(request: HTTPConnection, name: str) -> list[str]:
    """Return the entries of a header that may come in several lines, in order."""
    lines = ",".join(request.headers.getlist(name))
    return [entry.strip() for entry in lines.split(",") if entry.strip()]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text with or without brackets and a port; None if it is invalid."""
    host, bracket, _ = text.removeprefix("[").partition("]")
    if not bracket and text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)


def _rate_limit_key(text: str) -> str:
    """Return the key of one client; for text that is not an address, its first 64 characters."""
    address = _address(text)
    if isinstance(address, IPv6Address):
        return str(ipaddress.ip_network((address, V6_PREFIX), strict=False))
    return str(address) if address is not None else text[:64]
