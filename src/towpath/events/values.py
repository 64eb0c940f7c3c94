"""The values that agents yield, each instead of one AG-UI event or of several.

How to think about it
=====================

An agent yields a value, and its run publishes the events of the value. A value contains no id that
the run can choose: `EventValue.events` takes such ids from the `Ids` of the run. So a value is
plain data, and several runs may publish the same value.

Some values refer to an earlier one: a result to its tool call, a change to its activity. They refer
to the object, and `Ids` knows which id the object got in this run.

The functions of `towpath.events.build` make the values. They check and copy the content, so an
error is raised at the line of the author, and a later change of the author's object has no effect.

No I/O, no time; ids are an argument.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from towpath.events import content as checked
from towpath.events.fold import Fold
from towpath.events.types import Event, IllegalEvent, parse


class EventValue(ABC):
    """A value that an agent yields; it stands for one AG-UI event, or for several."""

    __slots__ = ()

    @abstractmethod
    def events(self, ids: "Ids") -> list[Event]:
        """Return the events of this value in wire form, in the order of publication.

        An implementer promises: if this method returns several events, all of them are legal now,
        in this order; if it returns one event, the run may still refuse it. So a value is published
        whole or not at all. Events of the run's lifecycle need no thread id and no run id.

        Args:
            ids: the ids of the run that publishes the events.

        Raises:
            IllegalEvent: the value is not legal in this run now.
        """


class Ids:
    """The ids of one run: new ids, and the ids of the values that its agent has yielded."""

    def __init__(self, new: Callable[[], str], conversation: Fold) -> None:
        """Start without values.

        Args:
            new: returns an id that nothing has.
            conversation: the conversation so far, this run's part included.
        """
        self.new = new
        """Returns an id that nothing has."""
        self._conversation = conversation
        self._given: dict[tuple[EventValue, str], str] = {}
        self._tried: list[tuple[EventValue, str]] = []
        """What was given for the value that is being published."""

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Publish one value in this block; if it is refused, its ids count as never given."""
        self._tried.clear()
        try:
            yield
        except IllegalEvent:
            for key in self._tried:
                del self._given[key]
            raise

    def give(
        self, value: EventValue, event_type: str, *, chosen: str | None = None, repeated: str
    ) -> str:
        """Return the id of a value in its event of a type, which a run publishes once.

        Args:
            value: the value.
            event_type: the type of the event that introduces the id.
            chosen: the id, if the author chose it.
            repeated: the reason of the error if the run has published the event.

        Raises:
            IllegalEvent: the run has published the event, or the chosen id is taken.
        """
        if (value, event_type) in self._given:
            raise IllegalEvent(event_type, repeated)
        if chosen is not None and (chosen in self._conversation or self.has_call(chosen)):
            reason = f"the conversation has the id {chosen!r} already: choose another, or none"
            raise IllegalEvent(event_type, reason)
        self._tried.append((value, event_type))
        return self._given.setdefault((value, event_type), chosen or self.new())

    def find(self, value: EventValue, event_type: str) -> str | None:
        """Return the id of a value in its event of a type; None if the event is not published."""
        return self._given.get((value, event_type))

    def has_call(self, tool_call_id: str) -> bool:
        """Whether the conversation has a tool call with this id."""
        return self._conversation.has_call(tool_call_id)


