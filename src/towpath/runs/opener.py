"""The opener of runs: writes a run's first events to its thread, and launches the run."""

import contextlib
from collections.abc import Callable
from typing import Final

from towpath.agents.agent import Agent, AgentInput, AgentRegistry
from towpath.errors import BadRequest
from towpath.events.types import IllegalEvent
from towpath.identity import Principal
from towpath.log.broker import Append, Write, write
from towpath.runs.active_runs import ActiveRuns
from towpath.runs.approvals import Approvals, answer_options
from towpath.runs.deps import RunDeps
from towpath.runs.executor import RunExecutor
from towpath.runs.model import LogRange, RunKey, RunOpened, ThreadMoved
from towpath.runs.publications import channel_of, items_of, notice
from towpath.runs.requests import RunRequest, StartOptions, agent_input, title_of
from towpath.runs.run import Run, RunEvent
from towpath.runs.store import Conversation

ATTEMPTS: Final = 10
"""How often a run is opened on a thread that changes meanwhile."""


class RunOpener:
    """Opens runs."""

    def __init__(
        self,
        deps: RunDeps,
        registry: AgentRegistry,
        active: ActiveRuns,
        approvals: Approvals,
        launch: Callable[[RunExecutor, Agent, AgentInput], None],
    ) -> None:
        self._deps = deps
        self._registry = registry
        self._active = active
        self._approvals = approvals
        self._launch = launch

    async def open(self, principal: Principal, request: RunRequest, options: StartOptions) -> bytes:
        """Open a run on its thread; if the thread changes meanwhile, try again.

        Args:
            principal: the person who requests the run.
            request: the request, with its ids.
            options: how the run is opened.

        Returns:
            The result that the options make, or that was stored under their key.

        Raises:
            NotFound: there is no such agent.
            BadRequest: the messages are not AG-UI's, or the answers do not fit the interrupts.
            NotOpen: an interrupt that the request answers is not open.
            Conflict: the thread is busy, or the ids were used before.
            StorageError: the log cannot be used now.
        """
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ThreadMoved):
                return await self._open(principal, request, options)
        raise ThreadMoved("the thread has too many writers")

    async def _open(
        self, principal: Principal, request: RunRequest, options: StartOptions
    ) -> bytes:
        deps, agent = self._deps, self._registry.named(request.agent)
        key = request.run_key(principal)
        past = await deps.store.conversation(*key.thread_key)
        if options.parent is None and request.answers:
            now = deps.now()
            interrupts = await self._approvals.last_interrupts(key, now)
            # This check must come after the lookup above. If the same request was written before
            # it, its result is found here; if after it, the write below returns that result.
            earlier = await deps.broker.stored_result(options.key) if options.key else None
            if earlier is not None:
                return earlier
            options = answer_options(options, interrupts, request, now)
        run, events = self._begin(key, past, request, options)
        with self._active.opening(key):
            opening = self._opening(run, events, past.offset, options)
            written = await write(deps.broker, opening)
            if not written.repeated:
                log_range = LogRange(written.spans[0].first, written.spans[0].last)
                executor = RunExecutor(run, log_range, deps.now(), deps)
                self._launch(executor, agent, agent_input(run, principal, request))
        return written.result

    def _begin(
        self, key: RunKey, past: Conversation, request: RunRequest, options: StartOptions
    ) -> tuple[Run, list[RunEvent]]:
        """Return a new run and its first events."""
        run = Run(
            key,
            history=past.messages,
            state=past.state,
            new_id=self._deps.new_id,
            keep_raw=self._deps.limits.keep_raw,
        )
        try:
            return run, run.begin(request.run_input, parent=options.parent)
        except IllegalEvent as error:
            raise BadRequest(error.reason) from None

    def _opening(
        self, run: Run, events: list[RunEvent], offset: int, options: StartOptions
    ) -> Write:
        """Return the write of a run's first events and of the fact that the run was opened."""
        key, started = run.key, events[0].event
        opened = RunOpened(
            key=key,
            started=started,
            title=title_of(started["input"]["messages"]),
            thread_offset=offset,
            at=self._deps.now(),
            holder=self._deps.holder,
            lease=self._deps.lease_end(),
            queued=options.queued,
        )
        first = Append(channel_of(key), items_of(events), fence=True)
        return Write(
            (first, notice(run, "towpath.run.started")),
            (*options.facts, opened),
            key=options.key,
            result=lambda spans: options.result(key, spans[0]),
        )
