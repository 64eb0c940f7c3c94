"""Who is at the other end of a request: its address and scheme, as far as proxies can be believed.

What a proxy says of its client counts only where the proxy itself is one we were told of; anybody
else may write such headers. From the right, the first address that is no trusted proxy's is the
client's: what stands further left was written by the client.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.requests import HTTPConnection

Network = IPv4Network | IPv6Network

V6_PREFIX = 64
"""What one IPv6 subscriber has to choose addresses from counts as one address."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end."""

    address: str
    """Whom its doings are counted against: an IPv4 address, or an IPv6 network."""
    scheme: str
    """`http` or `https`, as the client sees it."""


def peer_of(request: HTTPConnection, trusted: Sequence[Network]) -> Peer:
    """Return who is at the other end of a request or an upgrade."""
    direct = request.client.host if request.client else ""
    scheme = "https" if request.url.scheme in ("https", "wss") else "http"
    if not _is_trusted(_address(direct), trusted):
        return Peer(_subject(direct), scheme)
    hops = _listed(request, "x-forwarded-for")
    told = (_listed(request, "x-forwarded-proto") or [scheme])[-1].lower()
    client = next((hop for hop in reversed(hops) if not _is_trusted(_address(hop), trusted)), "")
    return Peer(_subject(client or direct), told if told in ("http", "https") else scheme)


def _listed(request: HTTPConnection, name: str) -> list[str]:
    """Return the entries of a header that may come in several lines, in order."""
    lines = ",".join(request.headers.getlist(name))
    return [entry.strip() for entry in lines.split(",") if entry.strip()]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text, with or without brackets and a port."""
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


def _subject(text: str) -> str:
    """Return what counts as one source; text that is no address counts as itself, cut short."""
    address = _address(text)
    if isinstance(address, IPv6Address):
        return str(ipaddress.ip_network((address, V6_PREFIX), strict=False))
    return str(address) if address is not None else text[:64]
