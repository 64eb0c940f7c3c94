"""The wire guard: a head too large or without sense is answered at once and read no further.

uvicorn bounds neither the lines of a head nor their number. It leaves an upgrade unanswered that
its WebSocket library cannot read, and where the library says what was wrong, it repeats what was
sent, credential and all. Both classes are uvicorn's own with that mended; the bounds are those of
the WebSocket library, so that every path has the same ones.

Source: WIRE section 2 (431); RFC 6585 section 5; RFC 9112 section 3.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import msgspec

from towpath.auth.handshake import SPELLING
from towpath.errors import MissingExtra

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.exceptions import InvalidHeader
    from websockets.headers import parse_subprotocol
    from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request
except ImportError as error:
    raise MissingExtra.of(__name__, "serve", error) from error

MAX_LINE_BYTES: Final = MAX_LINE_LENGTH
"""The longest line of a head, its end included."""
MAX_LINES: Final = MAX_NUM_HEADERS
"""How many header lines a head may have."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""The whole head, however short its lines are."""
UPGRADE_HEADERS: Final = (
    "Connection",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "Upgrade",
)
"""The headers that websockets reads; their grammar (RFC 6455, RFC 9110) is ASCII."""


class _HeadTooLarge(Exception):
    """Ends the parsing of a request."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection; a head past the bounds gets 431 and the end."""

    _reading_head = True
    _too_large = False
    _head_bytes = 0
    """Read since the last request ended; it counts while a head is not over."""

    def data_received(self, data: bytes) -> None:
        """Take what came, and give up a head that does not end."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._reading_head and self._head_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            if not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._reading_head = True

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        self._check(len(self.url) + len(b"OPTIONS  HTTP/1.1\r\n"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        super().on_header(name, value)
        self._check(len(name) + len(value) + len(b": \r\n"))

    def on_headers_complete(self) -> None:
        """End a head."""
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; what comes next is a head."""
        super().on_message_complete()
        self._reading_head = True
        self._head_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be read, 431 for what was too large, and read no further."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        reason = f"a line of a head may have {MAX_LINE_BYTES} bytes, the whole {MAX_HEAD_BYTES}"
        self.transport.write(_answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason))
        self.transport.close()

    def _check(self, line: int) -> None:
        if line > MAX_LINE_BYTES or len(self.headers) > MAX_LINES:
            self._too_large = True
            raise _HeadTooLarge


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection; an upgrade that cannot be read is answered."""

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse("not an upgrade to a WebSocket")

    def handle_connect(self, event: Request) -> None:
        """Begin an upgrade, unless one of its headers cannot be read."""
        # websockets decodes other bytes to lone surrogates below 17.0, and then fails to encode
        # its own refusal, which repeats them: the client would get no answer.
        if not all(value.isascii() for value in _values(event, *UPGRADE_HEADERS)):
            self._refuse("the headers of an upgrade may have ASCII characters only")
            return
        try:
            for value in _values(event, "Sec-WebSocket-Protocol"):
                parse_subprotocol(value)
        except InvalidHeader:
            self._refuse(SPELLING)
        else:
            super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """Send what the application has to say; a refusal completes the handshake too."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def _refuse(self, reason: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(_answer(HTTPStatus.BAD_REQUEST, reason))
            self.transport.close()


def _values(request: Request, *names: str) -> Iterator[str]:
    """Yield every value of these headers."""
    for name in names:
        yield from request.headers.get_all(name)


def _answer(status: HTTPStatus, reason: str) -> bytes:
    body = msgspec.json.encode({"error": reason})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
