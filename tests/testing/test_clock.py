"""The virtual clock."""

import pytest

from towpath.testing import VirtualClock


def test_time_stands_still_until_it_is_advanced() -> None:
    """Both readings move by the same seconds, and by nothing else."""
    clock = VirtualClock(1_000.0)
    monotonic = clock.monotonic()
    assert (clock.now(), clock.now()) == (1_000.0, 1_000.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic() - monotonic) == (1_002.5, 2.5)


def test_time_does_not_go_back() -> None:
    """A negative advance is refused, and changes nothing."""
    clock = VirtualClock(1_000.0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    assert clock.now() == 1_000.0
