"""The methods of threads: list them, read one, create, rename and delete it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from towpath.channels import is_thread_id, thread_channel, user_channel
from towpath.errors import BadRequest, NotFound
from towpath.events.types import Message
from towpath.log.broker import Broker, IdempotencyKey, Write
from towpath.log.idempotency import write_once
from towpath.methods.method import (
    Caller,
    Id,
    Limit,
    Method,
    Mutation,
    NoParams,
    Params,
)
from towpath.runs.model import ThreadCreated, ThreadDeleted, ThreadKey, ThreadRenamed
from towpath.runs.publications import custom
from towpath.runs.questions import ThreadRow
from towpath.runs.requests import ThreadPosition
from towpath.runs.store import ThreadStore

Title = Annotated[str, Meta(max_length=200)]


class ThreadList(Params, frozen=True, kw_only=True):
    """List threads, newest first; `before` is the `updated_at` of the last thread received."""

    limit: Limit = 50
    before: float | None = None


class Threads(Struct, frozen=True, kw_only=True):
    """Threads, newest first."""

    threads: list[ThreadRow]


class ThreadGet(Params, frozen=True, kw_only=True):
    """Get messages of a thread: the newest ones, or those before a message."""

    thread_id: Id
    before: Id | None = None
    limit: Limit = 50


class ThreadView(Struct, frozen=True, kw_only=True):
    """A thread's messages and the position that continues them."""

    thread: ThreadRow
    messages: list[dict[str, Any]]
    more: bool
    """Whether there are older ones."""
    state: Any
    position: ThreadPosition


class ThreadCreate(Mutation, frozen=True, kw_only=True):
    """Create a thread."""

    thread_id: Id | None = None
    title: Title = ""


class CreatedThread(Struct, frozen=True, kw_only=True):
    """A thread's id."""

    thread_id: str


class ThreadRename(Mutation, frozen=True, kw_only=True):
    """Change the title of a thread."""

    thread_id: Id
    title: Title


class ThreadDelete(Mutation, frozen=True, kw_only=True):
    """Delete a thread with its messages, runs and events."""

    thread_id: Id


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadMethods:
    """The handlers and their dependencies."""

    broker: Broker
    store: ThreadStore
    now: Callable[[], float]
    """Unix seconds."""
    new_id: Callable[[], str]

    async def list_threads(self, caller: Caller, params: ThreadList) -> Threads:
        """Return the caller's threads."""
        who = caller.principal
        rows = await self.store.threads(
            who.tenant, who.user, limit=params.limit, before=params.before
        )
        return Threads(threads=rows)

    async def get(self, caller: Caller, params: ThreadGet) -> ThreadView:
        """Return messages of a thread of the caller's, and the position that continues them.

        Raises:
            NotFound: the caller has no such thread, or the thread has no message `before`.
        """
        who = caller.principal
        stored = await self.store.get(who.tenant, who.user, params.thread_id)
        if stored is None:
            raise NotFound("no such thread")
        channel = thread_channel(who.tenant, who.user, params.thread_id)
        replay = await self.broker.read(channel, stored.offset, limit=0)
        messages = _older_than(stored.messages, params.before)
        return ThreadView(
            thread=stored.row,
            messages=messages[-params.limit :],
            more=len(messages) > params.limit,
            state=stored.state,
            position=ThreadPosition(epoch=replay.epoch, offset=stored.offset),
        )

    async def create(self, caller: Caller, params: ThreadCreate) -> CreatedThread:
        """Create a thread of the caller's, with a new id if the caller names none.

        Raises:
            BadRequest: the id is too long for a channel's name.
            Conflict: the caller has a thread with this id.
        """
        thread = params.thread_id or self.new_id()
        if not is_thread_id(thread):
            raise BadRequest("thread_id must have 248 bytes at most")
        fact = ThreadCreated(key=_key(caller, thread), title=params.title, at=self.now())
        change = _announced("towpath.thread.created", fact)
        key = IdempotencyKey.of(caller.principal, "thread.create", params.request_id, params)
        return await write_once(self.broker, key, CreatedThread(thread_id=thread), change)

    async def rename(self, caller: Caller, params: ThreadRename) -> NoParams:
        """Give a thread of the caller's another title.

        Raises:
            NotFound: the caller has no such thread.
        """
        thread = _key(caller, params.thread_id)
        fact = ThreadRenamed(key=thread, title=params.title, at=self.now())
        change = _announced("towpath.thread.renamed", fact)
        key = IdempotencyKey.of(caller.principal, "thread.rename", params.request_id, params)
        return await write_once(self.broker, key, NoParams(), change)

    async def delete(self, caller: Caller, params: ThreadDelete) -> NoParams:
        """Delete a thread of the caller's, with its messages, its runs and its log.

        Raises:
            NotFound: the caller has no such thread.
            Conflict: a run is active on it.
        """
        thread = _key(caller, params.thread_id)
        channel = thread_channel(thread.tenant, thread.user, thread.id)
        change = _announced("towpath.thread.deleted", ThreadDeleted(key=thread))
        change = replace(change, truncate=(channel,))
        key = IdempotencyKey.of(caller.principal, "thread.delete", params.request_id, params)
        return await write_once(self.broker, key, NoParams(), change)


METHODS: tuple[Method[ThreadMethods], ...] = (
    Method("thread.list", ThreadList, Threads, ThreadMethods.list_threads, ("GET", "/threads")),
    Method("thread.get", ThreadGet, ThreadView, ThreadMethods.get, ("GET", "/threads/{thread_id}")),
    Method(
        "thread.create", ThreadCreate, CreatedThread, ThreadMethods.create, ("POST", "/threads")
    ),
    Method(
        "thread.rename",
        ThreadRename,
        NoParams,
        ThreadMethods.rename,
        ("PATCH", "/threads/{thread_id}"),
    ),
    Method(
        "thread.delete",
        ThreadDelete,
        NoParams,
        ThreadMethods.delete,
        ("DELETE", "/threads/{thread_id}"),
    ),
)


def _older_than(messages: list[Message], before: str | None) -> list[Message]:
    """Return the messages before the message with this id; all messages for None.

    Raises:
        NotFound: there is no such message.
    """
    if before is None:
        return messages
    ids = [message["id"] for message in messages]
    if before not in ids:
        raise NotFound("no such message")
    return messages[: ids.index(before)]


def _key(caller: Caller, thread: str) -> ThreadKey:
    return ThreadKey(tenant=caller.principal.tenant, user=caller.principal.user, id=thread)


def _announced(name: str, fact: ThreadCreated | ThreadRenamed | ThreadDeleted) -> Write:
    """Return the write of a change and of the event that notifies the owner's devices."""
    owner = user_channel(fact.key.tenant, fact.key.user)
    return Write((custom(owner, name, {"thread_id": fact.key.id}),), (fact,))
