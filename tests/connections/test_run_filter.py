"""The filter of an event stream: one whole run, however its events are joined into pieces."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from towpath.connections.run_filter import RunFilter
from towpath.protocol import codec_sse as codec

SPOKEN = ("hello", "RUN_FINISHED", 'say "RUN_STARTED"', "a\n\ndata: b")
"""What people and agents may say, some of it like bounds and separators."""


def encoded(events: list[dict[str, Any]]) -> list[bytes]:
    """Return events as a stream encodes them, with positions."""
    return [
        codec.encode_event(msgspec.json.encode(event), position=("e", offset))
        for offset, event in enumerate(events, 1)
    ]


def run_of(name: str, run_texts: list[str], *, failed: bool) -> list[dict[str, Any]]:
    end = {"type": "RUN_ERROR"} if failed else {"type": "RUN_FINISHED", "runId": name}
    texts = [{"type": "TEXT_MESSAGE_CONTENT", "delta": text} for text in run_texts]
    return [{"type": "RUN_STARTED", "runId": name}, *texts, end]


runs = st.lists(st.tuples(st.lists(st.sampled_from(SPOKEN), max_size=3), st.booleans()), max_size=5)


@given(runs, st.integers(0, 4), st.data())
def test_r91_a_filter_shows_one_run_whole(
    made: list[tuple[list[str], bool]], wanted: int, data: st.DataObject
) -> None:
    """The named run is shown whole, or nothing, however events are joined into pieces."""
    thread = [
        encoded(run_of(f"r{number}", run_texts, failed=failed))
        for number, (run_texts, failed) in enumerate(made)
    ]
    events = [event for run in thread for event in run]
    run_filter, shown = RunFilter(f"r{wanted}"), b""
    while events:
        count = data.draw(st.integers(1, len(events)))
        shown += run_filter.take(b"".join(events[:count]))
        del events[:count]
    assert shown == (b"".join(thread[wanted]) if wanted < len(thread) else b"")
    assert run_filter.over == (wanted < len(thread))


@given(runs, st.integers(0, 4))
def test_a_filter_of_no_run_shows_all_up_to_an_end(
    made: list[tuple[list[str], bool]], skipped: int
) -> None:
    """A reader that joined during a run gets the rest of it, and nothing of the next."""
    rest = encoded(run_of("r", ["a", "b", "c"], failed=False))[1 + min(skipped, 3) :]
    more = [
        event
        for run_texts, failed in made
        for event in encoded(run_of("later", run_texts, failed=failed))
    ]
    run_filter = RunFilter(None)
    assert run_filter.take(b"".join([*rest, *more])) == b"".join(rest)
    assert run_filter.over
    assert run_filter.take(b"".join(more)) == b""


def test_what_is_no_event_passes_an_open_filter() -> None:
    """A comment passes while the filter is open, alone or in a piece with events."""
    run_filter = RunFilter("r")
    started, ended = encoded(run_of("r", [], failed=True))
    assert run_filter.take(codec.KEEP_ALIVE) == b""
    assert run_filter.take(codec.KEEP_ALIVE + started) == started
    assert run_filter.take(codec.KEEP_ALIVE) == codec.KEEP_ALIVE
    assert run_filter.take(codec.KEEP_ALIVE + ended + codec.KEEP_ALIVE) == codec.KEEP_ALIVE + ended
