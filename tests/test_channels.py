"""A name that a client says means a channel of the verified principal, and of nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.channels import (
    Channel,
    is_id,
    named,
    tenant_channel,
    thread_channel,
    user_channel,
)
from towpath.identity import Principal

ODD = st.one_of(
    st.text(alphabet=":%/\\ .~+25AFaf\u00e9\U0001f600\u202e\u0130", min_size=1, max_size=8),
    st.text(min_size=1, max_size=40),
    st.sampled_from(["user", "tenant", "thread", "thread:", "%3A", ":", "a:b", "a%3Ab", "\x00"]),
).filter(lambda text: text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))
"""Tenants and users as an issuer may name them: any text that UTF-8 can hold."""

IDS = st.text(min_size=1, max_size=128).filter(is_id) | st.sampled_from([":", "a:b", "%", "%3A"])
"""Ids as the wire takes them."""

PRINCIPALS = st.builds(Principal, tenant=ODD, user=ODD)


def person(user: str = "mia", tenant: str = "acme") -> Principal:
    return Principal(tenant=tenant, user=user)


def means(name: str, principal: Principal) -> Channel:
    channel = named(name, principal)
    assert channel is not None
    return channel


@given(PRINCIPALS, PRINCIPALS, IDS, IDS)
def test_r38_two_people_never_reach_the_same_channel(
    one: Principal, other: Principal, id_of_one: str, id_of_other: str
) -> None:
    """Whatever ids are made of, a personal or thread name of two people is two channels."""
    names = ("user", f"thread:{id_of_one}", f"thread:{id_of_other}")
    of_one = {means(name, one) for name in names}
    of_other = {means(name, other) for name in names}
    assert of_one.isdisjoint(of_other) is not one.same_person(other)


@given(ODD, ODD, IDS, IDS)
def test_r38_a_user_who_looks_like_another_users_thread_stays_outside(
    user: str, tenant: str, thread: str, more: str
) -> None:
    """A user named after the inside of somebody's channel does not get into it."""
    target = thread_channel(tenant, user, f"{thread}:{more}")
    for crafted in (f"{user}:{thread}", f"{user}%3A{thread}", target.name, target.visible):
        assert means(f"thread:{more}", person(crafted, tenant)) != target


@given(PRINCIPALS, PRINCIPALS)
def test_r38_tenants_never_share_their_announcements(one: Principal, other: Principal) -> None:
    """`tenant` is the same channel exactly for people of one tenant."""
    same = means("tenant", one) == means("tenant", other)
    assert same is (one.tenant == other.tenant)


@given(PRINCIPALS, st.just("user") | st.just("tenant") | IDS.map("thread:{}".format))
def test_r39_a_name_comes_back_as_it_was_said(principal: Principal, name: str) -> None:
    """What a client calls a channel is what pushes call it, and its owner is who said it."""
    channel = means(name, principal)
    assert channel.visible == name
    assert channel.tenant == principal.tenant
    assert channel.owner == (None if name == "tenant" else principal.user)


@given(ODD, ODD, IDS)
def test_r79_a_channel_knows_its_thread(tenant: str, user: str, thread: str) -> None:
    """Only a thread's channel has a thread id, and it is the one that was said."""
    channel = thread_channel(tenant, user, thread)
    assert channel.is_thread
    assert channel.thread == thread
    assert user_channel(tenant, user).thread is None
    assert tenant_channel(tenant).thread is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "thread:",
        "thread",
        "thread: ",
        "THREAD:t1",
        "User",
        "users",
        "user:",
        "user:leo",
        "user:mia",
        "tenant:",
        "tenant:other",
        " user",
        "user ",
        "user\n",
        "#mia",
        "$private",
        "doc:1",
        "thread:\x00",
        "thread:a\nb",
        "thread:\u2028",
        "thread:\ud800",
        "thread:" + "a" * 129,
    ],
)
def test_r38_what_is_no_name_means_nothing(name: str) -> None:
    """There is no name for somebody else's channel, and none is guessed."""
    assert named(name, person()) is None


@pytest.mark.parametrize("length", [1, 128])
def test_an_id_may_have_up_to_128_characters(length: int) -> None:
    """The last length allowed passes."""
    assert is_id("é" * length)


@pytest.mark.parametrize("value", ["", "a" * 129, " ", "  ", "a\tb", "\x7f", "\u200b", "\ud83d"])
def test_an_id_is_printable_and_says_something(value: str) -> None:
    """Blank, unprintable and overlong ids are none."""
    assert not is_id(value)


def test_r79_the_same_thread_id_of_two_people_is_two_threads() -> None:
    """An id that somebody else uses too is simply a new one of one's own."""
    assert means("thread:t1", person("mia")) != means("thread:t1", person("leo"))


def test_names_inside_hold_the_owner_encoded() -> None:
    """The stored names are part of the log's format and do not change by accident."""
    assert user_channel("acme", "a:b/ü").name == "user:a%3Ab%2F%C3%BC"
    assert thread_channel("acme", "a:b", "t:1").name == "thread:a%3Ab:t:1"
    assert tenant_channel("acme").name == "tenant"