@dataclass(frozen=True, slots=True, eq=False)
class ToolCall(EventValue):
    """A whole tool call, made by `tool_call`; two calls are equal only if they are one object."""

    name: str
    """The name of the tool."""
    arguments: str = field(repr=False)
    """The arguments as JSON text, as they are published."""
    id: str | None = None
    """The id that the author chose; None lets the run choose."""

    def result(self, content: object) -> "ToolResult":
        """Return the result of this call; yield it after the call.

        Args:
            content: text, or a value that is published as JSON text.

        Raises:
            IllegalEvent: the content has no JSON encoding.
        """
        return ToolResult.of(self, content)

    def events(self, ids: Ids) -> list[Event]:
        """Return the three events of the call."""
        repeated = f"{self} was yielded already: make another one with tool_call"
        key = ids.give(self, "TOOL_CALL_START", chosen=self.id, repeated=repeated)
        return [
            {"type": "TOOL_CALL_START", "toolCallId": key, "toolCallName": self.name},
            {"type": "TOOL_CALL_ARGS", "toolCallId": key, "delta": self.arguments},
            {"type": "TOOL_CALL_END", "toolCallId": key},
        ]

    def id_in(self, ids: Ids, event_type: str) -> str:
        """Return the id of this call, for an event of a type that refers to it.

        Raises:
            IllegalEvent: the run has not published the call.
        """
        key = ids.find(self, "TOOL_CALL_START")
        if key is None:
            raise IllegalEvent(event_type, f"{self} was not yielded in this run: yield it first")
        return key

    def __str__(self) -> str:
        return f"the tool call {self.name!r}"


@dataclass(frozen=True, slots=True, eq=False)
class ToolResult(EventValue):
    """The result of a tool call, made by `ToolCall.result` or `tool_result`."""

    call: ToolCall | str
    """The call, or the id of a call of an earlier run."""
    content: str = field(repr=False)
    """The result as text, as it is published."""

    @classmethod
    def of(cls, call: ToolCall | str, content: object) -> "ToolResult":
        """Return the result of a call.

        Raises:
            IllegalEvent: the content has no JSON encoding.
        """
        encode = checked.text if isinstance(content, str) else checked.json_text
        return cls(call, encode("TOOL_CALL_RESULT", "content", content))

    def events(self, ids: Ids) -> list[Event]:
        """Return the event of the result."""
        kind, call = "TOOL_CALL_RESULT", self.call
        if isinstance(call, ToolCall):
            key = call.id_in(ids, kind)
            repeated = f"{call} has a result already: make another call for another result"
            message = ids.give(call, kind, repeated=repeated)
        else:
            if not ids.has_call(call):
                raise IllegalEvent(kind, f"the conversation has no tool call with the id {call!r}")
            key, message = call, ids.new()
        fields = {"messageId": message, "toolCallId": key, "content": self.content, "role": "tool"}
        return [{"type": kind, **fields}]


@dataclass(frozen=True, slots=True, eq=False)
class Reasoning(EventValue):
    """A whole reasoning message, made by `thinking`."""

    text: str = field(repr=False)

    def events(self, ids: Ids) -> list[Event]:
        """Return the events of the message."""
        key = {"messageId": ids.new()}
        content = {"type": "REASONING_MESSAGE_CONTENT", **key, "delta": self.text}
        return [
            {"type": "REASONING_START", **key},
            {"type": "REASONING_MESSAGE_START", **key, "role": "reasoning"},
            *([content] if self.text else []),
            {"type": "REASONING_MESSAGE_END", **key},
            {"type": "REASONING_END", **key},
        ]


@dataclass(frozen=True, slots=True, eq=False)
class TextMessage(EventValue):
    """A whole text message, made by `message`."""

    text: str = field(repr=False)
    role: str

    def events(self, ids: Ids) -> list[Event]:
        """Return the events of the message."""
        key = {"messageId": ids.new()}
        content = {"type": "TEXT_MESSAGE_CONTENT", **key, "delta": self.text}
        return [
            {"type": "TEXT_MESSAGE_START", **key, "role": self.role},
            *([content] if self.text else []),
            {"type": "TEXT_MESSAGE_END", **key},
        ]


@dataclass(frozen=True, slots=True, eq=False)
class WireEvent(EventValue):
    """One event in which the run chooses no id."""

    event: Event = field(repr=False)

    def events(self, ids: Ids) -> list[Event]:
        """Return the event."""
        return [self.event]


