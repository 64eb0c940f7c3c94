"""Scenarios for explored schedules: small worlds in which whatever may be late is.

Each is a coroutine function without arguments for `detangle.explore`. It builds a service over a
log in memory, lets people and agents act at once, and checks what must hold whoever was first. The
explorer decides which task runs next, how long an agent takes, and when and in which order the log
answers, or that it refuses.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import detangle
import msgspec

from towpath.agents.agent import AgentInput, AgentRegistry
from towpath.channels import Channel, thread_channel, user_channel
from towpath.errors import Conflict, StorageError, Unavailable
from towpath.events.fold import Fold
from towpath.events.types import TERMINAL
from towpath.identity import Principal
from towpath.log.broker import (
    Append,
    Deliver,
    IdempotencyKey,
    Position,
    Publication,
    Question,
    Span,
    Write,
    Written,
    publications_of,
)
from towpath.runs.active import ActiveRuns
from towpath.runs.deps import RunLimits
from towpath.runs.interrupts import LATE, Interrupt, InterruptStatus
from towpath.runs.lost import LostRuns
from towpath.runs.model import RunIsOver, RunKey, RunOpened
from towpath.runs.publications import items_of, notice
from towpath.runs.requests import Decision, RunRequest
from towpath.runs.run import Run
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.telemetry import InternalError, Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

T = TypeVar("T")

ALICE = Principal(tenant="acme", user="alice")
BOB = Principal(tenant="acme", user="bob")
MOMENTS = (0.0, 0.1, 0.2, 0.3)
"""How long things take, in virtual seconds."""
_BOUNDS = TERMINAL | {"RUN_STARTED"}


class LateBroker(MemoryBroker):
    """A log that keeps the order of writes, and answers each when the explorer likes.

    What it is asked it answers late too: things may have moved on when the answer comes.
    """

    refusals = 0.0
    """How likely a write is refused with StorageError."""
    stale = False
    """Whether what is read comes late too, when the world may have moved on."""
    observe: Deliver = staticmethod(lambda *_: None)
    """Gets everything that is published, also in channels that nobody reads."""

    def _append(self, append: Append, span: Span) -> None:
        self.observe(append.channel, publications_of(append, span))
        super()._append(append, span)

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        if detangle.flip(self.refusals):
            outcome: Written | BaseException = StorageError("refused by the explorer")
        else:
            done = super().submit(write)
            outcome = done.exception() or done.result()
        asyncio.get_running_loop().call_later(
            detangle.choice(MOMENTS), self._settle, answer, outcome
        )
        return answer

    async def ask(self, question: Question[T]) -> T:
        answer = await super().ask(question)
        await self._linger()
        return answer

    async def stored_result(self, key: IdempotencyKey) -> Written | None:
        answer = await super().stored_result(key)
        await self._linger()
        return answer

    async def _linger(self) -> None:
        if self.stale:
            await asyncio.sleep(detangle.choice(MOMENTS))

    @staticmethod
    def _settle(answer: "asyncio.Future[Written]", outcome: Written | BaseException) -> None:
        if answer.cancelled():
            return
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


class World:
    """A service, its log and what its agents were asked."""

    def __init__(
        self,
        *,
        refusals: float = 0.0,
        stale: bool = False,
        deadline: float = 10.0,
        patience: float = 100.0,
        double_texting: str = "reject",
        left_behind: str | None = None,
    ) -> None:
        self.delivered: list[tuple[Channel, Publication]] = []
        self.inputs: list[AgentInput] = []
        self.faults: list[BaseException] = []
        self.broker = LateBroker(lambda *_: None)
        self.broker.observe = self._observe
        self.broker.refusals, self.broker.stale = refusals, stale
        self.store = ThreadStore(self.broker)
        self._left_behind = left_behind
        registry = AgentRegistry()
        registry.register("agent", self._agent, deadline=deadline, double_texting=double_texting)
        registry.register("asks", self._interrupting, deadline=deadline)
        self.service = RunService(
            self.broker,
            self.store,
            registry,
            telemetry=Telemetry([self._watch]),
            now=detangle.now,
            limits=RunLimits(
                cleanup_seconds=0.2,
                retry_seconds=0.1,
                in_flight=2,
                interrupt_seconds=patience,
            ),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator["World"]:
        """Run the service until everything in it is over."""
        await self.broker.start()
        if self._left_behind is not None:
            await self._leave_behind(self._left_behind)
        async with self.service:
            yield self
            while self.service.active:  # noqa: ASYNC110 - the time is virtual
                await asyncio.sleep(0.1)
        assert self.faults == []

    async def start(
        self, who: Principal, request_id: str, thread: str | None = "t", agent: str = "agent"
    ) -> str:
        """Ask the agent something and return the id of the run."""
        request = RunRequest(request_id=request_id, agent=agent, thread_id=thread, message=who.user)
        return (await self.service.start(who, request)).run_id

    async def over(self, *runs: str) -> None:
        """Wait until runs of alice's are over, as long as that may take."""
        for run in runs:
            async with asyncio.timeout(60):
                while not await self.ended(run):  # noqa: ASYNC110 - the time is virtual
                    await asyncio.sleep(0.1)

    async def ended(self, run: str) -> bool:
        """Whether the terminal event of a run of alice's is in the log."""
        record = await self.store.find_run(ALICE.tenant, ALICE.user, run)
        return record is not None and record.ended_at is not None

    def ending(self, run: str) -> bool:
        """Whether the terminal event of a run of alice's is on its way to the log."""
        live = self.service._active.get((ALICE.tenant, ALICE.user, run))
        return live is not None and live.run.over

    async def turns(self) -> list[tuple[str, str]]:
        """Check alice's thread; return its runs in the order of their beginnings, with endings.

        Runs follow each other, in the order in which she was told that they were accepted.
        """
        events = await self.check(ALICE)
        started = [event["runId"] for event in events if event["type"] == "RUN_STARTED"]
        bounds = [event["type"] in TERMINAL for event in events if event["type"] in _BOUNDS]
        assert bounds == [False, True] * len(started), "one run at a time"
        notices = [
            msgspec.json.decode(one.data) for where, one in self.delivered if not where.is_thread
        ]
        names = ("towpath.run.queued", "towpath.run.started")
        accepted = dict.fromkeys(x["value"]["run_id"] for x in notices if x["name"] in names)
        assert started == list(accepted), "each at its turn"
        ends = [event for event in events if event["type"] in TERMINAL]
        hows = [end.get("code") or end["outcome"]["type"] for end in ends]
        return list(zip(started, hows, strict=True))

    async def decide(self, run: str, request_id: str, question: str, decision: str) -> str:
        """Decide for Alice at some moment, and return the status of the reply."""
        await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3, 0.5, 0.7)))
        decided = Decision(
            request_id=request_id, run_id=run, interrupt_id=question, decision=decision
        )
        return (await self.service.approve(ALICE, decided)).status

    async def check(self, who: Principal, thread: str = "t") -> list[dict[str, Any]]:
        """Check a thread's log, and return its events.

        Runs have one terminal event, their last; their numbers have no gap; everything was said by
        this person's agent; and the store holds what the log amounts to.
        """
        channel = thread_channel(who.tenant, who.user, thread)
        replay = await self.broker.read(channel, 0)
        assert replay.publications == [one for where, one in self.delivered if where == channel]
        fold, seqs = Fold(), dict[str, int]()
        events = []
        for one in replay.publications:
            event = msgspec.json.decode(one.data)
            fold.feed(event)
            events.append(event)
            seqs[one.tags["run"]] = seqs.get(one.tags["run"], 0) + 1
            assert one.tags["seq"] == str(seqs[one.tags["run"]]), "numbers have no gap"
            assert event.get("delta", f"{who.user} ") == f"{who.user} ", "nobody else's words"
        ends = [event for event in events if event["type"] in TERMINAL]
        assert len(ends) == len(seqs), "each run has one ending"
        stored = await self.store.get(who.tenant, who.user, thread)
        assert stored is not None
        assert (stored.messages, stored.state) == (fold.messages, fold.state)
        return events

    async def compare(self) -> None:
        """Check that what is stored of alice's runs is what their events in the log say, now."""
        rows = await self.store.runs(ALICE.tenant, ALICE.user, "t", limit=9)
        channel = thread_channel(ALICE.tenant, ALICE.user, "t")
        log = (await self.broker.read(channel, 0)).publications
        events: dict[str, list[dict[str, Any]]] = {row.run_id: [] for row in rows}
        for one in log:
            events[one.tags["run"]].append(msgspec.json.decode(one.data))
        for row in rows:
            assert row.status == _status_of(events[row.run_id]), "store and log agree"
            assert (row.ended_at is None) == (row.status in ("pending", "running"))

    def notices(self, who: Principal) -> list[dict[str, Any]]:
        """Return what a person was told beside their threads."""
        channel = user_channel(who.tenant, who.user)
        return [msgspec.json.decode(one.data) for where, one in self.delivered if where == channel]

    async def _leave_behind(self, name: str) -> None:
        """Write what another process wrote of a run of alice's before it was killed."""
        key = RunKey(tenant="acme", user="alice", thread="t", run=name, agent="agent")
        run = Run(key, history=[], new_id=lambda: "id")
        events = [*run.begin({"messages": []}), *run.feed("alice ")]
        opened = RunOpened(key=key, title="", thread_offset=0, at=0.0)
        first = Append(key.channel, items_of(events), fence=True)
        notices = notice(run, "towpath.run.started")
        MemoryBroker.submit(self.broker, Write((first, notices), (opened,))).result()

    async def _agent(self, request: AgentInput) -> AsyncGenerator[object, None]:
        """Say the person's name a few times, as fast as the explorer likes."""
        self.inputs.append(request)
        for _ in range(3):
            yield f"{request.context.user} "
            await asyncio.sleep(detangle.choice(MOMENTS))

    async def _interrupting(self, request: AgentInput) -> AsyncGenerator[object, None]:
        """Ask two things; with the answers, say the person's name."""
        self.inputs.append(request)
        if request.resume:
            yield f"{request.context.user} "
            return
        questions = [{"id": one, "reason": "confirmation"} for one in ("q1", "q2")]
        yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": questions}}

    def _observe(self, channel: Channel, publications: Sequence[Publication]) -> None:
        self.delivered.extend((channel, one) for one in publications)

    def _watch(self, happening: TelemetryEvent) -> None:
        if isinstance(happening, InternalError) and not isinstance(happening.error, StorageError):
            self.faults.append(happening.error)


