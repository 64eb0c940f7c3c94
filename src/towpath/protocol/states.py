"""The states of a connection as a table.

How to think about it
=====================

A connection begins in `OPENING`: the upgrade is done, the client is not authenticated. The first
command must be connect; it moves the connection to `AUTHENTICATING`. Until the verdict, other
commands have no effect: they wait, bounded, in the order of arrival. A valid verdict opens the
connection (`OPEN`), and the waiting commands are handled; any other verdict closes it. When the
server drains, an open connection is `DRAINING`: commands are still answered and publications still
delivered, until the close frame. `CLOSED` is the final state, reached from every other state.

There are two kinds of transitions. A transition by the *peer* may be illegal: then it closes the
connection with 3501, and is not an error of the server. A transition by the *server* must be legal:
otherwise it raises `IllegalMove`, which is a bug. Closing is always legal, and closing twice is the
same as closing once.

The table has no times. Deadlines are checked elsewhere and cause the transition `CLOSE`.
"""

from enum import Enum

from towpath.errors import TowpathError


class State(Enum):
    """The state of a connection."""

    OPENING = "opening"
    AUTHENTICATING = "authenticating"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Transition(Enum):
    """What can happen to a connection."""

    CONNECT = "connect command"
    COMMAND = "other command"
    PONG = "pong"
    ACCEPT = "verdict: valid"
    REFUSE = "verdict: not valid"
    DELIVER = "reply or push"
    DRAIN = "drain"
    CLOSE = "close"


PEER_MOVES = frozenset({Transition.CONNECT, Transition.COMMAND, Transition.PONG})
"""The transitions by the client; an illegal one is the client's error."""

TRANSITIONS: dict[tuple[State, Transition], State] = {
    (State.OPENING, Transition.CONNECT): State.AUTHENTICATING,
    (State.OPENING, Transition.CLOSE): State.CLOSED,
    (State.AUTHENTICATING, Transition.COMMAND): State.AUTHENTICATING,
    (State.AUTHENTICATING, Transition.ACCEPT): State.OPEN,
    (State.AUTHENTICATING, Transition.REFUSE): State.CLOSED,
    (State.AUTHENTICATING, Transition.CLOSE): State.CLOSED,
    (State.OPEN, Transition.COMMAND): State.OPEN,
    (State.OPEN, Transition.PONG): State.OPEN,
    (State.OPEN, Transition.DELIVER): State.OPEN,
    (State.OPEN, Transition.DRAIN): State.DRAINING,
    (State.OPEN, Transition.CLOSE): State.CLOSED,
    (State.DRAINING, Transition.COMMAND): State.DRAINING,
    (State.DRAINING, Transition.PONG): State.DRAINING,
    (State.DRAINING, Transition.DELIVER): State.DRAINING,
    (State.DRAINING, Transition.DRAIN): State.DRAINING,
    (State.DRAINING, Transition.CLOSE): State.CLOSED,
    (State.CLOSED, Transition.CLOSE): State.CLOSED,
}
"""Every legal transition. The diagram in the documentation is drawn from this table."""


class IllegalMove(TowpathError):
    """A transition by the server that the table does not hold: a bug."""

    def __init__(self, state: State, move: Transition) -> None:
        super().__init__(state, move)
        self.state = state
        self.move = move

    def __str__(self) -> str:
        return f"{self.move.value} is not legal while {self.state.value}"


def after(state: State, move: Transition) -> State:
    """Return the state after a legal transition.

    Raises:
        IllegalMove: the table does not hold the transition.
    """
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise IllegalMove(state, move) from None
