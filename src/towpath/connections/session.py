"""Decides whether an authenticated connection may carry out a command.

A session knows the principal and the channels that the connection reads. It uses no broker, no
agent and no clock, and carries nothing out. It decides whether a command is allowed, and counts
commands, errors and subscriptions. An allowed subscribe counts as a subscription at once;
`on_unsubscribed` removes it.

Source: WIRE sections 3 and 5.
"""

from collections.abc import Callable
from dataclasses import dataclass

from towpath import codes
from towpath.channels import Channel, named
from towpath.codes import CloseCode, ErrorCode
from towpath.identity import Principal
from towpath.protocol import frames
from towpath.protocol.frames import Command, Malformed
from towpath.rate_limits import Rate, TokenBucket

MayRead = Callable[[Principal, Channel], bool]

COMMANDS = Rate(per_second=50, burst=512)
"""How many commands a session takes by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The bounds of one session."""

    subscriptions: int = 128
    """How many channels are read at once, server-side ones included; beyond it error 106."""
    errors: int = 100
    """How many error replies are sent; one more closes the connection with 3013."""
    commands: Rate = COMMANDS
    """The rate of commands; beyond it error 111."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The command may be carried out."""

    channel: Channel | None = None
    """The channel of the command, which the principal may read. None if the command names none,
    and for an unsubscribe from a channel that is not read."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The command must not be carried out."""

    code: ErrorCode | CloseCode
    """An error to reply with, or the code to end the connection with."""
    message: str | None = None


class Session:
    """The rights and subscriptions of one connection after its verdict."""

    def __init__(
        self,
        principal: Principal,
        may_read: MayRead,
        limits: SessionLimits | None = None,
        *,
        now: float = 0.0,
    ) -> None:
        """Begin a session.

        Args:
            principal: the verified principal of the connection.
            may_read: the access policy, called for each channel.
            limits: its bounds.
            now: seconds of the same clock as `now` of `authorize`.
        """
        self.principal = principal
        self._may_read = may_read
        self._limits = limits or SessionLimits()
        self._commands = TokenBucket(self._limits.commands, now)
        self._channels: set[Channel] = set()
        self._errors = 0

    @property
    def channels(self) -> frozenset[Channel]:
        """The channels that this connection reads, or is about to read."""
        return frozenset(self._channels)

    def authorize(self, command: Command | Malformed, now: float = 0.0) -> Allowed | Denied:
        """Return whether a command may be carried out, and on which channel."""
        if not self._commands.take(now):
            return self.failed(codes.TOO_MANY_REQUESTS)
        answer = self._decide(command)
        return self._counted(answer) if isinstance(answer, Denied) else answer

    def failed(self, code: ErrorCode, message: str | None = None) -> Denied:
        """Count a failed command; return the error to reply with, or the close code."""
        return self._counted(Denied(code, message))

    def joined(self, channel: Channel) -> None:
        """Note a server-side subscription."""
        self._channels.add(channel)

    def on_unsubscribed(self, channel: Channel) -> None:
        """Note that a channel is no longer read."""
        self._channels.discard(channel)

    def _decide(self, command: Command | Malformed) -> Allowed | Denied:
        if isinstance(command, Malformed):
            return _malformed(command)
        match command.request:
            case frames.SubscribeRequest(channel=name):
                return self._subscribe(name)
            case frames.UnsubscribeRequest(channel=name):
                return self._unsubscribe(name)
            case frames.HistoryRequest(channel=name):
                return self._read(name)
            case frames.PresenceRequest(channel=name) | frames.PresenceStatsRequest(channel=name):
                return self._presence(name)
            case frames.PublishRequest(channel=name):
                known = named(name, self.principal) is not None
                return Denied(codes.PERMISSION_DENIED if known else codes.UNKNOWN_CHANNEL)
            case frames.RefreshRequest(token=token):
                return Allowed() if token else Denied(codes.BAD_REQUEST)
            case frames.SubRefreshRequest():
                return Denied(codes.NOT_AVAILABLE)
            case frames.RPCRequest() | frames.SendRequest() | frames.Empty():
                return Allowed()
        raise AssertionError("connect never reaches a session")

    def _subscribe(self, name: str) -> Allowed | Denied:
        channel = self._readable(name)
        if channel is None:
            return Denied(codes.UNKNOWN_CHANNEL)
        if channel in self._channels:
            return Denied(codes.ALREADY_SUBSCRIBED)
        if len(self._channels) >= self._limits.subscriptions:
            return Denied(codes.LIMIT_EXCEEDED)
        self._channels.add(channel)
        return Allowed(channel)

    def _unsubscribe(self, name: str) -> Allowed:
        channel = named(name, self.principal)
        if channel is None or channel not in self._channels:
            return Allowed()
        self._channels.discard(channel)
        return Allowed(channel)

    def _read(self, name: str) -> Allowed | Denied:
        channel = self._readable(name)
        return Denied(codes.UNKNOWN_CHANNEL) if channel is None else Allowed(channel)

    def _presence(self, name: str) -> Allowed | Denied:
        channel = self._readable(name)
        if channel is None:
            return Denied(codes.UNKNOWN_CHANNEL)
        # Users of a tenant must not see each other's connections.
        return Denied(codes.NOT_AVAILABLE) if channel.owner is None else Allowed(channel)

    def _readable(self, name: str) -> Channel | None:
        """Return the channel with this name for the principal; None if they may not read it."""
        channel = named(name, self.principal)
        if channel is None or not self._may_read(self.principal, channel):
            return None
        return channel

    def _counted(self, denied: Denied) -> Denied:
        self._errors += 1
        return Denied(codes.TOO_MANY_ERRORS) if self._errors > self._limits.errors else denied


def _malformed(command: Malformed) -> Denied:
    if command.unknown:
        return Denied(codes.METHOD_NOT_FOUND)
    return Denied(codes.BAD_REQUEST, command.reason)
