"""The writer's cache of channel heads.

A head that a batch has changed is not in the file before the batch is committed. So heads are
evicted only after a commit, the least recently used first. A channel gets its row when its first
publication is stored, never by a lookup.

A channel that was forgotten loses its row after a while. Then its offsets would begin anew, and an
old position of a reader would look like a valid one. So the file notes a `floor`, which no offset
of a row that went exceeds: a channel without a row begins above the floor.
"""

import secrets
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Self

from towpath.channels import CONTROL, Channel
from towpath.errors import RowDamaged, StorageError
from towpath.log.sqlite.file_schema import CHANNELS, ChannelRow, note, set_note

_IMPOSSIBLE: Final = 2**53
"""No channel gets this far: offsets are numbers that JSON keeps exact."""


class ChannelDamaged(StorageError):
    """What is stored of a channel is not what was written; the log drops its publications."""

    def __init__(self, channel: Channel) -> None:
        super().__init__("the log of this channel is damaged, and begins anew")
        self.channel = channel
        """The channel, which gets another epoch."""


@dataclass(slots=True)
class Head:
    """The end of one channel."""

    top: int
    base: int = 0
    """The top that the channel had before anything was written to it."""
    id: int | None = None
    """The id of the channel's row; None if it has no row yet."""
    fence: int | None = None
    publications: int = 0
    """How many publications are kept."""
    bytes: int = 0
    updated: float = 0.0
    """When the channel was published to last, in Unix seconds."""
    due: float | None = None
    """When retention checks the channel next, in Unix seconds; None if nothing can expire."""
    salt: int | None = None
    """Part of the channel's epoch; None counts as 0."""
    epoch: str | None = None
    """The channel's epoch; None until it is computed."""

    @classmethod
    def of(cls, row: ChannelRow) -> Self:
        """Return the head that a row holds."""
        return cls(
            top=row.top,
            id=row.id,
            fence=row.hold,
            publications=row.publications,
            bytes=row.bytes,
            updated=row.updated,
            due=row.due,
            salt=row.salt,
            base=row.base or 0,
        )

    def row(self, channel: Channel) -> ChannelRow:
        """Return the head as the table holds it."""
        return ChannelRow(
            id=self.id,
            tenant=channel.tenant,
            name=channel.name,
            top=self.top,
            hold=self.fence,
            publications=self.publications,
            bytes=self.bytes,
            updated=self.updated,
            due=self.due,
            salt=self.salt,
            base=self.base or None,
        )


class Heads:
    """The heads of the most recently used channels."""

    def __init__(self) -> None:
        self._known: OrderedDict[Channel, Head] = OrderedDict()
        self._floor: int | None = None
        """The noted floor; None if it was not read yet."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, db: sqlite3.Connection, channel: Channel) -> Head:
        """Return the head of a channel; an empty head if the file has no row for it.

        Raises:
            ChannelDamaged: the channel's row is not what was written.
            sqlite3.Error: the file cannot be read.
        """
        head = self._known.get(channel)
        if head is None:
            row = row_of(db, channel)
            head = Head.of(row) if row else self._new(db, channel)
            self._known[channel] = head
        self._known.move_to_end(channel)
        return head

    def _new(self, db: sqlite3.Connection, channel: Channel) -> Head:
        base = base_of(channel, self.floor(db))
        return Head(top=base, base=base)

    def floor(self, db: sqlite3.Connection) -> int:
        """Return the offset after which a channel without a row begins."""
        if self._floor is None:
            self._floor = floor_of(db)
        return self._floor

    def delete(self, db: sqlite3.Connection, channel: Channel) -> None:
        """Delete the row and the publications of a channel, whose offsets are not used again."""
        head = self.get(db, channel)
        db.execute("DELETE FROM log WHERE channel=?", (head.id,))
        CHANNELS.delete(db, head.id)
        raise_floor(db, head.top)
        self._floor = None
        del self._known[channel]

    def reset(self, db: sqlite3.Connection, channel: Channel, at: float) -> Head:
        """Drop the publications of a damaged channel, and give the channel another epoch.

        Args:
            db: the connection, in a transaction.
            channel: the channel.
            at: now, in Unix seconds.

        Returns:
            The new head, above every offset that the channel may have had.
        """
        self._known.pop(channel, None)
        found = db.execute(
            f"{CHANNELS.select} WHERE tenant=? AND name=?", (channel.tenant, channel.name)
        ).fetchone()
        top = max(self.floor(db), highest_top(db))
        if found is not None:
            old = CHANNELS.row(*found[1:])
            top = max(top, highest_publication(db, old.id))
            db.execute("DELETE FROM log WHERE channel=?", (old.id,))
            CHANNELS.delete(db, old.id)
        head = self._known[channel] = Head(top=top + 1, salt=secrets.randbits(48) or 1, updated=at)
        save(db, channel, head)
        return head

    def evict(self, keep: int) -> None:
        """Drop the least recently used heads until `keep` are left; all are in the file."""
        while len(self._known) > keep:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Drop all heads: the transaction that changed some of them was rolled back."""
        self._known.clear()
        self._floor = None


