"""Retention: in steps that hold nobody up, from the oldest on, for nothing where nothing goes."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.log.brokers import NOTICES, OTHER, TALK, Engine, items, keyed_write, text_write
from tests.log.sqlite.test_heads import opened_file, read_all, rows_of
from towpath.channels import CONTROL, Channel
from towpath.log.broker import (
    KEY_SECONDS,
    NOTICE_RETENTION,
    THREAD_RETENTION,
    Append,
    Retention,
    Write,
    Written,
    retention_of,
    write,
)
from towpath.log.sqlite import file_schema, log_file, retention
from towpath.log.sqlite import writer as sqlite_writer
from towpath.log.sqlite.log_file import LogFile

DAY = 24 * 3600.0
AMPLE_ROOM = 1 << 40


def keeping(seconds: float = 60.0, **changed: Any) -> Retention:
    given = {"publications": AMPLE_ROOM, "bytes": AMPLE_ROOM, "since_last": True, **changed}
    return Retention(seconds=seconds, **given)


class Clock:
    """Wall time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def kept_for(path: Path, keep: Retention) -> Iterator[tuple[LogFile, Clock]]:
    clock = Clock()
    with opened_file(path, retention=lambda _: keep, now=clock) as log:
        yield log, clock


def swept(log: LogFile) -> int:
    """Sweep to the end; return in how many slices, 0 if nothing was due."""
    slices = 0
    while retention.is_due(log._db, log._now()):
        log.sweep()
        slices += 1
        assert slices < 1_000
    return slices


def due_of(path: Path) -> list[float | None]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT due FROM channels ORDER BY id")]


