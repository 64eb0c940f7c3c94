"""The exception tree: one class per condition, the wire code on the class where it has one.

Whose fault it is shows in the branch: `CommandError` is the caller's (it becomes the error of one
reply), `StorageError` is ours (it becomes "temporarily unavailable"), `ConfigurationError` is the
operator's (the process does not start; the command line prints the sentence and exits with 2).
"""

from typing import ClassVar, Self

from towpath import codes
from towpath.codes import ErrorCode


class TowpathError(Exception):
    """Root of everything Towpath raises on purpose."""


class ConfigurationError(TowpathError):
    """The operator asked for something that cannot be started; the sentence says both ways out."""


class MissingExtra(ConfigurationError, ImportError):
    """Packages of an extra are not installed; the sentence names the command that installs them."""

    @classmethod
    def of(cls, needed_by: str, extra: str, error: ImportError) -> Self:
        """Return the error of a module that cannot be imported without this extra."""
        return cls(f"{needed_by} needs the extra {extra}: pip install 'towpath[{extra}]' ({error})")


class StorageError(TowpathError):
    """The log or the projection could not be read or written now."""


class OffsetConflict(StorageError):
    """A write would not stand where it says; an earlier one is missing, or its hold is over."""


class WriteFailed(StorageError):
    """A write cannot be applied, now or later; the cause says why. No other write is concerned."""


class LogCorrupted(StorageError):
    """What is stored is not what was written; this process uses the log no more."""


class LogFenced(StorageError):
    """Another process has opened the log since; this one uses it no more."""


class CommandError(TowpathError):
    """A command that cannot be carried out; becomes the error of its one reply."""

    code: ClassVar[ErrorCode] = codes.BAD_REQUEST

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        self.message = message if message is not None else self.code.message
        """The sentence a client reads. Never holds a credential."""

    def __str__(self) -> str:
        return f"{self.code.number} {self.message}"


class BadRequest(CommandError):
    """The command's fields are missing, of the wrong type or out of bounds."""


class Unavailable(CommandError):
    """Something the command needs is not there now; the same command may succeed later."""

    code = codes.TEMPORARY


class UnknownChannel(CommandError):
    """No such channel, or not the caller's: the two look alike on purpose."""

    code = codes.UNKNOWN_CHANNEL


class MethodNotFound(CommandError):
    """No command or RPC method of that name."""

    code = codes.METHOD_NOT_FOUND


class PermissionDenied(CommandError):
    """The caller may not do this; nothing was done."""

    code = codes.FORBIDDEN


class LimitExceeded(CommandError):
    """A bound that asking again later does not change."""

    code = codes.LIMIT_EXCEEDED


class TooManyRequests(CommandError):
    """Too much at once; the same command may succeed later."""

    code = codes.TOO_MANY_REQUESTS


class UnrecoverablePosition(CommandError):
    """The subscriber asked for recovery or nothing, and recovery is impossible."""

    code = codes.UNRECOVERABLE_POSITION


class NotFound(CommandError):
    """No such thread, run or agent, or not the caller's: the two look alike on purpose."""

    code = codes.NOT_FOUND


class Conflict(CommandError):
    """Another run is active on the thread, or the request id was used for something else."""

    code = codes.CONFLICT


class TooLarge(CommandError):
    """The message is over its bound."""

    code = codes.TOO_LARGE
