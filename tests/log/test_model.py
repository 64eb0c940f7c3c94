"""The broker against a list: random writes to several channels, reads from random positions."""

import asyncio
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.log.brokers import ENGINES, NOTICES, OTHER, TALK, Engine, items
from towpath.channels import Channel
from towpath.errors import Conflict, StorageError
from towpath.log.broker import Append, Broker, IdempotencyKey, Write

CHANNELS = (TALK, OTHER, NOTICES)
texts = st.lists(st.text("xyz", min_size=1, max_size=4), min_size=1, max_size=4)


class Against(RuleBasedStateMachine):
    """A broker and its expected content."""

    kind = "memory"

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.place = tempfile.TemporaryDirectory()
        self.engine = Engine(self.kind, Path(self.place.name) / "log.sqlite3")
        self.model: dict[Channel, list[bytes | None]] = {channel: [] for channel in CHANNELS}
        self.lost: dict[Channel, int] = dict.fromkeys(CHANNELS, 0)
        self.keys: dict[str, tuple[str, bytes]] = {}
        self.running: AbstractAsyncContextManager[Broker] = self.engine.running()
        self.broker = self.run(self.running.__aenter__())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def submitted(self, *writes: Write) -> list[Any]:
        futures = [self.broker.submit(write) for write in writes]
        return list(await asyncio.gather(*futures, return_exceptions=True))

    def grow(self, channel: Channel, content: list[str]) -> int:
        self.model[channel] += [text.encode() for text in content]
        return len(self.model[channel])

    @rule(parts=st.lists(st.tuples(st.sampled_from(CHANNELS), texts), min_size=1, max_size=4))
    def write_at_once(self, parts: list[tuple[Channel, list[str]]]) -> None:
        appends = tuple(Append(channel, items(*content)) for channel, content in parts)
        (written,) = self.run(self.submitted(Write(appends)))
        for (channel, content), span in zip(parts, written.spans, strict=True):
            assert self.grow(channel, content) == span.last
            assert span.first == span.last - len(content) + 1

    @rule(parts=st.lists(st.tuples(st.sampled_from(CHANNELS), texts), min_size=2, max_size=6))
    def write_one_after_another(self, parts: list[tuple[Channel, list[str]]]) -> None:
        writes = [Write((Append(channel, items(*content)),)) for channel, content in parts]
        for (channel, content), written in zip(
            parts, self.run(self.submitted(*writes)), strict=True
        ):
            assert self.grow(channel, content) == written.spans[0].last

    @rule(channel=st.sampled_from(CHANNELS), content=texts, wrong=st.integers(-2, 2))
    def write_after(self, channel: Channel, content: list[str], wrong: int) -> None:
        after = len(self.model[channel]) + wrong
        (outcome,) = self.run(
            self.submitted(Write((Append(channel, items(*content), after=after),)))
        )
        if wrong:
            assert isinstance(outcome, StorageError)
        else:
            assert self.grow(channel, content) == outcome.spans[0].last

    @rule(channel=st.sampled_from(CHANNELS), content=texts, fact=st.sampled_from(["yes", "no"]))
    def write_facts(self, channel: Channel, content: list[str], fact: str) -> None:
        write = Write((Append(channel, items(*content)),), (fact,))
        plain = Write((Append(channel, items("p")),))
        outcome, _ = self.run(self.submitted(write, plain))
        assert isinstance(outcome, Conflict) == (fact == "no")
        if fact == "yes":
            self.grow(channel, content)
        self.grow(channel, ["p"])

    @rule(
        request=st.sampled_from(["r1", "r2", "r3"]),
        digest=st.sampled_from(["d1", "d2"]),
        content=texts,
    )
    def write_keyed(self, request: str, digest: str, content: list[str]) -> None:
        result = f"{request} {digest} {len(self.keys)}".encode()
        write = Write(
            (Append(TALK, items(*content)),),
            key=IdempotencyKey(("acme", "alice", "m"), request, digest),
            result=result,
        )
        (outcome,) = self.run(self.submitted(write))
        earlier = self.keys.get(request)
        if earlier is None:
            assert (outcome.result, outcome.repeated) == (result, False)
            self.keys[request] = (digest, result)
            self.grow(TALK, content)
        elif earlier[0] == digest:
            assert (outcome.result, outcome.repeated) == (earlier[1], True)
        else:
            assert isinstance(outcome, Conflict)

    @rule(channel=st.sampled_from(CHANNELS), content=texts, before=st.booleans())
    def truncate(self, channel: Channel, content: list[str], before: bool) -> None:
        writes = [Write(truncate=(channel,))]
        if before:
            writes.insert(0, Write((Append(channel, items(*content)),)))
            self.grow(channel, content)
        self.run(self.submitted(*writes))
        if self.model[channel]:  # Forgetting takes an offset.
            self.model[channel].append(None)
        self.lost[channel] = len(self.model[channel])

    @rule(channel=st.sampled_from(CHANNELS), after=st.integers(0, 40), known=st.booleans())
    def read(self, channel: Channel, after: int, known: bool) -> None:
        top = len(self.model[channel])
        here = self.run(self.broker.read(channel, top)).epoch
        replay = self.run(self.broker.read(channel, after, epoch=here if known else None))
        assert replay.top == top
        assert replay.gone == (after > top or after < self.lost[channel])
        expected = [] if replay.gone else self.model[channel][after:]
        assert [p.data for p in replay.publications] == expected
        offsets = [p.offset for p in replay.publications]
        assert offsets == list(range(after + 1, after + 1 + len(expected)))

    @invariant()
    def all_was_delivered_in_order(self) -> None:
        for channel in CHANNELS:
            delivered = self.engine.deliveries.of(channel)
            expected = [(at, data) for at, data in enumerate(self.model[channel], 1) if data]
            assert [(p.offset, p.data) for p in delivered] == expected

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.running.__aexit__(None, None, None))
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            self.place.cleanup()


class AgainstSqlite(Against):
    """The same, with a file that may be closed and opened."""

    kind = "sqlite"

    @rule()
    def reopen(self) -> None:
        self.run(self.running.__aexit__(None, None, None))
        self.running = self.engine.running()
        self.broker = self.run(self.running.__aenter__())


@pytest.mark.parametrize("kind", ENGINES)
def test_p2_r78_replay_from_anywhere_is_the_suffix(kind: str) -> None:
    """After any writes, a past position gets exactly the publications after it.

    Nothing is shrunk: a failing case is some twenty steps, and each costs a file.
    """
    machine = {"memory": Against, "sqlite": AgainstSqlite}[kind]
    bounds = settings(
        max_examples=40, stateful_step_count=20, deadline=None, phases=[Phase.generate]
    )
    run_state_machine_as_test(machine, settings=bounds)
