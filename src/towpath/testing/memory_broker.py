"""A log in memory: it obeys the contract of `towpath.log.broker`, but does not survive the process.

For tests, and to measure the cost of durability. The tables of the projection are those of the
SQLite engine, in memory.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from towpath.channels import Channel
from towpath.errors import CommandError, Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    KEY_SECONDS,
    Append,
    Deliver,
    IdempotencyKey,
    OnEpoch,
    Publication,
    Question,
    Read,
    Replay,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    follows,
    publications_of,
    retention_of,
)
from towpath.log.reading import span_of, take
from towpath.log.sqlite.projection import SqliteProjection, TablesInMemory
from towpath.runs.tables.sqlite.projection import ThreadProjection

R = TypeVar("R")


@dataclass(slots=True)
class _Log:
    kept: list[tuple[float, Publication]] = field(default_factory=list)
    top: int = 0
    size: int = 0
    fence: int | None = None


class MemoryBroker:
    """See `towpath.log.broker` for the contract."""

    def __init__(
        self,
        deliver: Deliver,
        on_epoch: OnEpoch = lambda _: None,
        *,
        projection: SqliteProjection | None = None,
        retention: Callable[[Channel], Retention | None] = retention_of,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._deliver = deliver
        self._on_epoch = on_epoch
        self._projection = projection or ThreadProjection()
        self._attached: set[Channel] = set()
        self._retention = retention
        self._now = now
        self._log_epoch = uuid.uuid4().hex
        self._logs: dict[Channel, _Log] = {}
        self._results: dict[tuple[tuple[str, str, str], str], tuple[str, Written, float]] = {}

    async def start(self) -> None:
        self._tables = TablesInMemory(self._projection)

    async def stop(self) -> None:
        self._tables.close()

    async def room(self) -> None:
        return

    def attach(self, channel: Channel) -> None:
        self._attached.add(channel)

    def detach(self, channel: Channel) -> None:
        self._attached.discard(channel)

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._write(write))
        except (CommandError, StorageError) as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whatever one write raises, the log continues
            failed = WriteFailed("the log cannot take this write")
            failed.__cause__ = error
            future.set_exception(failed)
        return future

    def _write(self, write: Write) -> Written:
        if write.key is not None and (earlier := self._stored_result(write.key)) is not None:
            return earlier
        spans = self._spans(write)
        self._check(write, spans)
        self._tables.apply(write.facts, spans)
        written = Written(spans=spans, result=write.result)
        if write.key is not None:
            key = (write.key.scope, write.key.request_id)
            stored = replace(written, repeated=True)
            self._results[key] = (write.key.digest, stored, self._now())
        for channel in write.truncate:
            if self._exists(channel):
                log = self._logs[channel]
                log.kept.clear()
                log.top += 1
                log.size = 0
                log.fence = None
        for channel in write.truncate:
            self._on_epoch(channel)
        for append, span in zip(write.appends, spans, strict=True):
            self._append(append, span)
        return written

    def _check(self, write: Write, spans: tuple[Span, ...]) -> None:
        tops: dict[Channel, int] = {}
        for append, span in zip(write.appends, spans, strict=True):
            top = tops.get(append.channel, self._top(append.channel))
            tops[append.channel] = span.last
            if not follows(append, top, self._fence(append.channel)):
                raise OffsetConflict("an earlier write is missing, or another producer has written")

    def _exists(self, channel: Channel) -> bool:
        """Whether a channel has ever been written to."""
        log = self._logs.get(channel, _Log())
        return log.top > 0 or log.fence is not None

    def _top(self, channel: Channel) -> int:
        return self._logs.get(channel, _Log()).top

    def _fence(self, channel: Channel) -> int | None:
        return self._logs.get(channel, _Log()).fence

    def _spans(self, write: Write) -> tuple[Span, ...]:
        # Forgetting a channel takes an offset.
        tops = {one: self._top(one) + 1 for one in write.truncate if self._exists(one)}
        spans = []
        for append in write.appends:
            top = tops.get(append.channel, self._top(append.channel))
            tops[append.channel] = top + len(append.items)
            epoch = channel_epoch(self._log_epoch, append.channel)
            spans.append(Span(append.channel, epoch, top + 1, tops[append.channel]))
        return tuple(spans)

    def _append(self, append: Append, span: Span) -> None:
        log = self._logs.setdefault(append.channel, _Log())
        now = self._now()
        published = publications_of(append, span)
        log.kept.extend((now, publication) for publication in published)
        log.size += sum(len(publication.data) for publication in published)
        log.top = span.last
        if append.fence:
            log.fence = span.first
        if append.unfence:
            log.fence = None
        self._trim(append.channel, log, now)
        if append.channel in self._attached:
            self._deliver(append.channel, published)

    def _trim(self, channel: Channel, log: _Log, now: float) -> None:
        keep = self._retention(channel)
        if keep is None:
            return
        drop = 0
        for at, publication in log.kept:
            old = not keep.since_last and at < now - keep.seconds
            many = len(log.kept) - drop > keep.publications or log.size > keep.bytes
            fenced = log.fence is not None and publication.offset >= log.fence
            if fenced or not (old or many):
                break
            log.size -= len(publication.data)
            drop += 1
        del log.kept[:drop]

    def epoch(self, channel: Channel) -> str:
        return channel_epoch(self._log_epoch, channel)

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        max_bytes: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        return await self.ask(Read(channel, after, epoch, limit, max_bytes, reverse))

    def _read(self, request: Read) -> Replay:
        log = self._logs.get(request.channel, _Log())
        here = channel_epoch(self._log_epoch, request.channel)
        begins = log.kept[0][1].offset if log.kept else log.top + 1
        span = span_of(request.after, log.top, begins, reverse=request.reverse)
        if request.epoch not in (None, here) or span is None:
            return Replay(here, log.top, [], gone=True, begins=begins)
        kept = [item for _, item in log.kept if item.offset in span]
        step = -1 if request.reverse else 1
        found, _ = take(kept[::step], request.limit, request.max_bytes)
        return Replay(here, log.top, found, begins=begins, more=len(found) < len(kept))

    async def stored_result(self, key: IdempotencyKey) -> Written | None:
        return self._stored_result(key)

    def _stored_result(self, key: IdempotencyKey) -> Written | None:
        self._forget_requests()
        found = self._results.get((key.scope, key.request_id))
        if found is None:
            return None
        if found[0] != key.digest:
            raise Conflict("request_id was used for something else")
        return found[1]

    def _forget_requests(self) -> None:
        """Drop stored results past their time, oldest first."""
        limit = self._now() - KEY_SECONDS
        while self._results and next(iter(self._results.values()))[2] < limit:
            del self._results[next(iter(self._results))]

    async def ask(self, question: Question[R]) -> R:
        return self._answer(question)

    async def ask_together(self, questions: Sequence[Question[Any]]) -> list[Any]:
        return [self._outcome(question) for question in questions]

    def _answer(self, question: Question[R]) -> R:
        if isinstance(question, Read):
            return cast(R, self._read(question))
        return self._tables.answer(question)

    def _outcome(self, question: Question[Any]) -> Any:
        try:
            return self._answer(question)
        except (CommandError, StorageError, TypeError) as error:
            return error
