"""The AG-UI endpoints: run an agent, join or resume a thread, over HTTP and server-sent events.

They are for clients that support AG-UI only. A run that starts here is an ordinary run: it
continues when its client disconnects (unless the client requested otherwise), and every device
receives it. A client that reconnects with the last id it received continues from there.

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

from towpath.channels import is_thread_id, thread_channel
from towpath.connections.event_stream import EventStream, StreamRequest
from towpath.delivery.recovery import RecoverFrom
from towpath.errors import (
    BadRequest,
    CommandError,
    StorageError,
    Unavailable,
    UnknownChannel,
)
from towpath.http.requests import (
    Site,
    Unauthorized,
    authenticate,
    error_response,
    read_body,
    running,
)
from towpath.identity import Principal
from towpath.log.broker import Position
from towpath.node.node import Node
from towpath.protocol import codec_sse as codec
from towpath.runs.model import RunRecord, Status
from towpath.runs.requests import RunRequest

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""These headers prevent proxies from caching or buffering events."""
FROM_START = RecoverFrom(True, Position("", 0))


class RunAgentInput(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The input of an AG-UI client; unknown fields are ignored."""

    thread_id: str
    run_id: str
    messages: list[dict[str, Any]] = []
    state: Any = None
    tools: list[Any] = []
    context: list[Any] = []
    forwarded_props: Any = None
    resume: list[Any] = []


def agui_routes(site: Site) -> BaseRoute:
    """Return the routes under `/agui`, with CORS for pages of the allowed origins."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=sorted(site.settings.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "last-event-id"],
    )
    routes = [
        Route("/threads/{thread}", _endpoint(site, _join), methods=["GET"]),
        Route("/{agent}", _endpoint(site, _run), methods=["POST"]),
    ]
    return Mount("/agui", routes=routes, middleware=[cors])


Answer = Callable[[Node, EventStream, Request], Awaitable[Response]]


def _endpoint(site: Site, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that responds with an event stream, or with an error."""

    async def endpoint(request: Request) -> Response:
        try:
            return await _admit(site, answer, request)
        except StorageError:
            return error_response(Unavailable("the log cannot be used now"))
        except CommandError as error:
            return error_response(error)

    return endpoint


async def _admit(site: Site, answer: Answer, request: Request) -> Response:
    """Authenticate a request and enter its event stream into the hub, then answer the request.

    The stream enters the hub before anything is awaited, read or started. So a client over its
    connection limit starts nothing, and a revocation from now on ends the stream.
    """
    node = running(site)
    principal = await authenticate(node, request)
    stream = EventStream(node.parts, node.sse, principal, uuid.uuid4().hex)
    stream.enter()
    try:
        return await answer(node, stream, request)
    except BaseException:
        stream.leave()
        raise


async def _run(node: Node, stream: EventStream, request: Request) -> Response:
    """Start a run, or join the run that has this id already, and stream it to its end."""
    who, run_input = stream.principal, await _run_input(request)
    run_request = _run_request(request, run_input)
    record = await node.parts.store.find_run(who.tenant, who.user, run_input.run_id)
    if stream.ended is not None:
        raise Unauthorized  # The stream ended while the body was received.
    if record is not None:
        return await _stream(node, stream, await _joining(node, who, record))
    response = await _stream(node, stream, await _starting(node, who, run_request))
    if _ends_with_client(run_input):
        response.left = functools.partial(node.runs.stop, who, run_input.run_id)
    return response


async def _join(node: Node, stream: EventStream, request: Request) -> Response:
    """Stream a thread: from the client's last event, or from a snapshot."""
    thread = request.path_params["thread"]
    if not is_thread_id(thread):
        raise UnknownChannel
    last = codec.read_position(request.headers.get("last-event-id", ""))
    since = FROM_START if last is None else RecoverFrom(True, Position(*last))
    return await _stream(node, stream, _stream_request(stream.principal, thread, since))


async def _stream(node: Node, stream: EventStream, request: StreamRequest) -> "EventResponse":
    await stream.begin(request)
    return EventResponse(stream, node)


class EventResponse(StreamingResponse):
    """The response of one event stream; cleans up in every case."""

    def __init__(self, stream: EventStream, node: Node) -> None:
        super().__init__(stream.chunks(), media_type="text/event-stream", headers=HEADERS)
        self.left: Callable[[], None] = lambda: None
        """Called at the end, unless the server ended the stream and the client may reconnect."""
        self._stream = stream
        self._node = node
        node.connections.add(stream)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as bound:
                    stream.hurry = functools.partial(self._hurry, bound)
                    await super().__call__(scope, receive, send)
        finally:
            stream.leave()
            self._node.connections.discard(stream)
            if stream.ended is None or not stream.ended.come_back:
                self.left()

    def _hurry(self, bound: asyncio.Timeout) -> None:
        """Bound the time in which the client may read the rest of the stream."""
        grace = 2 * self._node.parts.settings.close_timeout
        bound.reschedule(asyncio.get_running_loop().time() + grace)


async def _run_input(request: Request) -> RunAgentInput:
    try:
        return msgspec.convert(await read_body(request), RunAgentInput)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None


async def _starting(node: Node, who: Principal, request: RunRequest) -> StreamRequest:
    """Start a run; return the request for its stream, from its first event on."""
    node.start_limit.take(who)
    started = await node.runs.start(who, request)
    since = RecoverFrom(True, Position(started.position.epoch, started.position.offset))
    return _stream_request(who, started.thread_id, since, run=started.run_id)


async def _joining(node: Node, who: Principal, record: RunRecord) -> StreamRequest:
    """Return the request for the stream of an existing run.

    The stream of a queued run begins with that run; the stream of any other run shows the thread.
    """
    parts, key = node.parts, record.key
    if record.status is Status.PENDING:
        channel = thread_channel(who.tenant, who.user, key.thread)
        top = await parts.broker.read(channel, None, limit=0)
        found = await parts.store.find_run(who.tenant, who.user, key.run)
        if found is not None and found.status is Status.PENDING:
            # The run was still queued after that read, so all its events follow that position.
            since = RecoverFrom(True, Position(top.epoch, top.top))
            return _stream_request(who, key.thread, since, run=key.run)
    return _stream_request(who, key.thread, FROM_START)


def _stream_request(
    who: Principal, thread: str, since: RecoverFrom, *, run: str | None = None
) -> StreamRequest:
    channel = thread_channel(who.tenant, who.user, thread)
    return StreamRequest(channel=channel, recover_from=since, run=run)


def _run_request(request: Request, run_input: RunAgentInput) -> RunRequest:
    """Return an AG-UI client's input as a request for a run; its run id is its request id too."""
    given = {
        "messages": run_input.messages,
        "state": run_input.state,
        "tools": run_input.tools,
        "context": run_input.context,
        "forwardedProps": run_input.forwarded_props,
        "resume": run_input.resume,
    }
    return RunRequest(
        request_id=run_input.run_id,
        agent=request.path_params["agent"],
        thread_id=run_input.thread_id,
        input={name: value for name, value in given.items() if value is not None},
        run_id=run_input.run_id,
    )


def _ends_with_client(run_input: RunAgentInput) -> bool:
    """Whether the client requested that the run ends when the client disconnects."""
    props = run_input.forwarded_props
    ours = props.get("towpath") if isinstance(props, dict) else None
    return isinstance(ours, dict) and ours.get("on_disconnect") == "cancel"
