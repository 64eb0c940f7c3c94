"""The projection's side for SQLite: tables derived from facts, in the database of the log.

`TablesInMemory` are the same tables without a log's file, for an engine that keeps none.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from towpath.log.broker import Question, Span
from towpath.log.sqlite.rows import Table

R = TypeVar("R")


class SqliteProjection(Protocol):
    """Writes tables in the transactions of the log, and answers questions from them."""

    @property
    def tables(self) -> Sequence[Table[Any]]:
        """The tables."""

    def create(self, db: sqlite3.Connection, version: int) -> None:
        """Migrate the tables from schema `version` (0: no tables) to the current version."""

    def apply(self, db: sqlite3.Connection, fact: object, spans: Sequence[Span]) -> None:
        """Apply one fact of a write whose publications have the offsets of `spans`.

        Raises:
            CommandError: the fact contradicts the tables, or a row that it needs is damaged; the
                whole write is refused.
        """

    def answer(self, db: sqlite3.Connection, question: Question[R]) -> R:
        """Answer a question, in a read transaction.

        Raises:
            RowDamaged: what the question is about is damaged.
            TypeError: the projection does not know this kind of question.
        """

    def is_orphan(self, db: sqlite3.Connection, table: Table[Any], row: Any) -> bool:
        """Whether a row belongs to a row of another table, and that row is missing."""

    def carry_over(self, old: sqlite3.Connection, new: sqlite3.Connection) -> Mapping[str, int]:
        """Copy the intact rows of a damaged database into a new one, whose tables exist.

        Args:
            old: the damaged database; `towpath.log.sqlite.integrity.carry_over.readable` reads it.
            new: the new database, in a transaction.

        Returns:
            How many rows of which kind; rows that could not be copied count as `left_out`.
        """


class TablesInMemory:
    """The tables of a projection in memory; used from one thread."""

    def __init__(self, projection: SqliteProjection) -> None:
        """Create the tables."""
        self._projection = projection
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        projection.create(self._db, 0)

    def apply(self, facts: Sequence[object], spans: Sequence[Span]) -> None:
        """Apply the facts of one write, or none of them if one raises.

        Raises:
            CommandError: see `SqliteProjection.apply`.
        """
        self._db.execute("BEGIN")
        try:
            for fact in facts:
                self._projection.apply(self._db, fact, spans)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def answer(self, question: Question[R]) -> R:
        """Answer a question; see `SqliteProjection.answer`."""
        return self._projection.answer(self._db, question)

    def close(self) -> None:
        """Drop the tables."""
        self._db.close()
