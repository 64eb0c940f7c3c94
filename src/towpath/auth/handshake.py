"""Where a credential travels: the sources in order, and the first found wins.

Source: DESIGN section 7; RFC 6750 section 2.1 for the header.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """Where a credential was found."""

    CONNECT = "connect.token"
    AUTHORIZATION = "Authorization"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was presented. The repr leaves it out."""

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Credential(source={self.source.value!r})"

    @property
    def renewable(self) -> bool:
        """Whether an SDK can bring a new one over the live connection."""
        return self.source is Source.CONNECT


def find_credential(connect_token: str, headers: Mapping[str, str]) -> Credential | None:
    """Return the credential of a connection; an empty string counts as absent.

    Args:
        connect_token: the token of the connect command.
        headers: of the upgrade request, names in lower case.
    """
    if connect_token:
        return Credential(connect_token, Source.CONNECT)
    token = bearer(headers.get("authorization", ""))
    return Credential(token, Source.AUTHORIZATION) if token else None


def bearer(header: str) -> str:
    """Return the token of an Authorization header, empty where it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def origin_allowed(origin: str | None, host: str, scheme: str, allowed: frozenset[str]) -> bool:
    """Whether a page of this origin may connect: no origin, the same one, or a listed one.

    Args:
        origin: the Origin header; None where there is none, as with everything but browsers.
        host: the Host header.
        scheme: `http` or `https`, as the server was reached.
        allowed: full origins, exact.
    """
    if origin is None or origin in allowed:
        return True
    return scheme in ("http", "https") and bool(host) and origin == f"{scheme}://{host}"