@dataclass(frozen=True, slots=True, eq=False)
class Step(EventValue):
    """The start of a step, made by `step`; `finished` makes its end."""

    name: str

    def finished(self) -> EventValue:
        """Return the end of this step; yield it after the step."""
        return WireEvent({"type": "STEP_FINISHED", "stepName": self.name})

    def events(self, ids: Ids) -> list[Event]:
        """Return the event of the start."""
        return [{"type": "STEP_STARTED", "stepName": self.name}]


@dataclass(frozen=True, slots=True, eq=False)
class Activity(EventValue):
    """Structured progress, made by `activity`; its content can be changed after it is yielded."""

    kind: str
    """Its `activityType`."""
    content: Event = field(repr=False)

    def changed(self, content: Mapping[str, object]) -> EventValue:
        """Return a change that replaces the content.

        Raises:
            IllegalEvent: the content is not a mapping, or has no JSON encoding.
        """
        kind = "ACTIVITY_SNAPSHOT"
        return _ActivityChange(
            self, kind, "content", checked.plain_mapping(kind, "content", content)
        )

    def patched(self, operations: Sequence[Mapping[str, object]]) -> EventValue:
        """Return a change by a JSON Patch (RFC 6902).

        Raises:
            IllegalEvent: the operations are not a patch. Whether the patch applies to the content
                is checked when the change is yielded.
        """
        kind = "ACTIVITY_DELTA"
        patch = checked.plain(kind, "operations", operations)
        parse({"type": kind, "messageId": "any", "activityType": self.kind, "patch": patch})
        return _ActivityChange(self, kind, "patch", patch)

    def events(self, ids: Ids) -> list[Event]:
        """Return the event that introduces the activity."""
        kind = "ACTIVITY_SNAPSHOT"
        repeated = f"{self} was yielded already: yield what its method changed or patched returns"
        key = ids.give(self, kind, repeated=repeated)
        fields = {"messageId": key, "activityType": self.kind, "content": self.content}
        return [{"type": kind, **fields}]

    def __str__(self) -> str:
        return f"the activity {self.kind!r}"


@dataclass(frozen=True, slots=True, eq=False)
class _ActivityChange(EventValue):
    activity: Activity
    event_type: str
    field_name: str
    change: object = field(repr=False)

    def events(self, ids: Ids) -> list[Event]:
        key = ids.find(self.activity, "ACTIVITY_SNAPSHOT")
        if key is None:
            reason = f"{self.activity} was not yielded in this run: yield it first"
            raise IllegalEvent(self.event_type, reason)
        named = {"messageId": key, "activityType": self.activity.kind}
        return [{"type": self.event_type, **named, self.field_name: self.change}]


@dataclass(frozen=True, slots=True, eq=False)
class Interrupt:
    """One question to a person, in `Interrupts`."""

    call: ToolCall | str | None
    """The tool call that it is about, or the id of the call."""
    id: str | None
    """The id of the interrupt; None lets the run choose."""
    fields: Event = field(repr=False)
    """The other fields of AG-UI's Interrupt."""

    def wire_form(self, ids: Ids) -> Event:
        """Return AG-UI's Interrupt.

        Raises:
            IllegalEvent: the run has not published the call.
        """
        interrupt: Event = {"id": self.id or ids.new(), **self.fields}
        if self.call is not None:
            call = self.call
            key = call.id_in(ids, "RUN_FINISHED") if isinstance(call, ToolCall) else call
            interrupt["toolCallId"] = key
        return interrupt


@dataclass(frozen=True, slots=True, eq=False)
class Interrupts(EventValue):
    """The end of a run with questions, made by `ask_for_approval`, `ask` and `ask_all`."""

    interrupts: tuple[Interrupt, ...]

    def events(self, ids: Ids) -> list[Event]:
        """Return RUN_FINISHED with the interrupts in its outcome."""
        interrupts = [one.wire_form(ids) for one in self.interrupts]
        outcome = {"type": "interrupt", "interrupts": interrupts}
        return [{"type": "RUN_FINISHED", "outcome": outcome}]
