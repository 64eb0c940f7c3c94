"""A report of another text is counted, and answered with the digest of what is stored."""

from pathlib import Path

import pytest

from tests.methods.stage import MethodStage, methods_staged
from tests.runs.stage import BOB, saying
from towpath.errors import BadRequest, NotFound
from towpath.events.digest import digest
from towpath.telemetry import DigestMismatch

REPORT = {"thread_id": "t", "published": "0" * 8, "shown": "1" * 8}


def mismatches(stage: MethodStage) -> list[DigestMismatch]:
    return [one for one in stage.runs.happened if isinstance(one, DigestMismatch)]


async def test_a_report_is_counted_and_answered(tmp_path: Path) -> None:
    """The stored text's digest comes back; null where the thread has no such message."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        await stage.runs.done(await stage.runs.start("t"))
        newest = (await stage.call("thread.get", thread_id="t"))["messages"][-1]
        made = await stage.call("digest.report", message_id=newest["id"], **REPORT)
        assert made == {"digest": digest("hello")}
        assert await stage.call("digest.report", message_id="x", **REPORT) == {"digest": None}
        counted = [(one.message, one.published, one.shown, one.kept) for one in mismatches(stage)]
        assert counted == [
            (newest["id"], "0" * 8, "1" * 8, digest("hello")),
            ("x", "0" * 8, "1" * 8, None),
        ]


async def test_a_report_of_nothing_is_not_counted(tmp_path: Path) -> None:
    """Two equal digests, and a thread of somebody else, are errors and no mismatch."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        await stage.runs.done(await stage.runs.start("t"))
        same = {**REPORT, "shown": REPORT["published"]}
        with pytest.raises(BadRequest, match="are the same"):
            await stage.call("digest.report", message_id="x", **same)
        with pytest.raises(NotFound, match="no such thread"):
            await stage.call("digest.report", BOB, message_id="x", **REPORT)
        assert mismatches(stage) == []