async def endings() -> None:
    """Stop, the agent's own end and its deadline meet in one run: one ending, and it is true."""
    async with World(deadline=0.4).open() as world:
        run = await world.start(ALICE, "r1")

        async def stop() -> str:
            await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3, 0.4, 0.5)))
            return await world.service.cancel(ALICE, run)

        answers = await asyncio.gather(stop(), stop())
    last = (await world.check(ALICE))[-1]
    record = await world.store.find_run("acme", "alice", run)
    assert record is not None
    cancelled = last.get("outcome") == {"type": "cancelled"}
    assert answers.count("accepted") == int(cancelled)
    expected = "cancelled" if cancelled else "failed" if "code" in last else "finished"
    assert record.status.value == expected


async def taken_over() -> None:
    """A process that does not know a run ends it as lost while its executor goes on here.

    The run has one ending, the store agrees with it, and nobody was told otherwise.
    """
    async with World().open() as world:
        run = await world.start(ALICE, "r1")
        ended: list[str] = []

        async def look() -> None:
            await asyncio.sleep(detangle.choice((0.1, 0.2, 0.3, 0.4, 0.5)))
            deps = world.service._deps
            await LostRuns(deps, ActiveRuns(), lambda key: ended.append(key.run)).end()

        async def stop() -> str:
            await asyncio.sleep(detangle.choice((0.1, 0.3, 0.5)))
            return await world.service.cancel(ALICE, run)

        _, _, answer = await asyncio.gather(look(), look(), stop())
        await world.over(run)
    last = (await world.check(ALICE))[-1]
    record = await world.store.find_run("acme", "alice", run)
    assert record is not None
    assert await world.store.unfinished() == []
    cancelled = last.get("outcome") == {"type": "cancelled"}
    assert (answer == "accepted") <= cancelled
    assert len(ended) <= 1, "one of them ended it"
    assert ended == [run] * (last.get("code") == "run.lost")
    assert record.code == last.get("code")


