"""Permissions: everything is denied unless a rule allows it, and never across tenants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.auth.policy import ROLES, Action, may, may_read
from towpath.channels import Channel, named, tenant_channel, thread_channel, user_channel
from towpath.identity import Principal

NAMES = st.sampled_from(["a", "b", "A", "a:b", "a%3Ab", "%61", ":", "user", "tenant", "é"]) | (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
)
PRINCIPALS = st.builds(
    Principal,
    tenant=NAMES,
    user=NAMES,
    roles=st.frozensets(st.sampled_from(["admin", "ops", "root", "*"])),
)


@given(PRINCIPALS, NAMES, NAMES, NAMES)
def test_r38_nobody_reads_across_tenants_or_users(
    who: Principal, tenant: str, user: str, thread: str
) -> None:
    """Whatever the ids and the roles: an owned channel is read by its owner only."""
    own = (who.tenant, who.user) == (tenant, user)
    assert may_read(who, user_channel(tenant, user)) is own
    assert may_read(who, thread_channel(tenant, user, thread)) is own
    assert may_read(who, tenant_channel(tenant)) is (who.tenant == tenant)


@given(PRINCIPALS, PRINCIPALS, st.sampled_from(["user", "thread:t1", "tenant"]))
def test_r36_what_one_may_name_another_may_not_read(
    one: Principal, other: Principal, name: str
) -> None:
    """Each channel a user can name is theirs to read, and others read only their tenant's."""
    channel = named(name, one)
    assert channel is not None
    assert may_read(one, channel)
    shared = one.same_person(other) or (name == "tenant" and one.tenant == other.tenant)
    assert may_read(other, channel) is shared


@pytest.mark.parametrize("name", ["", "doc", "doc:1", "user:", "thread::t1", "thread:", "Tenant"])
def test_r38_a_channel_without_a_clear_owner_is_nobodys(name: str) -> None:
    """Denied unless a rule allows it."""
    assert not may_read(Principal(tenant="acme", user="mia"), Channel("acme", name))


# Actions.

ALLOWED = {
    "towpath:operator": {"revoke", "disconnect", "inspect"},
    "towpath:service": {"publish"},
    "towpath:revoke": {"revoke"},
    "towpath:disconnect": {"disconnect"},
    "towpath:inspect": {"inspect"},
    "towpath:publish": {"publish"},
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", [*ALLOWED, *ROLES])
def test_r38_a_role_allows_what_the_table_says_in_its_own_tenant(role: str, action: Action) -> None:
    """Each role's actions, and in no other tenant any of them."""
    who = Principal(tenant="acme", user="mia", roles=frozenset({role}))
    assert may(who, action, "acme") is (action.value in ALLOWED[role])
    for elsewhere in ("other", "", "ACME", "acme ", "*"):
        assert not may(who, action, elsewhere)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(
    "roles",
    [
        set(),
        {"admin"},
        {"root", "superuser", "*", "towpath", "towpath:"},
        {"operator", "service", "revoke"},
        {"TOWPATH:OPERATOR", "Towpath:operator"},
        {"towpath:operator ", " towpath:operator", "towpath:operator:acme"},
        {"towpath:*", "towpath:admin", "towpath:operators"},
        {"test", "towpath:test", "default"},
    ],
)
def test_r11_a_role_that_only_looks_like_one_allows_nothing(
    roles: set[str], action: Action
) -> None:
    """Names of roles are compared exactly."""
    assert not may(Principal(tenant="acme", user="mia", roles=frozenset(roles)), action, "acme")


@given(PRINCIPALS, st.sampled_from(list(Action)), NAMES)
def test_r38_a_right_is_the_sum_of_the_roles(who: Principal, action: Action, tenant: str) -> None:
    """Roles add up, unknown ones change nothing, and none applies to another tenant."""
    for held in (frozenset[str](), frozenset({"towpath:operator"}), frozenset(ALLOWED)):
        person = replace(who, roles=who.roles | held)
        granted = any(action.value in ALLOWED[role] for role in held)
        assert may(person, action, person.tenant) is granted
        assert may(person, action, tenant) is (granted and tenant == person.tenant)


def test_an_operator_does_not_speak_for_the_service() -> None:
    """The roles for revoking and for publishing have no action in common."""
    assert ROLES["towpath:operator"].isdisjoint(ROLES["towpath:service"])
    assert frozenset(Action) == ROLES["towpath:operator"] | ROLES["towpath:service"]
