"""The codes on the wire: errors of replies, close codes, codes of failed runs.

Each code has its message and the advice to reconnect or not, and its docstring says when it is
sent. The reference page of the documentation and every reason that a client reads are printed from
these tables, so a number never means two things.

Source: Centrifuge client protocol codes for the numbers it defines; ours carry HTTP's meaning.
"""

import json
import unicodedata
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """The error of a reply: the command failed, the connection stays open."""

    number: int
    message: str
    temporary: bool = False
    """True where the same command may succeed later without any change."""
    http_status: int
    """The status of a REST response in the same situation."""


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
"""Sent while the log cannot be read or written, while the server starts or drains, and if a
credential cannot be verified now (the identity provider does not answer).
"""
UNKNOWN_CHANNEL: Final = _error(102, "unknown channel", 404)
"""Sent if a command names a channel that does not exist, or that the caller may not read."""
PERMISSION_DENIED: Final = _error(103, "permission denied", 403)
"""Sent for `publish`: clients publish by calling methods, never directly."""
METHOD_NOT_FOUND: Final = _error(104, "method not found", 404)
"""Sent for a command or an RPC method that does not exist."""
ALREADY_SUBSCRIBED: Final = _error(105, "already subscribed", 409)
"""Sent for `subscribe` to a channel that the connection reads already."""
LIMIT_EXCEEDED: Final = _error(106, "limit exceeded", 429)
"""Sent if a bound is reached that does not pass with time: subscriptions of a connection, runs
that wait for a thread, stored revocations of a tenant.
"""
BAD_REQUEST: Final = _error(107, "bad request", 400)
"""Sent if fields of a command are missing, of a wrong type, out of bounds or contradictory."""
NOT_AVAILABLE: Final = _error(108, "not available", 404)
"""Sent for a command that a channel does not have: `sub_refresh`, and `presence` of a channel
that several people share.
"""
TOKEN_EXPIRED: Final = _error(109, "token expired", 401)
"""Sent for `connect` and `refresh` with a token that has expired, or with a ticket that was used
or has expired. On `refresh` it is temporary. HTTP requests get 401 for every bad credential.
"""
TOO_MANY_REQUESTS: Final = _error(111, "too many requests", 429, temporary=True)
"""Sent if a rate is exceeded: commands of a connection, runs of a user, refused credentials of an
address; and for `connect` if the tenant has too many connections.
"""
UNRECOVERABLE_POSITION: Final = _error(112, "unrecoverable position", 409)
"""Sent for `history` since a position that is no longer stored, and for `subscribe` if the client
asked for an error in place of a subscription without recovery.
"""
FORBIDDEN: Final = _error(403, "forbidden", 403)
"""Sent if the caller's roles do not allow the method."""
NOT_FOUND: Final = _error(404, "not found", 404)
"""Sent if a thread, run, interrupt or agent does not exist, or belongs to another user."""
CONFLICT: Final = _error(409, "conflict", 409)
"""Sent if another run is active on the thread, if an id is taken, or if a `request_id` was used
for another request.
"""
GONE: Final = _error(410, "gone", 410)
"""Reserved for an interrupt that is no longer open; not sent in this version."""
TOO_LARGE: Final = _error(413, "too large", 413)
"""Sent if a message or a request body exceeds its size."""
UNPROCESSABLE: Final = _error(422, "the agent refused the input", 422)
"""Reserved for an agent that refuses its input; not sent in this version."""

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
"""Sent for a binary frame; the JSON encoding has text frames only."""
MESSAGE_TOO_BIG: Final = _close(1009, "message too big")
"""Sent if a frame exceeds `message_bytes`, or `early_message_bytes` before the connect reply."""
SERVER_FAULT: Final = _close(1011, "server fault")
"""Sent if an unexpected exception ended the connection; never for what a client did."""
CONNECT_FAILED: Final = _close(3000, "connect failed")
"""Sent after an error reply to `connect`, and if the connect reply took too long."""
MOVE_ELSEWHERE: Final = _close(3001, "move elsewhere")
"""Sent to every connection when the server drains."""
EXPIRED: Final = _close(3005, "credential expired")
"""Sent if the credential has expired and was not refreshed within `expiry_grace`; during an outage
of the identity provider, within `outage_grace`.
"""
SLOW: Final = _close(3008, "too slow")
"""Sent if a client reads too slowly: one message took longer than `slow_timeout`, more than
`outbox_bytes` wait, or what it missed cannot be read from the log.
"""
RECYCLED: Final = _close(3011, "connection recycled")
"""Reserved for connections that reach their maximum age; not sent in this version."""
NO_PONG: Final = _close(3012, "no pong")
"""Sent if a ping was not answered within `pong_timeout`."""
TOO_MANY_ERRORS: Final = _close(3013, "too many errors")
"""Sent after more than `errors` error replies on one connection."""
REAUTHORISE: Final = _close(3014, "authorisation changed")
"""Reserved for a change of permissions that needs a new token; not sent in this version."""
INVALID_TOKEN: Final = _close(3500, "invalid token")
"""Sent for `connect` with an invalid token, and for `refresh` with an invalid token or with one of
another person.
"""
NO_CREDENTIAL: Final = _close(
    3500, "no credential: send the bare JWT or ticket as connect.token, or Authorization: Bearer"
)
"""Sent for `connect` without a credential, or with one in a form that no source has. The number is
that of an invalid token; the reason says how to send a credential.
"""
BAD_MESSAGE: Final = _close(3501, "bad request")
"""Sent for what no error reply can answer: malformed JSON, a command that is not legal in this
state, an id that is in use, a pong without a ping, too much before the connect reply.
"""
STALE: Final = _close(3502, "no connect command")
"""Sent if no `connect` command arrived within `connect_timeout`."""
FORCED: Final = _close(3503, "disconnected by the server")
"""Sent if an operator called `session.disconnect`, or the application `disconnect_user` without a
code of its own.
"""
CONNECTION_LIMIT: Final = _close(3504, "connection limit")
"""Sent for `connect` if the user has `user_connections` connections."""
NOT_ALLOWED: Final = _close(3507, "permission denied")
"""Sent if the credential was revoked, before or during the connection."""

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


