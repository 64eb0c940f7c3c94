"""A revocation ends what it names, and neither later credentials nor those of others."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.stage import NOW
from towpath.auth import revocations as room
from towpath.auth.revocations import EVERYBODY, REPEAT_SECONDS, Compacted, Revocation, Revocations
from towpath.auth.tokens import LEEWAY
from towpath.identity import Principal

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
    """One token, user or tenant: sessions and credentials are matched by the same rule."""
    assert revocation.names(principal) is ends
    assert taken_back(revocation).revoked(principal) is ends


def test_nothing_taken_back_is_nothing_revoked() -> None:
    """Without a revocation no credential is revoked."""
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
    """Credentials issued up to the moment (plus the leeway) are revoked; later ones are not."""
    assert taken_back(revocation).revoked(mia(issued_at=issued)) is revoked


@pytest.mark.parametrize("revocation", [USER, TENANT, TOKEN])
def test_r84_a_token_that_does_not_say_when_it_was_issued_counts_as_older(
    revocation: Revocation,
) -> None:
    """Without `iat` it cannot be shown to be newer."""
    assert taken_back(revocation).revoked(mia(issued_at=None, token_id="j1"))


def test_r84_a_token_taken_back_stays_so_whenever_it_says_it_was_issued() -> None:
    """Its id is enough."""
    assert taken_back(TOKEN).revoked(mia(token_id="j1", issued_at=NOW + 3600))


def test_a_token_named_like_a_person_is_not_that_person() -> None:
    """Token ids and users are separate namespaces."""
    assert not taken_back(Revocation(tenant="acme", at=NOW, token_id="mia")).revoked(mia())
    assert not taken_back(USER).revoked(mia(user="leo", token_id="mia"))


ISSUED = {"j1": NOW - 5, "j2": NOW + 2 * LEEWAY, "j3": NOW + 4 * LEEWAY}
"""When each token was issued; one that was issued later than `LEEWAY` ahead was never valid."""
MOMENTS = st.integers(0, 8).map(lambda steps: NOW + steps * LEEWAY / 2)
OF_TOKENS = st.builds(
    lambda tenant, token, late: Revocation(
        tenant=tenant, at=ISSUED[token] - LEEWAY + late, token_id=token
    ),
    st.sampled_from(["acme", "other"]),
    st.sampled_from(list(ISSUED)),
    st.integers(0, 8).map(lambda steps: steps * LEEWAY / 2) | st.just(REPEAT_SECONDS + 50),
)
OF_PEOPLE = st.builds(
    Revocation,
    tenant=st.sampled_from(["acme", "other"]),
    at=MOMENTS,
    user=st.none() | st.sampled_from(["mia", "leo"]),
)
OF_EVERYBODY = st.builds(Revocation, tenant=st.just(EVERYBODY), at=MOMENTS)
REVOCATIONS = st.lists(OF_TOKENS | OF_PEOPLE | OF_EVERYBODY, max_size=10)
PRINCIPALS = [
    Principal(tenant=tenant, user=user, token_id=token, issued_at=issued)
    for tenant in ("acme", "other", "third")
    for user in ("mia", "leo")
    for token, issued in [
        *ISSUED.items(),
        *((None, NOW + steps * LEEWAY / 2 + more) for steps in range(12) for more in (0, 0.001)),
        *((token, None) for token in (*ISSUED, None)),
    ]
]


def named_by_any(received: list[Revocation], principal: Principal) -> bool:
    """Whether any of the revocations names a principal's credential, each checked alone."""
    return any(
        one.names(principal)
        and (
            one.token_id is not None
            or principal.issued_at is None
            or principal.issued_at <= one.at + LEEWAY
        )
        for one in received
    )


@given(REVOCATIONS, st.randoms())
def test_r84_neither_order_nor_repetition_changes_what_is_revoked(
    received: list[Revocation], shuffle: Any
) -> None:
    """Every node gets the same result, in whatever order it reads the revocations."""
    again = received * 2
    shuffle.shuffle(again)
    in_order, shuffled = taken_back(*received), taken_back(*again)
    for principal in PRINCIPALS:
        revoked = named_by_any(received, principal)
        assert in_order.revoked(principal) is revoked
        assert shuffled.revoked(principal) is revoked


@given(REVOCATIONS, REVOCATIONS)
def test_r84_what_counts_says_as_much_as_all_that_was_said(
    received: list[Revocation], later: list[Revocation]
) -> None:
    """A node that starts with the kept revocations gets the same result, whatever follows."""
    kept = taken_back(*received)
    assert len(list(kept)) == len(kept) <= len(received)
    successor = taken_back(*kept, *later)
    for principal in PRINCIPALS:
        assert successor.revoked(principal) is named_by_any([*received, *later], principal)