def row_of(db: sqlite3.Connection, channel: Channel) -> ChannelRow | None:
    """Return the row of a channel; None if it has none.

    Raises:
        ChannelDamaged: the row is not what was written.
    """
    try:
        where = (channel.tenant, channel.name)
        return next(CHANNELS.rows(db, "WHERE tenant=? AND name=?", where), None)
    except RowDamaged:
        raise ChannelDamaged(channel) from None


def floor_of(db: sqlite3.Connection) -> int:
    """Return the offset after which a channel without a row begins."""
    return int(note(db, "floor") or 0)


def base_of(channel: Channel, floor: int) -> int:
    """Return the top of a channel that has no row.

    The control channel is never forgotten, and begins at 1: its reader can tell that it lacks some.
    """
    return 0 if channel == CONTROL else floor


def raise_floor(db: sqlite3.Connection, offset: int) -> None:
    """Let channels without a row begin after this offset, if they did not yet."""
    if offset > floor_of(db):
        set_note(db, "floor", str(offset))


def salts(db: sqlite3.Connection) -> dict[Channel, int]:
    """Return the salts of the channels whose epoch has one; damaged rows are left out."""
    rows = CHANNELS.intact_rows(db, "WHERE salt IS NOT NULL")
    return {Channel(row.tenant, row.name): row.salt or 0 for row in rows}


def save(db: sqlite3.Connection, channel: Channel, head: Head) -> None:
    """Write the head of a channel that has or had publications to the file.

    Args:
        db: the connection, in a transaction.
        channel: the channel.
        head: its head; a new one gets the id of its row.
    """
    if head.id is not None:
        CHANNELS.update(db, head.row(channel))
        return
    # The checksum covers the id, so the row needs one before it is written. The table keeps its
    # rows in the order of their ids, so the last one is found at once.
    head.id = db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM channels").fetchone()[0]
    db.execute("DELETE FROM log WHERE channel=?", (head.id,))  # Of a row that is missing.
    CHANNELS.insert(db, head.row(channel))


def highest_top(db: sqlite3.Connection) -> int:
    """Return the highest top of any channel; one that only damage can explain does not count."""
    return _highest(db, f"SELECT MAX(top) FROM channels WHERE top < {_IMPOSSIBLE}")


def highest_publication(db: sqlite3.Connection, channel: int | None = None) -> int:
    """Return the highest offset of a publication that damage alone does not explain.

    Args:
        db: the database.
        channel: the id of the channel; None looks at all, and reads the whole index.
    """
    query = f"SELECT MAX(last) FROM log WHERE last < {_IMPOSSIBLE}"
    return (
        _highest(db, query) if channel is None else _highest(db, f"{query} AND channel=?", channel)
    )


def _highest(db: sqlite3.Connection, query: str, *parameters: int) -> int:
    return int(db.execute(query, parameters).fetchone()[0] or 0)