async def left_behind() -> None:
    """A run was left behind; people start runs in its thread while lost runs are looked for.

    It is ended once, as lost, before the next run begins; and no run in progress is lost.
    """
    policy = detangle.choice(("queue", "interrupt"))
    async with World(stale=True, double_texting=policy, left_behind="r0").open() as world:

        async def look() -> None:
            for _ in range(4):
                await asyncio.sleep(detangle.choice(MOMENTS))
                await world.service._lost.end()

        async def begin(request_id: str) -> str:
            await asyncio.sleep(detangle.choice(MOMENTS))
            return await world.start(ALICE, request_id)

        first, second, _, _ = await asyncio.gather(begin("r1"), begin("r2"), look(), look())
        await world.over("r0", first, second)
        turns = await world.turns()
    assert turns[0] == ("r0", "run.lost")
    assert sorted(run for run, _ in turns[1:]) == sorted((first, second))
    ends = {end for _, end in turns[1:]}
    assert ends <= ({"success"} if policy == "queue" else {"success", "cancelled"})


async def truths() -> None:
    """Runs begin, wait, end and are stopped: whenever anybody looks, store and log agree."""
    async with World(deadline=0.5, double_texting="queue").open() as world:
        first = await world.start(ALICE, "r1")

        async def another() -> None:
            await asyncio.sleep(detangle.choice(MOMENTS))
            await world.start(ALICE, "r2")

        async def stop() -> None:
            await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3, 0.5)))
            await world.service.cancel(ALICE, first)

        async def look() -> None:
            for _ in range(20):
                await world.compare()
                await asyncio.sleep(detangle.choice(MOMENTS))

        await asyncio.gather(another(), stop(), look())
    await world.compare()


