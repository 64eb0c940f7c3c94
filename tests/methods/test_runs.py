"""Runs by method: started once per request, cancelled, answered, and seen by their owner only."""

from pathlib import Path
from typing import Any

import pytest

from tests.methods.stage import BURST, MethodStage, methods_staged
from tests.runs.stage import ALICE, BOB, saying, waiting
from towpath.agents.agent import AgentFunction
from towpath.errors import BadRequest, NotFound, TooManyRequests
from towpath.identity import Principal
from towpath.methods.runs import StartLimit
from towpath.rate_limits import Rate


def asking(*ids: str) -> AgentFunction:
    """Return an agent that ends with questions."""
    questions = [{"id": one, "reason": "confirmation", "message": "Sure?"} for one in ids]
    outcome = {"type": "interrupt", "interrupts": questions}
    return saying({"type": "RUN_FINISHED", "outcome": outcome})


async def interrupted(stage: MethodStage, *ids: str) -> str:
    """Run an agent that asks these questions, and return its run."""
    stage.runs.cast(asking(*ids))
    started = await stage.call("run.start", request_id="s", agent="agent", message="hi")
    await stage.runs.done(started["run_id"])
    return str(started["run_id"])


async def test_p8_a_start_is_answered_the_same(tmp_path: Path) -> None:
    """A repeated start returns the run, thread and position of the first; one run is there."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        given = {"request_id": "q", "agent": "agent", "message": "hi"}
        first = await stage.call("run.start", **given)
        assert set(first) == {"thread_id", "run_id", "position"}
        assert first["position"]["offset"] == 0
        assert await stage.call("run.start", **given) == first
        rows = (await stage.call("run.list", thread_id=first["thread_id"]))["runs"]
        assert [one["run_id"] for one in rows] == [first["run_id"]]


async def test_a_run_that_continues_is_given_its_answers(tmp_path: Path) -> None:
    """`resume` beside `message` or `input` reaches the agent where AG-UI has it."""
    async with methods_staged(tmp_path) as stage:
        run = await interrupted(stage, "one")
        view = await stage.call("run.get", run_id=run)
        answer = {"interruptId": "one", "status": "resolved", "payload": {"approved": True}}
        again = {"agent": "agent", "thread_id": view["thread_id"], "resume": [answer]}
        with pytest.raises(BadRequest, match="either message or input"):
            await stage.call("run.start", request_id="m", message="hi", **again)
        await stage.call("run.start", request_id="i", **again)
        (interrupt,) = (await stage.call("run.get", run_id=run))["interrupts"]
        assert interrupt["status"] == "approved"


async def test_r55_a_person_starts_only_so_many_runs(tmp_path: Path) -> None:
    """Past the burst a start is refused, whatever it asks; others start theirs."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        for number in range(BURST):
            await stage.call("run.start", request_id=f"{number}", agent="agent", message="hi")
        with pytest.raises(TooManyRequests, match="too many runs at once"):
            await stage.call("run.start", request_id="more", agent="agent", message="hi")
        await stage.call("run.start", BOB, request_id="q", agent="agent", message="hi")


@pytest.mark.parametrize("name", ["request_id", "thread_id"])
@pytest.mark.parametrize("value", [" ", "a\n", "\u200b"])
async def test_a_start_with_a_malformed_id_is_refused_and_not_counted(
    tmp_path: Path, name: str, value: str
) -> None:
    """`RunRequest` checks the ids of a start; the refused start takes no token."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        for number in range(BURST + 1):
            request = {"request_id": f"{number}", "agent": "agent", "message": "hi", name: value}
            with pytest.raises(BadRequest, match=f"{name}.* must be 1 to 128 printable"):
                await stage.call("run.start", **request)
        await stage.call("run.start", request_id="q", agent="agent", message="hi")


def test_a_start_limit_counts_each_person_of_each_tenant() -> None:
    """A user of the same name in another tenant has a limit of their own; time gives more."""
    now = [0.0]
    limit = StartLimit(Rate(per_second=1.0, burst=1), lambda: now[0])
    limit.take(ALICE)
    limit.take(Principal(tenant="globex", user="alice"))
    with pytest.raises(TooManyRequests):
        limit.take(ALICE)
    now[0] = 1.0
    limit.take(ALICE)


async def test_p8_a_cancel_is_answered_the_same(tmp_path: Path) -> None:
    """The request that ended a run gets `accepted` again, also without the run; others are late."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(waiting("one"))
        run = (await stage.call("run.start", request_id="s", agent="agent", message="hi"))["run_id"]
        for _ in range(2):
            made = await stage.call("run.cancel", request_id="q", run_id=run)
            assert made == {"status": "accepted"}
        late = await stage.call("run.cancel", request_id="other", run_id=run)
        assert late == {"status": "too_late"}
        view = await stage.call("run.get", run_id=run)
        assert (view["status"], view["interrupts"]) == ("cancelled", [])
        await stage.runs.done(run)
        await stage.call("thread.delete", request_id="d", thread_id=view["thread_id"])
        again = await stage.call("run.cancel", request_id="q", run_id=run)
        assert again == {"status": "accepted"}


async def test_a_decision_says_what_became_of_it_and_no_more(tmp_path: Path) -> None:
    """While questions are open the result is a status; the last one adds the run that goes on."""
    async with methods_staged(tmp_path) as stage:
        run = await interrupted(stage, "one", "two")

        async def approve(interrupt: str, request: str) -> Any:
            given = {"request_id": request, "run_id": run, "decision": "approve"}
            return await stage.call("run.approve", interrupt_id=interrupt, **given)

        assert await approve("one", "a") == {"status": "accepted"}
        assert await approve("one", "a") == {"status": "accepted"}
        assert await approve("one", "b") == {"status": "already"}
        last = await approve("two", "c")
        assert set(last) == {"status", "run_id", "thread_id", "position"}
        assert await approve("two", "c") == last


async def test_a_run_shows_its_questions(tmp_path: Path) -> None:
    """`run.get` tells for each question what was asked, until when, and where it stands."""
    async with methods_staged(tmp_path) as stage:
        run = await interrupted(stage, "one")
        (row,) = (await stage.call("run.get", run_id=run))["interrupts"]
        assert (row["interrupt_id"], row["status"], row["decided_at"]) == ("one", "open", None)
        assert row["asked"]["message"] == "Sure?"
        stage.runs.now = row["expires_at"]
        (row,) = (await stage.call("run.get", run_id=run))["interrupts"]
        assert row["status"] == "expired"


async def test_p1_a_foreign_run_is_a_missing_one(tmp_path: Path) -> None:
    """Another person finds neither the run nor its thread."""
    async with methods_staged(tmp_path) as stage:
        stage.runs.cast(saying("hello"))
        started = await stage.call("run.start", request_id="s", agent="agent", message="hi")
        run, thread = started["run_id"], started["thread_id"]
        for number in (run, "missing"):
            with pytest.raises(NotFound, match="no such run"):
                await stage.call("run.get", BOB, run_id=number)
            with pytest.raises(NotFound, match="no such run"):
                await stage.call("run.cancel", BOB, request_id="q" + number, run_id=number)
        with pytest.raises(NotFound, match="no such thread"):
            await stage.call("run.list", BOB, thread_id=thread)
