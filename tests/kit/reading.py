"""One reader's way along one log: what it was given has to be all of it, once, in order.

A reader may join anywhere, is told of what it missed in one piece or merged, and then goes on
live. Its place is the set of offsets it was given, by itself or inside a snapshot. Deltas of
different items may pass each other when they are merged (WIRE section 9), so that a place may have
holes for a moment; anything else that comes over a hole is a gap.
"""

from collections.abc import Iterator

from tests.kit.history import Given, Joined, Kind, Log, Reading, Violation
from tests.kit.page import ITEM, TERMINAL, Page, difference
from towpath.events.digest import digest


class OffsetTracker:
    """Follows one reading; `violations` is what was wrong with it."""

    def __init__(self, reading: Reading, log: Log, elsewhere: frozenset[str]) -> None:
        """Begin at the start.

        Args:
            reading: what the reader was told.
            log: the log of its channel.
            elsewhere: runs of other channels.
        """
        self._reading = reading
        self._log = log
        self._elsewhere = elsewhere
        self._thread = log.channel.partition(":")[2]
        self._places = {
            (one.tags["run"], int(one.tags["seq"])): one.offset
            for one in log.publications
            if "seq" in one.tags
        }
        self._by_offset = {one.offset: one for one in log.publications}
        self._next = 0
        """The lowest offset that was not given; 0 before the first answer."""
        self._ahead: set[int] = set()
        """Offsets above it that were."""
        self._last = 0
        """The last offset that was named."""
        self._due = 0
        """The top of the last answer: all up to it has to be given before anything else."""
        self._snapshot: list[Given] | None = None
        """What is being told anew; None once it is complete."""
        self._page = Page()
        self.violations: list[Violation] = []

    def walk(self) -> list[Violation]:
        """Follow it to its end and return what was wrong."""
        for received in self._reading.received:
            if isinstance(received, Joined):
                self._join(received)
            elif not self._next:
                self._say(Kind.ORDER, "it was given something before it was subscribed")
                return self.violations
            elif self._thread and not received.tags and not received.offset:
                self._take_snapshot(received)
            else:
                self._take(received)
        self._finish_snapshot()
        self._check_due()
        self._check_end()
        return self.violations

    def _say(self, kind: Kind, sentence: str) -> None:
        where = f"{self._reading.reader} in {self._log.owner}'s {self._log.channel}"
        self.violations.append(Violation(kind=kind, where=where, sentence=sentence))

    def _join(self, joined: Joined) -> None:
        self._finish_snapshot()
        self._check_due()
        if joined.epoch != self._log.epoch:
            self._say(Kind.EPOCH, f"it joined in {joined.epoch}, the log's is {self._log.epoch}")
        if joined.offset > len(self._log.publications):
            self._say(Kind.LOSS, f"the top was {joined.offset} once")
        if self._next and joined.recovered:
            if joined.offset < self._next - 1:
                self._say(Kind.LOSS, f"it had {self._next - 1}, and was told of {joined.offset}")
        else:
            if self._next:
                self._say(Kind.POSITION, f"it was not recovered from {self._next - 1}")
            self._next, self._last = joined.offset + 1, joined.offset
            self._ahead.clear()
            self._page = Page()
            self._snapshot = []
        self._due = joined.offset

    def _take_snapshot(self, given: Given) -> None:
        if self._snapshot is None:
            self._say(Kind.ORDER, f"{given.event['type']} of a snapshot in a stream that goes on")
            return
        self._snapshot.append(given)
        self._page.feed(given.event)

    def _finish_snapshot(self) -> None:
        """Hold a snapshot that is complete against the log up to where it was told."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None or not self._thread:
            return
        past = [one.event for one in self._log.publications if one.offset < self._next]
        wrong = difference(self._page.texts, Page(past).texts)
        if wrong:
            self._say(Kind.TEXT, f"in the snapshot up to {self._next - 1}, {wrong}")

    def _take(self, given: Given) -> None:
        self._finish_snapshot()
        offsets = self._covered(given)
        if not offsets:
            return
        self._check_order(given, offsets)
        again = [one for one in offsets if one < self._next or one in self._ahead]
        if again:
            self._say(Kind.DUPLICATE, f"offset {again[0]} came again")
            return
        self._ahead.update(offsets)
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            self._next += 1
        self._check_content(given, offsets)
        if given.offset:
            self._last = max(self._last, given.offset)
            self._check_up_to(given.offset)

    def _covered(self, given: Given) -> list[int]:
        """Return the offsets of the log that a publication stands for; none where it is wrong."""
        if not self._thread:
            if given.offset not in self._by_offset:
                self._say(Kind.LOSS, f"offset {given.offset} is not in the log")
                return []
            return [given.offset]
        run, last = given.tags.get("run", ""), int(given.tags.get("seq", 0))
        if given.tags.get("thread") != self._thread or run in self._elsewhere:
            self._say(Kind.FOREIGN, f"it was given event {last} of run {run}")
            return []
        if (run, last) not in self._places:
            self._say(Kind.LOSS, f"event {last} of run {run} is not in the log")
            return []
        item = ITEM.get(given.event["type"])
        numbers = range(int(given.tags.get("from", last)), last + 1)
        if item is None or len(numbers) == 1:
            return [self._places[run, last]]
        same = (given.event["type"], given.event[item])
        return [
            offset
            for offset in (self._places.get((run, number), 0) for number in numbers)
            if offset and self._names(offset) == same
        ]

    def _names(self, offset: int) -> tuple[str, object]:
        event = self._by_offset[offset].event
        return event["type"], event.get(ITEM.get(event["type"], ""))

    def _check_order(self, given: Given, offsets: list[int]) -> None:
        """Nothing comes over a hole, but a delta over deltas of other items."""
        if given.offset and given.offset <= self._last:
            self._say(Kind.ORDER, f"offset {given.offset} came after {self._last}")
        item = ITEM.get(given.event["type"])
        mine = (given.event["type"], given.event.get(item or ""))
        for hole in self._holes(offsets[0]):
            name = self._names(hole)
            if item is None or name[0] not in ITEM or name == mine:
                self._say(Kind.GAP, f"offset {hole} is missing before {offsets[0]}")
                self._next = max(self._next, offsets[0])  # Said once.
                self._ahead = {one for one in self._ahead if one > self._next}
                return

    def _holes(self, before: int) -> Iterator[int]:
        return (one for one in range(self._next, before) if one not in self._ahead)

    def _check_content(self, given: Given, offsets: list[int]) -> None:
        """What was given is what the log holds there, and what it says of the text is true."""
        events = [self._by_offset[one].event for one in offsets]
        due = events[0]
        if len(events) > 1:
            due = {**due, "delta": "".join(event["delta"] for event in events)}
        if given.event != due:
            kind = given.event["type"]
            self._say(Kind.TEXT, f"{kind} at offset {offsets[-1]} is not the log's {due['type']}")
        self._page.feed(given.event)
        pairs = given.tags.get("digest", "")
        if given.event["type"] == "TEXT_MESSAGE_END":
            pairs = f"{given.event['messageId']}:{pairs}"
        elif given.event["type"] not in TERMINAL:
            return
        for pair in pairs.split():
            key, _, value = pair.rpartition(":")
            if digest(self._page.text(key)) != value:
                self._say(
                    Kind.DIGEST, f"{key} is not the text that offset {offsets[-1]} vouches for"
                )

    def _check_up_to(self, offset: int) -> None:
        """All up to an offset that was named has been given."""
        if self._next <= offset:
            self._say(Kind.GAP, f"offset {self._next} is missing up to {offset}")
            self._next = offset + 1
            self._ahead = {one for one in self._ahead if one > offset}

    def _check_due(self) -> None:
        if self._next:
            self._check_up_to(self._due)

    def _check_end(self) -> None:
        top = len(self._log.publications)
        if not self._next:
            if self._reading.whole:
                self._say(Kind.GAP, "it was never subscribed")
            return
        if self._reading.whole and self._next <= top:
            self._say(Kind.GAP, f"it ends before offset {self._next}, the log with {top}")
        for fault in self._page.faults:
            self._say(Kind.ORDER, fault)
        if not self._thread:
            return
        past = [one.event for one in self._log.publications if one.offset < self._next]
        wrong = difference(self._page.texts, Page(past).texts)
        if wrong and not self.violations:
            self._say(Kind.TEXT, f"in the end {wrong}")
