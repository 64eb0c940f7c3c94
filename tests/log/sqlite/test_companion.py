"""When a log keeps its epoch, and when it may lack something that readers have seen."""

import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from towpath.log.sqlite import companion
from towpath.log.sqlite.commit_counter import Counted
from towpath.log.sqlite.companion import Companion, DatabaseState, OpeningId, reason_for_new_epoch

NEW = DatabaseState(
    epoch="", opening=companion.UNOPENED, commits=0, boot_id="", synchronous="NORMAL"
)
SOUND = Companion(epoch="e", opening=OpeningId(3, "n3"), commits=5)
"""The companion of a log that was killed."""
DATABASE = DatabaseState(
    epoch="e", opening=OpeningId(3, "n3"), commits=7, boot_id="life", synchronous="NORMAL"
)


def reason(
    said: Companion | None = SOUND,
    database: DatabaseState | None = DATABASE,
    *,
    counted: Counted | None = Counted(7, 4),  # noqa: B008 # It is a tuple.
    in_file: int | None = 4,
    wal_present: bool = True,
    boot_id: str = "life",
) -> str | None:
    return reason_for_new_epoch(
        said,
        database,
        counted=counted,
        in_file=in_file,
        wal_present=wal_present,
        boot_id=boot_id,
    )


def test_a_killed_log_keeps_its_epoch() -> None:
    """After a kill nothing is missing, so positions stay valid."""
    assert reason() is None


def test_an_unfinished_opening_keeps_the_epoch() -> None:
    """A crash before or after the transaction of an opening lost nothing."""
    pending = companion.begun(SOUND, DATABASE, OpeningId(4, "n4"), None)
    assert reason(pending) is None
    assert reason(pending, replace(DATABASE, opening=OpeningId(4, "n4"))) is None


def test_two_unfinished_openings_keep_the_epoch() -> None:
    """The second opening remembers that the database holds the first."""
    there = replace(DATABASE, opening=OpeningId(4, "n4"))
    first = companion.begun(SOUND, DATABASE, there.opening, None)
    second = companion.begun(first, there, OpeningId(5, "n5"), None)
    assert reason(second, there) is None


def test_a_reason_is_kept_until_the_database_has_the_new_epoch() -> None:
    """An opening that crashed may have destroyed the evidence; the companion keeps the reason."""
    pending = companion.begun(SOUND, DATABASE, OpeningId(4, "n4"), companion.WAL_MISSING)
    assert reason(pending) == companion.WAL_MISSING
    assert reason(pending, replace(DATABASE, opening=OpeningId(4, "n4"))) is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"said": None}, companion.COMPANION_MISSING),
        ({"said": replace(SOUND, renew="asked for")}, "asked for"),
        ({"database": None}, companion.DATABASE_MISSING),
        ({"database": replace(DATABASE, opening=OpeningId(2, "n2"))}, "older copy"),
        ({"database": NEW}, "older copy"),
        ({"database": replace(DATABASE, opening=OpeningId(3, "x"))}, companion.OTHER_DATABASE),
        ({"database": replace(DATABASE, opening=OpeningId(4, "x"))}, companion.OTHER_DATABASE),
        ({"database": replace(DATABASE, epoch="f")}, companion.OTHER_EPOCH),
        ({"database": replace(DATABASE, commits=4), "counted": None}, "holds commit 4.* was 5"),
        ({"database": replace(DATABASE, commits=6)}, "holds commit 6, and the last one was 7"),
        ({"in_file": 3}, companion.OLDER_FILE),
        ({"counted": None}, companion.COUNTER_MISSING),
        ({"wal_present": False}, companion.WAL_MISSING),
        ({"boot_id": "next life"}, companion.MACHINE_STOPPED),
        ({"boot_id": "", "database": replace(DATABASE, boot_id="")}, companion.MACHINE_STOPPED),
    ],
)
def test_what_readers_may_have_seen_and_is_missing_is_named(
    changed: dict[str, object], told: str
) -> None:
    """Each sign of a log that went back in time costs the epoch, and is named in the reason."""
    found = reason(**changed)  # type: ignore[arg-type]
    assert found is not None
    assert re.search(told, found)


@pytest.mark.parametrize(
    "changed",
    [
        {"said": companion.closed(SOUND, 7), "wal_present": False, "boot_id": "next life"},
        {"said": companion.closed(SOUND, 7), "wal_present": False, "counted": None},
        {"boot_id": "next life", "database": replace(DATABASE, synchronous="FULL")},
        {"in_file": None},
        {"said": None, "database": None},
        {"said": None, "database": NEW},
        {"said": replace(SOUND, damaged="page 7"), "database": NEW},
    ],
)
def test_a_log_that_lacks_nothing_keeps_its_epoch(changed: dict[str, object]) -> None:
    """Neither a clean close, nor FULL, nor a new database is a reason."""
    assert reason(**changed) is None  # type: ignore[arg-type]


