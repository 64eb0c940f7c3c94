"""The messages of a connection, independent of their encoding.

The structures and names are those of the Centrifuge client protocol v2 (public field list of its
`client.proto`), reduced to our written profile. Fields that we do not offer are missing here;
unknown fields of a client are ignored. Optional fields that we do not send are `UNSET`, not null:
an SDK distinguishes an omitted field from a zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

MAX_COMMAND_ID = 2**32 - 1
EMPTY = Raw(b"{}")

CommandId = Annotated[int, msgspec.Meta(ge=0, le=MAX_COMMAND_ID)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class SubscribeRequest(Struct, frozen=True, kw_only=True):
    """Subscribe to a channel, optionally from a position. The repr omits the token."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    offset: Offset = 0
    epoch: str = ""
    positioned: bool = False
    recoverable: bool = False
    flag: int = 0

    def __repr__(self) -> str:
        position = f"recover={self.recover}, offset={self.offset}, epoch={self.epoch!r}"
        return f"SubscribeRequest(channel={self.channel!r}, {position})"


REJECT_UNRECOVERED = 2
"""The bit of `SubscribeRequest.flag` that requests error 112 instead of an unrecovered answer."""


class ConnectRequest(Struct, frozen=True, kw_only=True):
    """The first command of a connection. The repr omits the token."""

    token: str = ""
    data: Raw = EMPTY
    name: str = ""
    version: str = ""
    subs: dict[str, SubscribeRequest] = {}

    def __repr__(self) -> str:
        return f"ConnectRequest(name={self.name!r}, subs={list(self.subs)!r})"


class UnsubscribeRequest(Struct, frozen=True, kw_only=True):
    """Unsubscribe from a channel."""

    channel: ChannelName


class PublishRequest(Struct, frozen=True, kw_only=True):
    """Publish to a channel; refused for every built-in channel."""

    channel: ChannelName
    data: Raw = EMPTY


class StreamPosition(Struct, frozen=True, kw_only=True):
    """A position in a channel."""

    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(Struct, frozen=True, kw_only=True):
    """Read the stored publications of a channel."""

    channel: ChannelName
    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class PresenceRequest(Struct, frozen=True, kw_only=True):
    """List the connections that read a channel."""

    channel: ChannelName


class PresenceStatsRequest(Struct, frozen=True, kw_only=True):
    """Count the connections that read a channel."""

    channel: ChannelName


class RPCRequest(Struct, frozen=True, kw_only=True):
    """Call a method."""

    method: Annotated[str, msgspec.Meta(max_length=128)] = ""
    data: Raw = EMPTY


class RefreshRequest(Struct, frozen=True, kw_only=True):
    """Present a new credential for the live connection. The repr omits the credential."""

    token: str = ""

    def __repr__(self) -> str:
        return "RefreshRequest()"


class SubRefreshRequest(Struct, frozen=True, kw_only=True):
    """Present a new subscription token."""

    channel: ChannelName

    def __repr__(self) -> str:
        return f"SubRefreshRequest(channel={self.channel!r})"


class Empty(Struct, frozen=True):
    """A request or result without fields."""


class SendRequest(Struct, frozen=True, kw_only=True):
    """A one-way message; it gets no reply."""

    data: Raw = EMPTY


Request = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | HistoryRequest
    | PresenceRequest
    | PresenceStatsRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
    | SendRequest
    | Empty
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a client. `id` is 0 only for the one-way `send`."""

    id: int
    name: str
    request: Request


@dataclass(frozen=True, slots=True)
class Malformed:
    """A command with a valid id and an invalid body; it gets error 107 (bad request).

    With `unknown`, the command does not exist; it gets error 104 (method not found).
    """

    id: int
    reason: str
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Pong:
    """The client's answer to a ping: an empty command."""


Inbound = Command | Malformed | Pong


class Error(Struct, frozen=True, kw_only=True):
    """The error of a reply."""

    code: int
    message: str
    temporary: bool | UnsetType = UNSET


class Publication(Struct, frozen=True, kw_only=True):
    """One publication of a channel, as a client receives it.

    Publications of a snapshot, and all but the last of a folded answer, have no offset.
    """

    data: Raw
    offset: int | UnsetType = UNSET
    tags: Mapping[str, str] | UnsetType = UNSET


class SubscribeResult(Struct, frozen=True, kw_only=True):
    """The result of subscribe, and one entry of `subs` in the result of connect."""

    recoverable: bool = True
    positioned: bool = True
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[Publication] | UnsetType = UNSET


class ConnectResult(Struct, frozen=True, kw_only=True):
    """The result of connect."""

    client: str
    version: str
    ping: int
    pong: bool
    expires: bool | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    subs: dict[str, SubscribeResult] | UnsetType = UNSET


class RefreshResult(Struct, frozen=True, kw_only=True):
    """The result of refresh."""

    client: str
    version: str
    expires: bool | UnsetType = UNSET
    ttl: int | UnsetType = UNSET


class HistoryResult(Struct, frozen=True, kw_only=True):
    """The result of history."""

    publications: list[Publication]
    epoch: str
    offset: int


class ClientInfo(Struct, frozen=True, kw_only=True):
    """One connection in the result of presence."""

    user: str
    client: str


class PresenceResult(Struct, frozen=True, kw_only=True):
    """The result of presence: the connections by their ids."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct, frozen=True, kw_only=True):
    """The result of presence_stats."""

    num_clients: int
    num_users: int


class RPCResult(Struct, frozen=True, kw_only=True):
    """The result of a method call."""

    data: Raw


Result = (
    ConnectResult
    | SubscribeResult
    | RefreshResult
    | HistoryResult
    | PresenceResult
    | PresenceStatsResult
    | RPCResult
    | Empty
)

COMMANDS: dict[str, type[Struct]] = {
    "connect": ConnectRequest,
    "subscribe": SubscribeRequest,
    "unsubscribe": UnsubscribeRequest,
    "publish": PublishRequest,
    "presence": PresenceRequest,
    "presence_stats": PresenceStatsRequest,
    "history": HistoryRequest,
    "ping": Empty,
    "send": SendRequest,
    "rpc": RPCRequest,
    "refresh": RefreshRequest,
    "sub_refresh": SubRefreshRequest,
}
"""Every command of a client, by the name of its field, in the order of the lookup."""
