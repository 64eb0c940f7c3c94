"""What was taken back ends, what came afterwards does not, and nobody else notices."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.stage import NOW
from towpath.auth import revocations as room
from towpath.auth.revocations import Revocation, Revocations
from towpath.auth.tokens import LEEWAY
from towpath.context import Principal
from towpath.streams.broker import CONTROL_RETENTION

KEEP = 86_400.0


def mia(**fields: Any) -> Principal:
    return Principal(**{"tenant": "acme", "user": "mia", "issued_at": NOW - 60, **fields})


def taken_back(*revocations: Revocation) -> Revocations:
    kept = Revocations(KEEP)
    for one in revocations:
        kept.add(one)
    return kept


TOKEN = Revocation(tenant="acme", at=NOW, token_id="j1")
USER = Revocation(tenant="acme", at=NOW, user="mia")
TENANT = Revocation(tenant="acme", at=NOW)


@pytest.mark.parametrize(
    ("revocation", "principal", "ends"),
    [
        (TOKEN, mia(token_id="j1"), True),
        (TOKEN, mia(token_id="j1", user="leo"), True),
        (TOKEN, mia(token_id="j2"), False),
        (TOKEN, mia(token_id="J1"), False),
        (TOKEN, mia(token_id=None), False),
        (TOKEN, mia(token_id="j1", tenant="other"), False),
        (USER, mia(), True),
        (USER, mia(token_id="j1"), True),
        (USER, mia(user="leo"), False),
        (USER, mia(user="Mia"), False),
        (USER, mia(tenant="other"), False),
        (TENANT, mia(), True),
        (TENANT, mia(user="leo", token_id="j2"), True),
        (TENANT, mia(tenant="other"), False),
        (TENANT, mia(tenant="Acme"), False),
        (TENANT, mia(tenant=""), False),
    ],
)
def test_r84_a_revocation_is_about_its_own_and_nobody_else(
    revocation: Revocation, principal: Principal, ends: bool
) -> None:
    """One token, one person or one tenant: live sessions and credentials are told apart alike."""
    assert revocation.names(principal) is ends
    assert taken_back(revocation).revoked(principal) is ends


def test_nothing_taken_back_is_nothing_revoked() -> None:
    """Without a revocation everybody stays."""
    kept = Revocations(KEEP)
    assert not kept.revoked(mia(token_id="j1"))
    assert len(kept) == 0


@pytest.mark.parametrize("revocation", [USER, TENANT])
@pytest.mark.parametrize(
    ("issued", "revoked"),
    [
        (0.0, True),
        (NOW, True),
        (NOW + 20, True),
        (NOW + LEEWAY, True),
        (NOW + LEEWAY + 0.001, False),
        (NOW + 3600, False),
    ],
)
def test_r84_who_logs_in_again_afterwards_is_let_in(
    revocation: Revocation, issued: float, revoked: bool
) -> None:
    """What was issued up to the moment ends with it, whichever clock was ahead; later is new."""
    assert taken_back(revocation).revoked(mia(issued_at=issued)) is revoked


@pytest.mark.parametrize("revocation", [USER, TENANT, TOKEN])
def test_r84_a_token_that_does_not_say_when_it_was_issued_counts_as_older(
    revocation: Revocation,
) -> None:
    """It cannot show that it is new."""
    assert taken_back(revocation).revoked(mia(issued_at=None, token_id="j1"))


def test_r84_a_token_taken_back_stays_so_whenever_it_says_it_was_issued() -> None:
    """Its name is enough."""
    assert taken_back(TOKEN).revoked(mia(token_id="j1", issued_at=NOW + 3600))


def test_a_token_named_like_a_person_is_not_that_person() -> None:
    """The names of tokens and of people are two kinds."""
    assert not taken_back(Revocation(tenant="acme", at=NOW, token_id="mia")).revoked(mia())
    assert not taken_back(USER).revoked(mia(user="leo", token_id="mia"))


REVOCATIONS = st.builds(
    Revocation,
    tenant=st.sampled_from(["acme", "other"]),
    at=st.floats(NOW - 10, NOW + 10),
    token_id=st.none() | st.sampled_from(["j1", "j2"]),
    user=st.none() | st.sampled_from(["mia", "leo"]),
)


@given(st.lists(REVOCATIONS, max_size=8), st.randoms(), st.data())
def test_r84_neither_order_nor_repetition_changes_what_is_revoked(
    heard: list[Revocation], shuffle: Any, data: st.DataObject
) -> None:
    """Every node comes to the same, however the revocations reach it."""
    again = heard * 2
    shuffle.shuffle(again)
    principal = Principal(
        tenant=data.draw(st.sampled_from(["acme", "other"])),
        user=data.draw(st.sampled_from(["mia", "leo"])),
        token_id=data.draw(st.none() | st.sampled_from(["j1", "j2"])),
        issued_at=data.draw(st.none() | st.floats(NOW + LEEWAY - 15, NOW + LEEWAY + 15)),
    )
    revoked = any(
        one.names(principal)
        and (
            one.token_id is not None
            or principal.issued_at is None
            or principal.issued_at <= one.at + LEEWAY
        )
        for one in heard
    )
    assert taken_back(*heard).revoked(principal) is revoked
    assert taken_back(*again).revoked(principal) is revoked


def test_r84_the_latest_moment_counts() -> None:
    """An older revocation that comes late gives nobody their credential back."""
    earlier = Revocation(tenant="acme", at=NOW - 50, user="mia")
    for order in ((USER, earlier), (earlier, USER)):
        assert taken_back(*order).revoked(mia(issued_at=NOW - 10))


# The bound.


@pytest.fixture
def _room_for_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REVOCATIONS", 4)


@pytest.mark.usefixtures("_room_for_four")
def test_r84_what_still_counts_is_never_forgotten_to_make_room() -> None:
    """Full is full: whoever wants to take back more is told so."""
    kept = taken_back(TOKEN, USER, TENANT)
    assert not kept.full(NOW)
    kept.add(Revocation(tenant="other", at=NOW))
    assert kept.full(NOW)
    assert kept.full(NOW + KEEP)
    assert kept.revoked(mia(token_id="j1"))
    assert len(kept) == 4


@pytest.mark.usefixtures("_room_for_four")
def test_what_no_credential_outlives_makes_room() -> None:
    """Only what is older than any credential is let go, and only where room is needed."""
    kept = taken_back(TOKEN, USER)
    assert not kept.full(NOW + KEEP + 1)
    assert len(kept) == 2
    newer = NOW + 5
    kept.add(Revocation(tenant="other", at=newer, token_id="j9"))
    kept.add(Revocation(tenant="other", at=newer))
    assert not kept.full(NOW + KEEP + 1)
    assert len(kept) == 2
    assert kept.revoked(Principal(tenant="other", user="x", token_id="j9", issued_at=NOW + 60))
    assert kept.revoked(Principal(tenant="other", user="x", issued_at=NOW))
    assert not kept.revoked(mia(token_id="j1"))


def test_the_bound_is_half_of_what_the_log_keeps() -> None:
    """A revocation is never lost to the log before it is refused here."""
    assert CONTROL_RETENTION.publications == 2 * room.MAX_REVOCATIONS


# On the wire between nodes.


@pytest.mark.parametrize(
    ("revocation", "what"), [(TOKEN, "token"), (USER, "user"), (TENANT, "tenant")]
)
def test_a_revocation_says_what_it_takes_back_and_survives_the_log(
    revocation: Revocation, what: str
) -> None:
    """Every node reads what one of them wrote."""
    assert revocation.what == what
    assert msgspec.json.decode(msgspec.json.encode(revocation), type=Revocation) == revocation


@pytest.mark.parametrize(
    "text", [b"{}", b'{"type":"notice","tenant":"acme","at":1}', b'{"type":"revocation"}', b"[]"]
)
def test_what_is_no_revocation_is_not_read_as_one(text: bytes) -> None:
    """Another kind of message, or half of one, takes nothing back."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=Revocation)
