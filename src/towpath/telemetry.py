"""Telemetry events: what happened, for logs, metrics and traces.

A telemetry event is a frozen value without secrets. Observers are called with it after the fact,
synchronously, and must return quickly. An exception that an observer raises is counted and
otherwise ignored, SystemExit and KeyboardInterrupt too, so an observer cannot change what it
observes. The first failure of each observer is also logged, straight to the standard logger
`towpath`, because the observer that fails may be the one that logs events.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryEvent:
    """Base class of all telemetry events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(TelemetryEvent):
    """A connection's credential was accepted."""

    connection: str
    tenant: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(TelemetryEvent):
    """A connection ended; emitted once, whichever side closed it."""

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
    """Empty for an HTTP request."""
    verdict: str
    """`invalid`, `expired`, `revoked`, `missing`, `unknown` or `limited`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialAccepted(TelemetryEvent):
    """A credential was accepted."""

    connection: str
    """Empty for an HTTP request."""
    source: str
    """Where the credential was found, as `towpath.auth.handshake.Source` names it."""
    age: float
    """Seconds since the credential was verified; 0 where it was verified just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysFetched(TelemetryEvent):
    """A call to an identity provider returned or failed."""

    issuer: str
    failure: str
    """Why the call failed; empty for success."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerMoved(TelemetryEvent):
    """A circuit breaker changed its state."""

    dependency: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsRevoked(TelemetryEvent):
    """Credentials were revoked."""

    tenant: str
    what: str
    """`token`, `user`, `tenant` or `everybody`."""
    closed: int
    """How many connections on this node the revocation closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsIncomplete(TelemetryEvent):
    """At startup revocations may be missing from the log, so every older credential is revoked."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp(TelemetryEvent):
    """A slow reader caught up from the log, on the same connection."""

    connection: str
    publications: int
    """How many publications that took, after folding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestMismatch(TelemetryEvent):
    """A client reports that its text of a message differs from the published text."""

    tenant: str
    user: str
    thread: str
    message: str
    published: str
    """The digest that was published with the message."""
    shown: str
    """The digest of what the client shows."""
    kept: str | None
    """The digest of the stored message; None where there is no such message."""

    @property
    def log(self) -> str:
        """Whether the stored message has the published digest: `agrees`, `differs`, `unknown`."""
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
    """The code of the RUN_ERROR; None where the run did not end with one."""
    events: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsStillRunning(TelemetryEvent):
    """Agents did not return in the time that the stop of the gateway gave them.

    Their runs have ended. `towpath serve` ends with its process what these agents do; the process
    of an application goes on with it.
    """

    agents: tuple[Mapping[str, str], ...]
    """The `agent`, `thread` and `run` of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended(TelemetryEvent):
    """A batch of publications became durable in one commit."""

    publications: int
    seconds: float
    """From the first waiting append to the end of the commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChanged(TelemetryEvent):
    """The health of the log changed; `towpath.log.sqlite.health` lists the conditions."""

    before: str
    after: str
    reason: str
    """What was found, as the operating system, SQLite or a check put it; empty for `ok`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDamaged(TelemetryEvent):
    """A stored row is not what was written; what it belongs to cannot be read."""

    table: str
    key: str
    """The key of the row, its parts joined by `/`; empty if it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReset(TelemetryEvent):
    """The log of a channel was damaged: its publications were dropped, and it has a new epoch."""

    tenant: str
    name: str
    """The name of the channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuarantined(TelemetryEvent):
    """A damaged log was set aside, and a new log was created from its intact part."""

    path: str
    """Where the damaged log is now."""
    reason: str
    carried: Mapping[str, int]
    """How many rows of each kind were carried over, and how many were `left_out`."""
    control: bool
    """Whether the control channel is whole, so that every revocation is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEpochRenewed(TelemetryEvent):
    """The log may lack something that clients have seen, so it got a new epoch when it opened."""

    reason: str
    """What was found, as a clause of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(TelemetryEvent):
    """An agent or the gateway itself failed unexpectedly."""

    where: str
    """The part that failed; `agent` and the agent's name for what an agent raised."""
    error: BaseException
    """The exception. Its traceback is for the log only."""
    thread: str | None = None
    """The thread of the run; None where the failure concerns no run."""
    run: str | None = None
    """The run it concerns; None where it concerns none."""


Observer = Callable[[TelemetryEvent], None]
"""Called with each telemetry event, on the event loop; must not block."""


class Telemetry:
    """Passes every telemetry event to every observer; one that raises has no effect."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)
        self._failed: set[int] = set()
        """The observers that raised, by `id`: the list above keeps them alive."""
        self.failures = 0
        """How many calls of an observer raised."""

    def add_observer(self, observer: Observer) -> None:
        """Call `observer` with every event from now on."""
        self._observers.append(observer)

    def emit(self, event: TelemetryEvent) -> None:
        """Call every observer with the event; count the calls that raise."""
        for observer in self._observers:
            try:
                observer(event)
            except BaseException as error:  # The outermost edge of an observer's code.
                self.failures += 1
                self._log_first_failure(observer, error)

    def _log_first_failure(self, observer: Observer, error: BaseException) -> None:
        """Log the first failure of an observer: one that always fails must not fill the log."""
        if id(observer) in self._failed:
            return
        self._failed.add(id(observer))
        with contextlib.suppress(Exception):
            name = getattr(observer, "__qualname__", type(observer).__qualname__)
            logging.getLogger("towpath").error("observer %s raised", name, exc_info=error)
