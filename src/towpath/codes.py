"""The numbers on the wire, each with its sentence and its advice: come back, or don't.

Three tables, one per place where a number can stand: the error of a reply, the close frame of a
connection, the end of one subscription. The reference page of the documentation is printed from
them, and so is every reason a client reads, so a number never says two things.

Source: Centrifuge client protocol codes for the numbers it defines; ours carry HTTP's meaning.
"""

import unicodedata
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """The error of a reply: the command failed, the connection goes on."""

    number: int
    message: str
    temporary: bool = False
    """True where the same command may succeed later without any change."""
    http_status: int
    """What the REST door answers for the same situation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCode:
    """Why the server ended a connection."""

    number: int
    reason: str
    """1 to 123 bytes of UTF-8 that never parse as JSON, so SDKs look at the code range."""

    @property
    def come_back(self) -> bool:
        """Whether a client should reconnect by itself (the ranges of WIRE section 3)."""
        return not (3500 <= self.number < 4000 or 4500 <= self.number < 5000)


def _error(number: int, message: str, http_status: int, *, temporary: bool = False) -> ErrorCode:
    return ErrorCode(number=number, message=message, temporary=temporary, http_status=http_status)


TEMPORARY: Final = _error(100, "temporarily unavailable", 503, temporary=True)
UNKNOWN_CHANNEL: Final = _error(102, "unknown channel", 404)
PERMISSION_DENIED: Final = _error(103, "permission denied", 403)
METHOD_NOT_FOUND: Final = _error(104, "method not found", 404)
ALREADY_SUBSCRIBED: Final = _error(105, "already subscribed", 409)
LIMIT_EXCEEDED: Final = _error(106, "limit exceeded", 429)
BAD_REQUEST: Final = _error(107, "bad request", 400)
NOT_AVAILABLE: Final = _error(108, "not available", 404)
TOKEN_EXPIRED: Final = _error(109, "token expired", 401)
TOO_MANY_REQUESTS: Final = _error(111, "too many requests", 429, temporary=True)
UNRECOVERABLE_POSITION: Final = _error(112, "unrecoverable position", 409)
FORBIDDEN: Final = _error(403, "forbidden", 403)
NOT_FOUND: Final = _error(404, "not found", 404)
CONFLICT: Final = _error(409, "conflict", 409)
GONE: Final = _error(410, "gone", 410)
TOO_LARGE: Final = _error(413, "too large", 413)
UNPROCESSABLE: Final = _error(422, "the agent refused the input", 422)

ERRORS: Final = {
    code.number: code
    for code in (
        TEMPORARY,
        UNKNOWN_CHANNEL,
        PERMISSION_DENIED,
        METHOD_NOT_FOUND,
        ALREADY_SUBSCRIBED,
        LIMIT_EXCEEDED,
        BAD_REQUEST,
        NOT_AVAILABLE,
        TOKEN_EXPIRED,
        TOO_MANY_REQUESTS,
        UNRECOVERABLE_POSITION,
        FORBIDDEN,
        NOT_FOUND,
        CONFLICT,
        GONE,
        TOO_LARGE,
        UNPROCESSABLE,
    )
}
"""Every error a reply may carry, by number."""


def _close(number: int, reason: str) -> CloseCode:
    return CloseCode(number=number, reason=reason)


UNSUPPORTED_DATA: Final = _close(1003, "this dialect takes text frames")
MESSAGE_TOO_BIG: Final = _close(1009, "message too big")
SERVER_FAULT: Final = _close(1011, "server fault")
CONNECT_FAILED: Final = _close(3000, "connect failed")
MOVE_ELSEWHERE: Final = _close(3001, "move elsewhere")
EXPIRED: Final = _close(3005, "credential expired")
SLOW: Final = _close(3008, "too slow")
RECYCLED: Final = _close(3011, "connection recycled")
NO_PONG: Final = _close(3012, "no pong")
TOO_MANY_ERRORS: Final = _close(3013, "too many errors")
REAUTHORISE: Final = _close(3014, "authorisation changed")
INVALID_TOKEN: Final = _close(3500, "invalid token")
NO_CREDENTIAL: Final = _close(
    3500, "no credential: send the bare JWT or ticket as connect.token, or Authorization: Bearer"
)
BAD_MESSAGE: Final = _close(3501, "bad request")
STALE: Final = _close(3502, "no connect command")
FORCED: Final = _close(3503, "disconnected by the server")
CONNECTION_LIMIT: Final = _close(3504, "connection limit")
NOT_ALLOWED: Final = _close(3507, "permission denied")

CLOSES: Final = {
    code.number: code
    for code in (
        UNSUPPORTED_DATA,
        MESSAGE_TOO_BIG,
        SERVER_FAULT,
        CONNECT_FAILED,
        MOVE_ELSEWHERE,
        EXPIRED,
        SLOW,
        RECYCLED,
        NO_PONG,
        TOO_MANY_ERRORS,
        REAUTHORISE,
        INVALID_TOKEN,
        BAD_MESSAGE,
        STALE,
        FORCED,
        CONNECTION_LIMIT,
        NOT_ALLOWED,
    )
}
"""Every code a close frame may carry, by number."""

RUN_CODES: Final = {
    "run.failed": "the agent raised an exception",
    "run.deadline": "the agent did not end within its deadline",
    "run.lost": "the server running the agent stopped",
    "run.drained": "the server was taken out of service while the agent ran",
    "run.illegal_event": "the agent produced an event that is not legal at this point",
    "run.too_large": "the run produced more than it may",
    "run.storage": "the log refused the run's events",
}
"""The `code` of RUN_ERROR events the gateway writes, with the message a person reads.

Every code that begins with `run.` is the gateway's own: see `agent_code`.
"""

MODEL_CODES: Final = {
    "model.unreachable": "the model's service cannot be reached, or does not answer in time",
    "model.key_refused": "the model's service does not accept the key it was given",
    "model.unknown": "the model's service has no such model",
    "model.refused": "the model's service refuses to answer this",
    "model.rate_limited": "the model's service was asked too often; try again later",
    "model.quota_exceeded": "what may be asked of the model's service is used up",
    "model.overloaded": "the model's service is busy; try again later",
    "model.context_too_long": "the conversation is longer than the model can read",
    "model.cut_off": "the connection to the model's service broke off",
    "model.failed": "the model's service failed",
}
"""The `code` of RUN_ERROR events by which agents on a language model end, with their message.

The message says nothing that the service said: that may hold a part of a key.
"""

AGENT_FAILED: Final = "agent.failed"
"""The `code` of a RUN_ERROR whose agent gave no code, or one of the gateway's."""


def agent_code(code: str) -> str:
    """Return the code under which an agent's own error is published.

    Codes that begin with `run.` are the gateway's. An agent that gives one, in whatever case,
    width or white space, gets `agent.failed`; any other code is the agent's to choose.
    """
    shown = filter(str.isprintable, unicodedata.normalize("NFKC", code))
    read = "".join(shown).strip().casefold()
    return AGENT_FAILED if not read or read.startswith("run.") else code
