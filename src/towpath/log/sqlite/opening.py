"""Opens a log's file; a damaged file is set aside in quarantine and replaced first."""

from collections.abc import Callable
from pathlib import Path

from towpath.errors import ConfigurationError
from towpath.log.broker import Item, Projection
from towpath.log.sqlite.disk_reserve import DiskReserve, health_on_disk, out_of_room
from towpath.log.sqlite.health import ERRORS, LogHealth, health_of
from towpath.log.sqlite.integrity.quarantine import closed_well, damage_of, set_aside
from towpath.log.sqlite.log_file import LogFile
from towpath.telemetry import LogQuarantined


class Opening:
    """One opening of a log; runs in a thread that may block."""

    def __init__(
        self,
        path: Path,
        new_log: Callable[[Path], LogFile],
        projection: Projection,
        reserve: DiskReserve,
        *,
        boot_id: str,
        lost_control: Callable[[], Item] | None,
        now: Callable[[], float],
        quarantined: Callable[[LogQuarantined], None],
    ) -> None:
        """Describe an opening; `open` performs it.

        Args:
            path: the database.
            new_log: opens or creates a log file at a path.
            projection: copies its tables from a damaged file.
            reserve: is freed if the disk has no room even for opening.
            boot_id: the machine's boot id; empty if it is unknown.
            lost_control: makes the publication for a control channel that damage cut short.
            now: Unix seconds.
            quarantined: is notified that a damaged file was set aside.
        """
        self._path = path
        self._new_log = new_log
        self._projection = projection
        self._reserve = reserve
        self._boot_id = boot_id
        self._lost_control = lost_control
        self._now = now
        self._quarantined = quarantined
        self.unseen = False
        """Whether the file was opened without a full check, because it was closed cleanly."""

    def _heal(self, mark: str) -> None:
        """Set a damaged log aside.

        Raises:
            ConfigurationError: the file is damaged, and no log was opened here before: it may not
                be a log of Towpath, so it is left as it is.
        """
        try:
            reason = damage_of(self._path, same_life=mark == self._boot_id != "")
        except ERRORS as error:
            # The queries are correct, so a missing table or column is damage too.
            if health_of(error) not in (LogHealth.DAMAGED, None):
                raise
            reason = str(error)
        if reason is None:
            return
        if not mark:
            raise ConfigurationError(f"cannot open {self._path}: {reason}")
        self._set_aside(reason)

    def _set_aside(self, reason: str) -> None:
        made = set_aside(
            self._path,
            self._new_log,
            self._projection,
            reason=reason,
            lost_control=self._lost_control,
            at=self._now(),
        )
        self._quarantined(
            LogQuarantined(
                path=str(made.path), reason=reason, carried=made.carried, control=made.control
            )
        )

    def open(self, mark: str) -> LogFile:
        """Open the file; if the disk has no room even for that, free the reserve first.

        Args:
            mark: the content of the lock file: the boot id under which a log was opened here last.
        """
        try:
            return self._open_sound(mark)
        except (*ERRORS, OSError) as error:
            full = health_on_disk(error, self._path) is LogHealth.FULL or out_of_room(self._path)
            if not full or not self._reserve.give_back():
                raise
        return self._open_sound(mark)

    def _open_sound(self, mark: str) -> LogFile:
        self._heal(mark)
        try:
            self.unseen = closed_well(self._path)
            return self._new_log(self._path)
        except ERRORS as error:  # The file was damaged after it was closed cleanly.
            if health_of(error) is not LogHealth.DAMAGED or not mark:
                raise
            self._set_aside(str(error))
        self.unseen = False
        return self._new_log(self._path)
