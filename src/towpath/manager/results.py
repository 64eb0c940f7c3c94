"""What the application gets back: the results of sends, and what is known of a connection."""

from dataclasses import dataclass

from towpath.log.broker import Position


@dataclass(frozen=True, slots=True)
class Delivered:
    """The message is durable, and was put on the way to live connections."""

    position: Position
    """The position of the message: a client that is after it has the message."""
    connections: int
    """How many live connections receive the channel of the message; at least 1."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The message is durable, and no live connection receives its channel now.

    A client that resumes from an earlier position gets it, within the retention.
    """

    position: Position
    """The position of the message."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was done; the same call may succeed in another situation."""

    reason: str
    """`no_run`: the context names no run that is in progress on this node.
    `run_over`: the run has ended.
    `storage`: the log cannot be written now.
    `unavailable`: the gateway accepts no new connections and runs now: it starts or drains, or its
    log cannot be written.
    `upgrade`: the origin or the sub-protocol of a WebSocket was refused."""


SendResult = Delivered | Queued | Refused
"""The result of a send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """One live connection, as it was when it was looked up."""

    id: str
    user: str
    tenant: str
    channels: tuple[str, ...]
    """The channels that it reads, by the names that clients use; sorted."""
    thread: str | None
    """The thread that the application noted with `update_connection_thread`."""
    waiting_bytes: int
    """How many bytes wait to be sent to it."""
    expires_at: float | None
    """When its credential expires, in Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionHealth:
    """The live connections of one person on this node, together."""

    connections: int
    waiting_bytes: int
    """How many bytes wait to be sent to them."""
    behind: int
    """How many of them take less than is published, for now."""

    @property
    def healthy(self) -> bool:
        """Whether there is a live connection, and none is behind."""
        return self.connections > 0 and not self.behind


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEnded:
    """A connection that the manager served to its end."""

    id: str
    code: int
    """The close code; 1005 if the client left without one from the server."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredMessages:
    """What a person's channel holds after a position."""

    messages: tuple[object, ...]
    """The events, oldest first, as they were published."""
    position: Position
    """The position after the last of them: pass it to the next call."""
    recovered: bool
    """Whether nothing is missing since the position that was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """A run that was started."""

    thread: str
    run: str
    position: Position
    """The position before the first event of the run, in the channel of its thread."""