def test_the_file_holds_what_was_written(tmp_path: Path) -> None:
    """A companion is read as it was written; only the owner can read it; no other file remains."""
    path = tmp_path / "towpath.companion"
    written = replace(SOUND, pending=OpeningId(4, "n4"), renew="why", damaged="a page")
    companion.write(path, SOUND)
    companion.write(path, written)
    assert companion.read(path) == written
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_malformed_file_counts_as_missing(tmp_path: Path) -> None:
    """A companion file that was cut or overwritten gives None."""
    path = tmp_path / "towpath.companion"
    assert companion.read(path) is None
    companion.write(path, SOUND)
    whole = path.read_bytes()
    for malformed in (b"", whole[:-1], b"\xff" + whole, b"[]", b'{"commits": "many"}'):
        path.write_bytes(malformed)
        assert companion.read(path) is None


Content = tuple[int | None, ...]
"""The history of a log: by offset, the content of each commit; None for one that is not there."""


@dataclass(frozen=True)
class Wal:
    """A write-ahead log: everything before `begins` is in the database."""

    begins: int
    transactions: tuple[tuple[int | None, DatabaseState], ...]
    """What each transaction committed, None for an opening; and the state of the database then."""
    synced: int = 0
    """How many transactions survive a stop of the machine."""

    def __add__(self, transaction: tuple[int | None, DatabaseState]) -> "Wal":
        return replace(self, transactions=(*self.transactions, transaction))

    def sync(self) -> "Wal":
        return replace(self, synced=len(self.transactions))


@dataclass(frozen=True)
class Disk:
    """The files of a data directory."""

    content: Content = ()
    state: DatabaseState | None = None
    """Of the database without the write-ahead log."""
    wal: Wal | None = None
    said: Companion | None = None
    counted: Counted | None = None

    def database(self) -> tuple[Content, DatabaseState | None]:
        """Return what SQLite reads: the write-ahead log over the database."""
        if self.state is None or self.wal is None or not self.wal.transactions:
            return self.content, self.state
        hole = (None,) * (self.wal.begins - len(self.content))
        made = (content for content, _ in self.wal.transactions if content is not None)
        state = self.wal.transactions[-1][1]
        return (*self.content[: self.wal.begins], *hole, *made), state


@dataclass
class Log:
    """A process that has the log open."""

    commits: int
    in_file: int
    folded: bool = False
    """Whether all of the write-ahead log is in the database."""


@dataclass
class World:
    """The disk, copies of earlier states of it, and what readers got."""

    disk: Disk = field(default_factory=Disk)
    copies: list[Disk] = field(default_factory=list)
    got: dict[str, dict[int, int]] = field(default_factory=dict)
    """By epoch and offset, the content that readers received."""
    boots: int = 0


STEPS = st.sampled_from([""] * 8 + ["prepared", "begun", "committed", "counted"])


