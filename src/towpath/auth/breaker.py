"""The circuit breaker round one dependency, as a table.

How to think about it
=====================

A breaker stands between us and one thing that may be down: the key server of one issuer. While it
is `CLOSED` calls go through, and it counts those that fail in a row. At the threshold it *trips*:
`OPEN` refuses every call at once, so that nobody waits for what does not answer. After
`reset_timeout` the next caller becomes the *probe*: `HALF_OPEN` lets this one call through and
still refuses all others. The probe's success closes the breaker, its failure opens it for another
full `reset_timeout`, and a probe that was abandoned (its caller left) proves nothing: the breaker
is open as before, and the next caller may probe at once.

Every state it enters is a *generation*. A call carries the permit of the generation that let it go,
and whatever it reports in a later one is ignored: a slow failure of yesterday does not open the
breaker of today, and a slow success does not close it.

Only the dependency's failures count. What a client sends is never a reason to call anything down: a
bad credential that was read and refused is a success of the key server.

There are no times in the table. The clock is an argument and has to be monotonic, so nothing here
notices that somebody set the date.

Source: DESIGN section 7; M. Nygard, *Release It!*, for the pattern.
"""

import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Final, Self

from towpath.errors import TowpathError

PROBE_SECONDS: Final = 1.0
"""How soon whoever is refused beside a probe may ask again: probes are short or fail."""


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
    """The call was not made: the dependency is taken to be down."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after
        """Seconds until a probe may be made."""

    def __str__(self) -> str:
        return f"{self.name} is taken to be down"


Watch = Callable[[str, State, State], None]
"""Hears of each change of state: name, before, after. Must neither block nor raise."""


class CircuitBreaker:
    """Lets calls to one dependency through, or refuses them; see the essay above."""

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
            watch: hears of each change of state.
        """
        self.name = name
        self.failure_threshold = failure_threshold
        self.reset_timeout = reset_timeout
        self.state = State.CLOSED
        self.failure_count = 0
        """Failed calls in a row; the one that opened it and those of its probes included."""
        self.last_failure_time: float | None = None
        """When the last failure was told, on the breaker's clock."""
        self._clock = clock
        self._watch = watch
        self._probe_at = 0.0
        self._generation = 0

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let through; 0 where one may be now."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.HALF_OPEN:
            return PROBE_SECONDS
        return max(0.0, self._probe_at - self._clock())

    def admit(self) -> "Permit":
        """Let one call through.

        Returns:
            A context manager round the call. Leaving it normally tells of a success, leaving it
            with `Permit.failed` having been called of a failure, and with an exception that
            nobody called a failure (a cancellation, a bug of ours) of nothing.

        Raises:
            BreakerOpen: the call is not to be made.
        """
        if self.state is State.OPEN and self._clock() >= self._probe_at:
            self._make(Transition.PROBE)
        elif self.state is not State.CLOSED:
            raise BreakerOpen(self.name, self.retry_after)
        return Permit(self, self._generation)

    def tell(self, move: Transition, generation: int) -> None:
        """Take what became of a call; ignored where the breaker has moved on since it began."""
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
        """Count a failure seen by somebody who did not ask first; open, it changes nothing."""
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
    """One call that was let through; tells its breaker exactly once how it went."""

    __slots__ = ("_breaker", "_generation", "_move")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._generation = generation
        self._move = Transition.SUCCEED

    def failed(self) -> None:
        """Note that the dependency failed; told when the permit is left."""
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
