"""Room that is kept free on a disk by being taken."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from towpath.log.sqlite.disk_reserve import MARGIN, DiskReserve, out_of_room

SIZE = 1024 * 1024


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def taken(path: Path) -> int:
    """Return how much of the disk a file has."""
    return path.stat().st_blocks * 512


def test_r53_the_reserve_has_real_room_and_gives_it_back(tmp_path: Path) -> None:
    """The reserve is allocated on the disk, not only in its size; given back, it is free."""
    path = tmp_path / "reserve"
    reserve = DiskReserve(path, SIZE)
    assert reserve.take()
    assert path.stat().st_size == SIZE
    assert SIZE <= taken(path) <= SIZE + MARGIN
    assert reserve.give_back()
    assert taken(path) == 0
    assert not reserve.give_back()
    assert reserve.take()
    assert reserve.take()
    assert taken(path) >= SIZE


def test_r53_a_reserve_without_room_takes_nothing(tmp_path: Path) -> None:
    """If the reserve and the margin do not fit, nothing is allocated."""
    path = tmp_path / "reserve"
    reserve = DiskReserve(path, SIZE)
    for limit in (SIZE // 2, SIZE + MARGIN - 1):
        with largest_file(limit):
            assert not reserve.take()
        assert taken(path) == 0
    with largest_file(SIZE + MARGIN):
        assert reserve.take()


def test_a_reserve_of_nothing_only_asks(tmp_path: Path) -> None:
    """A reserve of 0 bytes leaves no file, and still reports whether there is room."""
    path = tmp_path / "reserve"
    reserve = DiskReserve(path, 0)
    assert reserve.take()
    assert not path.exists()
    assert not reserve.give_back()
    with largest_file(MARGIN - 1):
        assert not reserve.take()


def test_a_reserve_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A path at which no file can be created is not a full disk."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        DiskReserve(tmp_path / "file" / "reserve", SIZE).take()


def test_r53_a_file_that_cannot_grow_is_out_of_room(tmp_path: Path) -> None:
    """A limit on file sizes concerns the file that has reached it, and no smaller file."""
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(bytes(SIZE))
    small.write_bytes(b"")
    assert not out_of_room(large)
    with largest_file(SIZE):
        assert out_of_room(large)
        assert not out_of_room(small)
    assert not out_of_room(tmp_path / "missing")