async def refusals() -> None:
    """The log refuses some writes while a run goes on and is stopped: no gap, one ending."""
    async with World(refusals=0.2).open() as world:
        try:
            run = await world.start(ALICE, "r1")
        except Unavailable:
            return
        await asyncio.sleep(detangle.choice(MOMENTS))
        await world.service.cancel(ALICE, run)
    await world.check(ALICE)


async def pushes() -> None:
    """The application pushes into a run while its agent speaks, a stop comes, and the log refuses.

    A push that was answered with a position is in the log there, once. Pushes with one key are one
    event with one answer. A refused push is not in the log.
    """
    refusals = detangle.choice((0.0, 0.1))
    async with World(refusals=refusals).open() as world:
        try:
            run = await world.start(ALICE, "r1")
        except Unavailable:
            return
        answers: dict[str, set[Position | None]] = {}

        async def push(name: str, key: IdempotencyKey | None = None) -> None:
            await asyncio.sleep(detangle.choice(MOMENTS))
            pushes = world.service.pushes(ALICE, run)
            answer = None
            with contextlib.suppress(RunIsOver, StorageError):
                if pushes is not None:
                    answer = await pushes.push(name, {}, key)
            answers.setdefault(name, set()).add(answer)

        async def stop() -> None:
            await asyncio.sleep(detangle.choice((0.2, 0.4, 0.8)))
            await world.service.cancel(ALICE, run)

        key = IdempotencyKey(("acme", "alice", "push"), "k", "digest")
        keyed = (push("k", key), push("k", key))
        await asyncio.gather(push("p1"), push("p2"), push("p3"), stop(), *keyed)
    await world.check(ALICE)
    record = await world.store.find_run("acme", "alice", run)
    assert record is not None
    assert refusals or record.code != "run.storage", "a log that takes all writes ends no run"
    replay = await world.broker.read(thread_channel("acme", "alice", "t"), 0)
    told: dict[str, list[int]] = {}
    for one in replay.publications:
        event = msgspec.json.decode(one.data)
        if event["type"] == "CUSTOM":
            told.setdefault(event["name"], []).append(one.offset)
    for name, given in answers.items():
        offsets = [answer.offset for answer in given if answer is not None]
        assert len(offsets) <= 1, "one answer for one event"
        assert set(offsets) <= set(told.get(name, ())), "what was answered is in the log"
        assert len(told.get(name, ())) <= 1, "no event twice"


