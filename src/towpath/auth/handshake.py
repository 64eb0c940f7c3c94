"""The sources of a credential, in order: the first credential found is used.

An empty string counts as absent in every source. If the first credential is invalid, later sources
are not tried. A malformed credential is refused with a message that gives the correct form: a
client that sends it in the wrong place would otherwise learn only that it was refused.

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
"""The sub-protocols that the server selects; a client may offer none."""
SPELLING: Final = (
    "a credential in Sec-WebSocket-Protocol is jwt.<base64url of the JWT, no padding> or "
    "bearer.<JWT>, one of it, offered beside a plain name: centrifuge-json, jwt-auth or towpath.v1"
)
"""The message to a client that offered a malformed credential."""
_JWT_ENTRY: Final = re.compile(r"jwt\.([A-Za-z0-9_-]+)")
_BEARER_ENTRY: Final = re.compile(r"bearer\.([A-Za-z0-9_.-]+)")
_NEAR_MISS: Final = re.compile(
    r"(jwt|bearer|token|access[_-]?token|auth|authorization)[^a-z0-9].*|eyJ.*", re.IGNORECASE
)


class Source(Enum):
    """Where a credential was found, in the order of search."""

    CONNECT = "connect.token"
    TICKET = "?ticket="
    SUBPROTOCOL = "Sec-WebSocket-Protocol"
    AUTHORIZATION = "Authorization"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was presented. The repr omits the token."""

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Credential(source={self.source.value!r})"

    @property
    def misplaced(self) -> bool:
        """Whether the source does not accept this kind: a JWT in a query, a ticket in a header."""
        if self.source is Source.CONNECT:
            return False
        return is_ticket(self.token) is not (self.source is Source.TICKET)

    @property
    def renewable(self) -> bool:
        """Whether an SDK can send a new credential over the live connection."""
        return self.source is Source.CONNECT


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeInfo:
    """The data of the upgrade request. The repr omits credentials."""

    address: str = ""
    """The address that failures are counted for."""
    origin: str | None = None
    """The page's origin; None if absent, as from clients that are not browsers."""
    offered: str = field(default="", repr=False)
    """The credential offered as a sub-protocol."""
    ticket: str = field(default="", repr=False)
    """The ticket in the query."""
    authorization: str = field(default="", repr=False)
    """The whole Authorization header."""


def find_credential(connect_token: str, handshake: UpgradeInfo) -> Credential | None:
    """Return the credential of a connection; None without a credential.

    Args:
        connect_token: the token of the connect command.
        handshake: the data of the upgrade request.
    """
    sources = (
        (connect_token, Source.CONNECT),
        (handshake.ticket, Source.TICKET),
        (handshake.offered, Source.SUBPROTOCOL),
        (bearer(handshake.authorization), Source.AUTHORIZATION),
    )
    return next((Credential(token, source) for token, source in sources if token), None)


def negotiate(offered: Sequence[str]) -> tuple[str | None, str]:
    """Return the sub-protocol to select, and the offered credential (empty without a credential).

    The selected sub-protocol is the first plain name in the offer, never a credential.

    Raises:
        BadRequest: a credential is malformed, there are several, or no plain name is beside it.
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
    """Return the credential in a sub-protocol entry; None if the entry is malformed."""
    if (plain := _BEARER_ENTRY.fullmatch(entry)) is not None:
        return plain[1]
    if (encoded := _JWT_ENTRY.fullmatch(entry)) is None:
        return None
    try:
        return urlsafe_b64decode(encoded[1] + "=" * (-len(encoded[1]) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None


def bearer(header: str) -> str:
    """Return the token of an Authorization header; empty if it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else ""


def is_misspelt(token: str) -> bool:
    """Whether a token in `connect.token` starts with a scheme that belongs in a header."""
    return bool(re.match(r"(bearer|jwt|token)\s", token, re.IGNORECASE))


def origin_allowed(origin: str | None, host: str, scheme: str, allowed: frozenset[str]) -> bool:
    """Whether a page of this origin may connect: no origin, the same one, or a listed one.

    Args:
        origin: the Origin header; None if absent, as from clients that are not browsers.
        host: the Host header.
        scheme: `http` or `https`, as the server was reached.
        allowed: full origins, compared exactly.
    """
    if origin is None or origin in allowed:
        return True
    return scheme in ("http", "https") and bool(host) and origin == f"{scheme}://{host}"
