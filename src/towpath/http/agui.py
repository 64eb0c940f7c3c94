"""The AG-UI door: run an agent, join or resume a thread, over HTTP and server-sent events.

For clients that speak AG-UI and nothing else. A run that is started here is a run like any other:
it goes on when its client leaves (unless the client asked otherwise), every device sees it, and
whoever comes back with the last id it saw continues from there.

Source: WIRE section 10; AG-UI 1.0, HTTP transport.
"""

import asyncio
import contextlib
import functools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from towpath.channels import is_id, is_thread_id, thread_channel
from towpath.connections.event_stream import EventStream, StreamRequest
from towpath.delivery.recovery import RecoverFrom
from towpath.errors import (
    BadRequest,
    CommandError,
    StorageError,
    TooManyRequests,
    Unavailable,
    UnknownChannel,
)
from towpath.gateway import Gateway, House
from towpath.http.requests import Unauthorized, authenticated, error_response, read_body
from towpath.identity import Principal
from towpath.log.broker import Position
from towpath.protocol import codec_sse as codec
from towpath.runs.model import RunRecord, Status
from towpath.runs.requests import RunRequest

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""No proxy is to keep events back."""
FROM_START = RecoverFrom(True, Position("", 0))


class RunAgentInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an AG-UI client asks; unknown fields are ignored."""

    thread_id: str
    run_id: str
    messages: list[dict[str, Any]] = []
    state: Any = None
    tools: list[Any] = []
    context: list[Any] = []
    forwarded_props: Any = None
    resume: list[Any] = []


def agui_routes(gateway: Gateway) -> BaseRoute:
    """Return the routes under `/agui`, open to the pages that may connect."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=sorted(gateway.settings.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "last-event-id"],
    )
    routes = [
        Route("/threads/{thread}", _door(gateway, _join), methods=["GET"]),
        Route("/{agent}", _door(gateway, _run), methods=["POST"]),
    ]
    return Mount("/agui", routes=routes, middleware=[cors])


Door = Callable[[House, EventStream, Request], Awaitable[Response]]


def _door(gateway: Gateway, door: Door) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of a door whose answer is an event stream."""

    async def handle(request: Request) -> Response:
        try:
            house, principal = await authenticated(gateway, request)
            stream = EventStream(house.parts, house.sse, principal, uuid.uuid4().hex)
            # Before anything is waited for, read or started: who has no place starts nothing, and
            # a revocation from now on finds the stream.
            stream.enter()
            try:
                return await door(house, stream, request)
            except BaseException:
                stream.leave()
                raise
        except StorageError:
            return error_response(Unavailable("the log cannot be used now"))
        except CommandError as error:
            return error_response(error)

    return handle


async def _run(house: House, stream: EventStream, request: Request) -> Response:
    """Start a run, or join the one of this id, and stream it to its end."""
    who = stream.principal
    try:
        asked = msgspec.convert(await read_body(request), RunAgentInput)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    if not is_id(asked.run_id) or not is_thread_id(asked.thread_id):
        raise BadRequest("threadId and runId must be 1 to 128 printable characters")
    record = await house.store.find_run(who.tenant, who.user, asked.run_id)
    if stream.ended is not None:
        raise Unauthorized  # It ended while the body came.
    if record is not None:
        return await _stream(house, stream, await _joining(house, who, record))
    if not house.parts.operations.may_start(who):
        raise TooManyRequests("too many runs at once")
    started = msgspec.json.decode(await house.bridge.start(who, _start(request, asked)))
    position = Position(**started["position"])
    beginning = _beginning(who, started["thread_id"], RecoverFrom(True, position), run=asked.run_id)
    response = await _stream(house, stream, beginning)
    if _ends_with_client(asked):
        response.left = functools.partial(house.bridge.stop, who, asked.run_id)
    return response


async def _join(house: House, stream: EventStream, request: Request) -> Response:
    """Stream a thread: from where the client was, or from a prelude."""
    thread = request.path_params["thread"]
    if not is_thread_id(thread):
        raise UnknownChannel
    last = codec.read_position(request.headers.get("last-event-id", ""))
    asked = FROM_START if last is None else RecoverFrom(True, Position(*last))
    return await _stream(house, stream, _beginning(stream.principal, thread, asked))


async def _stream(house: House, stream: EventStream, beginning: StreamRequest) -> "EventResponse":
    await stream.begin(beginning)
    return EventResponse(stream, house)


class EventResponse(StreamingResponse):
    """The response of one event stream; whatever becomes of it, nothing stays behind."""

    def __init__(self, stream: EventStream, house: House) -> None:
        super().__init__(stream.chunks(), media_type="text/event-stream", headers=HEADERS)
        self.left: Callable[[], None] = lambda: None
        """Called when the response is over, unless we ended it and the client is to come back."""
        self._stream = stream
        self._house = house
        house.lines.add(stream)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as bound:
                    stream.hurry = functools.partial(self._hurry, bound)
                    await super().__call__(scope, receive, send)
        finally:
            stream.leave()
            self._house.lines.discard(stream)
            if stream.ended is None or not stream.ended.come_back:
                self.left()

    def _hurry(self, bound: asyncio.Timeout) -> None:
        """Give the client that long to take what is still due to it."""
        grace = 2 * self._house.parts.settings.close_timeout
        bound.reschedule(asyncio.get_running_loop().time() + grace)


async def _joining(house: House, who: Principal, record: RunRecord) -> StreamRequest:
    """Return how a run that is there is read: the thread, or where it waits, from its turn on."""
    thread = record.key.thread
    if record.status is Status.PENDING:
        top = await house.broker.read(thread_channel(who.tenant, who.user, thread), None, limit=0)
        waits = await house.store.find_run(who.tenant, who.user, record.key.run)
        if waits is not None and waits.status is Status.PENDING:
            # It still waits after that look at the log: so all of it comes after that position.
            position = Position(top.epoch, top.top)
            return _beginning(who, thread, RecoverFrom(True, position), run=record.key.run)
    return _beginning(who, thread, FROM_START)


def _beginning(
    who: Principal, thread: str, asked: RecoverFrom, *, run: str | None = None
) -> StreamRequest:
    channel = thread_channel(who.tenant, who.user, thread)
    return StreamRequest(channel=channel, asked=asked, run=run)


def _start(request: Request, asked: RunAgentInput) -> RunRequest:
    """Return what an AG-UI client asks of an agent; its run id is its request id too."""
    given = {
        "messages": asked.messages,
        "state": asked.state,
        "tools": asked.tools,
        "context": asked.context,
        "forwardedProps": asked.forwarded_props,
        "resume": asked.resume,
    }
    return RunRequest(
        request_id=asked.run_id,
        agent=request.path_params["agent"],
        thread_id=asked.thread_id,
        input={name: value for name, value in given.items() if value is not None},
        run_id=asked.run_id,
    )


def _ends_with_client(asked: RunAgentInput) -> bool:
    """Whether the client asked that the run ends when it leaves."""
    props = asked.forwarded_props
    ours = props.get("towpath") if isinstance(props, dict) else None
    return isinstance(ours, dict) and ours.get("on_disconnect") == "cancel"
