"""A measurement that counts losses sees them."""

import pytest

from benchmarks.arrivals import Arrivals


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicated", "reordered"),
    [
        ([1, 2, 3, 4], 0, 0, 0),
        ([], 4, 0, 0),
        ([1, 2], 2, 0, 0),
        ([1, 4], 2, 0, 0),
        ([2, 3, 4], 1, 0, 0),
        ([1, 2, 2, 3, 4, 1], 0, 2, 0),
        ([1, 3, 2, 4], 0, 0, 1),
        ([1, 3, 2, 2], 1, 1, 1),
    ],
)
def test_every_number_is_lost_doubled_late_or_fine(
    numbers: list[int], lost: int, duplicated: int, reordered: int
) -> None:
    """Four things are numbered; what did not come once and in order is told by its kind."""
    arrivals = Arrivals(4)
    for number in numbers:
        arrivals.count(number)
    assert (arrivals.lost, arrivals.duplicated, arrivals.reordered) == (lost, duplicated, reordered)
