"""A server whose log was opened by another one: fenced off, and nothing it says late stands."""

import asyncio

import httpx2
import pytest

from tests.servers.conversation import ask, eventually, from_the_start, seen_in, until_text
from towpath.events.kinds import TERMINAL
from towpath.testing.client import wire_client
from towpath.testing.server import ServerProcess

pytestmark = pytest.mark.servers


async def test_r92_a_second_server_takes_the_log_and_ends_what_ran(
    own_server: ServerProcess,
) -> None:
    """With the lock gone a second server opens the data: one ending, the first is out.

    The first one still runs, with an agent that talks: none of its words follows the ending, it
    takes no new run, and its readiness says why.
    """
    data = own_server.data
    token = own_server.token("walker")
    async with wire_client(own_server.ws, token) as before:
        started = await ask(before, "count 100000 at 200/s")
        await until_text(before, started)
        data.joinpath("towpath.lock").unlink()
        second = ServerProcess(data)
        second.log = data.with_name("second.log")
        with second:
            async with wire_client(second.ws, token) as after:
                run = await after.rpc("run.get", run_id=started.run)
                assert (run["status"], run["code"]) == ("lost", "run.lost")
                events = seen_in(await from_the_start(after, started.thread))
                assert [one.get("code") for one in events if one["type"] in TERMINAL] == [
                    "run.lost"
                ]
                refused = await before.command(
                    "rpc",
                    method="run.start",
                    data={"request_id": "late", "agent": "echo", "message": "anybody there?"},
                )
                assert refused["error"]["code"] == 100
                async with httpx2.AsyncClient(base_url=own_server.http, trust_env=False) as http:

                    async def is_out() -> bool:
                        answer = await http.get("/health/ready")
                        return answer.status_code == 503

                    await eventually(is_out)
                await asyncio.sleep(0.5)  # A hundred words of the first one's agent.
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
