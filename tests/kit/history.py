"""One history of a server that was killed: what readers were given, what was answered, what stayed.

It is collected while servers live and die, and checked once, at the end, against the log as it is
then. The log is the truth about what happened; a reader, an answer or a table that says otherwise
is a violation, and so is a log that breaks its own rules. No I/O, no time.

What has to hold is WIRE sections 5, 6 and 7; the promises are P1 to P5 and P8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.kit.page import Event


class Kind(Enum):
    """What can be wrong."""

    ORDER = "order"
    """Offsets or numbers do not rise, or an event is not legal where it stands."""
    GAP = "gap"
    """Something is missing in the middle of what a reader was given."""
    DUPLICATE = "duplicate"
    """A reader was given something twice."""
    LOSS = "loss"
    """What somebody saw, or was promised, is not there any more."""
    FOREIGN = "foreign"
    """Something of another person or thread."""
    ENDING = "ending"
    """A run without exactly one terminal event, or whose status is not what that says."""
    EPOCH = "epoch"
    """The epoch changed, though nothing was lost."""
    POSITION = "position"
    """A position of this very log was not recovered from."""
    TEXT = "text"
    """What a reader shows, or the store keeps, is not what the log says."""
    DIGEST = "digest"
    """A digest is not that of the text."""
    TWICE = "twice"
    """One request was carried out more than once."""
    ANSWER = "answer"
    """A request was answered with something that is not so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that is wrong."""

    kind: Kind
    where: str
    """Whose channel, run or reading."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.where}: {self.sentence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The answer to a subscribe, without its publications."""

    recovered: bool
    epoch: str
    offset: int
    """The channel's top at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One publication."""

    event: Event
    offset: int = 0
    """0 where it has none."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that one reader was told about one channel, in order, over all its connections."""

    reader: str
    owner: str
    """The person who reads."""
    channel: str
    """As clients name it."""
    received: Sequence[Joined | Given]
    whole: bool = True
    """Whether it was subscribed to the end, and so must have everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log holds of one channel in the end, from its first publication on."""

    owner: str
    channel: str
    epoch: str
    publications: Sequence[Given]
    messages: Sequence[Mapping[str, Any]] | None = None
    """What `thread.get` says, for a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What `run.get` says of a run in the end."""

    owner: str
    run: str
    status: str
    code: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    """Where the questions it asked stand, by their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A `run.start`, repeated under one request id until it was answered, or given up."""

    owner: str
    channel: str
    message: str
    """What was said; nobody says it twice."""
    run: str | None = None
    """The run of the answer; None where there was none, or an error."""
    refused: bool = False
    """Whether the answer was an error that is not temporary: then nothing may have begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A `run.cancel` that was answered."""

    owner: str
    run: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A `run.approve` that was answered."""

    owner: str
    run: str
    interrupt: str
    decision: str
    """`approve` or `refuse`."""
    status: str
    continuation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All of it."""

    logs: Sequence[Log] = ()
    readings: Sequence[Reading] = ()
    runs: Sequence[RunState] = ()
    starts: Sequence[StartRequest] = ()
    stopped: Sequence[Stopped] = ()
    decided: Sequence[Decided] = ()
