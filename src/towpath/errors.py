"""The exception tree: one class per condition, with the wire code on the class if it has one.

The branch shows whose fault an error is. A `CommandError` is the caller's: it becomes the error of
one reply. A `StorageError` is ours: it becomes "temporarily unavailable". A `ConfigurationError` is
the operator's: the process does not start, and the command line prints the message and exits with
status 2. A `NotRunning` and a `CalledOnEventLoop` are the application's.
"""

from typing import ClassVar, Self

from towpath import codes
from towpath.codes import ErrorCode


class TowpathError(Exception):
    """Base class of the errors that Towpath defines."""


class ConfigurationError(TowpathError):
    """The configuration prevents startup; the message says how to correct it."""


class MissingExtra(ConfigurationError, ImportError):
    """Packages of an extra are not installed; the message has the command that installs them."""

    @classmethod
    def of(cls, needed_by: str, extra: str, error: ImportError) -> Self:
        """Return the error of a module that cannot be imported without this extra."""
        return cls(f"{needed_by} needs the extra {extra}: pip install 'towpath[{extra}]' ({error})")


class NotRunning(TowpathError):
    """The gateway has not started, or it has stopped."""

    def __str__(self) -> str:
        return (
            "the gateway is not running: the application must mount it with gateway.mount, or "
            "enter gateway.lifespan in its own lifespan, and be started by a server that runs "
            "lifespans; with open_in_background it runs once its log is open"
        )


class StoppedDuringCall(NotRunning):
    """The gateway stopped before the call of a thread had ended."""

    def __str__(self) -> str:
        return (
            "the gateway stopped before the call ended, and the call may have taken effect: look "
            "at the state once the gateway runs again before you repeat the call"
        )


class SeveralGateways(TowpathError):
    """Several gateways run in this process, and the caller named none."""

    def __str__(self) -> str:
        return "several gateways run in this process: pass gateway="


class WrongLoop(TowpathError):
    """A coroutine of the gateway was called on another event loop than the gateway's."""

    def __str__(self) -> str:
        return "the gateway runs on another event loop: call it through gateway.portal"


class CalledOnEventLoop(TowpathError):
    """A blocking call on the event loop's own thread, which would wait for itself forever."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.function = function
        """The name of the function that was to be called."""

    def __str__(self) -> str:
        return (
            "gateway.portal.call is for other threads, and this is the thread of the gateway's "
            f"event loop: await {self.function}(...) instead"
        )


class StorageError(TowpathError):
    """The log or the projection could not be read or written now."""


class OffsetConflict(StorageError):
    """A write does not follow the offset it names (an earlier write is missing), or its fence was
    removed."""


class WriteFailed(StorageError):
    """A write cannot be applied, now or later; `__cause__` is the reason. Other writes are not
    affected."""


class LogCorrupted(StorageError):
    """The file of the log cannot be read as a whole; this process no longer uses the log."""


class LogFenced(StorageError):
    """Another process has opened the log since; this process no longer writes it."""


class CommandError(TowpathError):
    """A command failed; becomes the error of its one reply."""

    code: ClassVar[ErrorCode] = codes.BAD_REQUEST

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        self.message = message if message is not None else self.code.message
        """The message that the client receives. Never contains a credential."""

    def __str__(self) -> str:
        return f"{self.code.number} {self.message}"


class BadRequest(CommandError):
    """The command's fields are missing, of the wrong type or out of bounds."""


class Unavailable(CommandError):
    """Something the command needs is unavailable now; the same command may succeed later."""

    code = codes.TEMPORARY


class UnknownChannel(CommandError):
    """No such channel, or not the caller's: both get the same error on purpose."""

    code = codes.UNKNOWN_CHANNEL


class MethodNotFound(CommandError):
    """No command or RPC method of that name."""

    code = codes.METHOD_NOT_FOUND


class PermissionDenied(CommandError):
    """The caller may not do this; nothing was done."""

    code = codes.FORBIDDEN


class LimitExceeded(CommandError):
    """A bound is exceeded; a later retry does not help."""

    code = codes.LIMIT_EXCEEDED


class TooManyRequests(CommandError):
    """Too many requests at once; the same command may succeed later."""

    code = codes.TOO_MANY_REQUESTS


class UnrecoverablePosition(CommandError):
    """The position is gone; for a subscribe, only if the client asked for this error."""

    code = codes.UNRECOVERABLE_POSITION


class NotFound(CommandError):
    """No such thread, run or agent, or not the caller's: both get the same error on purpose."""

    code = codes.NOT_FOUND


class RowDamaged(NotFound):
    """A stored row is not what was written, so what it belongs to cannot be read."""

    def __init__(self, table: str) -> None:
        super().__init__("what is stored of this is damaged and cannot be read")
        self.table = table
        """The table of the row."""


class Conflict(CommandError):
    """Another run is active on the thread, or the request id was used with other parameters."""

    code = codes.CONFLICT


class TooLarge(CommandError):
    """The message is larger than its bound."""

    code = codes.TOO_LARGE
