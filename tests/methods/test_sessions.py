"""Operators see, revoke and disconnect in their own tenant; tickets belong to who asks for one."""

from pathlib import Path

import pytest

from tests.methods.stage import OPERATOR, methods_staged
from tests.runs.stage import ALICE, BOB
from towpath import codes
from towpath.auth.revocations import Revocation, Revocations
from towpath.auth.tickets import TICKET_SECONDS
from towpath.channels import thread_channel, user_channel
from towpath.errors import BadRequest, Conflict, LimitExceeded, PermissionDenied
from towpath.identity import Principal
from towpath.methods.method import Caller

FOREIGN = Principal(tenant="globex", user="alice")


async def test_a_ticket_is_new_each_time(tmp_path: Path) -> None:
    """A ticket is no result that is stored: two calls give two, for as long as tickets live."""
    async with methods_staged(tmp_path) as stage:
        caller = Caller(principal=ALICE, origin="https://page.example")
        one, two = [await stage.call("ticket.create", caller) for _ in range(2)]
        assert one["ticket"] != two["ticket"]
        assert one["expires_in"] == TICKET_SECONDS


async def test_an_operator_sees_the_connections_of_their_tenant(tmp_path: Path) -> None:
    """Each connection of the person shows its channels by the names that clients say."""
    async with methods_staged(tmp_path) as stage:
        subscriber = stage.connect("c1")
        stage.connect("c2", BOB)
        stage.connect("c3", FOREIGN)
        for channel in (user_channel("acme", "alice"), thread_channel("acme", "alice", "t")):
            stage.hub.subscribe(subscriber, channel)
        made = await stage.call("session.list", OPERATOR, user="alice")
        assert made["sessions"] == [
            {
                "connection": "c1",
                "user": "alice",
                "expires_at": None,
                "channels": ["thread:t", "user"],
            }
        ]
        with pytest.raises(PermissionDenied):
            await stage.call("session.list", ALICE, user="alice")


async def test_p8_a_disconnect_closes_connections_once(tmp_path: Path) -> None:
    """The repetition closes nobody who came back meanwhile; other people stay."""
    async with methods_staged(tmp_path) as stage:
        for name, who in (("c1", ALICE), ("c2", BOB), ("c3", FOREIGN)):
            stage.connect(name, who)
        with pytest.raises(PermissionDenied):
            await stage.call("session.disconnect", ALICE, request_id="q", user="alice")
        for _ in range(2):
            made = await stage.call("session.disconnect", OPERATOR, request_id="q", user="alice")
            assert made == {}
        assert stage.closed == {"c1": [codes.FORCED], "c2": [], "c3": []}


async def test_p8_a_revocation_is_announced_once(tmp_path: Path) -> None:
    """What is revoked is the caller's tenant's, from now on; the request is stored with it."""
    async with methods_staged(tmp_path) as stage:
        for _ in range(2):
            assert await stage.call("session.revoke", OPERATOR, request_id="q", jti="j") == {}
        assert stage.feed.announced == [Revocation(tenant="acme", at=1_000.0, token_id="j")]
        with pytest.raises(Conflict):
            await stage.call("session.revoke", OPERATOR, request_id="q", jti="other")
        await stage.call("session.revoke", OPERATOR, request_id="t", tenant="acme")
        assert stage.feed.announced[1:] == [Revocation(tenant="acme", at=1_000.0)]


async def test_a_revocation_that_may_not_be_is_not_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing or two things named, no role, another tenant, or no room: an error each."""
    async with methods_staged(tmp_path) as stage:
        for given in ({}, {"jti": "j", "user": "bob"}, {"user": "bob", "tenant": "acme"}):
            with pytest.raises(BadRequest, match="one of jti, user and tenant"):
                await stage.call("session.revoke", OPERATOR, request_id="q", **given)
        with pytest.raises(PermissionDenied):
            await stage.call("session.revoke", ALICE, request_id="q", user="alice")
        with pytest.raises(PermissionDenied):
            await stage.call("session.revoke", OPERATOR, request_id="q", tenant="globex")
        monkeypatch.setattr(Revocations, "admits", lambda *_: False)
        with pytest.raises(LimitExceeded, match="revoke the whole tenant"):
            await stage.call("session.revoke", OPERATOR, request_id="q", user="alice")
        assert stage.feed.announced == []
