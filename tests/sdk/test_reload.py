"""A reload at every event of a run, through the real wire: always legal, always the same screen."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.events.client import judged, screen
from tests.sdk.reducer import Event
from tests.sdk.test_js_sdk import verify
from tests.servers.conversation import from_the_start, seen_in
from tests.servers.event_streams import Person, Seen
from tests.servers.paced_agents import chapters
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = [pytest.mark.servers, pytest.mark.sdk_js]

ROOT = Path(__file__).parents[2]
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an agent that says the next thing when it is told to."""
    data = tmp_path_factory.mktemp("stepping") / "data"
    application = ("--app", "tests.servers.paced_agents:gateway")
    bound = {"TOWPATH_USER_CONNECTIONS": "200"}
    with ServerProcess(data, *application, cwd=ROOT, environment=bound) as process:
        yield process


class Tab:
    """A page that comes back over its one connection with the position it has, after each event."""

    def __init__(self, client: WireClient, channel: str) -> None:
        self.events: Events = []
        self.offsets: list[int] = []
        self._client = client
        self._channel = channel
        self._pushes = 0
        self._position: dict[str, Any] = {"epoch": "", "offset": 0}

    async def come_back(self) -> None:
        """Take what came, leave, and ask for the rest."""
        await self._client.command("unsubscribe", channel=self._channel)
        self._take(self._client.publications(self._channel)[self._pushes :])
        self._pushes = len(self._client.publications(self._channel))
        request = {"channel": self._channel, "recover": True, **self._position}
        answer = (await self._client.command("subscribe", **request))["subscribe"]
        assert answer["recovered"]
        self._take(answer.get("publications", []))
        self._position = {"epoch": answer["epoch"], "offset": answer["offset"]}

    def _take(self, publications: Events) -> None:
        self.events += [one["data"] for one in publications]
        self.offsets += [one["offset"] for one in publications if "offset" in one]
        if self.offsets:
            self._position["offset"] = self.offsets[-1]


async def test_r73_r74_r75_a_reload_at_every_event_shows_the_run(
    stepping: ServerProcess, tmp_path: Path
) -> None:
    """At each event of a story a page joins by WebSocket and one by SSE, and one comes back."""
    person, thread = Person(stepping, "reloader"), uuid.uuid4().hex
    channel, count = f"thread:{thread}", len(list(chapters("")))
    joined: list[tuple[WireClient, Events]] = []
    streams: list[asyncio.Task[list[Seen]]] = []

    async with contextlib.AsyncExitStack() as pages:

        async def join() -> None:
            """Join by WebSocket, exactly now, and by SSE, which may hear more already."""
            client = await pages.enter_async_context(wire_client(stepping.ws, person.token))
            joined.append((client, seen_in(await from_the_start(client, thread))))
            stream = await pages.enter_async_context(person.join(thread))
            streams.append(asyncio.create_task(stream.rest()))

        request: dict[str, Any] = {"thread": thread, "props": {"gates": str(tmp_path)}}
        watching = await pages.enter_async_context(person.run("steps", **request))
        await anext(watching)
        back = await pages.enter_async_context(wire_client(stepping.ws, person.token))
        tab = Tab(back, channel)
        for number in range(count):
            await join()
            await tab.come_back()
            (tmp_path / str(number)).touch()
            await anext(watching)
        await watching.rest()
        for client, _ in joined:
            await client.until_event(channel, *TERMINAL)
        await back.until_event(channel, *TERMINAL)
        await tab.come_back()
        readings = [[one.event for one in await stream] for stream in streams]
    uncut = watching.events
    preludes = [len(snapshot) for _, snapshot in joined]
    readings += [[*snapshot, *client.events(channel)] for client, snapshot in joined]
    readings.append(tab.events)
    assert len(readings) == 2 * count + 1
    assert len(set(preludes)) > 5, "they joined at different moments"
    assert tab.offsets == sorted(set(tab.offsets))
    for events in readings:
        assert screen(events) == screen(uncut)
        report = judged(events)
        found = [one for one in report.diagnostics if one.severity in ("error", "warning")]
        assert (found, report.internal_errors) == ([], [])
    copies: list[list[Event]] = [[*events] for events in readings]
    assert set(await verify(*copies)) == {"legal"}
