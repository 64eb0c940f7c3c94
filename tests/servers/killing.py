"""Kills a server over and over while people use it, and judges the one history that comes of it.

Server and data directory stay the same over as many stretches as wanted. A stretch has people of
its own; each of its kills comes at a named point of `tests.kit.crashes`, by the process's own
hand, or at a random moment. In the end the people finish what they do, and what they were told and
answered is held against the log.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.crashes import PLACES, POINTS, RECORDINGS, VARIABLE, crash_message
from tests.kit.history import Given, History, Log, RunState, Violation
from tests.kit.verdict import check
from tests.recordings import FOLDER
from tests.sdk.client import OpenClient
from tests.sdk.python_client import open_python
from tests.servers.people import Person
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

NAMES = ("alice", "bob", "carol")
CONVERSATIONS = 2
"""Threads of each person."""
PAGE = 500
"""How many publications one request reads."""
PATIENCE = 25.0
"""How long users may need to finish after the last kill, in seconds."""
REACHED = 25.0
"""How long a server may run before a point counts as unreachable, in seconds."""

REACHED_BY: Mapping[str, str] = {
    "opening": "tell",
    "event": "tell",
    "ending": "tell",
    "cancel": "stop",
    "question": "buy",
    "decision": "buy",
    "expiry": "hurry",
    "queueing": "queue",
    "withdrawal": "withdraw",
    "turn": "queue",
    "sweep": "tell",
    "between": "tell",
    "delivery.before": "tell",
    "delivery.after": "tell",
    "reply": "tell",
    "way": "interrupt",
    "join": "tell",
    "loss": "tell",
    "start": "tell",
    "recovering": "tell",
    "resuming": "queue",
    "drained": "tell",
    "drain": "tell",
}
"""The action that reaches a point, by the point's name without its moment."""
AT_THE_START = frozenset({"loss", "start", "recovering", "resuming"})
"""Points that are reached at the start of a server, or soon after it."""
AT_THE_STOP = frozenset({"drained", "drain"})
"""Points that are reached after a server gets SIGTERM."""
ONCE = AT_THE_START | AT_THE_STOP | {"sweep"}
"""Points that a server passes once."""
OFTEN = frozenset({"event", "between", "delivery.before", "delivery.after", "reply"})
"""Points that are passed many times a second."""


@dataclass(frozen=True)
class Kill:
    """One kill of a server."""

    point: str | None
    """The named point; None for a random moment."""
    number: int = 1
    """The number of the passing at which it happens."""
    delay: float = 0.0
    """Seconds of work before the kill, for a random moment."""

    @property
    def name(self) -> str:
        """The name of the point without its moment."""
        point = self.point or ""
        return point if point in PLACES else point.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.point}:{self.number}" if self.point else f"after {self.delay:.3f} s"


def at(point: str, chance: random.Random) -> Kill:
    """Return a kill at a point, at one of its first passings."""
    kill = Kill(point)
    if kill.name in OFTEN:
        return Kill(point, chance.randrange(1, 60))
    return kill if kill.name in ONCE else Kill(point, chance.randrange(1, 3))


def anywhere(chance: random.Random) -> Kill:
    """Return a kill at a random moment."""
    return Kill(None, delay=chance.uniform(0, 0.8))


def anyhow(chance: random.Random) -> Kill:
    """Return a kill at a random point or moment."""
    return at(chance.choice(POINTS), chance) if chance.random() < 0.6 else anywhere(chance)


class NotReached(AssertionError):
    """A server did not die at its named point."""


class Unfinished(AssertionError):
    """A user still waits, though the server is up."""


