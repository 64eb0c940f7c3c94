"""Applies approvals and refusals, starts the continuation run, expires unanswered interrupts."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

from msgspec import UNSET

from towpath import telemetry
from towpath.agents.agent import AgentRegistry
from towpath.channels import user_channel
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, Unavailable
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Write, write
from towpath.log.idempotency import storing
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
from towpath.runs.model import OVER, RunKey, RunRecord, Status
from towpath.runs.publications import custom
from towpath.runs.requests import Decided, Decision, R, RunRequest, Start, StartOptions, result_of

ATTEMPTS: Final = 3
"""How often a decision is tried while other interrupts of the run are decided."""
MAX_SLEEP: Final = 3600.0
"""The longest pause between two checks for expiries, in seconds: a wall clock may be adjusted."""


class Approvals:
    """Decides and expires interrupts."""

    def __init__(self, deps: RunDeps, registry: AgentRegistry, start: Start) -> None:
        self._deps = deps
        self._registry = registry
        self._start = start
        self._woken = asyncio.Event()

    async def decide(self, principal: Principal, decision: Decision) -> Decided:
        """Store a decision, and start the continuation if no interrupt of the run is open then.

        Returns:
            The result of `run.approve`; see `towpath.runs.service.RunService.approve`.

        Raises:
            NotOpen: the interrupt was decided, expired or superseded.
        """
        key = IdempotencyKey.of(principal, "run.approve", decision.request_id, decision)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(AnswersMoved):
                return await self._decide(principal, decision, key)
        raise Conflict("the run's interrupts are decided too often at once")

    async def last_interrupts(self, key: RunKey, now: float) -> list[Interrupt]:
        """Return the interrupts of the run that ended last in a thread, with expiry applied."""
        interrupts = await self._deps.store.last_interrupts(*key.thread_key)
        return await self._expired(interrupts, now)

    def wake(self) -> None:
        """Check expiries again: a new interrupt may expire before those that `watch` waits for."""
        self._woken.set()

    async def watch(self) -> None:
        """Expire the interrupts that were not decided in time; does not end."""
        deps = self._deps
        while True:
            try:
                for key in await deps.store.expired(deps.now()):
                    await self._expire(key)
                due = await deps.store.next_expiry()
                wait = MAX_SLEEP if due is None else due - deps.now()
            except StorageError as error:
                deps.telemetry.emit(
                    telemetry.InternalError(where="expiring interrupts", error=error)
                )
                wait = deps.limits.retry_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, 0.0), MAX_SLEEP)):
                    await self._woken.wait()
            self._woken.clear()

    async def _decide(
        self, principal: Principal, decision: Decision, key: IdempotencyKey
    ) -> Decided:
        deps, now = self._deps, self._deps.now()
        tenant, user = principal.tenant, principal.user
        record = await deps.store.find_run(tenant, user, decision.run_id)
        stored = await deps.store.interrupts(tenant, user, decision.run_id)
        interrupts = await self._expired(stored, now)
        # This check must come after the lookups above. If the same request was written before
        # them, its result is found here; if after them, the write below returns that result.
        if (earlier := await deps.broker.stored_result(key)) is not None:
            return result_of(Decided, earlier)
        if record is None:
            raise NotFound("no such run")
        interrupt = _open_interrupt(record, interrupts, decision.interrupt_id)
        past = await deps.store.conversation(tenant, user, record.key.thread)
        check_shown(
            interrupt,
            past.messages,
            digest=decision.digest,
            arguments=None if decision.arguments is UNSET else decision.arguments,
        )
        decided = replace(
            interrupt,
            status=TRANSITIONS[InterruptStatus.OPEN, DECISIONS[decision.decision]],
            payload=decision.payload,
        )
        others = frozenset(one.id for one in interrupts if one.is_open) - {interrupt.id}
        fact = InterruptDecided(
            key=record.key,
            id=decided.id,
            status=decided.status,
            payload=decided.payload,
            others=others,
            at=now,
        )
        if others:
            return await self._write_decision(fact, key)
        answered = [decided if one is interrupt else one for one in interrupts]
        return await self._continue(principal, record.key, answered, fact, key)

    async def _write_decision(self, fact: InterruptDecided, key: IdempotencyKey) -> Decided:
        """Store a decision of a run that has other open interrupts."""
        more = {"interrupt_id": fact.id, "status": fact.status.value}
        notice = _notice(fact.key, "towpath.interrupt.decided", more)
        change = storing(Decided(status="accepted"), key, Write((notice,), (fact,)))
        return result_of(Decided, await write(self._deps.broker, change))

    async def _continue(
        self,
        principal: Principal,
        parent: RunKey,
        answered: list[Interrupt],
        fact: InterruptDecided,
        key: IdempotencyKey,
    ) -> Decided:
        """Store the last decision, and start the continuation run, in one transaction."""
        try:
            self._registry.get(parent.agent)
        except NotFound:
            raise Unavailable("the agent of the run is not registered any more") from None
        request = RunRequest(
            request_id=key.request_id,
            agent=parent.agent,
            thread_id=parent.thread,
            input={"messages": [], "resume": resume_entries(answered)},
        )
        options = StartOptions(key=key, result=Decided, parent=parent.run, facts=(fact,))
        return await self._start(principal, request, options)

    async def _expired(self, interrupts: list[Interrupt], now: float) -> list[Interrupt]:
        """Return a run's interrupts; those past their expiry are written as expired first.

        `expired` is never an answer before it is written: a decision made in time may be on its way
        to the log, and the first of the two writes counts.
        """
        if all(one.now(now) is one.status for one in interrupts):
            return interrupts
        key = interrupts[0].key
        await self._expire(key)
        return await self._deps.store.interrupts(*key.run_id_key)

    async def _expire(self, key: RunKey) -> None:
        notice = _notice(key, "towpath.interrupt.expired", {})
        fact = InterruptsExpired(key=key, at=self._deps.now())
        with contextlib.suppress(NotOpen):  # The interrupts were decided at the last moment.
            await write(self._deps.broker, Write((notice,), (fact,)))


def _open_interrupt(record: RunRecord, interrupts: list[Interrupt], key: str) -> Interrupt:
    """Return an open interrupt of a run.

    Raises:
        NotOpen: the interrupt is no longer open, or the run ended without interrupts.
        NotFound: there is no such interrupt.
    """
    if record.status in OVER - {Status.INTERRUPTED}:
        raise NotOpen("gone")
    interrupt = next((one for one in interrupts if one.id == key), None)
    if interrupt is None:
        raise NotFound("no such interrupt")
    if not interrupt.is_open:
        raise NotOpen(LATE[interrupt.status])
    return interrupt


def answer_options(
    options: StartOptions[R], interrupts: list[Interrupt], request: RunRequest, at: float
) -> StartOptions[R]:
    """Return the options of a run whose request answers interrupts: all of them, each once.

    Args:
        options: the options of the run without the answers.
        interrupts: the interrupts of the run that ended last in the thread.
        request: the request with the answers.
        at: the time at which the interrupts had these statuses, in Unix seconds.

    Raises:
        BadRequest: the answers do not match the agent's interrupts in the thread.
        NotOpen: an answered interrupt is no longer open.
    """
    answers = [one for one in request.answers if isinstance(one, dict)]
    ids = [str(answer.get("interruptId")) for answer in answers]
    by_id = {one.id: one for one in interrupts if one.key.agent == request.agent}
    if len(answers) < len(request.answers) or sorted(ids) != sorted(by_id):
        raise BadRequest("resume must answer each open interrupt once, and no other interrupt")
    late = [one.status for one in interrupts if not one.is_open]
    if late:
        raise NotOpen(LATE[late[0]])
    facts = tuple(
        InterruptDecided(
            key=by_id[key].key,
            id=key,
            status=InterruptStatus.REFUSED if is_refusal(answer) else InterruptStatus.APPROVED,
            payload=answer.get("payload"),
            others=frozenset(ids[place:]),
            at=at,
        )
        for place, (key, answer) in enumerate(zip(ids, answers, strict=True), 1)
    )
    return replace(options, parent=interrupts[0].key.run, facts=facts)


def _notice(key: RunKey, name: str, more: dict[str, str]) -> Append:
    """Return the notice of a decision or an expiry for the person's devices."""
    value = {"thread_id": key.thread, "run_id": key.run, "agent": key.agent, **more}
    return custom(user_channel(key.tenant, key.user), name, value)
