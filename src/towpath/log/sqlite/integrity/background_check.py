"""A look at a whole log while it is used, for what shows in no row: that some are not there.

A log that was closed well is trusted, so that it can be used at once. Each row that is read is
checked; but a page that was damaged meanwhile can take rows with it, and nobody who reads the
others would know. So the file is looked at from end to end beside everything else, once for each
opening.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from towpath.log.sqlite.health import ERRORS, LogHealth, health_of
from towpath.log.sqlite.integrity.quarantine import find_corruption, open_read_only

_MOMENT = 0.02
"""How long an end is waited for before the look is interrupted once more, in seconds."""


class Examination:
    """One look at one log, in a thread of its own."""

    def __init__(self, path: Path, found: Callable[[str], None]) -> None:
        """Begin.

        Args:
            path: of the log, which is open.
            found: hears, in that thread, what is wrong with it; of a sound one it does not.
        """
        self._found = found
        self._stopped = False
        self._db: sqlite3.Connection | None = None
        self._thread = threading.Thread(
            target=self._look, args=(path,), name="towpath-examination", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until all of it was looked at."""
        self._thread.join()

    def stop(self) -> None:
        """Give up, and wait for the end of it."""
        self._stopped = True
        while self._thread.is_alive():
            if (db := self._db) is not None:
                with contextlib.suppress(sqlite3.ProgrammingError):  # It is closed by now.
                    db.interrupt()
            self._thread.join(_MOMENT)

    def _look(self, path: Path) -> None:
        try:
            with closing(open_read_only(path)) as db:
                self._db = db
                reason = None if self._stopped else find_corruption(db)
                self._db = None
        except ERRORS as error:
            self._db = None
            reason = str(error) if health_of(error) is LogHealth.DAMAGED else None
        if reason is not None and not self._stopped:
            self._found(reason)
