"""A principal is taken as verified; a context that Python builds must name somebody."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.identity import (
    DEMO_TENANT,
    MAX_DEPTH,
    PLACEHOLDERS,
    InvalidContext,
    Principal,
    UserExecutionContext,
)

OPAQUE = st.text(min_size=1, max_size=40).filter(str.strip)


def context(**fields: Any) -> UserExecutionContext:
    return UserExecutionContext(**{"tenant": "acme", "user": "mia", **fields})


@pytest.mark.parametrize("field", ["tenant", "thread", "run", "request", "connection"])
@pytest.mark.parametrize("word", sorted(PLACEHOLDERS))
def test_r14_a_placeholder_is_no_id(field: str, word: str) -> None:
    """A word that stands where an id was forgotten is refused, in any case."""
    spellings = {word, word.upper(), f" {word} "}
    if field == "tenant":
        spellings -= {DEMO_TENANT}
    for value in spellings:
        with pytest.raises(InvalidContext) as refused:
            context(**{field: value})
        assert refused.value.field_name == field


def test_the_tenant_of_the_demo_users_is_a_tenant() -> None:
    """Application code may build a context for those whom `towpath serve --dev` lets in."""
    made = context(tenant=DEMO_TENANT, user="alice", thread="t-1")
    assert made.create_child_context(run="r-1").tenant == "demo"
    for other in ("thread", "run", "request", "connection"):
        with pytest.raises(InvalidContext, match=f"{other} is a placeholder"):
            context(tenant=DEMO_TENANT, **{other: "demo"})


@pytest.mark.parametrize("value", ["default_user", "test_engineer@x", "temp_0", "mock_run_17"])
def test_r14_a_short_id_that_begins_with_a_placeholder_is_one(value: str) -> None:
    """`default_user` is no more a thread than `default` is."""
    with pytest.raises(InvalidContext, match="thread is a placeholder"):
        context(thread=value)


@pytest.mark.parametrize(
    "value",
    [
        "testing",
        "test-run",
        "contest_1",
        "10",
        "01HZX3",
        "test_0123456789abcdef",
        "thread_default",
        "nullable_1",
        "Default-7f3",
    ],
)
def test_r71_an_id_that_only_looks_a_little_odd_is_taken(value: str) -> None:
    """The rule covers forgotten ids, not every id with a familiar word in it."""
    assert context(thread=value, run=value, tenant=value).thread == value


PUBLISHED_PLACEHOLDERS = (
    "registry placeholder default temp none null undefined example test demo sample template "
    "mock fake dummy 0 1 xxx yyy"
)
"""The list as the documentation has it."""


def test_r14_the_placeholders_are_the_documented_ones() -> None:
    """No more and no fewer: whoever reads the list knows the rule."""
    assert set(PUBLISHED_PLACEHOLDERS.split()) == PLACEHOLDERS


@pytest.mark.parametrize("word", sorted(PLACEHOLDERS))
def test_r14_each_placeholder_is_one_with_something_behind_it_too(word: str) -> None:
    """With `_` and under 20 characters it is one; from 20 on, or with anything else, it is not."""
    for value in (f"{word}_", f"{word}_a", f"{word}_".ljust(19, "x"), f" {word.title()}_A "):
        with pytest.raises(InvalidContext, match="thread is a placeholder"):
            context(thread=value)
    for value in (f"{word}_".ljust(20, "x"), f"{word}-a", f"{word}.a", f"a_{word}", f"{word}2a"):
        assert context(thread=value).thread == value


@pytest.mark.parametrize("length", [19, 20])
def test_the_placeholder_prefix_counts_below_20_characters(length: int) -> None:
    """The exact bound: 19 characters are short, 20 are not."""
    value = "test_" + "x" * (length - 5)
    if length < 20:
        with pytest.raises(InvalidContext):
            context(run=value)
    else:
        assert context(run=value).run == value


ALLOWED_USERS = [
    "default_user",
    "test_engineer@example.com",
    "test",
    "demo",
    "null",
    "undefined",
    "registry",
    "xxx",
    "mock_1",
    "0",
    "1",
    "12345",
    "-7",
    "105358976543210987654",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "google-oauth2|103547991597142817347",
    "f:4d3a:mia",
    "CN=Mia Test,OU=Demo",
    "mia\u202e",
    "😀",
    " mia ",
    "x" * 255,
]


@pytest.mark.parametrize("user", ALLOWED_USERS)
def test_r71_user_ids_are_the_identity_providers_business(user: str) -> None:
    """A person may be called anything that is not blank, in a child and in a scoped key too."""
    made = context(user=user)
    assert made.user == made.create_child_context().user == user
    assert made.get_scoped_key("k") != context(user=f"{user}2").get_scoped_key("k")
    assert made.to_dict()["user"] == user


@pytest.mark.parametrize("field", ["tenant", "user", "thread", "run", "request", "connection"])
@pytest.mark.parametrize("verified", [False, True])
def test_r14_a_blank_id_names_nobody(field: str, verified: bool) -> None:
    """Blank is refused everywhere, for verified ids too."""
    for value in ("", " ", "\t\n"):
        with pytest.raises(InvalidContext, match=f"{field} is blank"):
            context(verified=verified, **{field: value})


@pytest.mark.parametrize("field", ["tenant", "user", "request"])
def test_r14_there_is_no_context_without_tenant_user_and_request(field: str) -> None:
    """No principal, no context: None is not a tenant, a user or a request."""
    with pytest.raises(InvalidContext, match=f"{field} is blank"):
        context(**{field: None})


@given(OPAQUE, OPAQUE, OPAQUE, OPAQUE)
def test_r71_ids_of_a_verified_principal_are_taken_as_they_are(
    tenant: str, user: str, thread: str, run: str
) -> None:
    """Nothing about a verified id is judged but that it is there."""
    made = UserExecutionContext.of(Principal(tenant=tenant, user=user), thread=thread, run=run)
    assert (made.tenant, made.user, made.thread, made.run) == (tenant, user, thread, run)


@pytest.mark.parametrize("word", [*sorted(PLACEHOLDERS), "default_thread"])
def test_r71_the_wire_may_call_a_thread_what_python_may_not(word: str) -> None:
    """Ids on the wire are opaque, placeholder words included, and stay so in children."""
    made = UserExecutionContext.of(Principal(tenant=word, user=word), thread=word)
    assert made.create_child_context(run=word).run == word


def test_a_principals_rights_and_end_are_the_contexts() -> None:
    """Roles and expiry come from the credential."""
    principal = Principal(tenant="acme", user="mia", roles=frozenset({"ops"}), expires_at=60.5)
    made = UserExecutionContext.of(principal, connection="c1")
    assert made.roles == {"ops"}
    assert made.connection == "c1"
    assert made.expires == datetime.fromtimestamp(60.5, UTC)


def test_children_go_ten_levels_deep_and_no_further() -> None:
    """The last generation allowed is made, the next is refused."""
    made = context()
    for _ in range(MAX_DEPTH):
        made = made.create_child_context()
    assert made.depth == 10
    with pytest.raises(InvalidContext, match="depth"):
        made.create_child_context()


def test_a_negative_depth_is_refused() -> None:
    """Depth counts generations."""
    with pytest.raises(InvalidContext, match="depth"):
        context(depth=-1)


def test_a_child_is_the_same_person_with_a_request_of_its_own() -> None:
    """A child keeps what it is not told otherwise."""
    parent = context(thread="t-1", run="r-1", roles=frozenset({"ops"}))
    child = parent.create_child_context(run="r-2")
    assert (child.tenant, child.user, child.thread, child.run) == ("acme", "mia", "t-1", "r-2")
    assert child.roles == parent.roles
    assert child.request != parent.request


@given(st.tuples(OPAQUE, OPAQUE, OPAQUE), st.tuples(OPAQUE, OPAQUE, OPAQUE))
def test_a_scoped_key_belongs_to_one_person(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """Two keys are equal exactly where tenant, user and key are."""
    keys = [
        UserExecutionContext.of(Principal(tenant=tenant, user=user)).get_scoped_key(key)
        for tenant, user, key in (one, other)
    ]
    assert (keys[0] == keys[1]) is (one == other)


@pytest.mark.parametrize("shared", ["request", "run", "connection"])
def test_r34_two_people_with_one_id_in_common_are_not_isolated(shared: str) -> None:
    """A request, run or connection belongs to one person."""
    mia = context(user="mia", **{shared: "id-77"})
    assert mia.verify_isolation(context(user="leo", run="r-2"))
    assert not mia.verify_isolation(context(user="leo", **{shared: "id-77"}))
    assert not mia.verify_isolation(context(tenant="other", **{shared: "id-77"}))
    assert mia.verify_isolation(context(user="mia", **{shared: "id-77"}))


def test_a_context_is_told_in_plain_values() -> None:
    """The dictionary holds ids, times as text, and roles in order."""
    made = context(
        thread="t-1",
        run="r-1",
        request="q-1",
        connection="c-1",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        expires=datetime(2026, 1, 3, tzinfo=UTC),
        roles=frozenset({"ops", "admin"}),
        depth=2,
    )
    assert made.to_dict() == {
        "tenant": "acme",
        "user": "mia",
        "thread": "t-1",
        "run": "r-1",
        "request": "q-1",
        "connection": "c-1",
        "created": "2026-01-02T00:00:00+00:00",
        "expires": "2026-01-03T00:00:00+00:00",
        "roles": ["admin", "ops"],
        "depth": 2,
    }
    assert context().to_dict()["expires"] is None


def test_r34_a_context_cannot_be_changed() -> None:
    """Shared or not, a context says for ever what it said at first."""
    made: Any = context()
    with pytest.raises(FrozenInstanceError):
        made.user = "leo"


def test_r86_a_person_is_tenant_and_user_together() -> None:
    """Roles and expiry may change on a live connection, tenant and user may not."""
    mia = Principal(tenant="acme", user="mia")
    assert mia.same_person(Principal(tenant="acme", user="mia", roles=frozenset({"ops"})))
    assert not mia.same_person(Principal(tenant="acme", user="leo"))
    assert not mia.same_person(Principal(tenant="other", user="mia"))
