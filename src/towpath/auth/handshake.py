"""Where a credential travels: the sources in order, and the first found wins.

An empty string counts as absent, everywhere. A source that is found and no good is not rescued by a
later one. What nearly looks like a credential is told how it is spelt, since a client that puts
it in the wrong place would otherwise learn no more than "no".

Source: DESIGN section 7; RFC 6455 section 4.1 for sub-protocols; RFC 6750 section 2.1 for the
header.
"""

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from towpath.auth.tickets import is_ticket
from towpath.errors import BadRequest

PLAIN_NAMES: Final = ("centrifuge-json", "jwt-auth", "towpath.v1")
"""Sub-protocols we answer with; a missing one is accepted."""
SPELLING: Final = (
    "a credential in Sec-WebSocket-Protocol is jwt.<base64url of the JWT, no padding> or "
    "bearer.<JWT>, one of it, offered beside a plain name: centrifuge-json, jwt-auth or towpath.v1"
)
"""What a client is told that nearly offered one."""
_JWT_ENTRY: Final = re.compile(r"jwt\.([A-Za-z0-9_-]+)")
_BEARER_ENTRY: Final = re.compile(r"bearer\.([A-Za-z0-9_.-]+)")
_NEAR_MISS: Final = re.compile(
    r"(jwt|bearer|token|access[_-]?token|auth|authorization)[^a-z0-9].*|eyJ.*", re.IGNORECASE
)


class Source(Enum):
    """Where a credential was found, in the order in which they are looked at."""

    CONNECT = "connect.token"
    TICKET = "?ticket="
    SUBPROTOCOL = "Sec-WebSocket-Protocol"
    AUTHORIZATION = "Authorization"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was presented. The repr leaves it out."""

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Credential(source={self.source.value!r})"

    @property
    def misplaced(self) -> bool:
        """Whether its kind does not travel this way: a JWT in a query, a ticket in a header."""
        if self.source is Source.CONNECT:
            return False
        return is_ticket(self.token) is not (self.source is Source.TICKET)

    @property
    def renewable(self) -> bool:
        """Whether an SDK can bring a new one over the live connection."""
        return self.source is Source.CONNECT


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeInfo:
    """What the upgrade brought. The repr leaves credentials out."""

    address: str = ""
    """Whom failures are counted against."""
    origin: str | None = None
    """Of the page; None as with everything but browsers."""
    offered: str = field(default="", repr=False)
    """The credential among the sub-protocols."""
    ticket: str = field(default="", repr=False)
    """Of the query."""
    authorization: str = field(default="", repr=False)
    """The header, whole."""


def find_credential(connect_token: str, handshake: UpgradeInfo) -> Credential | None:
    """Return the credential of a connection; None where there is none.

    Args:
        connect_token: the token of the connect command.
        handshake: what came before it.
    """
    sources = (
        (connect_token, Source.CONNECT),
        (handshake.ticket, Source.TICKET),
        (handshake.offered, Source.SUBPROTOCOL),
        (bearer(handshake.authorization), Source.AUTHORIZATION),
    )
    return next((Credential(token, source) for token, source in sources if token), None)


def negotiate(offered: Sequence[str]) -> tuple[str | None, str]:
    """Return the sub-protocol to answer with and the credential among those offered, empty for
    none.

    The answer is the first plain name we speak, never a credential.

    Raises:
        BadRequest: a credential is misspelt, or there are several, or no plain name beside it.
    """
    answered = next((name for name in offered if name in PLAIN_NAMES), None)
    entries = [entry for entry in offered if _NEAR_MISS.match(entry) and entry not in PLAIN_NAMES]
    if not entries:
        return answered, ""
    credential = _entry_credential(entries[0])
    if len(entries) > 1 or credential is None or answered is None:
        raise BadRequest(SPELLING)
    return answered, credential


def _entry_credential(entry: str) -> str | None:
    """Return the credential a sub-protocol entry holds; None for one that is misspelt."""
    if (plain := _BEARER_ENTRY.fullmatch(entry)) is not None:
        return plain[1]
    if (encoded := _JWT_ENTRY.fullmatch(entry)) is None:
        return None
    try:
        return urlsafe_b64decode(encoded[1] + "=" * (-len(encoded[1]) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None


def bearer(header: str) -> str:
    """Return the token of an Authorization header, empty where it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else ""


def is_misspelt(token: str) -> bool:
    """Whether a token in `connect.token` brings a scheme along that belongs in a header."""
    return bool(re.match(r"(bearer|jwt|token)\s", token, re.IGNORECASE))


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