def application_close(number: int, reason: str) -> CloseCode:
    """Return a close code that the application chose.

    Raises:
        ValueError: the number is not 3000 to 4999, or SDKs would not read the reason.
    """
    if not 3000 <= number <= 4999:
        raise ValueError("a close code of an application is 3000 to 4999")
    if not 1 <= len(reason.encode(errors="replace")) <= 123 or _is_json(reason):
        raise ValueError("the reason of a close code has 1 to 123 bytes, and is no JSON")
    return CloseCode(number=number, reason=reason)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


RUN_CODES: Final = {
    # An exception that is no `AgentError`, an exit of the agent, or a queued run that cannot begin.
    "run.failed": "the agent raised an exception",
    # `run_deadline`, or the deadline that the agent was registered with, has passed.
    "run.deadline": "the agent did not end within its deadline",
    # The process that ran it was killed or crashed; the process that opens the log next ends it.
    "run.lost": "the server running the agent stopped",
    # The server drains: each active run ends before its process does.
    "run.drained": "the server was taken out of service while the agent ran",
    # The agent yielded an event out of order, or state that nests too deep or is too large.
    "run.illegal_event": "the agent produced an event that is not legal at this point",
    # The events of the run exceed `run_bytes`, or one event of the agent exceeds `event_bytes`.
    # That event is not published.
    "run.too_large": "the events of the run are too large",
    # The log refused an event of the run: the disk is full, or the event cannot be stored.
    "run.storage": "the log refused the run's events",
}
"""The `code` of RUN_ERROR events that the gateway writes, with the message that a person reads.

Each is sent once, as the last event of a run; the comment says when. Every code that begins with
`run.` belongs to the gateway: see `agent_code`.
"""

MODEL_CODES: Final = {
    "model.unreachable": "the model's service cannot be reached, or does not answer in time",
    "model.key_refused": "the model's service does not accept the key it was given",
    "model.unknown": "the model's service has no such model",
    "model.refused": "the model's service refuses to answer this",
    "model.rate_limited": "the model's service got too many requests; try again later",
    "model.quota_exceeded": "the quota of the model's service is used up",
    "model.overloaded": "the model's service is busy; try again later",
    "model.context_too_long": "the conversation is longer than the model can read",
    "model.cut_off": "the connection to the model's service was lost",
    "model.failed": "the model's service failed",
}
"""The `code` of RUN_ERROR events that end a run of a language model's agent, with the message.

Each is sent when a call to the model's service failed as the message says. The service's own
message is left out, because it may contain a part of a key.
"""

AGENT_FAILED: Final = "agent.failed"
"""Sent as the `code` of a RUN_ERROR if the agent gave no code, or one of the gateway's."""


def agent_code(code: str) -> str:
    """Return the code under which an agent's own error is published.

    Codes that begin with `run.` belong to the gateway. If an agent gives one, in whatever case,
    width or white space, its code is replaced by `agent.failed`. Every other code is kept.
    """
    shown = filter(str.isprintable, unicodedata.normalize("NFKC", code))
    read = "".join(shown).strip().casefold()
    return AGENT_FAILED if not read or read.startswith("run.") else code
