"""The verdict on a history: the log by its own rules, readings and answers by the log."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.kit.history import Given, History, Kind, Log, RunState, Violation
from tests.kit.page import TERMINAL, Page, difference
from tests.kit.reading import OffsetTracker
from towpath.events.digest import digest

_DECIDED = {"approve": "approved", "refuse": "refused"}


def check(history: History) -> list[Violation]:
    """Return everything that is wrong with a history; nothing where all promises were kept."""
    found = list(_check_channels(history))
    for log in history.logs:
        found += _check_log(log)
        found += _check_runs(log, history)
    found += _check_readings(history)
    found += _check_answers(history)
    return found


def _check_channels(history: History) -> Iterator[Violation]:
    """Each run lives in one thread."""
    homes = Counter(run for log in history.logs for run in set(_runs(log)))
    for run, count in homes.items():
        if count > 1:
            yield Violation(kind=Kind.FOREIGN, where=run, sentence=f"it is in {count} threads")


def _runs(log: Log) -> dict[str, list[Given]]:
    """Return the publications of each run of a log."""
    runs: dict[str, list[Given]] = {}
    for one in log.publications:
        if "run" in one.tags:
            runs.setdefault(one.tags["run"], []).append(one)
    return runs


def _where(log: Log) -> str:
    return f"{log.owner}'s {log.channel}"


def _check_log(log: Log) -> Iterator[Violation]:
    """Offsets count from one; runs come one after the other, in legal order; texts are true."""
    where, thread = _where(log), log.channel.partition(":")[2]
    page = Page()
    active = ""
    for due, one in enumerate(log.publications, 1):
        if one.offset != due:
            yield Violation(kind=Kind.GAP, where=where, sentence=f"offset {due} is {one.offset}")
            return
        if not thread:
            continue
        run, kind = one.tags.get("run", ""), one.event["type"]
        if one.tags.get("thread") != thread:
            sentence = f"offset {due} is of thread {one.tags.get('thread')}"
            yield Violation(kind=Kind.FOREIGN, where=where, sentence=sentence)
        begins = kind == "RUN_STARTED"
        if begins == bool(active) or (not begins and run != active):
            sentence = f"{kind} of {run} at offset {due} while {active or 'none'} is active"
            yield Violation(kind=Kind.ORDER, where=where, sentence=sentence)
        active = "" if kind in TERMINAL else run
        page.feed(one.event)
        for key, value in _vouched(one):
            if digest(page.text(key)) != value:
                sentence = f"offset {due} vouches for another text of {key}"
                yield Violation(kind=Kind.DIGEST, where=where, sentence=sentence)
    for fault in page.faults:
        yield Violation(kind=Kind.ORDER, where=where, sentence=fault)
    if log.messages is not None:
        stored = Page([{"type": "MESSAGES_SNAPSHOT", "messages": log.messages}])
        if wrong := difference(stored.texts, page.texts):
            yield Violation(kind=Kind.TEXT, where=where, sentence=f"in the store {wrong}")


def _vouched(one: Given) -> list[tuple[str, str]]:
    """Return the digests that stand with a publication: whose, and what they are."""
    text = one.tags.get("digest", "")
    if one.event["type"] == "TEXT_MESSAGE_END":
        return [(one.event["messageId"], text)]
    pairs = (pair.rpartition(":") for pair in text.split())
    return [(key, value) for key, _, value in pairs]


def _check_runs(log: Log, history: History) -> Iterator[Violation]:
    """Each run is numbered without a gap, ends once, and its table says how."""
    states = {(one.owner, one.run): one for one in history.runs}
    for run, events in _runs(log).items():
        where = f"run {run} in {_where(log)}"
        numbers = [int(one.tags["seq"]) for one in events]
        if numbers != list(range(1, len(numbers) + 1)):
            yield Violation(kind=Kind.ORDER, where=where, sentence=f"it is numbered {numbers}")
        endings = [one for one in events if one.event["type"] in TERMINAL]
        if len(endings) != 1 or endings[0] is not events[-1]:
            sentence = f"it has {len(endings)} endings in {len(events)} events"
            yield Violation(kind=Kind.ENDING, where=where, sentence=sentence)
            continue
        state, due = states.get((log.owner, run)), _outcome(endings[0])
        if state is None:
            yield Violation(kind=Kind.LOSS, where=where, sentence="nobody knows it any more")
        elif (state.status, state.code) != due:
            sentence = f"it is {state.status} ({state.code}), and ended {due[0]} ({due[1]})"
            yield Violation(kind=Kind.ENDING, where=where, sentence=sentence)


def _outcome(ending: Given) -> tuple[str, str | None]:
    """Return the status and the code that a terminal event stands for."""
    event = ending.event
    if event["type"] == "RUN_ERROR":
        code = event.get("code")
        return ("lost" if code == "run.lost" else "failed"), code
    kind = (event.get("outcome") or {"type": "success"})["type"]
    return {"success": "finished", "interrupt": "interrupted"}.get(kind, kind), None


def _check_readings(history: History) -> list[Violation]:
    logs = {(log.owner, log.channel): log for log in history.logs}
    homes = {run: log for log in history.logs for run in _runs(log)}
    found: list[Violation] = []
    for reading in history.readings:
        log = logs.get((reading.owner, reading.channel))
        if log is None:
            where = f"{reading.reader} in {reading.owner}'s {reading.channel}"
            found.append(Violation(kind=Kind.LOSS, where=where, sentence="there is no such log"))
            continue
        elsewhere = frozenset(run for run, thread_key in homes.items() if thread_key is not log)
        found += OffsetTracker(reading, log, elsewhere).walk()
    return found


def _check_answers(history: History) -> Iterator[Violation]:
    states = {(one.owner, one.run): one for one in history.runs}
    yield from _check_starts(history, states)
    for stop in history.stopped:
        state = states.get((stop.owner, stop.run))
        if stop.status == "accepted" and (state is None or state.status != "cancelled"):
            sentence = f"its cancel was accepted, and it is {state.status if state else 'unknown'}"
            yield Violation(kind=Kind.ANSWER, where=f"run {stop.run}", sentence=sentence)
    for decided in history.decided:
        state = states.get((decided.owner, decided.run))
        standing = state.answers.get(decided.interrupt) if state else None
        if decided.status == "accepted" and standing != _DECIDED[decided.decision]:
            sentence = (
                f"{decided.decision} was accepted for {decided.interrupt}, which is {standing}"
            )
            yield Violation(kind=Kind.ANSWER, where=f"run {decided.run}", sentence=sentence)
        if decided.continuation and (decided.owner, decided.continuation) not in states:
            sentence = f"run {decided.continuation} was to continue it, and nobody knows it"
            yield Violation(kind=Kind.LOSS, where=f"run {decided.run}", sentence=sentence)
    yield from _check_continuations(history)


def _check_starts(history: History, states: dict[tuple[str, str], RunState]) -> Iterator[Violation]:
    """What was asked and answered happened once; what was not answered, once at most."""
    logs = {(log.owner, log.channel): log for log in history.logs}
    for request in history.starts:
        where = f"{request.owner}'s {request.message!r}"
        log = logs.get((request.owner, request.channel))
        begun = _begun_with(request.message, log.publications if log else ())
        if len(begun) > 1:
            sentence = f"it began {len(begun)} runs"
            yield Violation(kind=Kind.TWICE, where=where, sentence=sentence)
        if request.refused and begun:
            yield Violation(kind=Kind.ANSWER, where=where, sentence="it was refused, and began")
        if request.run is None:
            continue
        if (request.owner, request.run) not in states or not begun:
            sentence = f"it was answered with run {request.run}, which is not there"
            yield Violation(kind=Kind.LOSS, where=where, sentence=sentence)
        elif begun != [request.run] * len(begun):
            sentence = f"it was answered with run {request.run}, and began {begun}"
            yield Violation(kind=Kind.ANSWER, where=where, sentence=sentence)


def _begun_with(message: str, publications: Iterable[Given]) -> list[str]:
    """Return the runs that were begun with a message of exactly this text."""
    return [
        one.event["runId"]
        for one in publications
        if one.event["type"] == "RUN_STARTED"
        and any(
            sent.get("content") == message
            for sent in (one.event.get("input") or {}).get("messages", ())
        )
    ]


def _check_continuations(history: History) -> Iterator[Violation]:
    """What a run asked is answered by one run at most."""
    parents: Counter[str] = Counter(_parents([p for log in history.logs for p in log.publications]))
    for run, count in parents.items():
        if count > 1:
            sentence = f"{count} runs continue it"
            yield Violation(kind=Kind.TWICE, where=f"run {run}", sentence=sentence)


def _parents(publications: Sequence[Given]) -> Iterator[str]:
    for one in publications:
        if one.event["type"] == "RUN_STARTED" and one.event.get("parentRunId"):
            yield one.event["parentRunId"]
