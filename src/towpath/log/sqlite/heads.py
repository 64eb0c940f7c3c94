"""The writer's cache of channel heads.

A head that a batch has changed is not in the file before the batch is committed. So heads are
evicted only after a commit, the least recently used first. A channel gets its row when its first
publication is stored, never by a lookup.
"""

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass

from towpath.channels import Channel
from towpath.log.sqlite.integrity import checksums

_COLUMNS = "id, top, hold, publications, bytes, due"
_SELECT = f"SELECT {_COLUMNS} FROM {checksums.CHECKED}channels WHERE tenant=? AND name=?"


@dataclass(slots=True)
class Head:
    """The end of one channel."""

    id: int | None = None
    """The id of the channel's row; None if it has no row yet."""
    top: int = 0
    fence: int | None = None
    publications: int = 0
    """How many publications are kept."""
    bytes: int = 0
    due: float | None = None
    """When retention checks the channel next, in Unix seconds; None if nothing can expire."""


class Heads:
    """The heads of the most recently used channels."""

    def __init__(self) -> None:
        self._known: OrderedDict[Channel, Head] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, db: sqlite3.Connection, channel: Channel) -> Head:
        """Return the head of a channel; an empty head if the file has no row for it.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        head = self._known.get(channel)
        if head is None:
            row = db.execute(_SELECT, (channel.tenant, channel.name)).fetchone()
            head = self._known[channel] = Head(*row) if row else Head()
        self._known.move_to_end(channel)
        return head

    def evict(self, keep: int) -> None:
        """Drop the least recently used heads until `keep` are left; all are in the file."""
        while len(self._known) > keep:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Drop all heads: the transaction that changed some of them was rolled back."""
        self._known.clear()


def save(db: sqlite3.Connection, channel: Channel, head: Head, at: float) -> None:
    """Write the head of a channel that has or had publications to the file.

    Args:
        db: the connection, in a transaction.
        channel: the channel.
        head: its head; a new one gets the id of its row.
        at: when the channel was last published to, in Unix seconds.
    """
    if head.id is None:
        head.id = db.execute(
            "INSERT INTO channels (tenant, name, top, hold, publications, bytes, updated, due)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (channel.tenant, channel.name, *_values(head), at, head.due),
        ).lastrowid
        return
    db.execute(
        "UPDATE channels SET top=?, hold=?, publications=?, bytes=?, updated=?, due=? WHERE id=?",
        (*_values(head), at, head.due, head.id),
    )


def _values(head: Head) -> tuple[int, int | None, int, int]:
    return head.top, head.fence, head.publications, head.bytes
