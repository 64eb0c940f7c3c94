"""The life of a connection as a table.

How to think about it
=====================

A connection is born `OPENING`: the upgrade is done, nobody has said who they are. The first
command must be connect; it moves the connection to `AUTHENTICATING`, and until the verdict is
there nothing else a client says has any effect: it waits, bounded, in the order it came. A valid
verdict opens the connection (`OPEN`) and what waited is handled; any other verdict closes it. An
open connection may be told to move elsewhere (`DRAINING`): what was asked is still answered and
what is live still delivered, until the close frame. `CLOSED` is the end, reached from everywhere,
left by nothing.

Two kinds of moves. What the *peer* does may be wrong; a move of the peer that the table does not
hold closes the connection with 3501 and is no fault of ours. What *we* do may not be wrong: a move
of ours that the table does not hold raises `IllegalMove`, which is a bug. Closing is always legal
and closing twice is the same as closing once.

There are no times here. Deadlines are somebody else's decision to make the move `CLOSE`.
"""

from enum import Enum

from towpath.errors import TowpathError


class State(Enum):
    """Where a connection is in its life."""

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
"""The moves that are the client's, whose errors are the client's too."""

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
"""Every legal move. The diagram in the documentation is drawn from this table."""


class IllegalMove(TowpathError):
    """A move of ours that the table does not hold: a bug."""

    def __init__(self, state: State, move: Transition) -> None:
        super().__init__(state, move)
        self.state = state
        self.move = move

    def __str__(self) -> str:
        return f"{self.move.value} is not legal while {self.state.value}"


def legal(state: State, move: Transition) -> bool:
    """Whether the table holds the move."""
    return (state, move) in TRANSITIONS


def after(state: State, move: Transition) -> State:
    """Return where a legal move leads.

    Raises:
        IllegalMove: the table does not hold it.
    """
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise IllegalMove(state, move) from None
