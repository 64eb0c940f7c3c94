"""One run as a state table: turns the items that an agent yields into events to publish.

How to think about it
=====================

A run is `PENDING` until its RUN_STARTED is made, and `RUNNING` while its agent works. Then it ends,
once, in one of several ways. The first ending wins: success, failure, deadline, cancel and loss are
transitions that the table holds from `RUNNING` only. A later transition is refused and has no
effect. So there is exactly one terminal event, and no event follows it.

Agents may yield text, AG-UI events, and values, each of which stands for one or several events.
Text becomes a message of its own, which is closed by the next item of another kind. A value is
published whole or not at all, because it never has an illegal event beside others (`EventValue`).
An agent may yield the lifecycle events itself: its RUN_STARTED is dropped, since the run has one,
and its terminal event ends the run.

Each event is checked against the legal order once and encoded once, when it is made. An event that
has no encoding, or is larger than `event_bytes`, is refused like an illegal one. The log stores the
bytes, and every reader gets them. If an event of an agent is refused, the executor ends the run.

No I/O, no time; ids are an argument.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from towpath import codes
from towpath.events.digest import Growing
from towpath.events.fold import Fold
from towpath.events.interrupts import check_interrupts, expiry
from towpath.events.order import RULES
from towpath.events.types import (
    CHUNKS,
    DELTAS,
    LEGACY_REASONING_ID,
    TERMINAL,
    Event,
    IllegalEvent,
    Message,
    parse,
)
from towpath.events.values import EventValue, Ids
from towpath.runs.encoding import (
    EVENT_BYTES,
    EventEncoder,
    EventTooLarge,
    RunEvent,
    SurrogateHalves,
    as_unicode,
    check_depth,
)
from towpath.runs.model import TRANSITIONS, RunClosed, RunIsOver, RunKey, Status, Transition


@dataclass(frozen=True, slots=True)
class _Stream:
    """An item that text or a chunk opened; the next event that does not continue it closes it."""

    prefix: str
    """TEXT_MESSAGE, REASONING_MESSAGE or TOOL_CALL."""
    id: str


class Run:
    """One run; each method returns the events to publish, in order."""

    def __init__(
        self,
        key: RunKey,
        *,
        history: list[Message],
        state: Any = None,
        new_id: Callable[[], str],
        keep_raw: bool = False,
        event_bytes: int = EVENT_BYTES,
    ) -> None:
        self.key = key
        self._tags_of_run = {"thread": key.thread, "run": key.run, "agent": key.agent}
        self.status = Status.PENDING
        self.code: str | None = None
        """The code of the RUN_ERROR, once there is one."""
        self.events = 0
        """How many events were made; the `seq` of the last one."""
        self._fold = Fold(history, state=state)
        self._digests = Growing()
        self._new_id = new_id
        self._value_ids = Ids(new_id, self._fold)
        self._keep_raw = keep_raw
        self._encoder = EventEncoder(event_bytes)
        self._new_events: list[RunEvent] = []
        self._content_known = True
        self._stream: _Stream | None = None
        self._thought = LEGACY_REASONING_ID
        """The id of the current reasoning of an older agent, whose events carry no id."""
        self._halves = SurrogateHalves()

    @classmethod
    def of_unknown_content(cls, key: RunKey, *, events: int, new_id: Callable[[], str]) -> "Run":
        """Return a run of which only the number of its events is known.

        Its ending carries no content, so it can be written whatever the run's events contain.
        """
        run = cls(key, history=[], new_id=new_id)
        run.replay({"type": "RUN_STARTED", **run._ids})
        run.events = events
        run._content_known = False
        return run

    def begin(self, run_input: Mapping[str, Any], *, parent: str | None = None) -> list[RunEvent]:
        """Make RUN_STARTED with its input, and STATE_SNAPSHOT if the input has a state.

        Args:
            run_input: the new messages, and the rest of the agent's input, in wire form.
            parent: the run this one continues.

        Raises:
            IllegalEvent: the input is not valid AG-UI; the run has not begun.
        """
        event: Event = {"type": "RUN_STARTED", **self._ids}
        if parent is not None:
            event["parentRunId"] = parent
        started = parse({**event, "input": {**self._ids, **run_input}})
        data = self._encoder.encode(started)
        self._move(Transition.BEGIN)
        self._fold.bound = True
        self._make(started, data)
        if (state := run_input.get("state")) is not None:
            self._make({"type": "STATE_SNAPSHOT", "snapshot": state})
        return self._out()

    def feed(self, item: object) -> list[RunEvent]:
        """Take one item of the agent: text, a value, an AG-UI event, or a mapping in wire form.

        Raises:
            IllegalEvent: it is malformed or not legal here; it had no effect.
            EventTooLarge: it makes an event of more than `event_bytes`; it had no effect.
            RunIsOver: the run has ended; the item is refused.
        """
        if self.status is not Status.RUNNING:
            raise RunIsOver
        if isinstance(item, str):
            self._chunk("TEXT_MESSAGE", None, item, {"role": "assistant"})
        elif isinstance(item, EventValue):
            with self._value_ids.attempt():
                for event in [parse(self._named(one)) for one in item.events(self._value_ids)]:
                    self._feed(event)
        else:
            self._feed(parse(self._named(item)))
        return self._out()

    def finish(self, *, result: Any = None) -> list[RunEvent]:
        """End with success, and close open items; return no events if the run has ended already."""
        self._end(Transition.FINISH, {"type": "success"}, result)
        return self._out()

    def cancel(self) -> list[RunEvent]:
        """End because a stop was requested; return no events if the run has ended already."""
        self._end(Transition.CANCEL, {"type": "cancelled"})
        return self._out()

    def fail(self, code: str, message: str | None = None) -> list[RunEvent]:
        """End with an error, or `run.too_large` if it is; return no events if the run has ended."""
        try:
            self._break(Transition.FAIL, code, message)
        except EventTooLarge as large:
            self._break(Transition.FAIL, large.run_code, None)
        return self._out()

    def lose(self) -> list[RunEvent]:
        """End because the process that ran the agent is gone."""
        self._break(Transition.LOSE, "run.lost", None)
        return self._out()

    def replay(self, event: Event) -> None:
        """Apply an event of an unfinished run that was read from the log."""
        if event["type"] == "RUN_STARTED":
            self._move(Transition.BEGIN)
        self._fold.feed(event)
        self.events += 1

    def closed(self, at: float, *, expires: float) -> RunClosed:
        """Return the fact that the run has ended, with the conversation as it is now.

        Args:
            at: when it ended, in Unix seconds.
            expires: when its interrupts expire, if they set no time; Unix seconds.
        """
        started, ended = self._fold.started, self._fold.ended
        assert started is not None, "the run has begun"
        assert ended is not None, "the run has ended"
        if self.status is Status.INTERRUPTED:
            expires = expiry(ended["outcome"], expires)
        return RunClosed(
            key=self.key,
            status=self.status,
            code=self.code,
            started=started,
            ended=ended,
            messages=self._fold.messages if self._content_known else None,
            state=self._fold.state,
            at=at,
            expires=expires,
        )

    @property
    def over(self) -> bool:
        """Whether the terminal event has been made, or replayed."""
        return self._fold.ended is not None

    @property
    def messages(self) -> list[Message]:
        """The conversation so far, this run's part included."""
        return self._fold.messages

    @property
    def state(self) -> Any:
        """The thread's shared state so far."""
        return self._fold.state

    @property
    def _ids(self) -> dict[str, str]:
        return {"threadId": self.key.thread, "runId": self.key.run}

    def _move(self, transition: Transition) -> None:
        try:
            self.status = TRANSITIONS[self.status, transition]
        except KeyError:
            raise RunIsOver from None

    def _make(self, event: Event, data: bytes | None = None) -> None:
        """Check and apply an event made by the run; `data` is its encoding, if already made."""
        self._fold.order.check(event)
        self._apply(event, self._encoder.encode(event) if data is None else data)

    def _apply(self, event: Event, data: bytes) -> None:
        """Apply an event that is legal, and keep it until the caller takes it."""
        self._fold.apply(event)
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            self._digests.grow(event["messageId"], event["delta"])
        elif event["type"] == "MESSAGES_SNAPSHOT":
            self._digests.forget()
        self.events += 1
        self._new_events.append(RunEvent(event, self._tags(event), data))

    def _out(self) -> list[RunEvent]:
        events, self._new_events = self._new_events, []
        return events

    def _tags(self, event: Event) -> dict[str, str]:
        tags = {**self._tags_of_run, "seq": str(self.events)}
        if event["type"] == "TEXT_MESSAGE_END":
            message = event["messageId"]
            tags["digest"] = self._digests.of(message, self._fold.text(message))
        elif event["type"] in TERMINAL:
            texts = self._fold.run_texts()
            tags["digest"] = " ".join(f"{one}:{self._digests.of(one, text)}" for one, text in texts)
        return tags

    def _feed(self, event: Event) -> None:
        """Take one parsed event of the agent; a refused event has no effect."""
        kind = event["type"]
        check_depth(event)
        self._name_thoughts(event)
        self._check_ids(event)
        if kind == "RUN_STARTED" or (kind == "RAW" and not self._keep_raw):
            return
        if kind == "SUBAGENT_ERROR" and "code" in event:
            event["code"] = codes.agent_code(event["code"])
        if not self._keep_raw:
            event.pop("rawEvent", None)
        if kind == "RUN_FINISHED":
            self._finish_as_agent(event)
        elif kind == "RUN_ERROR":
            code = codes.agent_code(str(event.get("code") or ""))
            self._break(Transition.FAIL, code, str(event["message"]))
        elif kind in CHUNKS:
            self._take_chunk(event)
        else:
            self._take(event)

    def _take(self, event: Event) -> None:
        """Close the stream and apply an event of the agent; a refused event has no effect."""
        self._check(event)
        if event["type"] in DELTAS:
            self._take_delta(event, event[DELTAS[event["type"]]])
            return
        data = self._encoder.bounded(event)
        self._close_stream()
        self._apply(event, data)

    def _take_delta(self, event: Event, key: str) -> None:
        event["delta"], half = self._halves.join(key, event["delta"])
        pieces = self._encoder.deltas(event)
        self._close_stream()
        self._halves.keep(key, half)
        for piece, data in pieces:
            self._apply(piece, data)

    def _check(self, event: Event) -> None:
        """Raise IllegalEvent if an event of the agent is not legal once the stream is closed."""
        self._fold.order.check(event)
        stream, rule = self._stream, RULES.get(event["type"])
        if stream is None or rule is None:
            return
        opened_by = RULES[f"{stream.prefix}_START"]
        if (rule.bracket, event[rule.field]) == (opened_by.bracket, stream.id):
            raise IllegalEvent(event["type"], f"{rule.bracket} {stream.id} is not open")

    def _take_chunk(self, event: Event) -> None:
        prefix, name = CHUNKS[event["type"]]
        kept = ("role", "name", "toolCallName", "parentMessageId", "subagentRunId")
        fields = {key: event[key] for key in kept if key in event}
        if prefix != "TOOL_CALL":
            fields.setdefault("role", "assistant" if prefix == "TEXT_MESSAGE" else "reasoning")
        self._chunk(prefix, event.get(name), event.get("delta") or "", fields)

    def _chunk(self, prefix: str, key: str | None, delta: str, start: Event) -> None:
        """Continue the streaming item, or open a new one; text without an id is a message."""
        name = "toolCallId" if prefix == "TOOL_CALL" else "messageId"
        streaming = self._stream
        if streaming is None or streaming.prefix != prefix or key not in (None, streaming.id):
            if key is None and prefix != "TEXT_MESSAGE":
                raise IllegalEvent(f"{prefix}_CHUNK", f"the first one needs a {name}")
            if prefix == "TOOL_CALL" and "toolCallName" not in start:
                raise IllegalEvent(f"{prefix}_CHUNK", "the first one needs a toolCallName")
            streaming = _Stream(prefix, key or self._new_id())
        text, half = self._halves.join(streaming.id, delta)
        suffix = "ARGS" if prefix == "TOOL_CALL" else "CONTENT"
        event = {"type": f"{prefix}_{suffix}", name: streaming.id, "delta": text}
        pieces = self._encoder.deltas(event)
        if streaming is not self._stream:
            self._take({"type": f"{prefix}_START", name: streaming.id, **start})
            self._stream = streaming
        self._halves.keep(streaming.id, half)
        for piece, data in pieces:
            self._make(piece, data)

    def _close_stream(self) -> None:
        if self._stream is not None:
            prefix, key = self._stream.prefix, self._stream.id
            self._stream = None
            name = "toolCallId" if prefix == "TOOL_CALL" else "messageId"
            self._make({"type": f"{prefix}_END", name: key})

    def _name_thoughts(self, event: Event) -> None:
        """Give the reasoning events of an older agent an id, a new one each time it begins."""
        if event.get("messageId") != LEGACY_REASONING_ID:
            return
        within = ("reasoning", self._thought) in self._fold.order.open
        begins = event["type"] == "REASONING_MESSAGE_START" and not within
        if event["type"] == "REASONING_START" or begins:
            self._thought = self._new_id()
        event["messageId"] = self._thought

    def _named(self, item: object) -> object:
        """Return a lifecycle event with this run's ids, if the agent left them out."""
        if isinstance(item, Mapping) and item.get("type") in ("RUN_STARTED", "RUN_FINISHED"):
            return {**self._ids, **item}
        return item

    def _check_ids(self, event: Event) -> None:
        """Raise IllegalEvent if a lifecycle event names another run or thread."""
        for name, value in self._ids.items():
            if event["type"].startswith("RUN_") and event.get(name, value) != value:
                raise IllegalEvent(event["type"], f"{name} is another run's")

    def _finish_as_agent(self, event: Event) -> None:
        outcome = event.get("outcome") or {"type": "success"}
        if outcome["type"] == "interrupt":
            check_interrupts(outcome, self._fold.messages)
        transitions = {"interrupt": Transition.INTERRUPT, "cancelled": Transition.CANCEL}
        transition = transitions.get(outcome["type"], Transition.FINISH)
        self._end(transition, outcome, event.get("result"))

    def _end(self, transition: Transition, outcome: Event, result: Any = None) -> None:
        if self.status is not Status.RUNNING:
            return
        ended: Event = {"type": "RUN_FINISHED", **self._ids, "outcome": outcome}
        if result is not None:
            ended["result"] = result
        # An invalid or large ending is refused here, while the run can still end another way.
        data = self._encoder.bounded(ended)
        self._stream = None
        for event in self._fold.order.closing():
            self._make(event)
        self._move(transition)
        self._make(ended, data)

    def _break(self, transition: Transition, code: str, message: str | None) -> None:
        if self.status is not Status.RUNNING:
            return
        sentence = as_unicode(message or codes.RUN_CODES.get(code, code))
        ended: Event = {"type": "RUN_ERROR", "code": as_unicode(code), "message": sentence}
        # What cannot be written raises here, while the run can still end another way.
        data = self._encoder.bounded(ended)
        self.code = ended["code"]
        self._move(transition)
        self._make(ended, data)
