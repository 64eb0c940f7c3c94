"""The control channel: every revocation that counts is found again, however the log was cut."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.auth.stage import NOW
from tests.auth.test_revocations import OF_EVERYBODY, OF_PEOPLE, OF_TOKENS, PRINCIPALS, named_by_any
from tests.log.brokers import ENGINES, Notes
from towpath import codes
from towpath.auth.cache import VerdictCache
from towpath.auth.policy import may_read
from towpath.auth.revocations import KEEP_SECONDS, Compacted, Revocation, Revocations, announce
from towpath.auth.service import AuthService
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.channels import CONTROL, Channel
from towpath.codes import CloseCode
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber
from towpath.errors import Conflict, StorageError
from towpath.identity import Principal
from towpath.log.broker import (
    Append,
    Broker,
    IdempotencyKey,
    Item,
    Publication,
    Replay,
    Retention,
    Write,
    retention_of,
    write,
)
from towpath.log.sqlite import batch
from towpath.log.sqlite.broker import SqliteBroker
from towpath.node import revocation_feed as room
from towpath.node.revocation_feed import RevocationFeed
from towpath.telemetry import (
    InternalError,
    RevocationsIncomplete,
    SessionsRevoked,
    Telemetry,
    TelemetryEvent,
)
from towpath.testing.memory_broker import MemoryBroker

MIA = Principal(tenant="acme", user="mia", token_id="j1", issued_at=NOW - 60)
USER = Revocation(tenant="acme", at=NOW, user="mia")
TOKEN = Revocation(tenant="acme", at=NOW, token_id="j1")
START = NOW + 1000.0
"""When a node starts that finds revocations."""
Keep = Callable[[Channel], Retention | None]


def _no_longer(_: Exception) -> None:
    raise AssertionError("nothing is verified here")


class Node:
    """What one node makes of the control channel, who is connected to it, and what it tells."""

    def __init__(self) -> None:
        self.happened: list[TelemetryEvent] = []
        self.closed: list[CloseCode] = []
        self.revocations = Revocations(KEEP_SECONDS)
        service = AuthService(
            (),
            cache=VerdictCache(monotonic=lambda: 0.0, now=lambda: NOW),
            tickets=Tickets(monotonic=lambda: 0.0),
            revocations=self.revocations,
            verdicts=SingleFlight(_no_longer),
            fetches=SingleFlight(_no_longer),
            monotonic=lambda: 0.0,
            now=lambda: NOW,
            random=lambda: 0.0,
        )
        hub = Hub(may_read, max_connections=9)
        outbox = Outbox(lambda: None, max_bytes=1000)
        hub.connect(Subscriber("c1", MIA, outbox, self.closed.append))
        self.control = RevocationFeed(service, hub, Telemetry([self.happened.append]))

    def of(self, kind: type[TelemetryEvent]) -> list[TelemetryEvent]:
        """Return what happened of one kind."""
        return [one for one in self.happened if isinstance(one, kind)]


@dataclass
class Log:
    """A log, and the nodes that hear it; each is one that starts after the last one stopped."""

    broker: Broker
    nodes: list[Node] = field(default_factory=list)

    async def start_node(self, now: float = START) -> Node:
        """Return a node that has caught up, and hears what is published from now on."""
        node = Node()
        self.nodes[:] = [node]
        await node.control.catch_up(self.broker, now)
        return node

    async def revoke(self, node: Node, *revocations: Revocation) -> None:
        """Revoke one thing after the other."""
        for one in revocations:
            await node.control.publish(self.broker, one, Write())

    async def kept(self) -> Replay:
        """Return what the log holds of the control channel."""
        return await self.broker.read(CONTROL, None)


@asynccontextmanager
async def opened(kind: str, path: Path, keep: Keep = retention_of) -> AsyncIterator[Log]:
    """Open a log of one kind; for SQLite it is the one that was there."""
    nodes: list[Node] = []

    def deliver(channel: Channel, publications: Sequence[Publication]) -> None:
        if channel == CONTROL and nodes:
            nodes[0].control.apply(publications)

    broker: Broker
    if kind == "memory":
        broker = MemoryBroker(deliver, projection=Notes(), retention=keep, now=lambda: NOW)
    else:
        broker = SqliteBroker(path / "log", deliver, Notes(), retention=keep, now=lambda: NOW)
    await broker.start()
    try:
        yield Log(broker, nodes)
    finally:
        await broker.stop()


@dataclass(frozen=True)
class Storage:
    """Where a log of one kind is."""

    kind: str
    path: Path

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Log]:
        """Open a log that drops nothing of the control channel by itself."""
        async with opened(self.kind, self.path) as log:
            yield log

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[Log]:
        """Open a log whose control channel lost its oldest revocations, as earlier versions did."""
        kept = Retention(publications=3, bytes=1 << 30, seconds=1e9, since_last=False)
        keep = [kept, None]
        async with opened(self.kind, self.path, lambda _: keep[0]) as log:
            for one in tokens(*range(9)):
                await write(log.broker, Write((announce(one),)))
            del keep[0]
            assert (await log.kept()).begins == 7
            yield log


@pytest.fixture(params=ENGINES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A place for a log of each kind."""
    return Storage(request.param, tmp_path)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COMPACT_AFTER", 5)
    monkeypatch.setattr(room, "PART", 2)
    monkeypatch.setattr(room, "SLICE", 3)


