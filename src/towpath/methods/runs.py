"""The methods of runs: start, cancel, approve or refuse its interrupts, get, list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct

from towpath.errors import NotFound, TooManyRequests
from towpath.identity import Principal
from towpath.log.broker import Broker, IdempotencyKey
from towpath.log.idempotency import stored_result, write_once
from towpath.methods.method import (
    Caller,
    Id,
    Limit,
    Method,
    Mutation,
    Params,
    ShortText,
)
from towpath.rate_limits import Rate, RateLimits
from towpath.runs.interrupts import Interrupt
from towpath.runs.requests import Accepted, Decided, Decision, RunRequest, Started
from towpath.runs.service import RunService
from towpath.runs.store import RunRow, ThreadStore, run_row


class RunStart(Mutation, frozen=True, kw_only=True):
    """Start a run of an agent."""

    agent: ShortText
    thread_id: Id | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    resume: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Leave the ids to `RunRequest`, which validates them when it is created."""


class RunCancel(Mutation, frozen=True, kw_only=True):
    """Stop a run."""

    run_id: Id


class RunApprove(Mutation, frozen=True, kw_only=True):
    """Answer an interrupt of an ended run; the last answer starts the continuing run."""

    run_id: Id
    interrupt_id: Id
    decision: ShortText
    payload: Any = None
    digest: Annotated[str, Meta(max_length=64)] | None = None
    arguments: str | None = None


class RunGet(Params, frozen=True, kw_only=True):
    """Get a run with its interrupts."""

    run_id: Id


class InterruptRow(Struct, frozen=True, kw_only=True):
    """An interrupt of a run, and its status. Times are Unix seconds."""

    interrupt_id: str
    status: str
    asked: dict[str, Any]
    expires_at: float
    decided_at: float | None


class RunView(RunRow, frozen=True, kw_only=True):
    """A run and its interrupts."""

    interrupts: list[InterruptRow]


class RunList(Params, frozen=True, kw_only=True):
    """List the runs of a thread, newest first."""

    thread_id: Id
    limit: Limit = 50


class Runs(Struct, frozen=True, kw_only=True):
    """Runs, newest first."""

    runs: list[RunRow]


class StartLimit:
    """The rate limit of one person's starts, over `run.start` and AG-UI together."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._buckets: RateLimits[tuple[str, str]] = RateLimits(rate)
        self._monotonic = monotonic

    def take(self, principal: Principal) -> None:
        """Count one start.

        Raises:
            TooManyRequests: this person has reached the limit.
        """
        if not self._buckets.take((principal.tenant, principal.user), self._monotonic()):
            raise TooManyRequests("too many runs at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMethods:
    """The handlers and their dependencies."""

    service: RunService
    broker: Broker
    store: ThreadStore
    start_limit: StartLimit
    now: Callable[[], float]
    """Unix seconds."""

    async def start(self, caller: Caller, params: RunStart) -> Started:
        """Start a run; it continues whether or not a client reads it.

        Raises:
            TooManyRequests: this person has reached the limit of starts.
            CommandError: see `RunService.start`.
        """
        request = _start_request(params)
        self.start_limit.take(caller.principal)
        return await self.service.start(caller.principal, request)

    async def cancel(self, caller: Caller, params: RunCancel) -> Accepted:
        """End a run of the caller's.

        Raises:
            CommandError: see `RunService.cancel`.
        """
        key = IdempotencyKey.of(caller.principal, "run.cancel", params.request_id, params)
        if (earlier := await stored_result(self.broker, key, Accepted)) is not None:
            return earlier
        status = await self.service.cancel(caller.principal, params.run_id, key=key)
        return await write_once(self.broker, key, Accepted(status=status))

    async def approve(self, caller: Caller, params: RunApprove) -> Decided:
        """Decide an interrupt of a run of the caller's.

        Raises:
            CommandError: see `RunService.approve`.
        """
        return await self.service.approve(caller.principal, _decision(params))

    async def get(self, caller: Caller, params: RunGet) -> RunView:
        """Return a run of the caller's with its interrupts.

        Raises:
            NotFound: the caller has no such run.
        """
        who = caller.principal
        found = await self.store.find_run(who.tenant, who.user, params.run_id)
        if found is None:
            raise NotFound("no such run")
        interrupts = await self.store.interrupts(who.tenant, who.user, params.run_id)
        now = self.now()
        rows = [_interrupt_row(one, now) for one in interrupts]
        return RunView(**msgspec.structs.asdict(run_row(found)), interrupts=rows)

    async def list_runs(self, caller: Caller, params: RunList) -> Runs:
        """Return the runs of a thread of the caller's.

        Raises:
            NotFound: the caller has no such thread.
        """
        who = caller.principal
        if not await self.store.exists(who.tenant, who.user, params.thread_id):
            raise NotFound("no such thread")
        rows = await self.store.runs(who.tenant, who.user, params.thread_id, limit=params.limit)
        return Runs(runs=rows)


METHODS: tuple[Method[RunMethods], ...] = (
    Method("run.start", RunStart, Started, RunMethods.start, ("POST", "/runs")),
    Method("run.cancel", RunCancel, Accepted, RunMethods.cancel, ("POST", "/runs/{run_id}/cancel")),
    Method(
        "run.approve",
        RunApprove,
        Decided,
        RunMethods.approve,
        ("POST", "/runs/{run_id}/interrupts/{interrupt_id}"),
    ),
    Method("run.get", RunGet, RunView, RunMethods.get, ("GET", "/runs/{run_id}")),
    Method("run.list", RunList, Runs, RunMethods.list_runs, ("GET", "/threads/{thread_id}/runs")),
)


def _start_request(params: RunStart) -> RunRequest:
    return RunRequest(
        request_id=params.request_id,
        agent=params.agent,
        thread_id=params.thread_id,
        message=params.message,
        input=_with_resume(params),
    )


def _with_resume(params: RunStart) -> dict[str, Any] | None:
    """Return a run's input; the parameter `resume` is put into the input, as AG-UI has it."""
    if params.resume is None:
        return params.input
    return {**(params.input or {"messages": []}), "resume": params.resume}


def _decision(params: RunApprove) -> Decision:
    return Decision(
        request_id=params.request_id,
        run_id=params.run_id,
        interrupt_id=params.interrupt_id,
        decision=params.decision,
        payload=params.payload,
        digest=params.digest,
        arguments=UNSET if params.arguments is None else params.arguments,
    )


def _interrupt_row(interrupt: Interrupt, now: float) -> InterruptRow:
    return InterruptRow(
        interrupt_id=interrupt.id,
        status=interrupt.now(now).value,
        asked=interrupt.interrupt,
        expires_at=interrupt.expires,
        decided_at=interrupt.decided,
    )
