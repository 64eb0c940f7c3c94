"""Threads and their messages as tables of the projection, up to the last terminal event."""

import sqlite3
from itertools import islice
from typing import NamedTuple

import msgspec

from towpath.errors import Conflict, NotFound, RowDamaged
from towpath.events.types import Message
from towpath.log.broker import Span
from towpath.log.sqlite.rows import Table
from towpath.runs.model import (
    RunClosed,
    RunOpened,
    ThreadCreated,
    ThreadKey,
    ThreadMoved,
    ThreadRenamed,
)
from towpath.runs.questions import (
    HasActiveRun,
    StoredThread,
    ThreadById,
    ThreadExists,
    ThreadRow,
    ThreadsOfUser,
)
from towpath.runs.tables.sqlite import runs

SCHEMA = """
CREATE TABLE threads (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    offset INTEGER NOT NULL,
    state BLOB,
    last_started BLOB,
    last_ended BLOB,
    PRIMARY KEY (tenant, user, id)
) WITHOUT ROWID;
CREATE INDEX threads_updated ON threads (tenant, user, updated);
CREATE TABLE messages (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    thread TEXT NOT NULL,
    place INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, user, thread, place)
) WITHOUT ROWID;
"""
_OF_THREAD = "tenant=? AND user=? AND thread=?"
_ALWAYS = 1e18
"""Unix seconds after every update."""


class ThreadColumns(NamedTuple):
    """One row of `threads`."""

    tenant: str
    user: str
    id: str
    title: str
    created: float
    updated: float
    offset: int
    """The offset of the last terminal event."""
    state: bytes | None = None
    """JSON."""
    last_started: bytes | None = None
    """RUN_STARTED of the run that ended last, as JSON, without its input."""
    last_ended: bytes | None = None
    """The terminal event of that run, as JSON."""
    messages: int | None = None
    """How many messages the thread has; None if an older version wrote the row."""

    @property
    def key(self) -> ThreadKey:
        """The key of the thread."""
        return ThreadKey(tenant=self.tenant, user=self.user, id=self.id)

    def listed(self, active_run: str | None) -> ThreadRow:
        """Return the thread as a list shows it."""
        return ThreadRow(
            id=self.id,
            title=self.title,
            created_at=self.created,
            updated_at=self.updated,
            active_run=active_run,
        )


class MessageColumns(NamedTuple):
    """One row of `messages`."""

    tenant: str
    user: str
    thread: str
    place: int
    """From 0, without a gap."""
    id: str
    body: bytes
    """The message as JSON."""


THREADS = Table("threads", ThreadColumns, key=("tenant", "user", "id"))
MESSAGES = Table("messages", MessageColumns, key=("tenant", "user", "thread", "place"))


def create(db: sqlite3.Connection, fact: ThreadCreated) -> ThreadColumns:
    """Create a thread; return its row.

    Raises:
        Conflict: there is a thread with this id.
    """
    row = ThreadColumns(*fact.key.columns, fact.title, fact.at, fact.at, 0)
    try:
        THREADS.insert(db, row)
    except sqlite3.IntegrityError:
        raise Conflict("there is a thread of that id") from None
    return row


def rename(db: sqlite3.Connection, fact: ThreadRenamed) -> None:
    """Change the title of a thread.

    Raises:
        NotFound: there is no such thread.
        RowDamaged: its row is damaged.
    """
    row = THREADS.get(db, *fact.key.columns)
    if row is None:
        raise NotFound("no such thread")
    THREADS.update(db, row._replace(title=fact.title, updated=fact.at))


def begin_run(db: sqlite3.Connection, fact: RunOpened, span: Span) -> None:
    """Write that a run of a thread has begun; create the thread if it does not exist.

    Raises:
        ThreadMoved: the thread has changed since its history was read.
        RowDamaged: its row is damaged.
    """
    key = ThreadKey(tenant=fact.key.tenant, user=fact.key.user, id=fact.key.thread)
    row = THREADS.get(db, *key.columns)
    if (row.offset if row else 0) != fact.thread_offset:
        raise ThreadMoved
    if row is None:
        row = create(db, ThreadCreated(key=key, title=fact.title, at=fact.at))
    changed = row._replace(
        updated=fact.at,
        title=row.title or fact.title,
        # The channel of a deleted thread keeps its offsets; a new thread of that id continues them.
        offset=row.offset or span.first - 1,
    )
    THREADS.update(db, changed)