@given(REVOCATIONS, OF_TOKENS | OF_PEOPLE | OF_EVERYBODY)
def test_what_takes_back_nothing_new_is_covered(
    received: list[Revocation], one: Revocation
) -> None:
    """A covered revocation changes no verdict, and a recent one is covered."""
    kept = taken_back(*received)
    before = [kept.revoked(principal) for principal in PRINCIPALS]
    covered = kept.covers(one)
    assert kept.add(one) is not covered
    if covered:
        assert [kept.revoked(principal) for principal in PRINCIPALS] == before
    assert kept.covers(one)
    assert not kept.add(one)


def test_r84_a_token_revoked_again_later_counts_from_then_on() -> None:
    """Repeating adds nothing for a day; after that it puts off the end of the thirty days."""
    kept = taken_back(TOKEN)
    again = Revocation(tenant="acme", at=NOW + REPEAT_SECONDS, token_id="j1")
    assert not kept.add(again)
    assert kept.add(Revocation(tenant="acme", at=again.at + 1, token_id="j1"))
    assert [one.at for one in kept] == [again.at + 1]


@pytest.mark.parametrize(
    ("later", "left"),
    [
        (Revocation(tenant="acme", at=NOW + 1, user="mia"), 3),
        (Revocation(tenant="acme", at=NOW + 1), 1),
        (Revocation(tenant="acme", at=NOW), 1),
        (Revocation(tenant="acme", at=NOW - 1), 4),
        (Revocation(tenant="other", at=NOW + 1), 4),
        (Revocation(tenant=EVERYBODY, at=NOW + 1), 1),
    ],
)
def test_a_wider_revocation_takes_the_place_of_older_ones(later: Revocation, left: int) -> None:
    """Those it covers are dropped; younger ones, and those of others, stay."""
    others = [Revocation(tenant="acme", at=NOW, user="leo"), USER, TOKEN]
    assert len(taken_back(*others, later)) == left


def test_r84_the_latest_moment_counts() -> None:
    """An older revocation that arrives late makes no credential valid again."""
    earlier = Revocation(tenant="acme", at=NOW - 50, user="mia")
    for order in ((USER, earlier), (earlier, USER)):
        assert taken_back(*order).revoked(mia(issued_at=NOW - 10))


def test_each_wider_revocation_drops_what_it_covers() -> None:
    """What stayed after one of them goes with the next."""
    younger = [Revocation(tenant="acme", at=NOW + n, token_id=f"j{n}") for n in range(3)]
    kept = taken_back(*younger)
    left = []
    for late in range(3):
        kept.add(Revocation(tenant="acme", at=NOW + late))
        left.append(len(kept))
    assert left == [3, 2, 1]


# The bounds.


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REVOCATIONS", 4)
    monkeypatch.setattr(room, "MAX_TOTAL", 10)
    monkeypatch.setattr(room, "SHARE", 2)


def tokens(tenant: str, count: int, at: float = NOW, first: int = 0) -> list[Revocation]:
    """Return revocations of so many tokens."""
    names = [f"{tenant}-{number}" for number in range(first, first + count)]
    return [Revocation(tenant=tenant, at=at, token_id=name) for name in names]


@pytest.mark.usefixtures("_small")
def test_r84_a_tenant_at_its_bound_concerns_no_other() -> None:
    """Only that tenant is refused: valid revocations are not dropped to make room."""
    kept = taken_back(*tokens("acme", 4))
    for more in (*tokens("acme", 1, first=4), USER):
        assert not kept.admits(more, NOW)
        assert not kept.admits(more, NOW + KEEP - 1)
        assert kept.admits(Revocation(tenant="other", at=NOW, user=more.user, token_id="j"), NOW)
    assert len(kept) == 4
    assert kept.revoked(mia(token_id="acme-0"))
    kept.add(Revocation(tenant=EVERYBODY, at=NOW - 1))
    assert kept.admits(Revocation(tenant="acme", at=NOW - 1, token_id="covered"), NOW)


@pytest.mark.usefixtures("_small")
def test_r84_what_takes_the_place_of_another_has_room_always() -> None:
    """At the bound a repetition, a later moment and a whole tenant are still accepted."""
    kept = taken_back(*tokens("acme", 3), USER)
    later = Revocation(tenant="acme", at=NOW + 5, user="mia")
    whole = Revocation(tenant="acme", at=NOW + 6)
    for one in (*tokens("acme", 1, at=NOW + REPEAT_SECONDS + 1), TOKEN, later, whole):
        assert kept.admits(one, NOW) is (one is not TOKEN)
    assert kept.add(whole)
    assert len(kept) == 1
    assert kept.admits(TOKEN, NOW)


