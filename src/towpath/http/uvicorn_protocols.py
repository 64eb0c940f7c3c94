"""uvicorn protocols that refuse a request head that is too large or invalid.

Such a head is answered at once, and the rest is not read. uvicorn limits neither the length of the
lines of a head nor their number. It does not answer an upgrade that its WebSocket library cannot
parse. Where the library reports the error, the report repeats the request, with its credential.
Both classes extend uvicorn's and correct this. The bounds are those of the WebSocket library, so
that they are the same for every path.

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
"""The maximum length of a line of a head, with its line end, in bytes."""
MAX_LINES: Final = MAX_NUM_HEADERS
"""The maximum number of header lines of a head."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""The maximum size of the whole head, in bytes."""
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
    """One HTTP connection; a head over the bounds gets 431, and the connection is closed."""

    _reading_head = True
    _too_large = False
    _head_bytes = 0
    """The bytes read since the last request ended; checked while the head is incomplete."""

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and refuse a head that is larger than `MAX_HEAD_BYTES`."""
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
        """Add a piece of the request target."""
        super().on_url(url)
        self._check(len(self.url) + len(b"OPTIONS  HTTP/1.1\r\n"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header."""
        super().on_header(name, value)
        self._check(len(name) + len(value) + len(b": \r\n"))

    def on_headers_complete(self) -> None:
        """End a head."""
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; a new head follows."""
        super().on_message_complete()
        self._reading_head = True
        self._head_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, with 431 if it is too large, and close the connection."""
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
    """One WebSocket connection; an upgrade that cannot be parsed is answered with 400."""

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and refuse a request that is not a valid upgrade."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse("not an upgrade to a WebSocket")

    def handle_connect(self, event: Request) -> None:
        """Begin an upgrade, unless one of its headers is invalid."""
        # Before 17.0 websockets decodes non-ASCII bytes to lone surrogates. Its own refusal repeats
        # them and cannot be encoded, so the client would get no answer.
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
        """Send a message of the application; a refusal completes the handshake too."""
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
