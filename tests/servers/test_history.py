"""`history` over real sockets: what is kept, from where it begins, in both directions."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from towpath.log.broker import NOTICE_RETENTION
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

EXTRA = 7
TOP = NOTICE_RETENTION.publications + EXTRA


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose one person's channel was trimmed, as after a day's use."""
    data = tmp_path_factory.mktemp("history") / "data"
    with ServerProcess(data, environment={"TOWPATH_COMMANDS_BURST": "5000"}) as process:
        asyncio.run(_fill(process))
        yield process


async def _fill(server: ServerProcess) -> None:
    async with wire_client(server.ws, server.token("alice")) as client:
        for n in range(TOP):
            await client.rpc("thread.create", request_id=f"c{n}", thread_id=f"t{n}")


async def request(server: ServerProcess, **parameters: Any) -> dict[str, Any]:
    """Return the reply to one history command on the trimmed channel."""
    async with wire_client(server.ws, server.token("alice")) as client:
        return await _ask(client, **parameters)


async def _ask(client: WireClient, **parameters: Any) -> dict[str, Any]:
    return await client.command("history", channel="user", **parameters)


def offsets(reply: dict[str, Any]) -> list[int]:
    assert "history" in reply, reply
    assert reply["history"]["offset"] == TOP
    return [one["offset"] for one in reply["history"].get("publications", ())]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"limit": 2}, [EXTRA + 1, EXTRA + 2]),
        ({"limit": 2, "since": {"offset": 0, "epoch": ""}}, [EXTRA + 1, EXTRA + 2]),
        ({"limit": 0}, []),
        ({"limit": 2, "reverse": True}, [TOP, TOP - 1]),
        ({"limit": 2, "since": {"offset": 500}}, [501, 502]),
        ({"limit": 2, "since": {"offset": 500}, "reverse": True}, [499, 498]),
        ({"limit": 5, "since": {"offset": EXTRA + 3}, "reverse": True}, [EXTRA + 2, EXTRA + 1]),
        ({"limit": 2, "since": {"offset": EXTRA}}, [EXTRA + 1, EXTRA + 2]),
        ({"limit": 2, "since": {"offset": TOP}}, []),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
async def test_r80_a_trimmed_channel_gives_what_it_keeps(
    server: ServerProcess, parameters: dict[str, Any], expected: list[int]
) -> None:
    """Without a position everything kept is returned; with one, what is after or before it."""
    assert offsets(await request(server, **parameters)) == expected


@pytest.mark.parametrize(
    "since",
    [{"offset": EXTRA - 1}, {"offset": 1}, {"offset": TOP + 1}, {"offset": 500, "epoch": "other"}],
    ids=str,
)
async def test_r80_a_position_that_is_gone_is_told(
    server: ServerProcess, since: dict[str, Any]
) -> None:
    """What lies after it is incomplete, so nothing is returned: error 112."""
    reply = await request(server, limit=2, since=since)
    assert reply["error"]["code"] == 112


async def test_a_reader_pages_through_all_that_is_kept(server: ServerProcess) -> None:
    """Page by page, upwards and downwards, each publication comes once."""
    async with wire_client(server.ws, server.token("alice")) as client:
        for reverse in (False, True):
            seen: list[int] = []
            parameters: dict[str, Any] = {"limit": 300, "reverse": reverse}
            while page := offsets(await _ask(client, **parameters)):
                seen += page
                parameters["since"] = {"offset": page[-1]}
            assert sorted(seen) == list(range(EXTRA + 1, TOP + 1))
            assert seen == sorted(seen, reverse=reverse)


async def test_a_whole_page_is_as_large_as_the_bound(server: ServerProcess) -> None:
    """A `limit` of -1 gives as many as one answer may hold."""
    assert len(offsets(await request(server, limit=-1))) == NOTICE_RETENTION.publications
    newest = offsets(await request(server, limit=-1, reverse=True))
    assert newest[0] == TOP