@pytest.mark.usefixtures("_small")
def test_r84_tenants_that_keep_little_have_room_however_much_others_keep() -> None:
    """At the total bound only tenants above their share are refused."""
    many = [tokens(tenant, 4) for tenant in ("a", "b")]
    kept = taken_back(*many[0], *many[1], *tokens("c", 3))
    assert len(kept) == 11
    assert not kept.admits(tokens("c", 1, first=3)[0], NOW)
    for number in range(2):
        for tenant in ("d", "e"):
            (one,) = tokens(tenant, 1, first=number)
            assert kept.admits(one, NOW)
            kept.add(one)
    assert not kept.admits(tokens("d", 1, first=2)[0], NOW)
    assert kept.admits(Revocation(tenant="d", at=NOW), NOW)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("full", ["its own", "all"])
def test_what_no_credential_outlives_makes_room(full: str) -> None:
    """Only revocations older than any credential are dropped, and only when room is needed."""
    kept = taken_back(*tokens("acme", 3), *tokens("acme", 1, at=NOW + 5, first=3))
    if full == "all":
        kept = taken_back(*tokens("x", 4), *tokens("y", 4), *tokens("acme", 3, at=NOW + 5))
    assert len(kept) in (4, 11)
    (more,) = tokens("acme", 1, at=NOW + KEEP + 1, first=9)
    assert kept.admits(more, NOW + KEEP + 1)
    assert kept.add(more)
    assert {one.token_id for one in kept} == (
        {"acme-3", "acme-9"} if full != "all" else {"acme-0", "acme-1", "acme-2", "acme-9"}
    )
    assert kept.admits(tokens("acme", 1, first=10)[0], NOW + KEEP + 1) is (full != "all")


@pytest.mark.usefixtures("_small")
def test_room_is_made_again_each_time_something_is_old_enough() -> None:
    """What one look for room leaves, a later one finds."""
    kept = taken_back(*(tokens("acme", 1, at=NOW + 5 * n, first=n)[0] for n in range(4)))
    for late in range(4):
        now = NOW + KEEP + 5 * late + 1
        (more,) = tokens("acme", 1, at=now, first=10 + late)
        assert kept.admits(more, now)
        kept.add(more)
        assert len(kept) == 4


def test_where_there_is_room_nothing_is_dropped() -> None:
    """A revocation counts for as long as it takes no room from others."""
    kept = taken_back(TOKEN)
    later = Revocation(tenant="acme", at=NOW + 9 * KEEP, token_id="j9")
    assert kept.admits(later, later.at)
    kept.add(later)
    assert kept.revoked(mia(token_id="j1"))


# On the wire between nodes.


@pytest.mark.parametrize(
    ("revocation", "what"), [(TOKEN, "token"), (USER, "user"), (TENANT, "tenant")]
)
def test_a_revocation_says_what_it_takes_back_and_survives_the_log(
    revocation: Revocation, what: str
) -> None:
    """Every node reads what another one wrote."""
    assert revocation.what == what
    assert msgspec.json.decode(msgspec.json.encode(revocation), type=Revocation) == revocation


@pytest.mark.parametrize(
    "text", [b"{}", b'{"type":"notice","tenant":"acme","at":1}', b'{"type":"revocation"}', b"[]"]
)
def test_what_is_no_revocation_is_not_read_as_one(text: bytes) -> None:
    """Another kind of message, or a truncated one, revokes nothing."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=Revocation)


def test_a_revocation_is_written_as_it_has_always_been() -> None:
    """Logs of earlier versions hold these very bytes, and a value of ours is not changed."""
    written = msgspec.json.encode(Revocation(tenant="acme", at=1.5, user="mia"))
    assert msgspec.json.decode(written) == {
        "type": "revocation",
        "tenant": "acme",
        "at": 1.5,
        "token_id": None,
        "user": "mia",
    }
    whole = msgspec.json.encode(Compacted(part=0, revocations=(Revocation(tenant="a", at=1.5),)))
    assert msgspec.json.decode(whole) == {
        "type": "compacted",
        "part": 0,
        "revocations": [
            {"type": "revocation", "tenant": "a", "at": 1.5, "token_id": None, "user": None}
        ],
    }
    made: Any = Revocation(tenant="acme", at=1.5)
    with pytest.raises(AttributeError):
        made.at = 2.0


def test_what_is_taken_back_is_said_by_name() -> None:
    """Tenant and user are keyword arguments, because they look alike."""
    make: Any = Revocation
    with pytest.raises(TypeError):
        make("acme", 1.5)
