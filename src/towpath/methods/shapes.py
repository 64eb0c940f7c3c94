"""What goes into operations and comes out of them, the same at the wire and over REST.

Each class's docstring is the operation's description in the reference.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from towpath.runs.store import RunRow, ThreadRow

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Title = Annotated[str, Meta(max_length=200)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
"""Of a user or a tenant."""
Limit = Annotated[int, Meta(ge=1, le=200)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
"""Of a text, as the tags of publications have it."""


class RunStart(Struct, frozen=True, kw_only=True):
    """Ask an agent."""

    request_id: Id
    agent: Id
    thread_id: Id | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    resume: list[dict[str, Any]] | None = None


class RunCancel(Struct, frozen=True, kw_only=True):
    """Stop a run."""

    request_id: Id
    run_id: Id


class RunApprove(Struct, frozen=True, kw_only=True):
    """Answer something a run asked before it ended; the last answer begins the run that goes on."""

    request_id: Id
    run_id: Id
    interrupt_id: Id
    decision: Id
    payload: Any = None
    digest: Annotated[str, Meta(max_length=64)] | None = None


class RunGet(Struct, frozen=True, kw_only=True):
    """Ask about a run."""

    run_id: Id


class RunList(Struct, frozen=True, kw_only=True):
    """Ask for the runs of a thread, the latest first."""

    thread_id: Id
    limit: Limit = 50


class ThreadList(Struct, frozen=True, kw_only=True):
    """Ask for threads, the latest first; `before` is the `updated_at` of the last one seen."""

    limit: Limit = 50
    before: float | None = None


class ThreadGet(Struct, frozen=True, kw_only=True):
    """Ask for a thread's messages: the newest, or those before a message."""

    thread_id: Id
    before: Id | None = None
    limit: Limit = 50


class ThreadCreate(Struct, frozen=True, kw_only=True):
    """Make a thread."""

    request_id: Id
    thread_id: Id | None = None
    title: Title = ""


class ThreadRename(Struct, frozen=True, kw_only=True):
    """Give a thread another title."""

    request_id: Id
    thread_id: Id
    title: Title


class ThreadDelete(Struct, frozen=True, kw_only=True):
    """Remove a thread and all of it."""

    request_id: Id
    thread_id: Id


class DigestReport(Struct, frozen=True, kw_only=True):
    """Say that what you show of a message is not what was said; it is counted.

    `published` is the digest that came with the message, `shown` that of the text you show.
    """

    thread_id: Id
    message_id: Id
    published: Digest
    shown: Digest


class TicketCreate(Struct, frozen=True, kw_only=True):
    """Get a one-use ticket, for a client that can send no token; `origin` binds it to a page's."""

    origin: Id | None = None


class SessionList(Struct, frozen=True, kw_only=True):
    """See a person's live connections (role `towpath:inspect`)."""

    user: Id


class SessionRevoke(Struct, frozen=True, kw_only=True):
    """Take credentials back: a token by `jti`, a user's, or a tenant's (role `towpath:revoke`)."""

    request_id: Id
    jti: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    user: Name | None = None
    tenant: Name | None = None


class SessionDisconnect(Struct, frozen=True, kw_only=True):
    """End a person's connections (role `towpath:disconnect`); their credentials stay good."""

    request_id: Id
    user: Id


class NoticePublish(Struct, frozen=True, kw_only=True):
    """Tell a user, or without one everybody of the tenant, something (role `towpath:service`)."""

    request_id: Id
    name: Id
    value: Any = None
    user: Name | None = None


class NoParams(Struct, frozen=True, kw_only=True):
    """No parameters."""


class Accepted(Struct, frozen=True, kw_only=True):
    """What became of a cancel: `accepted` or `too_late`."""

    status: str


class ThreadPosition(Struct, frozen=True, kw_only=True):
    """Where to subscribe from."""

    epoch: str
    offset: int


class Decided(Struct, frozen=True, kw_only=True):
    """What became of a decision: `accepted`, `already`, `expired` or `gone`; and what goes on."""

    status: str
    run_id: str | None = None
    thread_id: str | None = None
    position: ThreadPosition | None = None


class InterruptRow(Struct, frozen=True, kw_only=True):
    """Something a run asked, and where it stands. Times are Unix seconds."""

    interrupt_id: str
    status: str
    asked: dict[str, Any]
    expires_at: float
    decided_at: float | None


class RunView(RunRow, frozen=True, kw_only=True):
    """A run, and what it asked."""

    interrupts: list[InterruptRow]


class Runs(Struct, frozen=True, kw_only=True):
    """Runs, the latest first."""

    runs: list[RunRow]


class Threads(Struct, frozen=True, kw_only=True):
    """Threads, the latest first."""

    threads: list[ThreadRow]


class ThreadView(Struct, frozen=True, kw_only=True):
    """A thread's messages and the position that continues them."""

    thread: ThreadRow
    messages: list[dict[str, Any]]
    more: bool
    """Whether there are older ones."""
    state: Any
    position: ThreadPosition


class Started(Struct, frozen=True, kw_only=True):
    """A run that began, and the position before its first event."""

    thread_id: str
    run_id: str
    position: ThreadPosition


class DigestKept(Struct, frozen=True, kw_only=True):
    """The digest of a message's text as it is kept; null where there is no such message."""

    digest: str | None


class CreatedThread(Struct, frozen=True, kw_only=True):
    """A thread's id."""

    thread_id: str


class Ticket(Struct, frozen=True, kw_only=True):
    """A ticket, and how many seconds it waits to be used."""

    ticket: str
    expires_in: int


class SessionRow(Struct, frozen=True, kw_only=True):
    """A live connection on this node."""

    connection: str
    user: str
    expires_at: float | None
    channels: list[str]


class Sessions(Struct, frozen=True, kw_only=True):
    """Live connections on this node."""

    sessions: list[SessionRow]


class WhoAmI(Struct, frozen=True, kw_only=True):
    """Who the server takes the caller for."""

    user: str
    tenant: str
    roles: list[str]
    expires_at: float | None
    connection: str | None


class AgentRow(Struct, frozen=True, kw_only=True):
    """An agent that may be asked."""

    name: str
    description: str


class Agents(Struct, frozen=True, kw_only=True):
    """The agents of this gateway."""

    agents: list[AgentRow]
