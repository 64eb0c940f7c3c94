"""Opening a log's file: a sound one as it is, a damaged one after its quarantine."""

from collections.abc import Callable
from pathlib import Path

from towpath.errors import ConfigurationError
from towpath.log.broker import Item, Projection
from towpath.log.disk_reserve import DiskReserve, health_on_disk, out_of_room
from towpath.log.health import ERRORS, LogHealth, health_of
from towpath.log.integrity.quarantine import closed_well, damage_of, set_aside
from towpath.log.log_file import LogFile
from towpath.telemetry import LogQuarantined


class Opening:
    """One opening of a log; runs in a thread that may wait for the disk."""

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
        """Describe an opening; nothing is touched before `open`.

        Args:
            path: the database.
            new_log: opens or creates a log file at a path.
            projection: carries its tables over from a damaged file.
            reserve: gives its room back where the disk has none even for opening.
            boot_id: which life of the machine this is; empty where that is unknown.
            lost_control: makes what the control channel says where damage took some of it.
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
        """Whether the file is used without a check, because it was closed well."""

    def _heal(self, mark: str) -> None:
        """Set a damaged log aside; one that was never ours is left alone."""
        try:
            reason = damage_of(self._path, same_life=mark == self._boot_id != "")
        except ERRORS as error:
            # What is asked is right, so a table or column that is not there is damage too.
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
        """Open the file; where the disk has no room even for that, in the reserve's.

        Args:
            mark: what the lock file says: in which life of the machine a log was opened here.
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
        except ERRORS as error:  # It was closed well, and damaged since.
            if health_of(error) is not LogHealth.DAMAGED or not mark:
                raise
            self._set_aside(str(error))
        self.unseen = False
        return self._new_log(self._path)
