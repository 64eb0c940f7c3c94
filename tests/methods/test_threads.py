"""Threads by method: created once per request, renamed, read in pages, deleted with their log."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.methods.stage import MethodStage, methods_staged
from tests.runs.stage import BOB, saying
from towpath.channels import thread_channel, user_channel
from towpath.errors import BadRequest, Conflict, NotFound


async def notices(stage: MethodStage) -> list[tuple[str, str]]:
    """Return the notices of alice, each with the thread it names."""
    replay = await stage.broker.read(user_channel("acme", "alice"), 0)
    events = [msgspec.json.decode(one.data) for one in replay.publications]
    return [(event["name"], event["value"]["thread_id"]) for event in events]


async def test_p8_a_repeated_create_makes_no_second_thread(tmp_path: Path) -> None:
    """Without an id of its own a thread gets a new one, and the repetition gets that one too."""
    async with methods_staged(tmp_path) as stage:
        for _ in range(2):
            made = await stage.call("thread.create", request_id="q", title="one")
            assert made == {"thread_id": "new-1"}
        (row,) = (await stage.call("thread.list"))["threads"]
        assert (row["id"], row["title"]) == ("new-1", "one")
        assert await notices(stage) == [("towpath.thread.created", "new-1")]


async def test_a_thread_is_created_under_an_id_once(tmp_path: Path) -> None:
    """A second create of the id conflicts for its owner; another person has ids of their own."""
    async with methods_staged(tmp_path) as stage:
        await stage.call("thread.create", request_id="a", thread_id="t")
        with pytest.raises(Conflict):
            await stage.call("thread.create", request_id="b", thread_id="t")
        await stage.call("thread.create", BOB, request_id="b", thread_id="t")


async def test_a_thread_id_fits_into_a_channels_name(tmp_path: Path) -> None:
    """An id of 128 characters and more than 248 bytes makes no thread."""
    async with methods_staged(tmp_path) as stage:
        with pytest.raises(BadRequest, match="248 bytes"):
            await stage.call("thread.create", request_id="a", thread_id="€" * 128)
        with pytest.raises(NotFound, match="no such thread"):
            await stage.call("thread.get", thread_id="€" * 128)


async def test_a_thread_is_renamed_and_deleted_by_its_owner(tmp_path: Path) -> None:
    """Each change is announced once; the log of a deleted thread is empty; others find nothing."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        await stage.runs.done(await stage.runs.start("t"))
        with pytest.raises(NotFound):
            await stage.call("thread.rename", BOB, request_id="r", thread_id="t", title="x")
        with pytest.raises(NotFound):
            await stage.call("thread.delete", BOB, request_id="d", thread_id="t")
        given = {"request_id": "r", "thread_id": "t", "title": "new"}
        assert await stage.call("thread.rename", **given) == {}
        assert await stage.call("thread.rename", **given) == {}
        (row,) = (await stage.call("thread.list"))["threads"]
        assert row["title"] == "new"
        assert await stage.call("thread.delete", request_id="d", thread_id="t") == {}
        assert await stage.call("thread.delete", request_id="d", thread_id="t") == {}
        assert (await stage.call("thread.list")) == {"threads": []}
        replay = await stage.broker.read(thread_channel("acme", "alice", "t"), None)
        assert replay.publications == []
        ours = [one for one in await notices(stage) if one[0].startswith("towpath.thread")]
        assert ours == [("towpath.thread.renamed", "t"), ("towpath.thread.deleted", "t")]


async def test_a_thread_is_read_in_pages(tmp_path: Path) -> None:
    """The newest messages come first, those before one on request, with the position after all."""
    messages: list[dict[str, Any]] = [
        {"id": f"m{number}", "role": "user", "content": f"{number}"} for number in range(4)
    ]
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        await stage.runs.done(await stage.runs.start("t", input={"messages": messages}))
        view = await stage.call("thread.get", thread_id="t", limit=2)
        assert [one["content"] for one in view["messages"]] == ["3", "hello"]
        assert view["more"] is True
        replay = await stage.broker.read(thread_channel("acme", "alice", "t"), None)
        assert view["position"] == {"epoch": replay.epoch, "offset": replay.top}
        older = await stage.call("thread.get", thread_id="t", before="m2", limit=2)
        assert [one["id"] for one in older["messages"]] == ["m0", "m1"]
        assert older["more"] is False
        with pytest.raises(NotFound, match="no such message"):
            await stage.call("thread.get", thread_id="t", before="m9")
        with pytest.raises(BadRequest, match="before must be"):
            await stage.call("thread.get", thread_id="t", before="\n")
        with pytest.raises(NotFound, match="no such thread"):
            await stage.call("thread.get", BOB, thread_id="t")


async def test_threads_are_listed_the_latest_first(tmp_path: Path) -> None:
    """`before` continues a list with the `updated_at` of its last row."""
    async with methods_staged(tmp_path) as stage:
        for number in range(3):
            stage.runs.now += 1
            await stage.call("thread.create", request_id=f"{number}", thread_id=f"t{number}")
        page = (await stage.call("thread.list", limit=2))["threads"]
        assert [one["id"] for one in page] == ["t2", "t1"]
        rest = await stage.call("thread.list", before=page[-1]["updated_at"])
        assert [one["id"] for one in rest["threads"]] == ["t0"]
        assert await stage.call("thread.list", BOB) == {"threads": []}
