"""Who may read what: one's own, one's tenant's announcements, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.auth.policy import may_read
from towpath.channels import Channel, named, tenant_channel, thread_channel, user_channel
from towpath.context import Principal

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
    """Whatever the ids and the roles: an owned channel is read by its owner alone."""
    own = (who.tenant, who.user) == (tenant, user)
    assert may_read(who, user_channel(tenant, user)) is own
    assert may_read(who, thread_channel(tenant, user, thread)) is own
    assert may_read(who, tenant_channel(tenant)) is (who.tenant == tenant)


@given(PRINCIPALS, PRINCIPALS, st.sampled_from(["user", "thread:t1", "tenant"]))
def test_r36_what_one_may_name_another_may_not_read(
    one: Principal, other: Principal, name: str
) -> None:
    """Everything a person can say is theirs to read, and only their tenant's is anybody else's."""
    channel = named(name, one)
    assert channel is not None
    assert may_read(one, channel)
    shared = one.same_person(other) or (name == "tenant" and one.tenant == other.tenant)
    assert may_read(other, channel) is shared


@pytest.mark.parametrize("name", ["", "doc", "doc:1", "user:", "thread::t1", "thread:", "Tenant"])
def test_r38_a_channel_without_a_clear_owner_is_nobodys(name: str) -> None:
    """The answer is no, unless a rule says yes."""
    assert not may_read(Principal(tenant="acme", user="mia"), Channel("acme", name))
