"""What people can do besides listening, as one table: the RPC methods and their REST twins.

Each operation is a function of the principal and its parameters; both doors call the same one, so
neither can be laxer than the other. Every mutating operation carries a `request_id`: the same id
with the same parameters gets the same answer for a day and does nothing twice.

Source: WIRE section 7.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import Struct

from towpath import codes, telemetry
from towpath.agents.agent import AgentRegistry
from towpath.auth.policy import Action, may
from towpath.auth.revocations import Revocation
from towpath.auth.service import AuthService
from towpath.auth.tickets import TICKET_SECONDS
from towpath.channels import (
    is_id,
    is_thread_id,
    tenant_channel,
    thread_channel,
    user_channel,
)
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovery
from towpath.errors import (
    BadRequest,
    LimitExceeded,
    MethodNotFound,
    NotFound,
    PermissionDenied,
    StorageError,
    TooManyRequests,
    Unavailable,
    UnknownChannel,
)
from towpath.events.digest import digest
from towpath.identity import Principal
from towpath.log.broker import Append, Broker, Position, Write, write
from towpath.methods.shapes import (
    Accepted,
    AgentRow,
    Agents,
    CreatedThread,
    Decided,
    DigestKept,
    DigestReport,
    InterruptRow,
    NoParams,
    NoticePublish,
    RunApprove,
    RunCancel,
    RunGet,
    RunList,
    Runs,
    RunStart,
    RunView,
    SessionDisconnect,
    SessionList,
    SessionRevoke,
    SessionRow,
    Sessions,
    Started,
    ThreadCreate,
    ThreadDelete,
    ThreadGet,
    ThreadList,
    ThreadPosition,
    ThreadRename,
    Threads,
    ThreadView,
    Ticket,
    TicketCreate,
    WhoAmI,
)
from towpath.node.revocation_feed import Control
from towpath.rate_limits import Buckets
from towpath.runs.publications import custom
from towpath.runs.requests import Decision, RunRequest, cancel_result, request_key
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore, run_row
from towpath.runs.tables.projection import ThreadCreated, ThreadDeleted, ThreadKey, ThreadRenamed
from towpath.telemetry import Telemetry

RESERVED = "towpath."
"""How the names of the gateway's own notices begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and over which connection, if it is one."""

    principal: Principal
    connection: str | None = None
    origin: str | None = None
    """Of the page it calls from, if it is one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing people can do."""

    name: str
    params: type[Struct]
    result: type[Struct]
    handler: Callable[[Any, Caller, Any], Awaitable[Any]]
    http: tuple[str, str] = ("GET", "")
    """Method and path under `/api/v1`; parts in braces are parameters."""


