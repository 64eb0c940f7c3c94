"""One connection, sans-I/O: frames in, events out; answers in, bytes out; every move checked.

The object keeps three promises by itself, whatever is thrown at it in whatever order. Nothing a
client sends has an effect before the verdict: commands that come early wait here. Every command
gets exactly one reply: the ids still owed one are kept, and answering another is a bug. Nothing
follows a close: after it bytes are neither read nor made.

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
from towpath.protocol.states import State, Transition, after, legal


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one connection's input. Sizes in bytes."""

    early_message: int = 64 * 1024
    """A message before the verdict."""
    message: int = 1024 * 1024
    """A message after the verdict."""
    waiting: int = 64 * 1024
    """All that comes between the message with the connect command and the verdict."""
    waiting_commands: int = 256
    """How many commands wait for the verdict."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over and this is why; at most one is ever yielded."""

    code: CloseCode
    detail: str


Event = Command | Malformed | Pong | Closed
"""What comes out of received bytes, in order. `Closed` is always the last."""


class NotOwed(TowpathError):
    """A reply to a command that is not waiting for one: a bug."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"no reply is owed to command {self.number}"


class Connection:
    """The protocol state of one connection; does no I/O and knows no time."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.state = State.OPENING
        self.close_code: CloseCode | None = None
        """Why it ended; the first reason wins."""
        self._bounds = bounds or Bounds()
        self._owed: dict[int, str] = {}
        self._waiting: list[Command | Malformed] = []
        self._waiting_size = 0

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.state is State.CLOSED

    @property
    def owed(self) -> frozenset[int]:
        """The ids of commands that still have to be answered."""
        return frozenset(self._owed)

    def receive_data(self, frame: bytes | str) -> list[Event]:
        """Take one message and return what it means now.

        Before the verdict only the connect command comes out; the rest waits. A fault of the
        peer closes the connection: then the last event is `Closed`, and the caller sends a close
        frame with its code. After the end nothing comes out.
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
        """Check one command's move and put what comes out of it into `events`."""
        move = _move(inbound)
        if not legal(self.state, move):
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
        self.state = after(self.state, move)
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
        """Answer connect with an error; what waited is dropped, and 3000 is to follow."""
        self.state = after(self.state, Transition.REFUSE)
        reply = self._error(number, code, message)
        self.close_code = codes.CONNECT_FAILED
        self._drop()
        return reply

    def reply(self, number: int, result: frames.Result) -> bytes:
        """Return the success reply to a command that is owed one."""
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
        """Return the error reply to a command that is owed one.

        `temporary` says "ask again" where the code by itself does not (WIRE section 3, refresh).
        """
        self.state = after(self.state, Transition.DELIVER)
        return self._error(number, code, message, temporary=temporary)

    def drain(self) -> None:
        """Note that the client will be told to move elsewhere."""
        self.state = after(self.state, Transition.DRAIN)

    def close(self, code: CloseCode) -> bool:
        """End the connection; return whether this call did it. The first code wins."""
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
