"""Selects the publications that the reader of an event stream is shown.

The runs of a thread follow one another in the stream. A stream ends at the end of a run, and a
stream for a named run shows only that run. Publications name their run in a tag, so only the type
of an event is read from its bytes. The events of a snapshot have no tags: a snapshot is shown if it
is of the named run.

Source: WIRE section 10.
"""

from collections.abc import Sequence

import msgspec

from towpath.events.types import TERMINAL
from towpath.log.broker import Publication


class _Head(msgspec.Struct):
    """The fields of an event that bound a run."""

    type: str
    run_id: str | None = msgspec.field(name="runId", default=None)


class RunFilter:
    """Passes only the publications of one run, up to its terminal event."""

    def __init__(self, run: str | None) -> None:
        """Show this run; None shows everything until the end of a run."""
        self.over = False
        """Whether the end of the run was shown; nothing is shown after it."""
        self.run = run

    def shows(self, publication: Publication) -> bool:
        """Whether a publication of the log is shown."""
        if self.over or (self.run is not None and publication.tags.get("run") != self.run):
            return False
        self.over = _head(publication).type in TERMINAL
        return True

    def of_answer(self, publications: Sequence[Publication]) -> list[Publication]:
        """Return those publications of a first answer that are shown.

        A reader of no named run gets the whole answer, also past the end of a run: it resumes from
        a position, and what follows that position is shown.
        """
        if not publications:
            return []
        if self.run is not None and publications[0].tags:
            return [one for one in publications if self.shows(one)]
        if self.run not in (None, _head(publications[0]).run_id):
            return []
        self.over = _head(publications[-1]).type in TERMINAL
        return list(publications)


def _head(publication: Publication) -> _Head:
    return msgspec.json.decode(publication.data, type=_Head)
