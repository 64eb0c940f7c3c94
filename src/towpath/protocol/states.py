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


class Move(Enum):
    """What can happen to a connection."""

    CONNECT = "connect command"
    COMMAND = "other command"
    PONG = "pong"
    ACCEPT = "verdict: valid"
    REFUSE = "verdict: not valid"
    DELIVER = "reply or push"
    DRAIN = "drain"
    CLOSE = "close"


PEER_MOVES = frozenset({Move.CONNECT, Move.COMMAND, Move.PONG})
"""The moves that are the client's, whose errors are the client's too."""

TABLE: dict[tuple[State, Move], State] = {
    (State.OPENING, Move.CONNECT): State.AUTHENTICATING,
    (State.OPENING, Move.CLOSE): State.CLOSED,
    (State.AUTHENTICATING, Move.COMMAND): State.AUTHENTICATING,
    (State.AUTHENTICATING, Move.ACCEPT): State.OPEN,
    (State.AUTHENTICATING, Move.REFUSE): State.CLOSED,
    (State.AUTHENTICATING, Move.CLOSE): State.CLOSED,
    (State.OPEN, Move.COMMAND): State.OPEN,
    (State.OPEN, Move.PONG): State.OPEN,
    (State.OPEN, Move.DELIVER): State.OPEN,
    (State.OPEN, Move.DRAIN): State.DRAINING,
    (State.OPEN, Move.CLOSE): State.CLOSED,
    (State.DRAINING, Move.COMMAND): State.DRAINING,
    (State.DRAINING, Move.PONG): State.DRAINING,
    (State.DRAINING, Move.DELIVER): State.DRAINING,
    (State.DRAINING, Move.DRAIN): State.DRAINING,
    (State.DRAINING, Move.CLOSE): State.CLOSED,
    (State.CLOSED, Move.CLOSE): State.CLOSED,
}
"""Every legal move. The diagram in the documentation is drawn from this table."""


class IllegalMove(TowpathError):
    """A move of ours that the table does not hold: a bug."""

    def __init__(self, state: State, move: Move) -> None:
        super().__init__(state, move)
        self.state = state
        self.move = move

    def __str__(self) -> str:
        return f"{self.move.value} is not legal while {self.state.value}"


def legal(state: State, move: Move) -> bool:
    """Whether the table holds the move."""
    return (state, move) in TABLE


def after(state: State, move: Move) -> State:
    """Return where a legal move leads.

    Raises:
        IllegalMove: the table does not hold it.
    """
    try:
        return TABLE[state, move]
    except KeyError:
        raise IllegalMove(state, move) from None
