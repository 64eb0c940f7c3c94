"""`HttpAgent` of `@ag-ui/client` in Node, unmodified, over HTTP and server-sent events."""

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.node_client import SCRIPTS
from tests.servers.conversation import eventually
from tests.servers.event_streams import Person
from towpath.testing.faults import FaultProxy
from towpath.testing.server import ServerProcess

pytestmark = [pytest.mark.servers, pytest.mark.sdk_js]

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/how-to/connect-from-ag-ui.md"


@pytest.fixture(scope="module")
def agui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of agents that take their time."""
    data = tmp_path_factory.mktemp("agui") / "data"
    application = "tests.servers.paced_agents:gateway"
    with ServerProcess(data, "--app", application, cwd=ROOT) as process:
        yield process


def someone(server: ServerProcess) -> Person:
    """Return a person no other test knows."""
    return Person(server, f"person-{uuid.uuid4().hex[:8]}")


def counted(number: int) -> str:
    """Return what the agent says when asked to count."""
    return " ".join(str(one) for one in range(1, number + 1))


def guide() -> str:
    """Return what the guide defines: the resuming fetch and the agent that connects."""
    blocks = re.findall(r"^```js\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    (fetch,) = [code for code in blocks if "const resumingFetch" in code]
    (agent,) = [code for code in blocks if "class ThreadAgent" in code]
    return str(fetch + agent[agent.index("class") : agent.index("const reloaded")])


class HttpAgent:
    """One run of the program."""

    def __init__(self, seen: dict[str, Any]) -> None:
        self.types: list[str] = seen["types"]
        self.errors: list[str] = seen["errors"]
        self.console: list[str] = seen["console"]
        """Warnings and errors the library printed."""
        self.messages: list[dict[str, Any]] = seen["messages"]
        self.state: Any = seen["state"]

    @property
    def answer(self) -> str:
        """The last thing the agent said."""
        return str(self.messages[-1]["content"])

    @property
    def screen(self) -> list[dict[str, Any]]:
        """The messages in an order of no meaning: what is open when one joins is told last."""
        return sorted(self.messages, key=lambda message: str(message["id"]))


async def http_agent(base: str, person: Person, agent: str = "tools", **given: Any) -> HttpAgent:
    """Run the program to its end."""
    request = {
        "url": f"{base}/agui/{agent}",
        "token": person.token,
        "threadId": uuid.uuid4().hex,
        "runId": uuid.uuid4().hex,
        "message": "hello wonderful world",
        "forwardedProps": {},
        "code": guide(),
        **given,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPTS / "agui.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, errors.decode()
    return HttpAgent(json.loads(output))


async def test_r43_the_real_client_runs_an_agent(agui: ServerProcess) -> None:
    """It sees reasoning, tool calls with results, and the text; no error and no warning."""
    seen = await http_agent(agui.http, someone(agui))
    assert (seen.errors, seen.console) == ([], [])
    assert (seen.types[0], seen.types[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    calls = [call["function"] for one in seen.messages for call in one.get("toolCalls", [])]
    assert [call["name"] for call in calls] == ["count_words", "longest_word"]
    assert json.loads(calls[0]["arguments"]) == {"text": "hello wonderful world"}
    results = [json.loads(one["content"]) for one in seen.messages if one["role"] == "tool"]
    assert results == [{"words": 3}, {"word": "wonderful"}]
    assert "wonderful" in seen.answer


async def test_r43_the_real_client_takes_every_kind_of_event(agui: ServerProcess) -> None:
    """Steps, state, activities, sub-agents and text that looks like a stream of its own."""
    props = {"pace": 0.01}
    seen = await http_agent(agui.http, someone(agui), "story", forwardedProps=props)
    assert (seen.errors, seen.console) == ([], [])
    assert seen.state == {"pages": 5}
    assert {"STEP_STARTED", "ACTIVITY_DELTA", "SUBAGENT_FINISHED", "CUSTOM"} <= set(seen.types)


async def test_a_conversation_goes_on_over_the_real_client(agui: ServerProcess) -> None:
    """A second client connects to the thread, and has the first one's conversation."""
    person, thread = someone(agui), uuid.uuid4().hex
    first = await http_agent(agui.http, person, "story", threadId=thread)
    again = await http_agent(agui.http, person, "story", threadId=thread, connect=True)
    assert (again.errors, again.console) == ([], [])
    assert again.messages == first.messages
    assert again.state == first.state


async def test_r73_the_real_client_comes_back_and_sees_one_stream(agui: ServerProcess) -> None:
    """Cut many times, at once after a reconnect too: whole text, no error, each event once."""
    person = someone(agui)
    async with FaultProxy("127.0.0.1", agui.port) as line:
        given: dict[str, Any] = {"message": "count 300 at 100/s", "resuming": True}
        running = asyncio.create_task(http_agent(line.http, person, **given))
        await line.answered.wait()  # A first request that fails is the caller's to see.
        cuts = 0
        while not running.done():
            await asyncio.sleep(0.2)
            cuts += line.cut() > 0
        seen = await running
    assert cuts > 5
    assert line.connections > 5
    assert (seen.errors, seen.console) == ([], [])
    assert seen.answer == counted(300)
    assert (seen.types.count("RUN_STARTED"), seen.types.count("RUN_FINISHED")) == (1, 1)


async def test_r73_the_real_client_renders_a_story_in_cuts_like_the_uncut_one(
    agui: ServerProcess,
) -> None:
    """With every kind of event in it, what the cut client shows is what a whole one shows."""
    person = someone(agui)
    ids = {"threadId": uuid.uuid4().hex, "runId": uuid.uuid4().hex}
    async with FaultProxy("127.0.0.1", agui.port) as line:
        given = {"forwardedProps": {"pace": 0.04}, "resuming": True, **ids}
        running = asyncio.create_task(http_agent(line.http, person, "story", **given))
        await line.answered.wait()
        while not running.done():
            await asyncio.sleep(0.15)
            line.cut()
        seen = await running
    whole = await http_agent(agui.http, person, "story", connect=True, **ids)
    assert line.connections > 3
    assert (seen.errors, seen.console) == ([], [])
    assert (seen.screen, seen.state) == (whole.screen, whole.state)


async def test_r81_the_real_client_joins_a_run_by_its_id(agui: ServerProcess) -> None:
    """A second client with the same run id, mid-run: the same answer, and one run."""
    person = someone(agui)
    ids = {"threadId": uuid.uuid4().hex, "runId": uuid.uuid4().hex}
    given = {"message": "count 100 at 100/s", **ids}
    one, two = await asyncio.gather(
        http_agent(agui.http, person, **given), http_agent(agui.http, person, **given)
    )
    assert (one.errors, two.errors) == ([], [])
    assert one.answer == two.answer == counted(100)
    assert len((await person.get(f"/threads/{ids['threadId']}/runs"))["runs"]) == 1


async def test_without_the_resuming_fetch_a_cut_is_an_error(agui: ServerProcess) -> None:
    """The cuts of these tests are real: the plain client reports one, and the run goes on."""
    person = someone(agui)
    ids = {"threadId": uuid.uuid4().hex, "runId": uuid.uuid4().hex}

    async def started() -> bool:
        run = await person.get(f"/runs/{ids['runId']}")
        return bool(run.get("status") == "running")

    async with FaultProxy("127.0.0.1", agui.port) as line:
        request = {"message": "count 100 at 50/s", **ids}
        running = asyncio.create_task(http_agent(line.http, person, **request))
        await eventually(started)
        line.cut()
        seen = await running
    assert seen.errors
    assert await started()
