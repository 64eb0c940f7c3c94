"""What it costs to make a manager, against an empty Python object with the same slots.

A manager is a view, so applications make one for each request. All in this process, on the server's
core, in turns.
"""

import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Measure, Sample
from benchmarks.load import undisturbed
from benchmarks.machine import on_server_core
from towpath.identity import UserExecutionContext
from towpath.manager.manager import WebSocketManager, create_websocket_manager

TURN = 10_000
"""Objects of each kind that are made before it is the turn of the other kind."""
CONTEXT = UserExecutionContext(tenant="acme", user="alice")

MANAGER = Measure("create_websocket_manager", "µs")
EMPTY = Measure("an empty object with the same slots", "µs")
RATIO = Measure("ratio", "÷ empty object")
SIZE = Measure("size of a manager", "bytes")
RETAINED = Measure("memory retained after all managers were dropped", "bytes/manager")


class Empty:
    """As many slots as a manager has, and nothing else."""

    __slots__ = ("first", "second", "third")


@dataclass(frozen=True, slots=True)
class Managers:
    """Managers of one person, each dropped at once."""

    name = "manager"
    total: int
    """How many managers are made."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return f"{self.total} managers of one person, each dropped at once, in turns of {TURN}"

    def sample(self) -> Sample:
        """Measure once."""
        assert len(Empty.__slots__) == len(slots_of(WebSocketManager)), "compare the same slots"
        with on_server_core(), undisturbed():
            seconds = dict.fromkeys((_make, Empty), 0.0)
            for _ in range(self.total // TURN):
                for make in seconds:
                    seconds[make] += _time(make)
        costs = {make: spent / self.total * 1e6 for make, spent in seconds.items()}
        return {
            MANAGER: costs[_make],
            EMPTY: costs[Empty],
            RATIO: costs[_make] / costs[Empty],
            SIZE: _size(),
            RETAINED: max(0, _retained(self.total)) / self.total,
        }


def slots_of(kind: type) -> list[str]:
    """Return the slots of a class and of its bases."""
    return [slot for base in kind.__mro__ for slot in getattr(base, "__slots__", ())]


def _make() -> object:
    return create_websocket_manager(CONTEXT)


def _time(make: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(TURN):
        make()
    return time.process_time() - began


def _size() -> int:
    """Return what 1,000 managers allocate, for each of them."""
    kept: list[object] = []
    tracemalloc.start()
    try:
        kept.extend([_make() for _ in range(1000)])
        return tracemalloc.get_traced_memory()[0] // len(kept)
    finally:
        tracemalloc.stop()


def _retained(total: int) -> int:
    """Return how much more memory is in use after so many managers were made and dropped."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(total):
            _make()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


FULL = Managers(total=100_000)
QUICK = Managers(total=TURN)