class Histories(RuleBasedStateMachine):
    """Openings, commits, checkpoints, closes and kills between any two steps, and people who move
    files while the log is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.log: Log | None = None
        self.moved = False
        """Whether anybody but the log touched the files since the last opening."""
        self.numbers = 0
        self.chance = random.Random(0)

    def fresh(self) -> int:
        self.numbers += 1
        return self.numbers

    @precondition(lambda self: self.log is None)
    @rule(step=STEPS)
    def open(self, step: str) -> None:
        """Open the log as `Continuity` and `LogFile` do; a kill comes after `step`."""
        disk = self.world.disk
        content, found = disk.database()
        boot = f"life {self.world.boots}"
        in_file = disk.state.commits if disk.state is not None else None
        why = reason_for_new_epoch(
            disk.said,
            found,
            counted=disk.counted,
            in_file=in_file,
            wal_present=disk.wal is not None,
            boot_id=boot,
        )
        if not self.moved:
            assert why is None, "nothing but kills happened"
        opening = OpeningId(companion.next_number(disk.said, found), f"nonce {self.fresh()}")
        if step == "prepared":
            return
        said = companion.begun(disk.said, found, opening, why)
        disk = self.world.disk = replace(disk, said=said)
        if step == "begun":
            return
        known = found is not None and found.opening.number and why is None
        state = DatabaseState(
            epoch=found.epoch if found is not None and known else f"epoch {self.fresh()}",
            opening=opening,
            commits=found.commits if found is not None else 0,
            boot_id=boot,
            synchronous="NORMAL",
        )
        if disk.state is None:
            disk = replace(disk, content=(), state=NEW, wal=None)
        wal = (disk.wal or Wal(len(content), ())) + (None, state)
        disk = self.world.disk = replace(disk, wal=wal)
        if step == "committed":
            return
        counted = Counted(state.commits, min(in_file or 0, state.commits))
        disk = self.world.disk = replace(disk, counted=counted)
        if step == "counted":
            return
        self.world.disk = replace(disk, said=companion.opened(said, state))
        self.log = Log(state.commits, counted.in_file)
        self.moved = False
        self.world.copies.append(self.world.disk)

    @precondition(lambda self: self.log is not None)
    @rule(checkpoint=st.booleans(), kill=st.sampled_from(["", "", "", "torn", "committed"]))
    def commit(self, checkpoint: bool, kill: str) -> None:
        """Commit once, perhaps with a checkpoint; a kill comes inside it or after the COMMIT."""
        assert self.log is not None
        disk, log = self.world.disk, self.log
        content, state = disk.database()
        assert state is not None
        assert disk.wal is not None
        log.commits += self.chance.randint(1, 2)
        made, state = self.fresh(), replace(state, commits=log.commits)
        wal = (Wal(len(content), ()) if log.folded else disk.wal) + (made, state)
        if checkpoint or kill == "torn":
            wal = wal.sync()
        log.folded = False
        disk = self.world.disk = replace(disk, wal=wal)
        content, _ = disk.database()
        if checkpoint or kill == "torn":
            log.folded = kill != "torn"
            kept = content if log.folded else (*disk.content, *[None] * 9)[: len(content)]
            disk = self.world.disk = replace(disk, content=kept, state=state)
        if kill:
            self.log = None
            return
        if log.folded:
            log.in_file = log.commits
        self.world.disk = replace(disk, counted=Counted(log.commits, log.in_file))
        self.world.got.setdefault(state.epoch, {})[len(content)] = made
        self.world.copies.append(self.world.disk)

    @precondition(lambda self: self.log is not None)
    @rule(kill=st.sampled_from(["", "", "checkpointed", "marked", "at once"]))
    def close(self, kill: str) -> None:
        """Close the log; a kill comes after a step."""
        assert self.log is not None
        log, self.log = self.log, None
        if kill == "at once":
            return
        content, state = self.world.disk.database()
        assert self.world.disk.wal is not None
        wal = self.world.disk.wal.sync()
        disk = replace(self.world.disk, content=content, state=state, wal=wal)
        self.world.disk = disk
        if kill == "checkpointed":
            return
        assert disk.said is not None
        disk = self.world.disk = replace(disk, said=companion.closed(disk.said, log.commits))
        if kill == "marked":
            return
        self.world.disk = replace(disk, wal=None)
        self.world.copies.append(self.world.disk)

    @precondition(lambda self: self.log is None and self.world.copies)
    @rule(
        data=st.data(),
        parts=st.sampled_from(["backup", "file only", "file without wal", "all 3"]),
        gone=st.sampled_from(["", "said", "counted"]),
    )
    def put_back(self, data: st.DataObject, parts: str, gone: str) -> None:
        """Somebody puts an older copy of the database back, or parts of it."""
        older = data.draw(st.sampled_from(self.world.copies))
        disk = self.world.disk
        # Under the write-ahead log of an opening that crashed, an older file is not noticed.
        crashed = disk.said is not None and disk.said.pending is not None
        assume(not (crashed and parts == "file only"))
        content, state = older.database()
        if parts == "backup":  # A copy made by SQLite's backup.
            disk = replace(disk, content=content, state=state, wal=None)
        elif parts == "file only":
            disk = replace(disk, content=older.content, state=older.state)
        elif parts == "file without wal":
            disk = replace(disk, content=older.content, state=older.state, wal=None)
        else:
            disk = replace(disk, content=older.content, state=older.state, wal=older.wal)
        removed: dict[str, Any] = {gone: None} if gone else {}
        disk = replace(disk, **removed)
        self.world.disk, self.moved = disk, True

    @precondition(lambda self: self.log is None)
    @rule(file=st.sampled_from(["wal", "said", "counted", "database"]))
    def remove(self, file: str) -> None:
        """Somebody removes a file."""
        gone: dict[str, Any] = {"content": (), "state": None, "wal": None}
        changed = gone if file == "database" else {file: None}
        self.world.disk, self.moved = replace(self.world.disk, **changed), True

    @precondition(lambda self: self.log is None)
    @rule()
    def ask_for_new_epoch(self) -> None:
        """Somebody runs `towpath new-epoch`."""
        said = companion.asked_for(self.world.disk.said, "asked")
        self.world.disk, self.moved = replace(self.world.disk, said=said), True

    @precondition(lambda self: self.log is None)
    @rule(lost=st.integers(0, 3))
    def reboot(self, lost: int) -> None:
        """The machine stops, and the end of the write-ahead log never reached the disk."""
        disk = self.world.disk
        self.world.boots += 1
        self.moved = True
        if disk.wal is not None:
            kept = max(disk.wal.synced, len(disk.wal.transactions) - lost)
            wal = replace(disk.wal, transactions=disk.wal.transactions[:kept])
            self.world.disk = replace(disk, wal=wal)

    @invariant()
    def what_readers_got_is_there(self) -> None:
        """In the epoch that readers know, each offset has the content that they received."""
        if self.log is None:
            return
        content, state = self.world.disk.database()
        assert state is not None
        for offset, seen in self.world.got.get(state.epoch, {}).items():
            assert content[offset - 1 : offset] == (seen,)


Histories.TestCase.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