async def strangers() -> None:
    """Two people use threads of one name at once: neither sees a word of the other."""
    async with World().open() as world:
        alice, bob = await asyncio.gather(world.start(ALICE, "r1"), world.start(BOB, "r1"))
        assert alice != bob
    for who, run in ((ALICE, alice), (BOB, bob)):
        events = await world.check(who)
        assert events[0]["runId"] == run
        assert [message["content"] for message in events[0]["input"]["messages"]] == [who.user]
        assert (
            await world.store.find_run(who.tenant, who.user, bob if run is alice else alice) is None
        )
    assert all(one.context.user == one.message for one in world.inputs)


async def twins() -> None:
    """The same request twice at once is one run; another one has its turn before or after it."""
    thread = detangle.choice((None, "t"))
    async with World().open() as world:
        first, twin, other = await asyncio.gather(
            world.start(ALICE, "r1", thread),
            world.start(ALICE, "r1", thread),
            world.start(ALICE, "r2", "t"),
            return_exceptions=True,
        )
    refused = [one for one in (first, twin, other) if not isinstance(one, str)]
    assert all(isinstance(one, Conflict) for one in refused)
    assert len({one for one in (first, twin) if isinstance(one, str)}) <= 1
    runs = {one for one in (first, twin, other) if isinstance(one, str)}
    assert runs
    assert len(world.inputs) == len(runs)
    assert thread is not None or len(runs) == 2
    await world.check(ALICE)


async def queueing() -> None:
    """Two starts queue while the active run ends: both begin, one after the other."""
    async with World(stale=True, double_texting="queue").open() as world:
        first = await world.start(ALICE, "r1")
        await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3, 0.4, 0.5, 0.6)))
        second, third = await asyncio.gather(world.start(ALICE, "r2"), world.start(ALICE, "r3"))
        await world.over(first, second, third)
        turns = await world.turns()
    assert turns[0] == (first, "success")
    assert sorted(turns[1:]) == sorted([(second, "success"), (third, "success")])
    assert len(world.inputs) == 3


async def queueing_on_a_bad_log() -> None:
    """The same while the log refuses some writes: what was accepted has its turn all the same."""
    async with World(refusals=0.2, stale=True, double_texting="queue").open() as world:
        answers = await asyncio.gather(
            *(world.start(ALICE, f"r{n}") for n in range(3)), return_exceptions=True
        )
        assert all(isinstance(one, str | Unavailable) for one in answers)
        runs = [one for one in answers if isinstance(one, str)]
        await world.over(*runs)
        turns = await world.turns() if runs else []
    assert sorted(run for run, _ in turns) == sorted(runs)
    assert {how for _, how in turns} <= {"success", "run.storage"}


async def interrupting() -> None:
    """Two starts interrupt while the active run ends: in time or not, one run is left."""
    async with World(stale=True, double_texting="interrupt").open() as world:
        first = await world.start(ALICE, "r1")
        await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3, 0.4, 0.5)))
        second, third = await asyncio.gather(world.start(ALICE, "r2"), world.start(ALICE, "r3"))
        await world.over(first, second, third)
        turns = await world.turns()
    assert turns[0][0] == first
    assert sorted(run for run, _ in turns[1:]) == sorted((second, third))
    assert {how for _, how in turns[:2]} <= {"success", "cancelled"}
    assert turns[2][1] == "success"


async def second_thoughts() -> None:
    """A queued run is cancelled when its turn comes: accepted means cancelled, and not else."""
    async with World(stale=True, double_texting="queue").open() as world:
        first = await world.start(ALICE, "r1")
        second = await world.start(ALICE, "r2")
        third = await world.start(ALICE, "r3")

        async def stop() -> str:
            await asyncio.sleep(detangle.choice((0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)))
            answer = await world.service.cancel(ALICE, second)
            assert answer == "accepted" or world.ending(second) or await world.ended(second)
            return answer

        answers = await asyncio.gather(stop(), stop())
        await world.over(first, second, third)
        turns = await world.turns()
    how = "cancelled" if "accepted" in answers else "success"
    assert turns == [(first, "success"), (second, how), (third, "success")]


DEVICES = (
    ("d1", "q1", "approve"),
    ("d1", "q1", "approve"),
    ("d2", "q1", "refuse"),
    ("d3", "q2", "refuse"),
    ("d4", "q2", "approve"),
)
"""What is decided at once on two questions: request id, question, decision. The first is a twin."""


