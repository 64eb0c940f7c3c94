"""A service notifies a user or its whole tenant, once per request, under names of its own."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.methods.stage import SERVICE, MethodStage, methods_staged
from tests.runs.stage import ALICE
from towpath.channels import Channel, tenant_channel, user_channel
from towpath.errors import BadRequest, PermissionDenied


async def published(stage: MethodStage, channel: Channel) -> list[Any]:
    replay = await stage.broker.read(channel, 0)
    return [msgspec.json.decode(one.data) for one in replay.publications]


async def test_p8_a_notice_is_published_once(tmp_path: Path) -> None:
    """It goes to the channel of the user who is named, and without one to the tenant's."""
    async with methods_staged(tmp_path) as stage:
        for _ in range(2):
            given = {"request_id": "u", "name": "news", "value": {"a": 1}, "user": "alice"}
            assert await stage.call("notice.publish", SERVICE, **given) == {}
        await stage.call("notice.publish", SERVICE, request_id="t", name="all")
        assert await published(stage, user_channel("acme", "alice")) == [
            {"type": "CUSTOM", "name": "news", "value": {"a": 1}}
        ]
        assert await published(stage, tenant_channel("acme")) == [
            {"type": "CUSTOM", "name": "all", "value": None}
        ]


async def test_a_notice_needs_a_role_and_a_name_of_its_own(tmp_path: Path) -> None:
    """A person publishes none, and a service none under a name of the gateway's."""
    async with methods_staged(tmp_path) as stage:
        with pytest.raises(PermissionDenied):
            await stage.call("notice.publish", ALICE, request_id="q", name="news")
        with pytest.raises(BadRequest, match="the gateway's own"):
            await stage.call("notice.publish", SERVICE, request_id="q", name="towpath.x")
        assert await published(stage, tenant_channel("acme")) == []
