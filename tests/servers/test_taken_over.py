"""A server whose log was opened by another one: fenced off, and nothing it says late stands."""

import asyncio

import pytest

from tests.servers.conversation import ask, from_the_start, seen_in, until_ended, until_text
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


async def test_r92_a_second_server_takes_the_log_and_ends_what_ran(
    own_server: ServerProcess,
) -> None:
    """With the lock gone a second server opens the data: one ending, and the first one leaves.

    The first one's agent talks on meanwhile: none of its words follows the ending.
    """
    data, process = own_server.data, own_server.process
    assert process is not None
    token = own_server.token("walker")
    async with wire_client(own_server.ws, token) as before:
        started = await ask(before, "count 100000 at 20/s")
        await until_text(before, started)
        data.joinpath("towpath.lock").unlink()
        second = ServerProcess(data)
        second.log = data.with_name("second.log")
        with second:
            async with wire_client(second.ws, token) as after:
                run = await until_ended(after, started.run)
                assert (run["status"], run["code"]) == ("lost", "run.lost")
                events = seen_in(await from_the_start(after, started.thread))
                assert [one.get("code") for one in events if one["type"] in TERMINAL] == [
                    "run.lost"
                ]
                assert await before.until_closed(seconds=20) == 3001
                assert await asyncio.to_thread(process.wait, 20) == 4
                again = await ask(after, "hello", agent="echo", thread=started.thread)
                await after.until_event(again.channel, *TERMINAL)
                history = await after.command("history", channel=started.channel, limit=-1)
                kept = history["history"]["publications"]
                assert [one["offset"] for one in kept] == list(range(1, len(kept) + 1))
                runs = list(dict.fromkeys(one["tags"]["run"] for one in kept))
                assert runs == [started.run, again.run]
                ends = [one["data"]["type"] in TERMINAL for one in kept]
                assert sum(ends) == 2
                assert ends[-1]
