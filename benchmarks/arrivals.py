"""What came of things numbered from 1 on: whether any is missing, came twice or came late."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Arrivals:
    """The numbers that have come so far."""

    total: int
    """How many there are."""
    duplicated: int = 0
    reordered: int = 0
    _next: int = 1
    _missing: set[int] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """How many did not come."""
        return len(self._missing) + self.total + 1 - self._next

    def count(self, number: int) -> None:
        """Note that one came."""
        if number >= self._next:
            self._missing.update(range(self._next, number))
            self._next = number + 1
        elif number in self._missing:
            self._missing.remove(number)
            self.reordered += 1
        else:
            self.duplicated += 1
