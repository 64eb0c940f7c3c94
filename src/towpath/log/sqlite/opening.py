"""Opens a log's file; what can be read of a damaged file is carried over into a new one first.

An opening does not look for damage: its time does not grow with the file. A file counts as damaged
if SQLite cannot open it or read the notes on it, or if its companion says that damage was found
while it was in use.
"""

from collections.abc import Callable
from pathlib import Path

from towpath.errors import ConfigurationError, RowDamaged
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.disk_reserve import DiskReserve, health_on_disk, out_of_room
from towpath.log.sqlite.health import ERRORS, LogHealth, health_of
from towpath.log.sqlite.integrity.carry_over import carry_over, finish
from towpath.log.sqlite.log_file import LogFile
from towpath.log.sqlite.projection import SqliteProjection
from towpath.telemetry import LogQuarantined


class Opening:
    """One opening of a log; runs in a thread that may block."""

    def __init__(
        self,
        path: Path,
        new_log: Callable[[Path], LogFile],
        projection: SqliteProjection,
        reserve: DiskReserve,
        continuity: Continuity,
        *,
        quarantined: Callable[[LogQuarantined], None],
    ) -> None:
        """Describe an opening; `open` performs it.

        Args:
            path: the database.
            new_log: opens or creates a log file at a path.
            projection: carries its tables over from a damaged file.
            reserve: is freed if the disk has no room even for opening.
            continuity: knows whether the last process that used the file found damage.
            quarantined: is notified that a damaged file was set aside.
        """
        self._path = path
        self._new_log = new_log
        self._projection = projection
        self._reserve = reserve
        self._continuity = continuity
        self._quarantined = quarantined

    def open(self, mark: str) -> LogFile:
        """Open the file; if the disk has no room even for that, free the reserve first.

        Args:
            mark: the content of the lock file; empty if no log was ever opened here.

        Raises:
            sqlite3.Error, OSError: the file cannot be opened. A damaged file in a directory where
                no log was opened before may not be a log of Towpath, so it is left as it is.
        """
        try:
            return self._open_sound(mark)
        except (*ERRORS, OSError) as error:
            full = health_on_disk(error, self._path) is LogHealth.FULL or out_of_room(self._path)
            if not full or not self._reserve.give_back():
                raise
        return self._open_sound(mark)

    def _open_sound(self, mark: str) -> LogFile:
        finish(self._path)
        reason = self._continuity.damaged if self._path.exists() else None
        if reason is None:
            try:
                return self._new_log(self._path)
            except (*ERRORS, RowDamaged) as error:
                # The statements are correct, so a missing table or column is damage too.
                if health_of(error) not in (LogHealth.DAMAGED, None):
                    raise
                if not mark:
                    raise ConfigurationError(f"cannot open {self._path}: {error}") from None
                reason = str(error)
        self._carry_over(reason)
        return self._new_log(self._path)

    def _carry_over(self, reason: str) -> None:
        self._continuity.mark_damaged(reason)
        made = carry_over(self._path, self._new_log, self._projection)
        self._quarantined(
            LogQuarantined(
                path=str(made.path), reason=reason, carried=made.counts, control=made.control
            )
        )