def tokens(*numbers: int, tenant: str = "acme") -> list[Revocation]:
    """Return revocations of numbered tokens."""
    return [Revocation(tenant=tenant, at=NOW + n, token_id=f"t{n}") for n in numbers]


def again(count: int, first: int = 0) -> list[Revocation]:
    """Return revocations of the same person, each later than the last."""
    moments = range(first, first + count)
    return [Revocation(tenant="acme", at=NOW + n, user="mia") for n in moments]


def is_marked(replay: Replay) -> bool:
    """Whether the channel begins with a statement of all that counts."""
    return replay.publications[0].data.startswith(b'{"type":"compacted","part":0,')


# Revoking.


async def test_r84_a_revocation_has_its_effect_when_the_log_gives_it_out(storage: Storage) -> None:
    """It closes whom it names and is told, once; repeating it writes nothing."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, TOKEN, TOKEN)
        await log.revoke(node, Revocation(tenant="acme", at=NOW + 5, token_id="j1"))
        assert node.closed == [codes.NOT_ALLOWED]
        assert node.of(SessionsRevoked) == [SessionsRevoked(tenant="acme", what="token", closed=1)]
        assert (await log.kept()).top == 1


async def test_r81_a_revocation_that_adds_nothing_is_remembered_all_the_same(
    storage: Storage,
) -> None:
    """Its request id has its answer, and is not good for another request."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, TOKEN)
        key = IdempotencyKey(("acme", "ops", "session.revoke"), "r1", "digest")
        request = Write(key=key, result=b"{}")
        written = await node.control.publish(log.broker, TOKEN, request)
        assert (written.result, written.repeated) == (b"{}", False)
        assert (await node.control.publish(log.broker, TOKEN, request)).repeated
        other = Write(key=IdempotencyKey(key.scope, "r1", "another"), result=b"{}")
        with pytest.raises(Conflict):
            await node.control.publish(log.broker, TOKEN, other)
        assert (await log.kept()).top == 1


async def test_what_was_revoked_before_a_start_is_known_and_not_told_again(
    storage: Storage,
) -> None:
    """A start closes nobody and counts nothing twice, and finds everything."""
    async with storage.opened() as log:
        await log.revoke(await log.start_node(), TOKEN, *tokens(1, 2, 3, 4, 5, 6, 7))
        node = await log.start_node()
        assert node.happened == []
        assert len(node.revocations) == 8
        assert node.revocations.revoked(MIA)


# Compacting.


