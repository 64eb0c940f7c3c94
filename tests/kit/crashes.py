"""A gateway that kills its own process with SIGKILL at a named point: `--app` for the kill tests.

The points lie in the real parts, which are wrapped here and know nothing of it. `CRASH_AT` names
the one point this process dies at, and at which passing of it (`ending.inside:3`); without it
nothing is wrapped. As it dies it says so in one line on standard error, so that whoever started it
can tell this end from any other.

A transaction has three moments: `before` it begins, `inside` it, when everything is written and
COMMIT is about to be, and `after` it, when it is durable and no reader has received it.

Its agents are made up for the purpose, but for those that tell the recorded runs of frameworks
again: one for each file in the directory that `RECORDINGS` names, called like the file.
"""

import asyncio
import functools
import inspect
import json
import os
import re
import signal
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tests.kit.recordings import read, retold
from towpath.agents import demo
from towpath.agents.agent import AgentInput
from towpath.delivery.recovery import Recovery
from towpath.gateway import Gateway
from towpath.log.broker import Write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.file_schema import CHANNELS
from towpath.log.sqlite.log_file import LogFile
from towpath.methods.table import Methods
from towpath.runs.executor import RunExecutor
from towpath.runs.interrupts import InterruptDecided, InterruptsExpired
from towpath.runs.lost import LostRuns
from towpath.runs.model import RunClosed, RunOpened, RunQueued, RunWithdrawn, Status
from towpath.runs.queue import RunQueue
from towpath.runs.service import RunService
from towpath.runs.tables.sqlite.projection import ThreadProjection

VARIABLE: Final = "CRASH_AT"
RECORDINGS: Final = "RECORDINGS"
MOMENTS: Final = ("before", "inside", "after")

TRANSACTIONS: Final = {
    "opening": "the first event of a run",
    "event": "events of an active run",
    "ending": "the ending of a run that is finished",
    "cancel": "the ending of a run that was cancelled",
    "question": "the ending of a run with an interrupt",
    "decision": "a decision, and the first event of the continuing run",
    "expiry": "the expiry of an interrupt",
    "queueing": "a run that waits for its turn",
    "withdrawal": "the cancellation of a queued run",
    "turn": "the first event of a run that waited",
    "loss": "after the start, the ending of a run that the last process left behind",
    "drained": "the ending of a run because the server stops",
    "sweep": "a sweep of retention",
    "start": "the opening of the log",
}
"""Transactions by what is written in them; each has its three moments."""

PLACES: Final = {
    "between": "an event of a run was handed to the log, and the next was not made",
    "delivery.before": "a batch is durable, and no reader has received it",
    "delivery.after": "a batch was delivered to its readers, and its writers are not notified",
    "reply": "a command took effect, and its reply is not sent",
    "way": "a run was ended for another run, which has not begun",
    "join": "what a subscriber missed was read, and is not sent",
    "drain": "the server got SIGTERM, and has ended no run",
    "recovering": "at the start, no run that was left behind is ended",
    "resuming": "at the start, no run that waited has begun",
}
"""Points that are no moment of a transaction."""

POINTS: Final = (
    *(f"{name}.{moment}" for name in TRANSACTIONS for moment in MOMENTS),
    *PLACES,
)
"""Every point."""


def crash_message(point: str) -> str:
    """Return the line in which a process says that it dies at a point."""
    return f"killed by its own hand at {point}"


