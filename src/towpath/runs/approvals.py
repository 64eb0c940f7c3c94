"""Decisions of people on what runs asked, carried out; and the questions nobody answers in time."""

import asyncio
import contextlib
from dataclasses import replace

import msgspec

from towpath import telemetry
from towpath.agents.agent import AgentRegistry
from towpath.channels import user_channel
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, Unavailable
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Write, write
from towpath.runs.deps import RunDeps
from towpath.runs.interrupts import (
    DECISIONS,
    LATE,
    TRANSITIONS,
    AnswersMoved,
    Interrupt,
    InterruptDecided,
    InterruptsExpired,
    InterruptStatus,
    NotOpen,
    check_shown,
    is_refusal,
    resume_entries,
)
from towpath.runs.model import OVER, RunKey, Status
from towpath.runs.publications import custom
from towpath.runs.requests import (
    Begin,
    Decision,
    Opening,
    StartRun,
    Wanted,
    approve_result,
    request_key,
)

ATTEMPTS = 3
"""How often a decision is tried while other questions of the run are answered."""
LOOK_AGAIN = 3600.0
"""How long questions are left unlooked at, at the most, in seconds: wall clocks are set."""


class Approvals:
    """Answers what runs asked."""

    def __init__(self, deps: RunDeps, registry: AgentRegistry, begin: Begin) -> None:
        self._deps = deps
        self._registry = registry
        self._begin = begin
        self._news = asyncio.Event()

    async def decide(self, principal: Principal, said: Decision) -> bytes:
        """Note a decision, with the run that continues where it was the last one; see the bridge.

        Raises:
            NotOpen: the question was answered, expired or left behind.
        """
        key = request_key(principal, "run.approve", said.request_id, said)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(AnswersMoved):
                return await self._decide(principal, said, key)
        raise Conflict("the run's questions have too many answers")

    async def asked_in(self, key: RunKey, now: float) -> list[Interrupt]:
        """Return what the run that ended last in a thread asked, and where that stands now."""
        request = await self._deps.store.last_interrupts(*key.thread_key)
        return await self._noted(request, now)

    def look_again(self) -> None:
        """Take note that there may be questions that expire sooner than those known."""
        self._news.set()

    async def watch(self) -> None:
        """Note what nobody answered in time; does not end."""
        deps = self._deps
        while True:
            try:
                for key in await deps.store.expired(deps.now()):
                    await self._expire(key)
                due = await deps.store.next_expiry()
                wait = LOOK_AGAIN if due is None else due - deps.now()
            except StorageError as error:
                deps.telemetry.emit(
                    telemetry.InternalError(where="expiring interrupts", error=error)
                )
                wait = deps.limits.retry_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, 0.0), LOOK_AGAIN)):
                    await self._news.wait()
            self._news.clear()

    async def _decide(self, principal: Principal, said: Decision, key: IdempotencyKey) -> bytes:
        deps, now = self._deps, self._deps.now()
        tenant, user = principal.tenant, principal.user
        record = await deps.store.find_run(tenant, user, said.run_id)
        request = await deps.store.interrupts(tenant, user, said.run_id)
        questions = await self._noted(request, now)
        # After those looks: a twin of this request shows in them, or is met at the write.
        if (earlier := await deps.broker.stored_result(key)) is not None:
            return earlier
        if record is None:
            raise NotFound("no such run")
        if record.status in OVER - {Status.INTERRUPTED}:
            raise NotOpen("gone")
        mine = next((one for one in questions if one.id == said.interrupt_id), None)
        if mine is None:
            raise NotFound("no such interrupt")
        if mine.answer is not InterruptStatus.OPEN:
            raise NotOpen(LATE[mine.answer])
        past = await deps.store.conversation(tenant, user, record.key.thread)
        check_shown(mine, said.digest, past.messages)
        answer = TRANSITIONS[InterruptStatus.OPEN, DECISIONS[said.decision]]
        others = {one.id for one in questions if one.answer is InterruptStatus.OPEN} - {mine.id}
        decided = InterruptDecided(
            key=record.key,
            id=mine.id,
            answer=answer,
            payload=said.payload,
            others=frozenset(others),
            at=now,
        )
        if others:
            result = msgspec.json.encode({"status": "accepted"})
            told = _notice(
                record.key,
                "towpath.interrupt.decided",
                {"interrupt_id": mine.id, "status": answer.value},
            )
            change = Write((told,), (decided,), key=key, result=lambda _: result)
            return (await write(deps.broker, change)).result
        answered = [
            replace(one, answer=answer, payload=said.payload) if one is mine else one
            for one in questions
        ]
        return await self._continue(principal, record.key, answered, decided, key)

    async def _continue(
        self,
        principal: Principal,
        parent: RunKey,
        answered: list[Interrupt],
        decided: InterruptDecided,
        key: IdempotencyKey,
    ) -> bytes:
        """Note the last decision, and begin the run that continues, in one act."""
        agent = self._registry.get(parent.agent)
        if agent is None:
            raise Unavailable("the agent that asked is not here any more")
        request = StartRun(
            request_id=key.request_id,
            agent=parent.agent,
            thread_id=parent.thread,
            input={"messages": [], "resume": resume_entries(answered)},
        )
        opening = Opening(key=key, result=approve_result, parent=parent.run, facts=(decided,))
        return await self._begin(Wanted(principal, agent, request, []), opening)

    async def _noted(self, request: list[Interrupt], now: float) -> list[Interrupt]:
        """Return a run's questions, those whose time is over written as expired.

        Nobody is told `expired` before it is written: a decision that was made in time may be on
        its way to the log, and whichever is there first counts.
        """
        if all(one.now(now) is one.answer for one in request):
            return request
        key = request[0].key
        await self._expire(key)
        return await self._deps.store.interrupts(*key.run_id_key)

    async def _expire(self, key: RunKey) -> None:
        told = _notice(key, "towpath.interrupt.expired", {})
        fact = InterruptsExpired(key=key, at=self._deps.now())
        with contextlib.suppress(NotOpen):  # Somebody answered at the last moment.
            await write(self._deps.broker, Write((told,), (fact,)))


