"""Request ids over real sockets: the same request does nothing twice and is answered the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.servers.conversation import ask, eventually, open_thread, until_text
from tests.servers.test_approvals import ARGUMENTS, ask_to_buy
from towpath.methods.table import METHODS
from towpath.runs.interrupts import shown_digest
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

Given = dict[str, Any]
NOT_REPEATED = {"ticket.create", "digest.report"}
"""A ticket is a secret that is good once, and not to be remembered; a report changes nothing."""


async def start(client: WireClient) -> tuple[Given, Given]:
    return {"agent": "echo", "message": "hi"}, {"message": "ho"}


async def cancel(client: WireClient) -> tuple[Given, Given]:
    started = await ask(client, "count 100000 at 50/s")
    await until_text(client, started)
    return {"run_id": started.run}, {"run_id": "another"}


async def approve(client: WireClient) -> tuple[Given, Given]:
    started, interrupt = await ask_to_buy(client)
    shown = {"decision": "approve", "digest": shown_digest(ARGUMENTS)}
    return {"run_id": started.run, "interrupt_id": interrupt, **shown}, {"decision": "refuse"}


async def create(client: WireClient) -> tuple[Given, Given]:
    return {"title": "one"}, {"title": "two"}


async def rename(client: WireClient) -> tuple[Given, Given]:
    return {"thread_id": await open_thread(client), "title": "one"}, {"title": "two"}


async def delete(client: WireClient) -> tuple[Given, Given]:
    return {"thread_id": await open_thread(client)}, {"thread_id": await open_thread(client)}


async def revoke(client: WireClient) -> tuple[Given, Given]:
    return {"jti": "one"}, {"jti": "two"}


async def disconnect(client: WireClient) -> tuple[Given, Given]:
    return {"user": "nobody"}, {"user": "nobody else"}


async def publish(client: WireClient) -> tuple[Given, Given]:
    return {"name": "news", "value": 1}, {"value": 2}


CASES: dict[str, Callable[[WireClient], Awaitable[tuple[Given, Given]]]] = {
    "run.start": start,
    "run.cancel": cancel,
    "run.approve": approve,
    "thread.create": create,
    "thread.rename": rename,
    "thread.delete": delete,
    "session.revoke": revoke,
    "session.disconnect": disconnect,
    "notice.publish": publish,
}
"""For each method what is asked, and what of it is changed for another request."""


def test_p8_every_method_that_changes_something_has_a_request_id() -> None:
    """A method over REST that is no GET takes a `request_id`, and is one of the cases here."""
    changing = {one.name for one in METHODS.values() if one.route[0] != "GET"}
    assert changing - NOT_REPEATED == set(CASES)
    for name in CASES:
        assert "request_id" in METHODS[name].params.__struct_fields__


def notices(client: WireClient) -> int:
    return sum(len(client.events(channel)) for channel in ("user", "tenant"))


async def over_rest(server: ServerProcess, token: str, method: str, data: Given) -> Any:
    """Ask for the same over REST."""
    verb, path = METHODS[method].route
    url = f"{server.http}/api/v1{path.format(**data)}"
    async with httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {token}"}
        return (await http.request(verb, url, json=data, headers=headers)).json()


async def test_p8_r81_the_same_request_is_answered_the_same_whatever_happened(
    own_server: ServerProcess,
) -> None:
    """Again, over another connection, over REST, and after kill -9: one result, done once; 409."""
    token = own_server.token("repeater", role="towpath:operator")
    service = own_server.token("repeater", role="towpath:service")
    request: dict[str, tuple[Given, Given]] = {}
    first: dict[str, Any] = {}

    @asynccontextmanager
    async def clients() -> AsyncIterator[Callable[[str], WireClient]]:
        async with (
            wire_client(own_server.ws, token) as one,
            wire_client(own_server.ws, service) as two,
        ):
            yield lambda method: two if method == "notice.publish" else one

    async with clients() as client:
        for method, prepare in CASES.items():
            given, other = await prepare(client(method))
            request[method] = ({"request_id": "same", **given}, other)
            first[method] = await client(method).rpc(method, **request[method][0])

        async def quiet() -> bool:
            rows = (await client("").rpc("thread.list"))["threads"]
            return not any(row["active_run"] for row in rows)

        await eventually(quiet)
    assert first["run.cancel"] == {"status": "accepted"}
    assert first["run.approve"]["status"] == "accepted"

    async def assert_same() -> None:
        async with clients() as client:
            threads = await client("").rpc("thread.list")
            for method, (given, other) in request.items():
                assert await client(method).rpc(method, **given) == first[method], method
                mine = service if method == "notice.publish" else token
                assert await over_rest(own_server, mine, method, given) == first[method], method
                reply = await client(method).command("rpc", method=method, data={**given, **other})
                assert reply["error"]["code"] == 409, method
            assert await client("").rpc("thread.list") == threads
            assert notices(client("")) == 0, "nothing was done, so nobody is told"

    await assert_same()
    own_server.kill()
    await asyncio.to_thread(own_server.start)
    await assert_same()