async def test_r84_a_channel_that_grows_is_compacted_by_who_revokes(storage: Storage) -> None:
    """What counts no more is dropped by a write that says what does; the answer is the same."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, *again(6))
        assert (await log.kept()).begins == 1
        key = IdempotencyKey(("acme", "ops", "session.revoke"), "r1", "digest")
        request = Write(key=key, result=b"{}")
        one = Revocation(tenant="acme", at=NOW + 6, user="mia")
        written = await node.control.publish(log.broker, one, request)
        assert written.result == b"{}"
        stored = await log.broker.stored_result(key)
        assert stored is not None
        assert stored.result == b"{}"
        kept = await log.kept()
        assert (kept.begins, kept.top) == (8, 9)
        assert is_marked(kept)
        assert msgspec.json.decode(kept.publications[1].data, type=Revocation) == one
        assert len(node.of(SessionsRevoked)) == 7
        await log.revoke(node, *again(4, 7))
        assert ((await log.kept()).begins, (await log.kept()).top) == (8, 13)


async def test_a_channel_stays_within_thrice_what_counts(storage: Storage) -> None:
    """However often people are revoked, it holds what counts and as many again."""
    async with storage.opened() as log:
        node = await log.start_node()
        for turn in range(12):
            people = [Revocation(tenant="acme", at=NOW + turn, user=f"u{n}") for n in range(8)]
            await log.revoke(node, *people)
        kept = await log.kept()
        assert kept.top > 96
        assert len(kept.publications) <= 4 + 17
        assert len(node.revocations) == 8
        successor = await log.start_node()
        assert list(successor.revocations) == list(node.revocations)
        assert successor.happened == []


async def test_r84_a_compaction_repeats_what_was_known_and_closes_nobody(storage: Storage) -> None:
    """Who came in again after a revocation stays, when it is said once more."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, *again(5), *tokens(1))
        before, closed = len(node.happened), len(node.closed)
        await log.revoke(node, Revocation(tenant="other", at=NOW, user="leo"))
        assert is_marked(await log.kept())
        assert len(node.closed) == closed
        assert node.happened[before:] == [SessionsRevoked(tenant="other", what="user", closed=0)]


@pytest.mark.parametrize("missed", [0, 1])
async def test_r84_a_node_that_missed_something_learns_it_of_a_compaction(
    storage: Storage, missed: int
) -> None:
    """What it had not heard of it carries out; what it had, it does not."""
    async with storage.opened() as log:
        first = await log.start_node()
        elsewhere = [Revocation(tenant="other", at=NOW + n, user="leo") for n in range(5)]
        await log.revoke(first, *elsewhere, TOKEN)
        late = Node()
        late.control.apply((await log.kept()).publications[: 6 - missed])
        await log.revoke(first, *tokens(7))
        kept = await log.kept()
        assert is_marked(kept)
        late.control.apply(kept.publications)
        assert late.closed == [codes.NOT_ALLOWED]
        assert len(late.of(SessionsRevoked)) == 7
        assert list(late.revocations) == list(first.revocations)


async def test_r84_a_revocation_of_somebody_else_is_not_dropped_by_a_compaction(
    storage: Storage,
) -> None:
    """Where one comes in between, the compaction is refused, and comes after it."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, *again(6))
        racing = Revocation(tenant="other", at=NOW, token_id="theirs")
        ahead = log.broker.submit(Write((announce(racing),)))
        behind = node.control.publish(log.broker, TOKEN, Write())
        await asyncio.gather(ahead, behind)
        assert is_marked(await log.kept())
        successor = await log.start_node()
        for found in (node, successor):
            assert found.revocations.covers(racing)
            assert found.revocations.covers(TOKEN)


async def test_r84_all_who_revoke_at_once_are_heard(storage: Storage) -> None:
    """However many revoke while the channel is compacted, nothing is lost."""
    async with storage.opened() as log:
        node = await log.start_node()
        for turn in range(5):
            waves = [tokens(*range(turn * 4, turn * 4 + 4)), again(20, turn * 20)]
            await asyncio.gather(*(log.revoke(node, one) for wave in waves for one in wave))
        assert len(await _parts(log)) > 0
        assert list((await log.start_node()).revocations) == list(node.revocations)
        assert len(node.revocations) == 21


async def _parts(log: Log) -> list[Publication]:
    kept = (await log.kept()).publications
    return [one for one in kept if one.data.startswith(b'{"type":"compacted"')]


async def test_a_compaction_the_log_cannot_take_stops_no_revocation(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts may be more than one write can hold: then it is announced as ever."""
    async with storage.opened() as log:
        node = await log.start_node()
        await log.revoke(node, *again(6))

        class Unwritable:
            def __str__(self) -> str:
                raise ValueError("too much for one write")

        def refused(*announced: Revocation) -> Write:
            return Write((), (Unwritable(),), truncate=(CONTROL,))

        monkeypatch.setattr(node.control, "_compaction", refused)
        await log.revoke(node, *tokens(1, 2))
        successor = await log.start_node()
        assert successor.revocations.covers(tokens(1)[0])
        assert len(successor.revocations) == 3


