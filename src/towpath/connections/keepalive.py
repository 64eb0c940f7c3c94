"""The deadlines of a connection: pings, missing pongs, expiry.

Time is an argument: the caller reads `next_deadline` and calls `elapse` at that time. All deadlines
of an open connection are here, because it has one timer.

Pings and pongs use a monotonic clock. The end of a credential is a date, in Unix seconds, and is
compared with the date. The two clocks move apart while the machine sleeps, or when the wall clock
is set. So the caller also looks at the date when a command arrives, and `elapse` does at each ping.

Source: WIRE section 4 (ping and pong), section 3 (3005, 3012).
"""

from enum import Enum


class Due(Enum):
    """What is due at a deadline."""

    NOTHING = "nothing"
    PING = "ping"
    NO_PONG = "no pong"
    LAPSED = "credential over, grace begins"
    EXPIRED = "expired"


class KeepAlive:
    """The deadlines of one open connection.

    `now` is a time in seconds of one monotonic clock, `date` is the wall time in Unix seconds.
    """

    def __init__(self, now: float, *, ping_interval: float, pong_timeout: float) -> None:
        self._interval = ping_interval
        self._timeout = pong_timeout
        self._ping_at = now + ping_interval
        self._pong_by: float | None = None
        self._lapses_at: float | None = None
        self._expires_at: float | None = None

    def expire_at(self, when: float | None, *, lapse: float | None = None) -> None:
        """Set when the credential's grace ends; None if it does not end.

        Args:
            when: the end of the grace, in Unix seconds.
            lapse: the credential's own end, which `elapse` reports once; in Unix seconds.
        """
        self._lapses_at = lapse
        self._expires_at = when

    def pong(self) -> bool:
        """Take a pong; return False if no ping waits for one."""
        awaited = self._pong_by is not None
        self._pong_by = None
        return awaited

    def next_deadline(self, now: float, date: float) -> float:
        """Return the monotonic time at which to call `elapse` next."""
        ping = self._ping_at if self._pong_by is None else self._pong_by
        ends = (when for when in (self._lapses_at, self._expires_at) if when is not None)
        return min((ping, *(now + when - date for when in ends)))

    def is_expired(self, date: float) -> bool:
        """Whether the credential's grace has ended."""
        return self._expires_at is not None and date >= self._expires_at

    def elapse(self, now: float, date: float) -> Due:
        """Return what is due now; each thing once."""
        if self.is_expired(date):
            return Due.EXPIRED
        if self._lapses_at is not None and date >= self._lapses_at:
            self._lapses_at = None
            return Due.LAPSED
        if self._pong_by is not None:
            return Due.NO_PONG if now >= self._pong_by else Due.NOTHING
        if now < self._ping_at:
            return Due.NOTHING
        self._pong_by = now + self._timeout
        self._ping_at = now + self._interval
        return Due.PING