def answering(opening: Opening, request: list[Interrupt], given: StartRun, at: float) -> Opening:
    """Return how a run is opened that brings answers with it: all of them, each once.

    Args:
        opening: how it would be opened without them.
        asked: what the thread waits for, and where that stands.
        given: what starts the run.
        at: the time at which they stand there, in Unix seconds.

    Raises:
        BadRequest: they are not the answers to what the agent asked in the thread.
        NotOpen: what they answer is not open any more.
    """
    answers = [one for one in given.answers if isinstance(one, dict)]
    ids = [str(answer.get("interruptId")) for answer in answers]
    by_id = {one.id: one for one in request if one.key.agent == given.agent}
    if len(answers) < len(given.answers) or sorted(ids) != sorted(by_id):
        raise BadRequest("resume has to answer each open interrupt once, and nothing else")
    late = [one.answer for one in request if one.answer is not InterruptStatus.OPEN]
    if late:
        raise NotOpen(LATE[late[0]])
    facts = tuple(
        InterruptDecided(
            key=by_id[key].key,
            id=key,
            answer=InterruptStatus.REFUSED if is_refusal(answer) else InterruptStatus.APPROVED,
            payload=answer.get("payload"),
            others=frozenset(ids[place:]),
            at=at,
        )
        for place, (key, answer) in enumerate(zip(ids, answers, strict=True), 1)
    )
    return replace(opening, parent=request[0].key.run, facts=facts)


def _notice(key: RunKey, name: str, more: dict[str, str]) -> Append:
    """Return the small event by which a person's devices learn of a question's answer."""
    value = {"thread_id": key.thread, "run_id": key.run, "agent": key.agent, **more}
    return custom(user_channel(key.tenant, key.user), name, value)