async def test_r84_p4_a_compaction_that_is_interrupted_drops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old is dropped with the new's being there, or not at all."""
    async with opened("sqlite", tmp_path) as log:
        node = await log.start_node()
        await log.revoke(node, *again(6))
        before = await log.kept()
        real = batch.Batch._insert

        def fails(*arguments: object) -> None:
            real(*arguments)  # type: ignore[arg-type]
            raise sqlite3.OperationalError("the disk is gone")

        with monkeypatch.context() as broken:
            broken.setattr(batch.Batch, "_insert", fails)
            with pytest.raises(StorageError):
                await log.revoke(node, TOKEN)
        assert await log.kept() == before
        assert not node.revocations.covers(TOKEN)
        await log.revoke(node, TOKEN)
    async with opened("sqlite", tmp_path) as log:
        successor = await log.start_node()
        assert is_marked(await log.kept())
        assert successor.revocations.covers(TOKEN)
        assert successor.revocations.covers(again(1, 5)[0])


@given(
    st.lists(OF_TOKENS | OF_PEOPLE | OF_EVERYBODY | st.just("restart"), max_size=40),
    st.sampled_from(ENGINES),
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_r84_compactions_and_restarts_change_no_verdict(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Revocation | str], kind: str
) -> None:
    """After any revocations, compactions and restarts each verdict is what all of them say."""

    async def live() -> None:
        announced: list[Revocation] = []
        async with opened(kind, tmp_path_factory.mktemp("log")) as log:
            node = await log.start_node()
            for step in steps:
                if isinstance(step, Revocation):
                    await log.revoke(node, step)
                    announced.append(step)
                else:
                    node = await log.start_node()
            for found in (node, await log.start_node()):
                assert found.of(RevocationsIncomplete) == []
                for principal in PRINCIPALS:
                    assert found.revocations.revoked(principal) is named_by_any(
                        announced, principal
                    )

    asyncio.run(live())


# Where something is missing.


async def test_r84_a_channel_cut_for_its_age_is_whole_and_says_so_from_then_on(
    storage: Storage,
) -> None:
    """What earlier versions dropped for its age counts no more: nobody is revoked for it."""
    async with storage.cut() as cut:
        node = await cut.start_node()
        assert node.happened == []
        assert list(node.revocations) == tokens(6, 7, 8)
        kept = await cut.kept()
        assert is_marked(kept)
        assert (kept.begins, len(kept.publications)) == (11, 2)
        await cut.revoke(node, TOKEN)
        successor = await cut.start_node()
        assert successor.happened == []
        assert list(successor.revocations) == [*tokens(6, 7, 8), TOKEN]
        assert (await cut.kept()).begins == 11


