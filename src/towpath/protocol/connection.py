"""The protocol state of one connection, without I/O; every transition is checked.

Received frames become events; replies become bytes. The object guarantees three things, whatever
the input and its order. No client input has an effect before the verdict: commands that come early
wait here. Every command gets exactly one reply: the ids without a reply are kept, and a reply to
another id is a bug. Nothing follows a close: after it no bytes are read or made.

Source: WIRE sections 1 to 3.
"""

from dataclasses import dataclass

from msgspec import UNSET

from towpath import codes
from towpath.codes import CloseCode, ErrorCode
from towpath.errors import TowpathError
from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.protocol.frames import Command, Inbound, Malformed, Pong
from towpath.protocol.states import IllegalMove, State, Transition, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one connection's input. Sizes in bytes."""

    early_message: int = 64 * 1024
    """The size of a message before the verdict."""
    message: int = 1024 * 1024
    """The size of a message after the verdict."""
    waiting: int = 64 * 1024
    """The size of all messages between the one with the connect command and the verdict."""
    waiting_commands: int = 256
    """How many commands wait for the verdict."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended, with the reason; returned at most once."""

    code: CloseCode
    detail: str


Event = Command | Malformed | Pong | Closed
"""An event made from received bytes. `Closed` is always the last."""


class NotOwed(TowpathError):
    """A reply to a command that waits for none: a bug."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"no reply is owed to command {self.number}"


class Connection:
    """The protocol state of one connection; does no I/O and uses no clock."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.state = State.OPENING
        self.close_code: CloseCode | None = None
        """The code with which it ended; the first code wins."""
        self._bounds = bounds or Bounds()
        self._owed: dict[int, str] = {}
        self._waiting: list[Command | Malformed] = []
        self._waiting_size = 0

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.state is State.CLOSED

    @property
    def owed(self) -> frozenset[int]:
        """The ids of the commands that have no reply yet."""
        return frozenset(self._owed)

    def receive_data(self, frame: bytes | str) -> list[Event]:
        """Decode one message and return its events.

        Before the verdict only the connect command is returned; other commands wait. An error of
        the peer closes the connection: then the last event is `Closed`, and the caller sends a
        close frame with its code. After the end nothing is returned.
        """
        if self.closed:
            return []
        if isinstance(frame, bytes):
            return [self._fail(codes.UNSUPPORTED_DATA, "a binary frame in the JSON encoding")]
        data = frame.encode("utf-8", "surrogatepass")
        early = self.state in (State.OPENING, State.AUTHENTICATING)
        if len(data) > (self._bounds.early_message if early else self._bounds.message):
            return [self._fail(codes.MESSAGE_TOO_BIG, f"a message of {len(data)} bytes")]
        events: list[Event] = []
        if self.state is State.AUTHENTICATING:
            self._waiting_size += len(data)
        try:
            for inbound in codec.decode_frame(data):
                self._take(inbound, events)
                if events and isinstance(events[-1], Closed):
                    break
        except codec.BadFrame as error:
            events.append(self._fail(codes.BAD_MESSAGE, error.reason))
        return events

    def _take(self, inbound: Inbound, events: list[Event]) -> None:
        """Check the transition of one command, and append the resulting event to `events`."""
        move = _move(inbound)
        try:
            state = after(self.state, move)
        except IllegalMove:
            events.append(self._fail(codes.BAD_MESSAGE, f"{move.value} while {self.state.value}"))
            return
        if isinstance(inbound, Pong):
            events.append(inbound)
            return
        if inbound.id in self._owed:
            events.append(self._fail(codes.BAD_MESSAGE, "a command id used twice at once"))
            return
        if inbound.id:
            self._owed[inbound.id] = "" if isinstance(inbound, Malformed) else inbound.name
        if self.state is State.AUTHENTICATING:
            self._wait(inbound, events)
            return
        self.state = state
        events.append(inbound)

    def _wait(self, inbound: Command | Malformed, events: list[Event]) -> None:
        self._waiting.append(inbound)
        too_many = len(self._waiting) > self._bounds.waiting_commands
        if too_many or self._waiting_size > self._bounds.waiting:
            events.append(self._fail(codes.BAD_MESSAGE, "too much sent before the verdict"))

    def accept(
        self, number: int, result: frames.ConnectResult
    ) -> tuple[bytes, list[Command | Malformed]]:
        """Open the connection: return the connect reply and the commands that waited for it."""
        self.state = after(self.state, Transition.ACCEPT)
        waiting, self._waiting = self._waiting, []
        return self.reply(number, result), waiting

    def refuse(self, number: int, code: ErrorCode, message: str | None = None) -> bytes:
        """Answer connect with an error and drop waiting commands; the caller closes with 3000."""
        self.state = after(self.state, Transition.REFUSE)
        reply = self._error(number, code, message)
        self.close_code = codes.CONNECT_FAILED
        self._drop()
        return reply

    def reply(self, number: int, result: frames.Result) -> bytes:
        """Return the success reply to a command that has no reply yet."""
        self.state = after(self.state, Transition.DELIVER)
        return codec.encode_reply(self._settle(number), number, result)

    def fail(
        self,
        number: int,
        code: ErrorCode,
        message: str | None = None,
        *,
        temporary: bool = False,
    ) -> bytes:
        """Return the error reply to a command that has no reply yet.

        `temporary` allows a retry even if the code alone does not (WIRE section 3, refresh).
        """
        self.state = after(self.state, Transition.DELIVER)
        return self._error(number, code, message, temporary=temporary)

    def drain(self) -> None:
        """Note that the node drains: the close code will tell the client to reconnect elsewhere."""
        self.state = after(self.state, Transition.DRAIN)

    def close(self, code: CloseCode) -> bool:
        """End the connection; return whether this call ended it. The first code wins."""
        if self.closed:
            return False
        self.state = after(self.state, Transition.CLOSE)
        self.close_code = code
        self._drop()
        return True

    def _error(
        self, number: int, code: ErrorCode, message: str | None, *, temporary: bool = False
    ) -> bytes:
        self._settle(number)
        error = frames.Error(
            code=code.number,
            message=message or code.message,
            temporary=True if code.temporary or temporary else UNSET,
        )
        return codec.encode_error(number, error)

    def _settle(self, number: int) -> str:
        try:
            return self._owed.pop(number)
        except KeyError:
            raise NotOwed(number) from None

    def _fail(self, code: CloseCode, detail: str) -> Closed:
        self.close(code)
        return Closed(code, detail)

    def _drop(self) -> None:
        self._owed.clear()
        self._waiting.clear()


def _move(inbound: Inbound) -> Transition:
    if isinstance(inbound, Pong):
        return Transition.PONG
    if isinstance(inbound, Command) and inbound.name == "connect":
        return Transition.CONNECT
    return Transition.COMMAND