class CrashPoint:
    """The one point a process dies at."""

    def __init__(self, spec: str) -> None:
        """Read `point:n`.

        Raises:
            ValueError: there is no such point.
        """
        self.point, _, number = spec.partition(":")
        if self.point not in POINTS:
            raise ValueError(f"{VARIABLE}={spec}: there is no point {self.point}")
        self._left = int(number or 1)

    def passing(self, *points: str) -> None:
        """Pass points; die if one of them is the point, and this was its time."""
        if self.point not in points:
            return
        self._left -= 1
        if self._left == 0:
            os.write(2, f"{crash_message(self.point)}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def acts(facts: Iterable[object]) -> set[str]:
    """Return which of `TRANSACTIONS` these facts make one."""
    return {name for fact in facts if (name := _act(fact)) is not None}


def _act(fact: object) -> str | None:
    match fact:
        case RunOpened(queued=None):
            return "opening"
        case RunOpened():
            return "turn"
        case RunClosed(code="run.drained"):
            return "drained"
        case RunClosed(status=status):
            return {
                Status.FINISHED: "ending",
                Status.CANCELLED: "cancel",
                Status.INTERRUPTED: "question",
                Status.LOST: "loss",
            }.get(status)
        case RunQueued():
            return "queueing"
        case RunWithdrawn():
            return "withdrawal"
        case InterruptDecided():
            return "decision"
        case InterruptsExpired():
            return "expiry"
    return None


def arm(crash: CrashPoint) -> None:
    """Wrap the parts in which the points lie."""
    _arm_log(crash)

    def pass_before(owner: type, name: str, point: str) -> None:
        _wrap(owner, name, before=lambda *_: crash.passing(point))

    def pass_after(owner: type, name: str, point: str) -> None:
        _wrap(owner, name, after=lambda *_: crash.passing(point))

    pass_after(RunExecutor, "_submit", "between")
    pass_before(SqliteBroker, "_hand_back", "delivery.before")
    pass_after(SqliteBroker, "_hand_back", "delivery.after")
    pass_after(Methods, "invoke", "reply")
    pass_after(RunService, "_free_thread", "way")
    pass_after(Recovery, "answer", "join")
    pass_before(RunService, "drain", "drain")
    pass_before(LostRuns, "watch", "recovering")
    pass_before(RunQueue, "resume", "resuming")


def _arm_log(crash: CrashPoint) -> None:
    """Wrap the transactions; all of one log happens in one thread at a time."""
    under_way: set[str] = set()
    """What is written in the present transaction."""

    def pass_moment(moment: str) -> None:
        crash.passing(*(f"{name}.{moment}" for name in under_way))

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            pass_moment("inside")

    def begin(names: set[str]) -> None:
        under_way.clear()
        under_way.update(names)
        pass_moment("before")

    def end(*_: Any) -> None:
        pass_moment("after")
        under_way.clear()

    def opening(log: LogFile, *_: Any) -> None:
        log._db.set_trace_callback(trace)
        begin({"start"})

    def committing(_: LogFile, writes: Sequence[Write]) -> None:
        begin(acts(fact for write in writes for fact in write.facts))
        under_way.clear()  # What is refused is not written.
        if any(_carries(write) for write in writes):
            under_way.add("event")
            crash.passing("event.before")

    def sweeping(log: LogFile) -> None:
        if crash.point.startswith("sweep"):
            # A sweep that finds nothing due writes nothing, so there is no moment inside it.
            first = next(CHANNELS.rows(log._db, "WHERE publications > 0 ORDER BY id LIMIT 1"))
            CHANNELS.update(log._db, first._replace(due=0.0))
        begin({"sweep"})

    _wrap(LogFile, "_prepare", before=opening)
    _wrap(LogFile, "__init__", after=end)
    _wrap(LogFile, "commit", before=committing, after=end)
    _wrap(LogFile, "sweep", before=sweeping, after=end)
    applied = ThreadProjection.apply

    @functools.wraps(applied)
    def apply(self: ThreadProjection, db: Any, fact: object, spans: Any) -> None:
        applied(self, db, fact, spans)
        under_way.update(acts((fact,)))

    ThreadProjection.apply = apply  # type: ignore[method-assign] # that is what this is for


def _carries(write: Write) -> bool:
    """Whether a write is events of a run, and no more."""
    return not write.facts and any(append.channel.is_thread for append in write.appends)


def _wrap(
    owner: type,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    """Have something called before and after a method, which has to be there."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(*given: Any, **named: Any) -> Any:
        if before is not None:
            before(*given)
        result = method(*given, **named)
        if after is not None:
            after(*given)
        return result

    @functools.wraps(method)
    async def wrapped_async(*given: Any, **named: Any) -> Any:
        if before is not None:
            before(*given)
        result = await method(*given, **named)
        if after is not None:
            after(*given)
        return result

    setattr(owner, name, wrapped_async if inspect.iscoroutinefunction(method) else wrapped)


PACE = 0.004
"""Between two pieces of a story, in seconds."""
HASTE = timedelta(seconds=0.3)
"""How long a hasty question waits."""


async def story(request: AgentInput) -> AsyncGenerator[object, None]:
    """Think, call a tool, and tell as many words as the message's first number says."""
    words = int((re.findall(r"\d+", request.message) or ["1"])[0])
    run, call = request.context.run, uuid.uuid4().hex
    yield {"type": "REASONING_START", "messageId": f"{run}-thought"}
    yield {"type": "REASONING_MESSAGE_START", "messageId": f"{run}-thought", "role": "reasoning"}
    for piece in ("One ", "word ", "after ", "the other."):
        yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": f"{run}-thought", "delta": piece}
        await asyncio.sleep(PACE)
    yield {"type": "REASONING_MESSAGE_END", "messageId": f"{run}-thought"}
    yield {"type": "REASONING_END", "messageId": f"{run}-thought"}
    yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "count"}
    for piece in ('{"wo', 'rds": ', f"{words}}}"):
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": piece}
        await asyncio.sleep(PACE)
    yield {"type": "TOOL_CALL_END", "toolCallId": call}
    yield {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{run}-result",
        "toolCallId": call,
        "content": json.dumps({"words": words}),
        "role": "tool",
    }
    yield f"You said “{request.message}”. "
    for number in range(1, words + 1):
        yield f"{number} 🚣 " if number % 7 == 0 else f"{number} "
        await asyncio.sleep(PACE)


async def hasty(request: AgentInput) -> AsyncGenerator[object, None]:
    """Ask something that has to be answered at once."""
    if request.resume:
        yield f"So be it: {json.dumps(request.resume[0].get('payload'))}"
        return
    until = datetime.now(UTC) + HASTE
    question = {"id": uuid.uuid4().hex, "reason": "hurry", "message": "Now?"}
    interrupts = [{**question, "expiresAt": until.isoformat()}]
    yield "Be quick. "
    yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": interrupts}}


gateway = Gateway()
gateway.agent("tools")(demo.tools)
gateway.agent("hasty")(hasty)
for policy in ("reject", "queue", "interrupt"):
    gateway.agent(policy, double_texting=policy)(story)
if directory := os.environ.get(RECORDINGS):
    for path in sorted(Path(directory).glob("*.jsonl")):
        gateway.agent(path.stem)(retold(read(path)))
if spec := os.environ.get(VARIABLE):
    arm(CrashPoint(spec))
