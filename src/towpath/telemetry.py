"""What happened, for those who only watch: logs, metrics, traces.

A happening is a frozen value without secrets. Watchers hear of it after the fact, synchronously
and briefly. What one raises is counted and otherwise ignored, SystemExit and KeyboardInterrupt
too, so nothing that observes can change what it observes. The first failure of each watcher is also
a line of the standard library's logging, because a watcher that fails may be the log itself.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryEvent:
    """Anything that happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(TelemetryEvent):
    """A connection's credential was accepted."""

    connection: str
    tenant: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(TelemetryEvent):
    """A connection ended; told once, whichever side began."""

    connection: str
    tenant: str | None
    user: str | None
    code: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnswered(TelemetryEvent):
    """A command got its one reply."""

    connection: str
    command: str
    """The command's name; for `rpc` followed by a dot and the method, `unknown` for no method."""
    error: int
    """The error code, 0 for success."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRefused(TelemetryEvent):
    """A credential was not accepted."""

    connection: str
    """Empty at the HTTP doors."""
    verdict: str
    """`invalid`, `expired`, `revoked`, `missing`, `unknown` or `limited`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialAccepted(TelemetryEvent):
    """A credential was good."""

    connection: str
    """Empty at the HTTP doors."""
    source: str
    """Where it was found, as `towpath.auth.handshake.Source` names it."""
    age: float
    """Seconds since it was verified; 0 for one that was verified just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysFetched(TelemetryEvent):
    """A call to an identity provider is over."""

    issuer: str
    failure: str
    """Why it failed, empty for success."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerMoved(TelemetryEvent):
    """A circuit breaker changed its state."""

    dependency: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRevoked(TelemetryEvent):
    """Credentials were taken back."""

    tenant: str
    what: str
    """`token`, `user`, `tenant` or `everybody`."""
    closed: int
    """How many connections on this node ended by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsIncomplete(TelemetryEvent):
    """At the start not all revocations were in the log, so everybody's credentials are revoked."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp(TelemetryEvent):
    """A reader that could not follow was answered from the log, on the same connection."""

    connection: str
    publications: int
    """How many it took, folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestMismatch(TelemetryEvent):
    """A client says that what it shows of a message is not what was said."""

    tenant: str
    user: str
    thread: str
    message: str
    published: str
    """The digest that came with the message."""
    shown: str
    """The digest of what the client shows."""
    kept: str | None
    """The digest of what is kept; None where there is no such message."""

    @property
    def log(self) -> str:
        """What is kept beside what was published: `agrees`, `differs` or `unknown`."""
        if self.kept is None:
            return "unknown"
        return "agrees" if self.kept == self.published else "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegan(TelemetryEvent):
    """A run's first event is in the log."""

    tenant: str
    user: str
    thread: str
    run: str
    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(TelemetryEvent):
    """A run's terminal event is in the log."""

    tenant: str
    user: str
    thread: str
    run: str
    agent: str
    status: str
    code: str | None
    """The code of the RUN_ERROR, if it was one."""
    events: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended(TelemetryEvent):
    """A batch of publications became durable in one commit."""

    publications: int
    seconds: float
    """From the first waiting append to the end of the commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChanged(TelemetryEvent):
    """The log is in another condition; `towpath.log.health` has them all."""

    before: str
    after: str
    reason: str
    """What showed it, in the words of whoever found out; empty for `ok`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuarantined(TelemetryEvent):
    """A damaged log was set aside, and a new one begun with what was certain of it."""

    path: str
    """Where the damaged one is now."""
    reason: str
    carried: Mapping[str, int]
    """How much of what was carried over, and how much was `left_out`."""
    control: bool
    """Whether the control channel is whole, and so all that was taken back is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(TelemetryEvent):
    """Something of ours went wrong; `error` is the exception, its traceback for the log only."""

    where: str
    error: BaseException


Observer = Callable[[TelemetryEvent], None]
"""Hears of happenings. Called on the event loop; must not block."""


class Telemetry:
    """Tells every watcher of every happening, and survives each of them."""

    def __init__(self, telemetry: Iterable[Observer] = ()) -> None:
        self._observers = list(telemetry)
        self._failed: set[int] = set()
        """Watchers that raised, by `id`: the list above keeps them alive."""
        self.failures = 0
        """How often a watcher raised."""

    def add_observer(self, observer: Observer) -> None:
        """Let `observer` hear of everything from now on."""
        self._observers.append(observer)

    def emit(self, event: TelemetryEvent) -> None:
        """Tell every watcher; what one of them raises is counted and goes no further."""
        for observer in self._observers:
            try:
                observer(event)
            except BaseException as error:  # The outermost edge of somebody else's code.
                self.failures += 1
                self._write_down(observer, error)

    def _write_down(self, observer: Observer, error: BaseException) -> None:
        """Log the first failure of a watcher: one that always fails must not fill the log."""
        if id(observer) in self._failed:
            return
        self._failed.add(id(observer))
        with contextlib.suppress(Exception):
            name = getattr(observer, "__qualname__", type(observer).__qualname__)
            logging.getLogger("towpath").error("watcher %s raised", name, exc_info=error)
