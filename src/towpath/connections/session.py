"""What an authenticated connection may do: a command goes in, one effect comes out.

A session knows the principal and which channels it reads; it knows no broker, no agent and no
clock. It never says "done": it says what is to be done, and hears of it when it changed what the
session is (`joined`, `on_unsubscribed`).

Source: WIRE sections 3 and 5.
"""

from collections.abc import Callable
from dataclasses import dataclass

from towpath import codes
from towpath.channels import Channel, named
from towpath.connections.effects import (
    Answer,
    Call,
    Effect,
    End,
    Fail,
    Join,
    Leave,
    ReadHistory,
    Renew,
    TellPresence,
)
from towpath.identity import Principal
from towpath.protocol import frames
from towpath.protocol.frames import Command, Malformed
from towpath.rate_limits import Rate, TokenBucket

MayRead = Callable[[Principal, Channel], bool]

COMMANDS = Rate(per_second=50, burst=512)
"""How many commands a session takes, unless it is told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The bounds of one session."""

    subscriptions: int = 128
    """Channels read at once, server-side ones included; past it error 106."""
    errors: int = 100
    """Error replies; one more and the connection is closed with 3013."""
    commands: Rate = COMMANDS
    """Commands; past it error 111."""


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
            principal: whose it is.
            may_read: the policy, asked for each channel.
            limits: its bounds.
            now: seconds of the clock that `handle` is given.
        """
        self.principal = principal
        self._may_read = may_read
        self._limits = limits or SessionLimits()
        self._commands = TokenBucket(self._limits.commands, now)
        self._channels: set[Channel] = set()
        self._errors = 0

    @property
    def channels(self) -> frozenset[Channel]:
        """What this connection reads, or is about to."""
        return frozenset(self._channels)

    def handle(self, command: Command | Malformed, now: float = 0.0) -> Effect | None:
        """Return what a command means; None for a one-way message, which is not used."""
        if not self._commands.take(now):
            effect = self._counted(Fail(command.id, codes.TOO_MANY_REQUESTS))
            # A one-way message has no reply that could carry the error.
            return effect if command.id or isinstance(effect, End) else None
        decided = self._decide(command)
        return self._counted(decided) if isinstance(decided, Fail) else decided

    def failed(self, number: int, code: codes.ErrorCode, message: str | None = None) -> Effect:
        """Return what follows when performing a command failed: its error, or the end."""
        return self._counted(Fail(number, code, message))

    def joined(self, channel: Channel) -> None:
        """Note a server-side subscription."""
        self._channels.add(channel)

    def on_unsubscribed(self, channel: Channel) -> None:
        """Note that a channel is read no more."""
        self._channels.discard(channel)

    def _decide(self, command: Command | Malformed) -> Effect | None:
        number = command.id
        if isinstance(command, Malformed):
            code = codes.METHOD_NOT_FOUND if command.unknown else codes.BAD_REQUEST
            return Fail(number, code, None if command.unknown else command.reason)
        match command.request:
            case frames.SubscribeRequest() as request:
                return self._subscribe(number, request)
            case frames.UnsubscribeRequest(channel=name):
                return self._unsubscribe(number, name)
            case frames.HistoryRequest(channel=name) as request:
                channel = self._read_channel(name)
                if channel is None:
                    return Fail(number, codes.UNKNOWN_CHANNEL)
                return ReadHistory(number, channel, request)
            case frames.PresenceRequest(channel=name):
                return self._presence(number, name, only_count=False)
            case frames.PresenceStatsRequest(channel=name):
                return self._presence(number, name, only_count=True)
            case frames.PublishRequest(channel=name):
                known = named(name, self.principal) is not None
                return Fail(number, codes.PERMISSION_DENIED if known else codes.UNKNOWN_CHANNEL)
            case frames.RPCRequest(method=method, data=data):
                return Call(number, method, bytes(data))
            case frames.RefreshRequest(token=token):
                return Renew(number, token) if token else Fail(number, codes.BAD_REQUEST)
            case frames.SubRefreshRequest():
                return Fail(number, codes.NOT_AVAILABLE)
            case frames.SendRequest():
                return None
            case frames.Empty():
                return Answer(number, frames.Empty())
        raise AssertionError("connect never reaches a session")

    def _subscribe(self, number: int, request: frames.SubscribeRequest) -> Effect:
        channel = self._read_channel(request.channel)
        if channel is None:
            return Fail(number, codes.UNKNOWN_CHANNEL)
        if channel in self._channels:
            return Fail(number, codes.ALREADY_SUBSCRIBED)
        if len(self._channels) >= self._limits.subscriptions:
            return Fail(number, codes.LIMIT_EXCEEDED)
        self._channels.add(channel)
        return Join(number, channel, request)

    def _unsubscribe(self, number: int, name: str) -> Effect:
        channel = named(name, self.principal)
        if channel is None or channel not in self._channels:
            return Answer(number, frames.Empty())
        self._channels.discard(channel)
        return Leave(number, channel)

    def _presence(self, number: int, name: str, *, only_count: bool) -> Effect:
        channel = self._read_channel(name)
        if channel is None:
            return Fail(number, codes.UNKNOWN_CHANNEL)
        if channel.owner is None:
            # Who else is there is nobody's business but each person's own.
            return Fail(number, codes.NOT_AVAILABLE)
        return TellPresence(number, channel, only_count)

    def _read_channel(self, name: str) -> Channel | None:
        """Return the channel this principal means and may read."""
        channel = named(name, self.principal)
        if channel is None or not self._may_read(self.principal, channel):
            return None
        return channel

    def _counted(self, fail: Fail) -> Effect:
        self._errors += 1
        return End(codes.TOO_MANY_ERRORS) if self._errors > self._limits.errors else fail
