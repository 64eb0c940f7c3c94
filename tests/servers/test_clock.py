"""The wall clock is set, or the machine sleeps, while connections are open."""

import functools
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from joserfc.jwk import OctKey

from tests.hosts import SECRET, served
from towpath import Gateway
from towpath.agents.agent import AgentInput
from towpath.auth.development import sign
from towpath.node.build import build_node
from towpath.settings import Settings
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


class WallClock:
    """The wall clock of a gateway, which can be set."""

    def __init__(self) -> None:
        self.step = 0.0

    def __call__(self) -> float:
        return time.time() + self.step


@pytest.mark.parametrize("grace", [25.0, 7200.0], ids=["past the grace", "within the grace"])
async def test_r84_the_end_of_a_credential_is_a_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """An hour later by date, a command is carried out within the grace only."""
    clock, got = WallClock(), list[str]()
    monkeypatch.setattr("towpath.gateway.build_node", functools.partial(build_node, now=clock))
    settings = Settings(data=tmp_path, jwt_key=SECRET, tenant="acme", expiry_grace=grace)
    gateway = Gateway(settings)

    @gateway.agent("notes")
    async def notes(request: AgentInput) -> AsyncGenerator[object, None]:
        got.append(request.message)
        yield "noted"

    key = OctKey.import_key(SECRET)
    token = sign(key, user="mia", tenant="acme", now=time.time(), ttl=600)
    start = {"agent": "notes", "thread_id": "t"}
    with served(gateway) as address:
        async with wire_client(f"ws://{address}/connection/websocket", token) as client:
            await client.rpc("run.start", request_id="1", message="before", **start)
            await client.until_event("user", "CUSTOM")
            clock.step = 3600.0
            if grace > 3600:
                assert (await client.rpc("whoami"))["user"] == "mia"
            else:
                with pytest.raises(ConnectionError):
                    await client.rpc("run.start", request_id="2", message="after", **start)
                assert await client.until_closed() == 3005
    assert got == ["before"]
