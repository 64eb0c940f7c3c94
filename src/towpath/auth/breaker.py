"""The circuit breaker of one dependency, as a state table.

How to think about it
=====================

A circuit breaker guards the calls to one dependency: the key server of one issuer. A `CLOSED`
breaker admits every call and counts consecutive failures. At the threshold the breaker *trips*. An
`OPEN` breaker refuses every call at once, so that no caller waits for a server that is down. After
`reset_timeout` the next call is the *probe*: a `HALF_OPEN` breaker admits this one call and refuses
all others. If the probe succeeds, the breaker closes. If the probe fails, the breaker opens for
another full `reset_timeout`. If the probe is abandoned (for example, its caller was cancelled),
the breaker is open as before, and the next call may probe at once.

Each state that a breaker enters is a *generation*. Each call holds a permit of the generation that
admitted it. The result of a call is ignored in a later generation: a slow failure from an earlier
generation does not open the breaker, and a slow success does not close it.

Only failures of the dependency count. Input from a client is never counted as a failure: a bad
credential that was read and refused is a success of the key server.

The table contains no times. The clock is an argument and must be monotonic, so a change of the
system date has no effect.

Source: DESIGN section 7; M. Nygard, *Release It!*, for the pattern.
"""

import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Final, Self

from towpath.errors import TowpathError

PROBE_SECONDS: Final = 1.0
"""Seconds after which a call refused during a probe may be retried: probes are short or fail."""


class State(Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Transition(Enum):
    """What can happen to a breaker."""

    SUCCEED = "success"
    FAIL = "failure"
    TRIP = "failure at the threshold"
    PROBE = "first call after reset_timeout"
    ABANDON = "probe abandoned"


TRANSITIONS: Final[dict[tuple[State, Transition], State]] = {
    (State.CLOSED, Transition.SUCCEED): State.CLOSED,
    (State.CLOSED, Transition.FAIL): State.CLOSED,
    (State.CLOSED, Transition.TRIP): State.OPEN,
    (State.CLOSED, Transition.ABANDON): State.CLOSED,
    (State.OPEN, Transition.PROBE): State.HALF_OPEN,
    (State.HALF_OPEN, Transition.SUCCEED): State.CLOSED,
    (State.HALF_OPEN, Transition.FAIL): State.OPEN,
    (State.HALF_OPEN, Transition.ABANDON): State.OPEN,
}
"""Every legal move. The diagram in the documentation is drawn from this table."""


class BreakerOpen(TowpathError):
    """The call was not made: the dependency is considered down."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after
        """Seconds until a probe may be made."""

    def __str__(self) -> str:
        return f"{self.name} is considered down"


Watch = Callable[[str, State, State], None]
"""Called at each change of state with name, before, after. Must neither block nor raise."""


class CircuitBreaker:
    """Admits or refuses calls to one dependency; see the essay above."""

    def __init__(
        self,
        name: str,
        *,
        failure_threshold: int = 3,
        reset_timeout: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        watch: Watch = lambda *_: None,
    ) -> None:
        """Make a closed breaker.

        Args:
            name: of the dependency, for logs and metrics.
            failure_threshold: how many failed calls in a row open it.
            reset_timeout: seconds it stays open before one call may probe.
            clock: seconds of a monotonic clock.
            watch: called at each change of state.
        """
        self.name = name
        self.failure_threshold = failure_threshold
        self.reset_timeout = reset_timeout
        self.state = State.CLOSED
        self.failure_count = 0
        """Consecutive failed calls, including the one that opened the breaker and failed probes."""
        self.last_failure_time: float | None = None
        """When the last failure was reported, on the breaker's clock."""
        self._clock = clock
        self._watch = watch
        self._probe_at = 0.0
        self._generation = 0

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0 if one may be admitted now."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.HALF_OPEN:
            return PROBE_SECONDS
        return max(0.0, self._probe_at - self._clock())

    def admit(self) -> "Permit":
        """Admit one call.

        Returns:
            A context manager around the call. An exit after `Permit.failed` reports a failure. Any
            other normal exit reports a success, and any other exception (a cancellation, a bug of
            ours) reports neither.

        Raises:
            BreakerOpen: the call must not be made.
        """
        if self.state is State.OPEN and self._clock() >= self._probe_at:
            self._make(Transition.PROBE)
        elif self.state is not State.CLOSED:
            raise BreakerOpen(self.name, self.retry_after)
        return Permit(self, self._generation)

    def tell(self, move: Transition, generation: int) -> None:
        """Record the result of a call; ignored if the breaker has changed state since it began."""
        if generation != self._generation:
            return
        if move is Transition.SUCCEED:
            self.failure_count = 0
        elif move is Transition.FAIL:
            self.failure_count += 1
            self.last_failure_time = self._clock()
            if self.state is State.CLOSED and self.failure_count >= self.failure_threshold:
                move = Transition.TRIP
        self._make(move)

    def record_failure(self) -> None:
        """Count a failed call that was made without a permit; ignored unless closed."""
        if self.state is State.CLOSED:
            self.tell(Transition.FAIL, self._generation)

    def _make(self, move: Transition) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, move]
        if self.state is before:
            return
        self._generation += 1
        if self.state is State.OPEN:
            wait = 0.0 if move is Transition.ABANDON else self.reset_timeout
            self._probe_at = self._clock() + wait
        self._watch(self.name, before, self.state)


class Permit:
    """One admitted call; reports its result to the breaker exactly once."""

    __slots__ = ("_breaker", "_generation", "_move")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._generation = generation
        self._move = Transition.SUCCEED

    def failed(self) -> None:
        """Mark the call as failed; the exit of the permit reports the failure."""
        self._move = Transition.FAIL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        abandoned = error is not None and self._move is not Transition.FAIL
        self._breaker.tell(Transition.ABANDON if abandoned else self._move, self._generation)