class Killing:
    """One server over one data directory, killed in stretches."""

    def __init__(self, data: Path) -> None:
        arguments = ("--app", "tests.kit.crashes:gateway")
        limits = {"TOWPATH_RUNS_PER_SECOND": "1000", "TOWPATH_RUNS_BURST": "1000"}
        limits |= {"TOWPATH_COMMANDS_PER_SECOND": "1000", "TOWPATH_ERRORS": "10000"}
        recorded = {RECORDINGS: str(FOLDER)}
        self.server = ServerProcess(data, *arguments, environment=limits | recorded)
        self.kills = 0
        """The number of kills so far."""
        self.on_kill: Callable[[Kill], None] = lambda _: None
        """Called with each kill."""
        self._stretches = 0
        self._read = 0

    def close(self) -> None:
        """End what still runs."""
        if self.server.process is not None:
            self.server.kill()

    async def stretch(
        self,
        kills: Sequence[Kill],
        *,
        seed: object,
        clients: Sequence[OpenClient],
        devices: Sequence[OpenClient] = (),
    ) -> list[Violation]:
        """Kill the server in these ways while users work; return the violations in their history.

        Args:
            kills: in this order.
            seed: for the actions of users.
            clients: open the clients of users, in turn.
            devices: open second devices of the first users.

        Raises:
            ExceptionGroup: of NotReached, where a named point was not reached, or Unfinished.
        """
        try:
            return await self._stretch(kills, seed, clients, devices)
        except Exception as error:
            error.add_note(f"seed {seed!r}: {', '.join(map(str, kills))}")
            raise

    async def _stretch(
        self,
        kills: Sequence[Kill],
        seed: object,
        clients: Sequence[OpenClient],
        devices: Sequence[OpenClient],
    ) -> list[Violation]:
        self._stretches += 1
        chance = random.Random(str(seed))
        async with contextlib.AsyncExitStack() as stack:
            await self._launch(None)
            people = []
            for index, name in enumerate(NAMES):
                user = f"{name}-{self._stretches}"
                more = devices[index : index + 1]
                opened = [
                    await stack.enter_async_context(open_client(self.server.ws, self._token(user)))
                    for open_client in (clients[index % len(clients)], *more)
                ]
                person = Person(user, opened[0], random.Random(f"{seed} {name}"))
                await person.settle_in(CONVERSATIONS, opened[1:])
                people.append(person)
            try:
                async with asyncio.TaskGroup() as group:
                    await self._live_through(kills, people, chance, group, stack)
            except Exception as error:
                await self._launch(None)
                for violation in check(await self._history(people))[:20]:
                    error.add_note(str(violation))
                raise
            return check(await self._history(people))

    async def _live_through(
        self,
        kills: Sequence[Kill],
        people: Sequence[Person],
        chance: random.Random,
        group: asyncio.TaskGroup,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        """Kill the server in these ways while people use it, and newcomers begin to read."""
        over = asyncio.Event()
        lives = [
            group.create_task(
                person.live(conversation, over), name=f"{person.name} {conversation.channel}"
            )
            for person in people
            for conversation in person.conversations
        ]
        for kill in kills:
            newcomer = chance.choice(people)
            client = open_python(self.server.ws, self._token(newcomer.name))
            device = await stack.enter_async_context(client)
            joining = newcomer.join_in(f"{kill}", device, chance.uniform(0.3, 2))
            lives.append(group.create_task(joining, name=f"newcomer of {newcomer.name}"))
            await self._kill(kill, people, chance)
        await self._launch(None)
        over.set()
        _, left = await asyncio.wait(lives, timeout=PATIENCE)
        if left:
            raise Unfinished(f"after {PATIENCE:.0f} s: {[task.get_name() for task in left]}")

    def _token(self, user: str) -> str:
        return self.server.token(user, ttl=24 * 3600)

    async def _kill(self, kill: Kill, people: Sequence[Person], chance: random.Random) -> None:
        """Let the server live until it dies in this way."""
        for person in people:
            person.wanted = REACHED_BY[kill.name] if kill.point else None
        if kill.name in AT_THE_START:
            await self._launch(None)
            await self._until_at_work(people)
            await self._at_random(chance.uniform(0, 0.1))
            self._start_process(kill)
            await self._until_dead(kill)
        elif kill.name in AT_THE_STOP:
            await self._launch(kill)
            await self._until_at_work(people)
            assert self.server.process is not None, "it was launched"
            self.server.process.send_signal(signal.SIGTERM)
            await self._until_dead(kill)
        elif kill.point is None:
            await self._launch(None)
            await self._at_random(kill.delay)
        else:
            self._start_process(kill)
            await self._until_dead(kill)
        self.kills += 1
        self.on_kill(kill)

    async def _until_at_work(self, people: Sequence[Person]) -> None:
        """Wait until some runs are active, which a kill leaves behind and a stop has to end."""
        conversations = [one for person in people for one in person.conversations]
        started = [(one, len(one.reader.deliveries)) for one in conversations]
        async with asyncio.timeout(REACHED):
            while sum(one.at_work(since) for one, since in started) < len(people):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _at_random(self, delay: float) -> None:
        await asyncio.sleep(delay)
        status = await asyncio.to_thread(self.server.kill)
        assert status == -signal.SIGKILL, f"the server ended by itself: {status}\n{self._output()}"

    async def _until_dead(self, kill: Kill) -> None:
        """Wait until the process has killed itself at its point."""
        process, loop = self.server.process, asyncio.get_running_loop()
        assert process is not None, "it was launched"
        deadline = loop.time() + REACHED
        while process.poll() is None and loop.time() < deadline:  # noqa: ASYNC110 - a process.
            await asyncio.sleep(0.02)
        if process.poll() is None:
            await asyncio.to_thread(self.server.kill)
            raise NotReached(f"{kill} was not reached in {REACHED:.0f} s")
        output = self._output()
        if process.returncode != -signal.SIGKILL or crash_message(kill.point or "") not in output:
            raise NotReached(f"the server ended {process.returncode} before {kill}:\n{output}")

    def _output(self) -> str:
        """Return what the server wrote to its log since the last launch."""
        with self.server.log.open("rb") as log:
            log.seek(self._read)
            return log.read().decode(errors="replace")[-4000:]

    def _start_process(self, kill: Kill | None) -> None:
        """Start the server with its crash point, once the one before is dead."""
        process = self.server.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._read = self.server.log.stat().st_size if self.server.log.exists() else 0
        self.server.environment.pop(VARIABLE, None)
        if kill is not None and kill.point is not None:
            self.server.environment[VARIABLE] = f"{kill.point}:{kill.number}"
        self.server.launch()

    async def _launch(self, kill: Kill | None) -> None:
        """Start the server and wait until it is ready."""
        self._start_process(kill)
        await asyncio.to_thread(self.server.await_ready)

    async def _history(self, people: Sequence[Person]) -> History:
        """Ask the server for the state of these users' threads and runs."""
        logs: list[Log] = []
        runs: list[RunState] = []
        for person in people:
            async with wire_client(self.server.ws, self._token(person.name)) as client:
                channels = [conversation.channel for conversation in person.conversations]
                mine = [await _log(client, person.name, channel) for channel in channels]
                runs += [
                    await _state(client, person.name, run) for run in sorted(_known(mine, person))
                ]
                mine.append(await _log(client, person.name, "user"))
                await _until_received(person, mine)
                logs += mine
        return History(
            logs=logs,
            readings=[reading for person in people for reading in person.readings()],
            runs=[state for state in runs if state.status],
            starts=[one for person in people for one in person.starts],
            stopped=[one for person in people for one in person.stopped],
            decided=[one for person in people for one in person.decided],
        )


def _known(logs: Sequence[Log], person: Person) -> set[str]:
    """Return every run that is named in a user's logs or replies."""
    runs = {one.tags["run"] for log in logs for one in log.publications if "run" in one.tags}
    runs |= {one.run for one in person.starts if one.run is not None}
    return runs | {one.continuation for one in person.decided if one.continuation is not None}


async def _log(client: WireClient, owner: str, channel: str) -> Log:
    """Read a whole channel, from its first publication on."""
    messages = None
    if channel != "user":
        await client.command("subscribe", channel=channel)
        view = await client.rpc("thread.get", thread_id=channel.partition(":")[2], limit=200)
        messages = None if view["more"] else view["messages"]
    publications: list[Given] = []
    while True:
        since = {"offset": len(publications), "epoch": ""}
        reply = await client.command("history", channel=channel, limit=PAGE, since=since)
        assert "history" in reply, reply
        page = reply["history"].get("publications", ())
        publications += (
            Given(event=one["data"], offset=one["offset"], tags=one.get("tags", {})) for one in page
        )
        if not page:
            break
    epoch = reply["history"]["epoch"]
    return Log(
        owner=owner, channel=channel, epoch=epoch, publications=publications, messages=messages
    )


async def _state(client: WireClient, owner: str, run: str) -> RunState:
    """Return the state of a run; its status is empty if it is unknown."""
    reply = await client.command("rpc", method="run.get", data={"run_id": run})
    if "rpc" not in reply:
        assert reply["error"]["code"] == 404, reply
        return RunState(owner=owner, run=run, status="")
    state: dict[str, Any] = reply["rpc"]["data"]
    answers = {one["interrupt_id"]: one["status"] for one in state["interrupts"]}
    return RunState(
        owner=owner, run=run, status=state["status"], code=state.get("code"), answers=answers
    )


async def _until_received(person: Person, logs: Sequence[Log]) -> None:
    """Wait until all of a user's readers have reached the top; what is missing then is lost."""
    tops = {log.channel: len(log.publications) for log in logs}

    def complete() -> bool:
        return all(
            _last_offset(reading.received) >= tops[reading.channel] for reading in person.readings()
        )

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while not complete():  # noqa: ASYNC110 - what SDKs received.
                await asyncio.sleep(0.05)


def _last_offset(received: Sequence[Any]) -> int:
    return max((one.offset for one in received), default=0)
