"""The life of a connection, read off its table."""

from itertools import product

import pytest

from towpath.protocol.states import (
    PEER_MOVES,
    TRANSITIONS,
    IllegalMove,
    State,
    Transition,
    after,
)

LIVE = frozenset(State) - {State.CLOSED}
OURS = frozenset(Transition) - PEER_MOVES


def reachable(start: State) -> set[State]:
    """Return every state that some moves lead to."""
    found, edge = {start}, [start]
    while edge:
        here = edge.pop()
        ahead = {to for (state, _), to in TRANSITIONS.items() if state is here} - found
        found |= ahead
        edge += ahead
    return found


def legal_in(move: Transition) -> set[State]:
    """Return the states in which a move is legal."""
    return {state for state, legal in TRANSITIONS if legal is move}


@pytest.mark.parametrize(("state", "move"), list(product(State, Transition)))
def test_r01_a_move_is_in_the_table_or_refused(state: State, move: Transition) -> None:
    """There is no third answer, and a refusal names both."""
    if (state, move) in TRANSITIONS:
        assert after(state, move) is TRANSITIONS[state, move]
    else:
        with pytest.raises(IllegalMove) as refused:
            after(state, move)
        assert (refused.value.state, refused.value.move) == (state, move)
        assert str(refused.value) == f"{move.value} is not legal while {state.value}"


def test_r01_nothing_leaves_closed() -> None:
    """The only move of a closed connection is closing again, which changes nothing."""
    assert {(move, to) for (state, move), to in TRANSITIONS.items() if state is State.CLOSED} == {
        (Transition.CLOSE, State.CLOSED)
    }


@pytest.mark.parametrize("state", State)
def test_r07_closing_is_always_legal(state: State) -> None:
    """Every state reaches the end in one move."""
    assert after(state, Transition.CLOSE) is State.CLOSED


@pytest.mark.parametrize("state", State)
def test_r04_every_state_is_reached_from_the_beginning(state: State) -> None:
    """No state is dead, and none goes on for ever."""
    assert state in reachable(State.OPENING)
    assert State.CLOSED in reachable(state)


@pytest.mark.parametrize("state", [State.OPENING, State.AUTHENTICATING, State.CLOSED])
def test_r02_nothing_is_delivered_before_the_verdict_or_after_the_end(state: State) -> None:
    """Only an open or draining connection is written to."""
    assert (state, Transition.DELIVER) not in TRANSITIONS


@pytest.mark.parametrize("state", [State.OPEN, State.DRAINING])
def test_r10_an_open_connection_is_heard_and_answered(state: State) -> None:
    """Draining changes neither: what is asked is still answered."""
    for move in (Transition.COMMAND, Transition.PONG, Transition.DELIVER):
        assert after(state, move) is state


def test_r02_the_first_command_is_connect_and_comes_once() -> None:
    """Connect is legal in the first state only, and is all that is legal there."""
    assert legal_in(Transition.CONNECT) == {State.OPENING}
    first = {move for state, move in TRANSITIONS if state is State.OPENING}
    assert first & PEER_MOVES == {Transition.CONNECT}


@pytest.mark.parametrize("move", [Transition.ACCEPT, Transition.REFUSE])
def test_r02_there_is_one_verdict(move: Transition) -> None:
    """A verdict is legal while authenticating only, and always ends that state."""
    assert legal_in(move) == {State.AUTHENTICATING}
    assert after(State.AUTHENTICATING, move) is not State.AUTHENTICATING


def test_r02_the_verdict_is_the_only_way_in() -> None:
    """No move of the peer opens a connection."""
    into = {move for (state, move), to in TRANSITIONS.items() if to is State.OPEN is not state}
    assert into == {Transition.ACCEPT}


def test_r59_a_draining_connection_never_opens_again() -> None:
    """From draining there is only the end."""
    assert reachable(State.DRAINING) == {State.DRAINING, State.CLOSED}


def test_no_move_of_the_peer_closes_by_the_table() -> None:
    """A peer's fault is its absence from the table; closing is our move."""
    assert all(
        to is not State.CLOSED for (_, move), to in TRANSITIONS.items() if move in PEER_MOVES
    )
    assert Transition.CLOSE in OURS


def test_every_move_is_used() -> None:
    """The table holds every kind of move at least once."""
    assert {move for _, move in TRANSITIONS} == set(Transition)