async def test_r84_where_revocations_may_be_missing_everybody_is_revoked_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that may have lost some that count revokes all before, and is whole after it."""
    async with storage.cut() as cut:
        monkeypatch.setattr(room, "OLD_TOP", 8)
        node = await cut.start_node()
        reason = "the log has lost the oldest 6 revocations"
        assert node.happened == [
            RevocationsIncomplete(reason=reason),
            SessionsRevoked(tenant="", what="everybody", closed=1),
        ]
        assert node.revocations.revoked(MIA)
        await cut.revoke(node, Revocation(tenant="acme", at=START + 60, user="leo"))
        for _ in range(2):
            successor = await cut.start_node(START + 1000)
            assert successor.happened == []
            assert successor.revocations.revoked(MIA)
            later = Principal(tenant="acme", user="mia", issued_at=START + 100)
            assert not successor.revocations.revoked(later)


async def test_r84_a_channel_that_holds_nothing_any_more_may_have_lost_all(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty channel is whole only where nothing was ever in it."""
    async with storage.cut() as cut:
        assert (await cut.start_node()).happened == []
        await write(cut.broker, Write(truncate=(CONTROL,)))
        monkeypatch.setattr(room, "OLD_TOP", 8)
        assert (await cut.start_node()).of(RevocationsIncomplete) != []
        assert (await cut.start_node()).happened == []


async def test_a_channel_in_which_nothing_was_said_is_whole(storage: Storage) -> None:
    """A first start revokes nobody and writes nothing."""
    async with storage.opened() as log:
        assert (await log.start_node()).happened == []
        assert (await log.kept()).top == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"type":"revocation"}',
        b'{"type":"of a later version","tenant":"acme","at":1.0}',
        b'{"type":"compacted","part":0}',
    ],
)
async def test_r84_a_revocation_that_cannot_be_read_at_the_start_may_be_anybodys(
    storage: Storage, data: bytes
) -> None:
    """Then everybody is revoked, once; while a node runs it is a fault, and is not dropped."""
    async with storage.opened() as log:
        running = await log.start_node()
        await log.revoke(running, *again(6))
        await write(log.broker, Write((Append(CONTROL, (Item(data, {}),)),)))
        assert [one.where for one in running.happened if isinstance(one, InternalError)] == [
            "control"
        ]
        await log.revoke(running, *tokens(1, 2))
        assert any(one.data == data for one in (await log.kept()).publications)
        node = await log.start_node()
        assert node.of(RevocationsIncomplete) == [
            RevocationsIncomplete(reason="a revocation in the log cannot be read")
        ]
        assert node.revocations.revoked(MIA)
        begins = (await log.kept()).begins
        await log.revoke(node, *again(20, 2000))
        assert (await log.kept()).begins > begins
        successor = await log.start_node(START + 5000)
        assert successor.happened == []
        assert len(successor.revocations) == 2


async def test_r84_a_log_that_takes_no_writes_revokes_everybody_here_and_at_the_next_start(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the start keeps nobody's revocation from counting."""
    async with storage.cut() as cut:
        monkeypatch.setattr(room, "OLD_TOP", 8)
        real = cut.broker.submit

        def refuse(write: Write) -> "asyncio.Future[object]":
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageError("the disk is full"))
            return future

        monkeypatch.setattr(cut.broker, "submit", refuse)
        node = await cut.start_node()
        assert node.revocations.revoked(MIA)
        assert len(node.of(RevocationsIncomplete)) == len(node.of(InternalError)) == 1
        monkeypatch.setattr(cut.broker, "submit", real)
        assert len((await cut.start_node()).of(RevocationsIncomplete)) == 1
        assert (await cut.start_node()).happened == []


async def test_a_half_of_a_compacted_channel_is_not_taken_for_the_whole(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its first part says that nothing before it counts."""
    async with storage.opened() as log:
        monkeypatch.setattr(room, "OLD_TOP", 0)
        part = Compacted(part=1, revocations=(TOKEN,))
        await write(log.broker, Write((Append(CONTROL, (Item(b"{}", {}),)),)))
        item = Item(msgspec.json.encode(part), {})
        await write(log.broker, Write((Append(CONTROL, (item,)),), truncate=(CONTROL,)))
        assert (await log.start_node()).of(RevocationsIncomplete) != []


async def test_others_have_their_turn_while_a_node_catches_up(storage: Storage) -> None:
    """Many revocations are heard in slices."""
    async with storage.opened() as log:
        await log.revoke(await log.start_node(), *tokens(*range(30)))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        node, task = Node(), asyncio.create_task(other())
        await node.control._learn((await log.kept()).publications)
        task.cancel()
        assert turns >= 30 // 4
