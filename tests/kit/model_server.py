"""A model service with the OpenAI-compatible API, whose every answer is scripted.

It listens on a real loopback port, streams chat completions as the public API does, and notes what
it was asked, with which key, and who hung up in the middle.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from towpath.testing.listener import Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """Text in pieces, after thoughts in pieces."""

    pieces: Sequence[str]
    thoughts: Sequence[str] = ()
    pause: float = 0.0
    """Seconds before each piece."""
    cut: bool = False
    """Whether the connection breaks where the answer would end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """A tool call whose arguments come in two pieces."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fails:
    """A status instead of an answer."""

    status: int
    body: bytes = b'{"error": {"message": "no", "type": "error", "code": null}}'
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailsLater:
    """An error in the stream, after it has begun well."""

    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """No response, not even a status."""


Answer = Says | Calls | Fails | FailsLater | Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One request, as it arrived."""

    key: str
    """The text after `Bearer`."""
    body: dict[str, Any]

    @property
    def conversation(self) -> list[tuple[str, Any]]:
        """The conversation, as role and content."""
        return [(one["role"], one.get("content")) for one in self.body["messages"]]


class ModelServer(Listener):
    """One service; it listens on a free loopback port while its context is open."""

    def __init__(self, *answers: Answer) -> None:
        """Describe a service; it does not listen yet.

        Args:
            answers: its answers, in order; the last one is repeated.
        """
        super().__init__()
        self.answers: list[Answer] = list(answers)
        self.requests: list[ModelRequest] = []
        """Every request, oldest first."""
        self.request_received = asyncio.Event()
        """Set once there was a request."""
        self.hung_up = asyncio.Event()
        """Set once a client has left before the end of its answer."""
        self.sent = 0
        """How many pieces were sent, in all answers."""

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        return f"{self.http}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; each connection has one, so that its end is the client's sign."""
        self.requests.append(await _read(reader))
        self.request_received.set()
        number = min(len(self.requests), len(self.answers)) - 1
        answering = asyncio.create_task(self._answer(self.answers[number], writer))
        gone = asyncio.create_task(reader.read(1))
        await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() or answering.exception() is not None:
            self.hung_up.set()
        for task in (answering, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        match answer:
            case Silence():
                await asyncio.Event().wait()
            case Fails():
                writer.write(_head(answer.status, answer.content_type) + answer.body)
            case _:
                writer.write(_head(200, "text/event-stream", chunked=True))
                async for event in self._events(answer):
                    writer.write(_chunk(b"data: " + event + b"\n\n"))
                    await writer.drain()
                    self.sent += 1
                if isinstance(answer, Says) and answer.cut:
                    writer.transport.abort()
                    return
                writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async def _events(self, answer: Says | Calls | FailsLater) -> AsyncIterator[bytes]:
        """Yield the events of a stream, without the last one."""
        yield _piece({"role": "assistant", "content": None})
        match answer:
            case Says():
                spoken = [{"reasoning_content": one} for one in answer.thoughts]
                for delta in (*spoken, *({"content": one} for one in answer.pieces)):
                    await asyncio.sleep(answer.pause)
                    yield _piece(delta)
                if not answer.cut:
                    yield _piece({}, reason="stop")
            case Calls():
                call = {"index": 0, "id": f"call_{len(self.requests)}", "type": "function"}
                yield _calling({**call, "function": {"name": answer.tool, "arguments": ""}})
                text = msgspec.json.encode(answer.arguments).decode()
                half = len(text) // 2
                for part in (text[:half], text[half:]):
                    yield _calling({"index": 0, "function": {"arguments": part}})
                yield _piece({}, reason="tool_calls")
            case FailsLater():
                yield _piece({"content": "So far"})
                yield msgspec.json.encode({"error": answer.error})


async def _read(reader: asyncio.StreamReader) -> ModelRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(fields["content-length"]))
    given = next(line for line in head if line.lower().startswith("authorization:"))
    return ModelRequest(key=given.rpartition(" ")[2], body=msgspec.json.decode(body))


def _head(status: int, content_type: str, *, chunked: bool = False) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {content_type}", "Connection: close"]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _calling(call: Mapping[str, Any]) -> bytes:
    return _piece({"tool_calls": [call]})


def _piece(delta: Mapping[str, Any], *, reason: str | None = None) -> bytes:
    """Return one piece of an answer as the API writes it."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "scripted",
            "choices": [choice],
        }
    )
