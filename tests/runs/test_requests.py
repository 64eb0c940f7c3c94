"""Requests: valid from birth, and the same bytes in every version."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runs.stage import ALICE, saying, staged
from towpath.channels import (
    user_channel,
)
from towpath.errors import BadRequest
from towpath.identity import Principal
from towpath.log.broker import (
    IdempotencyKey,
    Span,
    Write,
    Written,
    write,
)
from towpath.runs.model import RunKey, RunQueued
from towpath.runs.requests import (
    Decided,
    Decision,
    QueuedRequest,
    RunRequest,
    Started,
    result_of,
)

USER = {"id": "m1", "role": "user", "content": "hi"}
TEXT = (
    '{"asked":{"request_id":"q1","agent":"agent","thread_id":"t1","message":"hello é",'
    '"input":null,"run_id":"r1"},'
    '"messages":[{"id":"m0","role":"user","content":"hello é"}],"roles":["admin","ops"]}'
).encode()
"""A queued message as versions before this one stored it."""
INPUT = (
    b'{"asked":{"request_id":"q2","agent":"agent","thread_id":"t1","message":null,'
    b'"input":{"messages":[{"id":"m1","role":"user","content":"hi"}],"state":{"n":1},'
    b'"forwardedProps":null},"run_id":"r2"},'
    b'"messages":[{"id":"m1","role":"user","content":"hi"}],"roles":[]}'
)
"""A queued input as versions before this one stored it, and as this one does."""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request_id": ""}, "request_id"),
        ({"run_id": "a\nb"}, "run_id"),
        ({"thread_id": "é" * 125}, "thread_id"),
        ({"message": None}, "either"),
        ({"input": {"messages": []}}, "either"),
        ({"message": " \n"}, "empty"),
        ({"message": None, "input": {}}, "messages"),
        ({"message": None, "input": {"messages": "hi"}}, "messages"),
        ({"message": None, "input": {"messages": [{"id": 1, "role": "user"}]}}, "messages"),
        ({"message": None, "input": {"messages": [{"id": "m"}]}}, "messages"),
    ],
)
def test_an_invalid_request_cannot_be_made(fields: dict[str, Any], reason: str) -> None:
    """Neither by a call nor from JSON: there is none that has to be checked."""
    whole = {"request_id": "q", "agent": "a", "message": "hi", **fields}
    with pytest.raises(BadRequest, match=reason):
        RunRequest(**whole)
    with pytest.raises(BadRequest, match=reason):
        msgspec.json.decode(msgspec.json.encode(whole), type=RunRequest)


def test_the_gateway_adds_the_ids_that_are_missing() -> None:
    """Of message, thread and run; ids that the client chose stay, and so does its input."""
    ids = (f"id{n}" for n in itertools.count(1))
    request = RunRequest(request_id="q", agent="a", message="hi").with_ids(lambda: next(ids))
    assert request.messages == [{"id": "id1", "role": "user", "content": "hi"}]
    key = request.run_key(ALICE)
    assert (key.tenant, key.user, key.thread, key.run, key.agent) == (
        *("acme", "alice", "id2", "id3", "a"),
    )
    chosen = RunRequest(
        request_id="q", agent="a", thread_id="t", run_id="r", input={"messages": [USER], "state": 1}
    )
    assert chosen.with_ids(lambda: "new") == chosen
    assert chosen.run_input == {"messages": [USER], "state": 1}


def test_r91_a_queued_request_is_read_as_it_was_stored() -> None:
    """The names in data directories are the same before and after this version."""
    text = msgspec.json.decode(TEXT, type=QueuedRequest)
    assert text.request == RunRequest(
        request_id="q1", agent="agent", thread_id="t1", message="hello é", run_id="r1"
    )
    assert text.messages == [{"id": "m0", "role": "user", "content": "hello é"}]
    assert text.roles == ["admin", "ops"]
    for stored in (TEXT, INPUT):
        assert msgspec.json.encode(msgspec.json.decode(stored, type=QueuedRequest)) == stored


@pytest.mark.parametrize(("stored", "content"), [(TEXT, "hello é"), (INPUT, "hi")])
async def test_r91_a_run_that_an_earlier_version_queued_begins(
    stored: bytes, content: str, tmp_path: Path
) -> None:
    """Its request is read from the data directory, and its agent gets the message."""
    request = msgspec.json.decode(stored)["asked"]
    key = RunKey(tenant="acme", user="alice", thread="t1", run=request["run_id"], agent="agent")
    async with staged("sqlite", tmp_path, enter=False) as stage:
        fact = RunQueued(key=key, request=stored, at=1_000.0)
        await write(stage.broker, Write(facts=(fact,)))
        stage.cast(saying("answer"))
        async with stage.service:
            await stage.done(key.run)
        started = (await stage.events())[0]
        assert (started["type"], started["runId"]) == ("RUN_STARTED", key.run)
        assert [one["content"] for one in started["input"]["messages"]] == [content]


@pytest.mark.parametrize(
    ("request_", "digest"),
    [
        (
            RunRequest(request_id="q3", agent="a", message="hi"),
            "f1261fa2b90e7ac9a0531d6e0cba33916b507822c9ffbf9af05bc340dba78eaf",
        ),
        (
            RunRequest(
                request_id="q2",
                agent="queue",
                thread_id="t1",
                run_id="r2",
                input={"messages": [USER], "state": {"n": 1}, "forwardedProps": None},
            ),
            "9eea2b9a10698afc877bcd35932a62b19a37869d812d960f79e00d37116c570a",
        ),
        (
            Decision(
                request_id="d1",
                run_id="r",
                interrupt_id="i",
                decision="approve",
                payload={"a": 1},
                digest="00",
            ),
            "63b05b6a4c6c8531b453860b722b41795050ad9303785b7a7213c50c9ee6a595",
        ),
    ],
)
def test_p8_a_repetition_across_an_upgrade_is_the_same_request(
    request_: RunRequest | Decision, digest: str
) -> None:
    """The digests that earlier versions stored are those that this one makes."""
    who = Principal(tenant="acme", user="alice")
    assert IdempotencyKey.of(who, "m", request_.request_id, request_).digest == digest


KEY = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="agent")
STARTED = {"thread_id": "t1", "run_id": "r1", "position": {"epoch": "e", "offset": 6}}
ACCEPTED = {"status": "accepted", **STARTED}
SPANS = (Span(KEY.channel, "e", 7, 8), Span(user_channel("acme", "alice"), "u", 3, 3))


@pytest.mark.parametrize(
    ("kind", "stored", "spans", "answer"),
    [
        (Started, Started.to_store(KEY), SPANS, STARTED),
        (Decided, Decided.to_store(KEY), SPANS, ACCEPTED),
        (Decided, b'{"status":"accepted"}', SPANS[1:], {"status": "accepted"}),
        # An earlier version stored the position; a queued run is stored with it too.
        (Started, msgspec.json.encode(STARTED), (), STARTED),
        (Started, msgspec.json.encode(STARTED), SPANS[1:], STARTED),
        (Decided, msgspec.json.encode(ACCEPTED), (), ACCEPTED),
    ],
)
def test_p8_a_repetition_gets_the_position_of_the_first_start(
    kind: type[Any], stored: bytes, spans: tuple[Span, ...], answer: dict[str, Any]
) -> None:
    """The answer is the first one: the position is that before the run's first event."""
    assert b"position" not in Started.to_store(KEY) + Decided.to_store(KEY)
    result = result_of(kind, Written(spans, stored, repeated=True))
    assert msgspec.json.decode(msgspec.json.encode(result)) == answer