async def decisions() -> None:
    """Devices decide on two questions at once, while they may expire or the thread may go on.

    Each question has one answer, everybody was told that one, and the run goes on once, with both
    answers, if and only if somebody gave them.
    """
    async with World(stale=True, patience=1.0).open() as world:
        run = await _asked_by(world)
        await asyncio.sleep(detangle.choice((0.0, 0.3)))
        replies = await asyncio.gather(*(world.decide(run, *one) for one in DEVICES), _go_on(world))
        await asyncio.sleep(2.0)
    questions = await world.store.interrupts("acme", "alice", run)
    decisions = _check_replies(questions, replies)
    events = await world.check(ALICE)
    going_on = [event for event in events if event.get("parentRunId") == run]
    assert len(going_on) == int(len(decisions) == 2)
    for event in going_on:
        answers = {one["interruptId"]: one["payload"] for one in event["input"]["resume"]}
        assert answers == {key: {"approved": how == "approve"} for key, how in decisions.items()}
    assert sum(bool(one.resume) for one in world.inputs) == len(going_on)
    expired = any(one.status is InterruptStatus.EXPIRED for one in questions)
    names = [event["name"] for event in world.notices(ALICE)]
    assert names.count("towpath.interrupt.expired") <= int(expired)


def _check_replies(questions: Sequence[Interrupt], replies: Sequence[str | None]) -> dict[str, str]:
    """Check that everybody was told what is stored; return what was decided, by question."""
    assert replies[0] == replies[1], "the same request gets the same reply"
    given = list(zip(DEVICES, replies, strict=False))
    accepted = {device for device, reply in given if reply == "accepted"}
    decisions = {question: how for _, question, how in accepted}
    assert len(decisions) == len(accepted), "one decision each"
    ways = {"approve": {InterruptStatus.APPROVED}, "refuse": {InterruptStatus.REFUSED}}
    for one in questions:
        assert one.status in ways.get(
            decisions.get(one.id, ""), {InterruptStatus.EXPIRED, InterruptStatus.GONE}
        )
        delivered = {reply for (_, question, _), reply in given if question == one.id}
        assert delivered <= {"accepted", LATE[one.status]}, "nobody was told anything else"
    return decisions


async def _asked_by(world: World) -> str:
    """Let a run ask its two questions, and return its id."""
    run = await world.start(ALICE, "r1", agent="asks")
    while world.service.active:  # noqa: ASYNC110 - the time is virtual
        await asyncio.sleep(0.1)
    return run


async def _go_on(world: World) -> None:
    """Perhaps start a run that answers nothing, at some moment."""
    await asyncio.sleep(detangle.choice((0.1, 0.5, 0.9)))
    if detangle.flip(0.3):
        with contextlib.suppress(Conflict):
            await world.start(ALICE, "r2")


async def answers() -> None:
    """The same answers come twice with a start, and once as decisions: one run continues."""
    answered = [
        {"interruptId": one, "status": "resolved", "payload": {"approved": True}}
        for one in ("q1", "q2")
    ]

    async def resume(request_id: str) -> str:
        await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3)))
        given = {"messages": [], "resume": answered}
        started = RunRequest(request_id=request_id, agent="asks", thread_id="t", input=given)
        return (await world.service.start(ALICE, started)).run_id

    async with World(stale=True).open() as world:
        run = await _asked_by(world)
        first, twin, *_ = await asyncio.gather(
            resume("s1"),
            resume("s1"),
            resume("s2"),
            world.decide(run, "d1", "q1", "refuse"),
            world.decide(run, "d2", "q2", "refuse"),
            return_exceptions=True,
        )
    events = await world.check(ALICE)
    assert first == twin or not {type(first), type(twin)} & {str}
    going_on = [event for event in events if event.get("parentRunId") == run]
    assert len(going_on) == 1
    assert len(going_on[0]["input"]["resume"]) == 2


def _status_of(events: list[dict[str, Any]]) -> str:
    """Return the status that the events of a run amount to."""
    if not events:
        return "pending"
    last = events[-1]
    if last["type"] == "RUN_ERROR":
        return "lost" if last["code"] == "run.lost" else "failed"
    if last["type"] != "RUN_FINISHED":
        return "running"
    outcome = str(last["outcome"]["type"])
    return {"success": "finished", "interrupt": "interrupted"}.get(outcome, outcome)
