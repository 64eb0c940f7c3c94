"""Watchers hear of everything and change nothing."""

import dataclasses

import pytest

from towpath import hooks
from towpath.hooks import ConnectionOpened, Happening, Hooks

OPENED = ConnectionOpened(connection="c1", tenant="acme", user="mia")


class Broken:
    """A watcher that raises every time, and remembers that it was told."""

    def __init__(self, error: Exception) -> None:
        self.told = 0
        self._error = error

    def __call__(self, happening: Happening) -> None:
        self.told += 1
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("boom"), AssertionError(), TimeoutError()])
def test_r72_a_watcher_that_raises_keeps_nothing_from_the_others(error: Exception) -> None:
    """Watchers before and after a broken one hear everything; its failures are counted."""
    heard: list[tuple[str, Happening]] = []
    broken = Broken(error)
    told = Hooks([lambda what: heard.append(("before", what)), broken])
    told.watch(lambda what: heard.append(("after", what)))

    told.tell(OPENED)
    told.tell(OPENED)

    assert heard == [("before", OPENED), ("after", OPENED)] * 2
    assert (broken.told, told.failures) == (2, 2)


def test_r72_who_stops_the_process_is_not_swallowed() -> None:
    """What is no error of a watcher passes through."""

    def interrupted(happening: Happening) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hooks([interrupted]).tell(OPENED)


def test_watchers_hear_in_the_order_they_came() -> None:
    """First come, first told, and only of what happens later."""
    heard: list[str] = []
    told = Hooks()
    told.tell(OPENED)
    told.watch(lambda _: heard.append("first"))
    told.watch(lambda _: heard.append("second"))
    told.tell(OPENED)
    assert heard == ["first", "second"]
    assert told.failures == 0


@pytest.mark.parametrize("kind", Happening.__subclasses__(), ids=lambda kind: kind.__name__)
def test_r17_a_happening_is_frozen_and_has_no_place_for_a_secret(kind: type[Happening]) -> None:
    """No happening has a field that could hold a credential or a text a person wrote."""
    names = {field.name for field in dataclasses.fields(kind)}
    assert names.isdisjoint({"token", "credential", "headers", "data", "payload", "text"})
    assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009


def test_every_kind_of_happening_is_public() -> None:
    """A watcher can name what it waits for."""
    assert {kind.__name__ for kind in Happening.__subclasses__()} <= vars(hooks).keys()
