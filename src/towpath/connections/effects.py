"""What a session decided should happen. Plain values; the server performs them in order."""

from dataclasses import dataclass

from towpath.channels import Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.protocol import frames


@dataclass(frozen=True, slots=True)
class Answer:
    """Reply to a command."""

    id: int
    result: frames.Result


@dataclass(frozen=True, slots=True)
class Fail:
    """Reply to a command with an error."""

    id: int
    code: ErrorCode
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Begin reading a channel and answer with what the reader needs first."""

    id: int
    channel: Channel
    request: frames.SubscribeRequest


@dataclass(frozen=True, slots=True)
class Leave:
    """Stop reading a channel and answer."""

    id: int
    channel: Channel


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Answer with what is stored of a channel."""

    id: int
    channel: Channel
    request: frames.HistoryRequest


@dataclass(frozen=True, slots=True)
class TellPresence:
    """Answer with who reads a channel, or only how many."""

    id: int
    channel: Channel
    only_count: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Carry out an RPC method and answer with its result."""

    id: int
    method: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Renew:
    """Verify a new credential for the live connection and answer. The repr leaves it out."""

    id: int
    token: str

    def __repr__(self) -> str:
        return f"Renew(id={self.id})"


@dataclass(frozen=True, slots=True)
class End:
    """Close the connection."""

    code: CloseCode


Effect = Answer | Fail | Join | Leave | ReadHistory | TellPresence | Call | Renew | End