def end_run(db: sqlite3.Connection, fact: RunClosed, span: Span) -> None:
    """Write the conversation after a run that has ended.

    The ending of a run must not fail: a damaged row is left as it is, until the thread is deleted.
    """
    key = ThreadKey(tenant=fact.key.tenant, user=fact.key.user, id=fact.key.thread)
    try:
        row = THREADS.get(db, *key.columns)
    except RowDamaged:
        return
    if row is None:
        return
    row = row._replace(
        updated=fact.at,
        offset=span.last,
        last_started=msgspec.json.encode({k: v for k, v in fact.started.items() if k != "input"}),
        last_ended=msgspec.json.encode(fact.ended),
    )
    if fact.messages is not None:
        state = None if fact.state is None else msgspec.json.encode(fact.state)
        row = row._replace(state=state, messages=len(fact.messages))
        _store_messages(db, key, fact.messages)
    THREADS.update(db, row)


def exists(db: sqlite3.Connection, question: ThreadExists) -> bool:
    """Answer a question; see there."""
    return THREADS.get(db, question.tenant, question.user, question.thread) is not None


def has_active_run(db: sqlite3.Connection, question: HasActiveRun) -> bool:
    """Answer a question; see there."""
    key = ThreadKey(tenant=question.tenant, user=question.user, id=question.thread)
    return runs.active(db, key) is not None


def of_user(db: sqlite3.Connection, question: ThreadsOfUser) -> list[ThreadRow]:
    """Answer a question; see there."""
    before = _ALWAYS if question.before is None else question.before
    rows = THREADS.intact_rows(
        db,
        "WHERE tenant=? AND user=? AND updated < ? ORDER BY updated DESC",
        (question.tenant, question.user, before),
    )
    return [row.listed(runs.intact_active(db, row.key)) for row in islice(rows, question.limit)]


def stored(db: sqlite3.Connection, question: ThreadById) -> StoredThread | None:
    """Answer a question; see there.

    Raises:
        RowDamaged: a row of the thread is damaged, or a message is missing.
    """
    columns = (question.tenant, question.user, question.thread)
    row = THREADS.get(db, *columns)
    if row is None:
        return None
    messages = list(MESSAGES.rows(db, f"WHERE {_OF_THREAD} ORDER BY place", columns))
    if row.messages is not None and row.messages != len(messages):
        raise RowDamaged(MESSAGES.name)
    started, ended = row.last_started, row.last_ended
    return StoredThread(
        row=row.listed(runs.active(db, row.key)),
        offset=row.offset,
        state=None if row.state is None else msgspec.json.decode(row.state),
        last_run=(msgspec.json.decode(started), msgspec.json.decode(ended))
        if started is not None and ended is not None
        else None,
        messages=[msgspec.json.decode(message.body) for message in messages],
    )


def delete_messages(db: sqlite3.Connection, thread: ThreadKey) -> None:
    """Delete the messages of a thread, also damaged ones."""
    db.execute(f"DELETE FROM messages WHERE {_OF_THREAD}", thread.columns)


def _store_messages(db: sqlite3.Connection, thread: ThreadKey, messages: list[Message]) -> None:
    """Replace the stored conversation by this one; write only rows that differ."""
    found = MESSAGES.intact_rows(db, f"WHERE {_OF_THREAD}", thread.columns)
    known = {row.place: row for row in found}
    for place, message in enumerate(messages):
        row = MessageColumns(*thread.columns, place, message["id"], msgspec.json.encode(message))
        if known.get(place) != row:
            MESSAGES.replace(db, row)
    beyond = (*thread.columns, len(messages))
    db.execute(f"DELETE FROM messages WHERE {_OF_THREAD} AND place >= ?", beyond)