def test_r125_a_slice_drops_a_bounded_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long channel is dropped in steps; between two steps the log takes writes."""
    monkeypatch.setattr(log_file, "SLICE_SECONDS", 0.0)
    rows = 5 * retention.STEP_ROWS
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        for n in range(rows):
            log.commit([text_write(str(n))])
        clock.now += 61
        slices, left = 0, rows
        while log.sweep() is not None:
            dropped, left = left - rows_of(log.path, "log"), rows_of(log.path, "log")
            assert dropped <= retention.STEP_ROWS + slices
            (written,) = log.commit([text_write("new", channel=OTHER)])
            assert isinstance(written, Written)
            left = rows_of(log.path, "log")
            slices += 1
        assert slices >= 5
        assert read_all(log.path, log, TALK).begins == rows + 1
        assert len(read_all(log.path, log, OTHER).publications) == slices


def test_a_step_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step drops fewer rows if they are large, and at least one."""
    monkeypatch.setattr(log_file, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(retention, "STEP_BYTES", 2_500)
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        for size in (1_000, 1_000, 1_000, 9_000, 1_000):
            log.commit([text_write("x" * (size // 2))])  # A tag repeats the text.
        clock.now += 61
        left = []
        while log.sweep() is not None:
            left.append(rows_of(log.path, "log"))
        assert left[:3] == [3, 2, 1]


def test_r125_a_sweep_that_finds_nothing_writes_nothing(tmp_path: Path) -> None:
    """If nothing is due, no transaction is begun, however large the log is."""
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        log.commit([text_write("a"), keyed_write("r1", "b")])
        clock.now += 59
        said_to_file: list[str] = []
        log._db.set_trace_callback(said_to_file.append)
        assert log.sweep() is None
        log._db.set_trace_callback(None)
        assert {text.split()[0] for text in said_to_file} <= {"SELECT", "PRAGMA"}


def test_r125_a_channel_in_use_is_looked_at_once_a_period(tmp_path: Path) -> None:
    """A thread in use is not checked again before its period has passed."""
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        looked = 0
        for _ in range(600):
            log.commit([text_write("x")])
            clock.now += 1
            looked += swept(log)
        assert looked <= 600 // 59
        assert len(read_all(log.path, log, TALK).publications) == 600
        clock.now += 61
        assert swept(log) >= 1
        assert read_all(log.path, log, TALK).publications == []
        assert due_of(log.path) == [None]


def test_what_is_unfinished_is_never_due(tmp_path: Path) -> None:
    """A fence keeps its channel from retention; the period begins when the fence is removed."""
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        log.commit([Write((Append(TALK, items("begun"), fence=True),))])
        assert due_of(log.path) == [None]
        clock.now += 1_000
        assert swept(log) == 0
        log.commit([Write((Append(TALK, items("ended"), unfence=True),))])
        swept(log)
        assert len(read_all(log.path, log, TALK).publications) == 2
        clock.now += 61
        swept(log)
        assert read_all(log.path, log, TALK).publications == []


def test_notices_go_one_by_one_as_they_get_old(tmp_path: Path) -> None:
    """If each publication expires by itself, the channel is due when the next one expires."""
    with kept_for(tmp_path / "log", keeping(since_last=False)) as (log, clock):
        begins = []
        for n in range(10):
            log.commit([text_write(str(n), channel=NOTICES)])
            clock.now += 25
            swept(log)
            begins.append(read_all(log.path, log, NOTICES).begins)
        assert begins == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        clock.now += 100
        swept(log)
        (written,) = log.commit([text_write("next", channel=NOTICES)])
        assert isinstance(written, Written)
        assert written.spans[0].first == 11


@pytest.mark.parametrize("since_last", [False, True])
def test_the_moment_at_which_a_channel_is_due_is_late_enough(
    tmp_path: Path, since_last: bool
) -> None:
    """A channel that was checked is not due again at once."""
    with kept_for(tmp_path / "log", keeping(since_last=since_last)) as (log, clock):
        log.commit([text_write("x")])
        clock.now += 60
        assert swept(log) == 1
        assert read_all(log.path, log, TALK).publications == []


def test_a_clock_set_back_makes_no_gap(tmp_path: Path) -> None:
    """An old row behind a younger one stays until the younger one is dropped."""
    with kept_for(tmp_path / "log", keeping(since_last=False)) as (log, clock):
        log.commit([text_write("young", channel=NOTICES)])
        clock.now -= 1_000
        log.commit([text_write("old", channel=NOTICES)])
        clock.now += 1_010
        swept(log)
        assert len(read_all(log.path, log, NOTICES).publications) == 2
        clock.now += 60
        swept(log)
        assert read_all(log.path, log, NOTICES).publications == []


def test_r125_a_surplus_is_dropped_in_steps_too(tmp_path: Path) -> None:
    """The end of a long run frees more rows than one step drops; the sweep drops the rest."""
    many = 3 * retention.STEP_ROWS
    with kept_for(tmp_path / "log", keeping(publications=5)) as (log, _):
        log.commit([Write((Append(TALK, items("begun"), fence=True),))])
        for n in range(many):
            log.commit([text_write(str(n))])
        log.commit([Write((Append(TALK, items("ended"), unfence=True),))])
        assert rows_of(log.path, "log") == many + 2 - retention.STEP_ROWS
        swept(log)
        assert len(read_all(log.path, log, TALK).publications) == 5


def test_the_last_row_stays_though_it_is_over_a_bound(tmp_path: Path) -> None:
    """A row larger than the bound is kept, and its channel is not due again and again."""
    with kept_for(tmp_path / "log", keeping(bytes=100)) as (log, _):
        log.commit([text_write("x" * 1_000)])
        assert swept(log) <= 1
        assert swept(log) == 0
        assert len(read_all(log.path, log, TALK).publications) == 1


def test_request_ids_go_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request ids expire after a day, and a bounded number is dropped at a time."""
    monkeypatch.setattr(log_file, "SLICE_SECONDS", 0.0)
    with kept_for(tmp_path / "log", keeping(seconds=1e9)) as (log, clock):
        log.commit([keyed_write(f"r{n}", "x") for n in range(3 * retention.STEP_ROWS)])
        clock.now += KEY_SECONDS
        assert swept(log) == 0
        clock.now += 1
        assert swept(log) >= 3
        assert rows_of(log.path, "requests") == 0


def test_control_is_never_due(tmp_path: Path) -> None:
    """Retention never drops revocations; only their reader does."""
    assert retention_of(CONTROL) is None
    clock = Clock()
    with opened_file(tmp_path / "log", retention=retention_of, now=clock) as log:
        for n in range(300):
            log.commit([text_write(str(n), channel=CONTROL)])
        clock.now += 400 * DAY
        assert swept(log) == 0
        assert len(read_all(log.path, log, CONTROL).publications) == 300


def test_the_default_bounds_are_those_of_the_design() -> None:
    """A thread's log is dropped 24 h after its last event, a notice 24 h after it came."""
    assert (
        Retention(publications=100_000, bytes=64 << 20, seconds=DAY, since_last=True)
        == THREAD_RETENTION
    )
    assert (
        Retention(publications=1_000, bytes=16 << 20, seconds=DAY, since_last=False)
        == NOTICE_RETENTION
    )


def test_a_reader_of_long_ago_pauses_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the write-ahead log cannot be reset, retention does not make it grow."""
    monkeypatch.setattr(log_file, "WAL_BYTES", 64 * 1024)
    monkeypatch.setattr(log_file, "SLICE_SECONDS", 0.0)
    with kept_for(tmp_path / "log", keeping()) as (log, clock):
        for n in range(1_000):
            log.commit([text_write("x" * 500, channel=Channel("acme", f"thread:alice:n{n}"))])
        clock.now += 61
        with closing(sqlite3.connect(log.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM log").fetchone()
            before = file_schema.wal_of(log.path).stat().st_size
            pauses = 0
            for _ in range(2_000):
                pauses += log.sweep() == log_file.PAUSE_SECONDS
            assert pauses > 1_000
            assert file_schema.wal_of(log.path).stat().st_size < before + 2 * file_schema.WAL_BYTES
            reader.execute("COMMIT")
        swept(log)
        assert rows_of(log.path, "log") == 0


async def test_r125_writes_go_on_between_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While retention drops many rows, each write is committed between two slices."""
    monkeypatch.setattr(sqlite_writer, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(log_file, "SLICE_SECONDS", 0.0)
    engine, now = Engine("sqlite", tmp_path / "log"), [1_000.0]
    async with engine.running(retention=lambda _: keeping(), clock=lambda: now[0]) as broker:
        for _ in range(20):
            names = [Channel("acme", f"thread:alice:n{n}") for n in range(100)]
            await asyncio.gather(*[broker.submit(text_write("x", channel=name)) for name in names])
        now[0] += 61
        sweeps, meanwhile = 0, 0

        async def rows() -> int:
            with closing(sqlite3.connect(tmp_path / "log")) as db:
                return int(db.execute("SELECT COUNT(*) FROM log").fetchone()[0])

        while await rows() > meanwhile:
            await write(broker, text_write("new", channel=OTHER))
            meanwhile, sweeps = meanwhile + 1, sweeps + 1
        assert sweeps > 10
        assert len((await broker.read(OTHER, None)).publications) == meanwhile


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from([TALK, NOTICES]), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.just(TALK), st.integers(-20, 70)),
        st.tuples(st.just("hold"), st.just(TALK), st.just(1)),
        st.tuples(st.just("release"), st.just(TALK), st.just(1)),
        st.tuples(st.just("forget"), st.sampled_from([TALK, NOTICES]), st.just(1)),
        st.tuples(st.just("sweep"), st.just(TALK), st.just(1)),
    ),
    max_size=40,
)


@given(steps, st.booleans())
@settings(max_examples=100, deadline=None)
def test_r80_retention_leaves_no_gap_and_keeps_what_is_due_later(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], since_last: bool
) -> None:
    """After any operations the kept publications have no gap, and no young one was dropped."""
    path = tmp_path_factory.mktemp("log") / "log"
    with kept_for(path, keeping(since_last=since_last)) as (log, clock):
        spoken: dict[Channel, list[float]] = {TALK: [], NOTICES: []}
        floor = {TALK: 0, NOTICES: 0}
        held = False
        for act, channel, count in steps:
            if act == "wait":
                clock.now += count
            elif act == "sweep":
                swept(log)
            elif act == "forget":
                log.commit([Write(truncate=(channel,))])
                if spoken[channel]:
                    spoken[channel].append(clock.now)  # Forgetting takes an offset.
                floor[channel] = len(spoken[channel])
                held = held and channel is not TALK
            else:
                held = act == "hold" or (held and act != "release")
                texts = items(*("x" for _ in range(count)))
                append = Append(channel, texts, fence=act == "hold", unfence=act == "release")
                (written,) = log.commit([Write((append,))])
                assert isinstance(written, Written)
                # A channel without a row may begin above a forgotten one that lost its row.
                skipped = written.spans[0].first - 1 - len(spoken[channel])
                spoken[channel] += [clock.now] * (skipped + count)
                floor[channel] += skipped
        swept(log)
        for channel, times in spoken.items():
            kept = read_all(path, log, channel)
            assert [one.offset for one in kept.publications] == [*range(kept.begins, kept.top + 1)]
            assert kept.top == len(times) or (kept.top > len(times) and not kept.publications)
            gone = times[floor[channel] : kept.begins - 1]
            latest = [max(times)] if since_last and gone else gone
            assert (held and channel is TALK) or all(at < clock.now + 90 for at in latest)


def test_a_forgotten_channel_loses_its_row_and_no_offset_comes_again(tmp_path: Path) -> None:
    """A thread that is created again long after it was deleted begins above its old offsets."""
    path = tmp_path / "log"
    with kept_for(path, keeping()) as (log, clock):
        log.commit([text_write("a", "b"), text_write("c", channel=OTHER)])
        log.commit([Write(truncate=(TALK,))])
        swept(log)
        assert rows_of(path, "channels") == 2
        clock.now += retention.FORGOTTEN_SECONDS + 1
        swept(log)
        assert rows_of(path, "channels") == 1
        (written,) = log.commit([text_write("d")])
        assert isinstance(written, Written)
        assert written.spans[0].first == 4
        assert read_all(path, log, TALK).begins == 4


def test_free_pages_are_returned_once_much_of_the_file_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a log that dropped most of what it held becomes smaller."""
    monkeypatch.setattr(log_file, "MIN_FREE_PAGES", 16)
    path = tmp_path / "log"
    with kept_for(path, keeping()) as (log, clock):
        log.commit([text_write(*("x" * 1000 for _ in range(2000)))])
        log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        large = path.stat().st_size
        clock.now += 200
        while log.sweep() is not None:
            pass
        log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert path.stat().st_size < large / 2


def test_a_reader_of_a_new_channel_gets_all_of_it_above_the_floor(tmp_path: Path) -> None:
    """A channel that begins above forgotten ones loses nothing for a reader from the start."""
    path = tmp_path / "log"
    with kept_for(path, keeping()) as (log, clock):
        log.commit([text_write("a", "b")])
        log.commit([Write(truncate=(TALK,))])
        clock.now += retention.FORGOTTEN_SECONDS + 1
        swept(log)
        empty = read_all(path, log, NOTICES, after=0)
        assert (empty.gone, empty.publications) == (False, [])
        log.commit([text_write("c", channel=NOTICES)])
        answer = read_all(path, log, NOTICES, after=0)
        assert (answer.gone, [one.data for one in answer.publications]) == (False, [b"c"])
        assert read_all(path, log, NOTICES, after=2).gone
        control = read_all(path, log, CONTROL)
        assert (control.begins, control.top) == (1, 0)