class Operations:
    """Carries operations out."""

    def __init__(
        self,
        *,
        bridge: RunService,
        broker: Broker,
        store: ThreadStore,
        recovery: Recovery,
        registry: AgentRegistry,
        auth: AuthService,
        control: Control,
        hub: Hub,
        runs: Buckets[tuple[str, str]],
        telemetry: Telemetry,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._bridge = bridge
        self._broker = broker
        self._store = store
        self._recovery = recovery
        self._registry = registry
        self._auth = auth
        self._control = control
        self._hub = hub
        self._runs_allowed = runs
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._clock = clock
        self._new_id = new_id

    async def call(self, method: str, data: bytes, caller: Caller) -> bytes:
        """Carry out an operation given by name and JSON parameters; return its JSON result.

        Raises:
            CommandError: it failed; the code says how.
        """
        operation = OPERATIONS.get(method)
        if operation is None:
            raise MethodNotFound(f"no method {method[:64]!r}")
        try:
            params = msgspec.json.decode(data, type=operation.params)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        return await self.perform(operation, params, caller)

    async def perform(self, operation: Operation, params: Struct, caller: Caller) -> bytes:
        """Carry out an operation whose parameters have their shape; see `call`."""
        for name in ("request_id", "thread_id", "run_id", "interrupt_id", "before"):
            value = getattr(params, name, None)
            if isinstance(value, str) and not is_id(value):
                raise BadRequest(f"{name} must be 1 to 128 printable characters")
        try:
            result = await operation.handler(self, caller, params)
        except StorageError as error:
            raise Unavailable(str(error)) from None
        return result if isinstance(result, bytes) else msgspec.json.encode(result)

    def may_start(self, who: Principal) -> bool:
        """Whether a person may start a run now; it counts as one."""
        return self._runs_allowed.take((who.tenant, who.user), self._monotonic())

    async def _start(self, caller: Caller, params: RunStart) -> bytes:
        if not self.may_start(caller.principal):
            raise TooManyRequests("too many runs at once")
        request = RunRequest(
            request_id=params.request_id,
            agent=params.agent,
            thread_id=params.thread_id,
            message=params.message,
            input=_with_resume(params),
        )
        return await self._bridge.start(caller.principal, request)

    async def _cancel(self, caller: Caller, params: RunCancel) -> bytes:
        key = request_key(caller.principal, "run.cancel", params.request_id, params)
        if (earlier := await self._broker.stored_result(key)) is not None:
            return earlier
        status = await self._bridge.cancel(caller.principal, params.run_id, key=key)
        result = cancel_result(status)
        return (await write(self._broker, Write(key=key, result=lambda _: result))).result

    async def _approve(self, caller: Caller, params: RunApprove) -> bytes:
        decision = Decision(
            request_id=params.request_id,
            run_id=params.run_id,
            interrupt_id=params.interrupt_id,
            decision=params.decision,
            payload=params.payload,
            digest=params.digest,
        )
        return await self._bridge.approve(caller.principal, decision)

    async def _run(self, caller: Caller, params: RunGet) -> RunView:
        who = caller.principal
        found = await self._store.find_run(who.tenant, who.user, params.run_id)
        if found is None:
            raise NotFound("no such run")
        asked = await self._store.interrupts(who.tenant, who.user, params.run_id)
        now = self._clock()
        rows = [
            InterruptRow(
                interrupt_id=one.id,
                status=one.now(now).value,
                asked=one.interrupt,
                expires_at=one.expires,
                decided_at=one.decided,
            )
            for one in asked
        ]
        return RunView(**msgspec.structs.asdict(run_row(found)), interrupts=rows)

    async def _runs(self, caller: Caller, params: RunList) -> Runs:
        who = caller.principal
        if not await self._store.exists(who.tenant, who.user, params.thread_id):
            raise NotFound("no such thread")
        rows = await self._store.runs(who.tenant, who.user, params.thread_id, limit=params.limit)
        return Runs(runs=rows)

    async def _threads(self, caller: Caller, params: ThreadList) -> Threads:
        who = caller.principal
        rows = await self._store.threads(
            who.tenant, who.user, limit=params.limit, before=params.before
        )
        return Threads(threads=rows)

    async def _thread(self, caller: Caller, params: ThreadGet) -> ThreadView:
        who = caller.principal
        stored = await self._store.get(who.tenant, who.user, params.thread_id)
        if stored is None:
            raise NotFound("no such thread")
        channel = thread_channel(who.tenant, who.user, params.thread_id)
        replay = await self._broker.read(channel, stored.offset, limit=0)
        messages = stored.messages
        if params.before is not None:
            ids = [message["id"] for message in messages]
            if params.before not in ids:
                raise NotFound("no such message")
            messages = messages[: ids.index(params.before)]
        position = Position(replay.epoch, stored.offset)
        return ThreadView(
            thread=stored.row,
            messages=messages[-params.limit :],
            more=len(messages) > params.limit,
            state=stored.state,
            position=ThreadPosition(epoch=position.epoch, offset=position.offset),
        )

    async def _report_digest(self, caller: Caller, params: DigestReport) -> DigestKept:
        if params.published == params.shown:
            raise BadRequest("published and shown are the same")
        who = caller.principal
        channel = thread_channel(who.tenant, who.user, params.thread_id)
        try:
            fold = await self._recovery.fold(channel, who.user)
        except UnknownChannel:
            raise NotFound("no such thread") from None
        text = fold.text(params.message_id) if params.message_id in fold else None
        kept = digest(text) if text is not None else None
        self._telemetry.emit(
            telemetry.DigestMismatch(
                tenant=who.tenant,
                user=who.user,
                thread=params.thread_id,
                message=params.message_id,
                published=params.published,
                shown=params.shown,
                kept=kept,
            )
        )
        return DigestKept(digest=kept)

    async def _create(self, caller: Caller, params: ThreadCreate) -> bytes:
        thread = params.thread_id or self._new_id()
        if not is_thread_id(thread):
            raise BadRequest("thread_id must have 248 bytes at most")
        fact = ThreadCreated(key=_key(caller, thread), title=params.title, at=self._clock())
        notice = _notice(caller, "towpath.thread.created", thread)
        result = msgspec.json.encode(CreatedThread(thread_id=thread))
        change = Write((notice,), (fact,), result=lambda _: result)
        return await self._once(caller, "thread.create", params, change)

    async def _rename(self, caller: Caller, params: ThreadRename) -> bytes:
        key = _key(caller, params.thread_id)
        fact = ThreadRenamed(key=key, title=params.title, at=self._clock())
        notice = _notice(caller, "towpath.thread.renamed", params.thread_id)
        change = Write((notice,), (fact,), result=lambda _: b"{}")
        return await self._once(caller, "thread.rename", params, change)

    async def _delete(self, caller: Caller, params: ThreadDelete) -> bytes:
        fact = ThreadDeleted(key=_key(caller, params.thread_id))
        notice = _notice(caller, "towpath.thread.deleted", params.thread_id)
        channel = thread_channel(fact.key.tenant, fact.key.user, fact.key.id)
        change = Write((notice,), (fact,), result=lambda _: b"{}", truncate=(channel,))
        return await self._once(caller, "thread.delete", params, change)

    async def _ticket(self, caller: Caller, params: TicketCreate) -> Ticket:
        ticket = self._auth.tickets.issue(caller.principal, params.origin or caller.origin)
        return Ticket(ticket=ticket, expires_in=int(TICKET_SECONDS))

    async def _sessions(self, caller: Caller, params: SessionList) -> Sessions:
        tenant = _permitted(caller, Action.INSPECT)
        rows = [
            SessionRow(
                connection=member.id,
                user=member.principal.user,
                expires_at=member.principal.expires_at,
                channels=sorted(channel.visible for channel in member.subscriptions),
            )
            for member in self._hub.members(tenant, params.user)
        ]
        return Sessions(sessions=rows)

    async def _revoke(self, caller: Caller, params: SessionRevoke) -> bytes:
        given = [one for one in (params.jti, params.user, params.tenant) if one is not None]
        if len(given) != 1:
            raise BadRequest("name what to take back: one of jti, user and tenant")
        tenant = _permitted(caller, Action.REVOKE, params.tenant)
        now = self._clock()
        revocation = Revocation(tenant=tenant, at=now, token_id=params.jti, user=params.user)
        if not self._auth.revocations.admits(revocation, now):
            raise LimitExceeded(
                "too many revocations are kept already: revoke the whole tenant, which takes the"
                " place of all of them"
            )
        key = request_key(caller.principal, "session.revoke", params.request_id, params)
        request = Write(key=key, result=lambda _: b"{}")
        return (await self._control.publish(self._broker, revocation, request)).result

    async def _disconnect(self, caller: Caller, params: SessionDisconnect) -> bytes:
        tenant = _permitted(caller, Action.DISCONNECT)
        key = request_key(caller.principal, "session.disconnect", params.request_id, params)
        if (earlier := await self._broker.stored_result(key)) is not None:
            return earlier
        for member in self._hub.members(tenant, params.user):
            member.close(codes.FORCED)
        return (await write(self._broker, Write(key=key, result=lambda _: b"{}"))).result

    async def _publish(self, caller: Caller, params: NoticePublish) -> bytes:
        tenant = _permitted(caller, Action.PUBLISH)
        if params.name.startswith(RESERVED):
            raise BadRequest(f"names that begin with {RESERVED} are the gateway's own")
        whom = tenant_channel(tenant) if params.user is None else user_channel(tenant, params.user)
        change = Write((custom(whom, params.name, params.value),), result=lambda _: b"{}")
        return await self._once(caller, "notice.publish", params, change)

    async def _whoami(self, caller: Caller, params: NoParams) -> WhoAmI:
        who = caller.principal
        return WhoAmI(
            user=who.user,
            tenant=who.tenant,
            roles=sorted(who.roles),
            expires_at=who.expires_at,
            connection=caller.connection,
        )

    async def _agents(self, caller: Caller, params: NoParams) -> Agents:
        rows = [AgentRow(name=item.name, description=item.description) for item in self._registry]
        return Agents(agents=rows)

    async def _once(self, caller: Caller, method: str, params: Any, change: Write) -> bytes:
        """Write a change under its request id; return what that id was answered first."""
        key = request_key(caller.principal, method, params.request_id, params)
        return (await write(self._broker, replace(change, key=key))).result


def _with_resume(params: RunStart) -> dict[str, Any] | None:
    """Return a run's input with the answers that stand beside it put where AG-UI has them."""
    if params.resume is None:
        return params.input
    return {**(params.input or {"messages": []}), "resume": params.resume}


def _permitted(caller: Caller, action: Action, tenant: str | None = None) -> str:
    """Return the tenant in which the caller may do this: their own, and no other.

    Raises:
        PermissionDenied: they may not.
    """
    wanted = tenant if tenant is not None else caller.principal.tenant
    if not may(caller.principal, action, wanted):
        raise PermissionDenied
    return wanted


def _key(caller: Caller, thread: str) -> ThreadKey:
    return ThreadKey(tenant=caller.principal.tenant, user=caller.principal.user, id=thread)


def _notice(caller: Caller, name: str, thread: str) -> Append:
    """Return the small event by which a person's other devices learn of a change."""
    channel = user_channel(caller.principal.tenant, caller.principal.user)
    return custom(channel, name, {"thread_id": thread})


_O = Operations
OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("run.start", RunStart, Started, _O._start, ("POST", "/runs")),
        Operation("run.cancel", RunCancel, Accepted, _O._cancel, ("POST", "/runs/{run_id}/cancel")),
        Operation(
            "run.approve",
            RunApprove,
            Decided,
            _O._approve,
            ("POST", "/runs/{run_id}/interrupts/{interrupt_id}"),
        ),
        Operation("run.get", RunGet, RunView, _O._run, ("GET", "/runs/{run_id}")),
        Operation("run.list", RunList, Runs, _O._runs, ("GET", "/threads/{thread_id}/runs")),
        Operation("thread.list", ThreadList, Threads, _O._threads, ("GET", "/threads")),
        Operation("thread.get", ThreadGet, ThreadView, _O._thread, ("GET", "/threads/{thread_id}")),
        Operation("thread.create", ThreadCreate, CreatedThread, _O._create, ("POST", "/threads")),
        Operation(
            "thread.rename", ThreadRename, NoParams, _O._rename, ("PATCH", "/threads/{thread_id}")
        ),
        Operation(
            "thread.delete", ThreadDelete, NoParams, _O._delete, ("DELETE", "/threads/{thread_id}")
        ),
        Operation(
            "digest.report",
            DigestReport,
            DigestKept,
            _O._report_digest,
            ("POST", "/threads/{thread_id}/digests"),
        ),
        Operation("ticket.create", TicketCreate, Ticket, _O._ticket, ("POST", "/tickets")),
        Operation("session.list", SessionList, Sessions, _O._sessions, ("GET", "/sessions")),
        Operation("session.revoke", SessionRevoke, NoParams, _O._revoke, ("DELETE", "/sessions")),
        Operation("notice.publish", NoticePublish, NoParams, _O._publish, ("POST", "/notices")),
        Operation(
            "session.disconnect",
            SessionDisconnect,
            NoParams,
            _O._disconnect,
            ("POST", "/sessions/disconnect"),
        ),
        Operation("whoami", NoParams, WhoAmI, _O._whoami, ("GET", "/whoami")),
        Operation("agent.list", NoParams, Agents, _O._agents, ("GET", "/agents")),
    )
}
"""Every operation, by its RPC name."""
