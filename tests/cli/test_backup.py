"""`towpath backup`, `restore`, `new-epoch` and `check`: what they print, and what they refuse."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.command import Command, assert_refused
from tests.log.brokers import TALK, Deliveries, text_write
from towpath.log.broker import write
from towpath.log.sqlite import backup, directory_lock
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.file_schema import SCHEMA_VERSION
from towpath.runs.tables.sqlite.projection import ThreadProjection

DATABASE = Path(".towpath/towpath.db")


@pytest.fixture
def filled(towpath: Command) -> Command:
    """The command, in a directory with a log of one channel."""
    publish("a", "b" * 50_000)
    return towpath


def publish(*texts: str) -> list[str]:
    """Publish texts in the log, if any; return all that it holds."""

    async def main() -> list[str]:
        broker = SqliteBroker(DATABASE, Deliveries(), ThreadProjection())
        await broker.start()
        for text in texts:
            await write(broker, text_write(text))
        held = await broker.read(TALK, None)
        await broker.stop()
        return [one.data.decode() for one in held.publications]

    return asyncio.run(main())


def test_a_backup_is_complete_and_private(filled: Command) -> None:
    """The copy is sound, nobody else can read it, and nothing is left beside it."""
    done = filled("backup", "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"copy: {Path('copy').stat().st_size:,} bytes, checked\n"
    assert Path("copy").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in Path().iterdir()) == [".towpath", "copy"]


def test_a_backup_replaces_a_file_only_by_force(filled: Command) -> None:
    """An older backup is not lost by mistake."""
    Path("copy").write_text("older")
    assert_refused(filled("backup", "copy"), "copy", "--force")
    assert Path("copy").read_text() == "older"
    assert filled("backup", "copy", "--force").returncode == 0
    assert Path("copy").stat().st_size > 50_000


def test_a_backup_never_replaces_the_log(filled: Command) -> None:
    """The log itself is no place for its copy, with or without force."""
    assert_refused(filled("backup", str(DATABASE), "--force"), "the log itself")
    assert publish() == ["a", "b" * 50_000]


def test_a_restored_log_holds_what_the_backup_held(filled: Command) -> None:
    """The log is that of the backup, without free pages, and the other one is kept."""
    filled("backup", "copy")
    publish("c")
    done = filled("restore", "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("the replaced log is .towpath/towpath.db.replaced-1\n")
    with closing(sqlite3.connect(DATABASE)) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert publish() == ["a", "b" * 50_000]
    Path(".towpath/towpath.db.replaced-1").replace(DATABASE)
    assert publish() == ["a", "b" * 50_000, "c"]


def test_a_backup_is_restored_into_an_empty_directory(filled: Command) -> None:
    """A machine that never ran a server takes over by a backup."""
    filled("backup", "copy")
    shutil.rmtree(".towpath")
    done = filled("restore", "copy")
    assert (done.returncode, done.stdout) == (0, ".towpath/towpath.db is restored from copy\n")
    assert publish() == ["a", "b" * 50_000]


@pytest.mark.parametrize("command", [("restore", "copy"), ("new-epoch",)])
def test_a_directory_in_use_is_not_changed(filled: Command, command: tuple[str, ...]) -> None:
    """While a server has the directory, its log is neither replaced nor renewed."""
    filled("backup", "copy")
    before = DATABASE.read_bytes()
    with closing(directory_lock.lock(DATABASE)):
        assert_refused(filled(*command), "in use by another process")
    assert DATABASE.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        (b"text, and no database" * 100, "no log of Towpath"),
        ("CREATE TABLE t (x)", "no log of Towpath"),
        (f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "another version of Towpath"),
        ("UPDATE log SET items = x'00' WHERE last = 1", "is damaged"),
        ("flip", "is damaged"),
    ],
)
def test_a_restore_checks_the_file_first(
    filled: Command, content: bytes | str | None, words: str
) -> None:
    """A file that is no sound log of this version is refused, and the log stays as it is."""
    if isinstance(content, bytes):
        Path("copy").write_bytes(content)
    elif content is not None:
        if not content.startswith("CREATE"):
            filled("backup", "copy")
        if content == "flip":
            flip(Path("copy"))
        else:
            with closing(sqlite3.connect("copy")) as db:
                db.executescript(content)
    assert_refused(filled("restore", "copy"), "copy", words)
    assert publish() == ["a", "b" * 50_000]
    assert list(Path(".towpath").glob("*.re*d*")) == []


def flip(path: Path) -> None:
    """Damage the pages of a database, but not the first one."""
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 512):
        data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("step", ["link", "replace"])
def test_a_restore_that_fails_leaves_the_log(
    filled: Command, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """If a file cannot be renamed, the log of before is in its place, whole."""
    filled("backup", "copy")
    publish("c")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as broken:
        if step == "link":
            broken.setattr(backup.os, "link", refuse)  # type: ignore[attr-defined]
        else:
            broken.setattr(Path, "replace", refuse)
        assert_refused(filled("restore", "copy"), "Permission denied")
    assert publish() == ["a", "b" * 50_000, "c"]


def test_a_check_of_a_sound_log(filled: Command) -> None:
    """One line for pages, one for rows, exit status 0."""
    done = filled("check")
    assert (done.returncode, done.stdout) == (0, "pages: sound\nrows: sound\n")


def test_a_check_finds_a_row_that_changed(filled: Command) -> None:
    """A row that is not what was written is named, with exit status 1; a copy is refused."""
    with closing(sqlite3.connect(DATABASE)) as db:
        db.executescript("UPDATE log SET items = x'00' WHERE last = 1")
    done = filled("check")
    assert done.returncode == 1
    assert done.stdout.startswith("pages: sound\nrows: ")
    assert "sound" not in done.stdout.splitlines()[1]
    assert_refused(filled("backup", "copy"), "is damaged")
    assert not Path("copy").exists()


def test_a_check_finds_a_page_that_changed(filled: Command) -> None:
    """Damage of the file itself is found, with exit status 1 and no traceback."""
    flip(DATABASE)
    done = filled("check")
    assert (done.returncode, done.stderr) == (1, "")
    assert "pages: sound" not in done.stdout


@pytest.mark.parametrize("command", [("backup", "copy"), ("check",), ("new-epoch",)])
def test_a_directory_without_a_log_is_named(towpath: Command, command: tuple[str, ...]) -> None:
    """Where no log is, none is created."""
    assert_refused(towpath(*command), "there is no log in .towpath")
    assert not Path(".towpath").exists()
