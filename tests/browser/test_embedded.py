"""The chat in a page of another site: three lines, the site's own tokens, and its own looks."""

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.page import Chat, count
from towpath.testing.server import ServerProcess, free_port

GUIDE = Path(__file__).parents[2] / "docs/how-to/embed-the-chat.md"


class _Foreign(http.server.BaseHTTPRequestHandler):
    """A page of another site, without a policy of its own."""

    page = b""
    token = ""

    def do_GET(self) -> None:
        self._answer("text/html; charset=utf-8", self.page)

    def do_POST(self) -> None:
        """Hand out the token of whoever is signed in at this site."""
        self._answer("text/plain", self.token.encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def foreign_site(port: int, page: str, token: str) -> Iterator[str]:
    """Serve one page and a person's token on a port; return the page's address."""
    handler = type("Page", (_Foreign,), {"page": page.encode(), "token": token})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            site.shutdown()
            thread.join()


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, int]]:
    """A gateway that lets the pages of one other origin connect, and that origin's port."""
    port = free_port()
    allowed = {"TOWPATH_ALLOWED_ORIGINS": f'["http://127.0.0.1:{port}"]'}
    data = tmp_path_factory.mktemp("embedded") / "data"
    with ServerProcess(data, environment=allowed) as server:
        yield server, port


def three_lines(server: ServerProcess) -> str:
    """Return the lines of the guide, with this gateway's address in place of the example's."""
    (lines,) = re.findall(
        r"^```html\n(<script.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(lines.strip().splitlines()) == 3
    return str(lines).replace("https://chat.example.com", server.http).replace("assistant", "tools")


def test_three_lines_of_the_guide_embed_the_chat(
    context: BrowserContext, embedded: tuple[ServerProcess, int]
) -> None:
    """A page of another origin holds the chat, connects as its own user, and leaves no trace in the
    page's address; a second visit finds the thread.
    """
    server, port = embedded
    page = f"<!doctype html><title>Ours</title><h1>Our page</h1>{three_lines(server)}"
    with foreign_site(port, page, server.token("dora")) as address:
        chat = Chat(context, address)
        chat.page.goto(address)
        expect(chat.connection).to_have_attribute("data-state", "online")
        expect(chat.page.locator("#agent")).to_have_count(0)
        chat.composer.fill("count 12")
        chat.composer.press("Enter")
        expect(chat.answer).to_have_text(count(12))
        assert chat.page.url == address
        assert chat.page.title() == "Ours"
        chat.page.reload()
        chat.page.get_by_role("button", name="count 12").click()
        expect(chat.answer).to_have_text(count(12))
        assert chat.complaints == []


def test_a_page_that_is_not_allowed_does_not_connect(
    context: BrowserContext, server: ServerProcess
) -> None:
    """Without its origin in `allowed_origins` a page gets no further than being refused."""
    with foreign_site(free_port(), three_lines(server), server.token("dora")) as address:
        chat = Chat(context, address)
        chat.page.goto(address)
        chat.expect_away("reconnecting")
        expect(chat.page.locator("#agent option, .thread")).to_have_count(0)


def test_a_page_without_a_token_is_told_so(context: BrowserContext, server: ServerProcess) -> None:
    """Where the site has no token for anybody, the element says that, and asks when asked to."""
    with foreign_site(free_port(), three_lines(server), "") as address:
        chat = Chat(context, address)
        chat.page.goto(address)
        expect(chat.page.get_by_role("heading", name="Signed out")).to_be_visible()
        expect(chat.page.get_by_role("button", name="Connect again")).to_be_visible()
        assert chat.sockets == 0


def test_a_page_gives_the_chat_its_own_looks(
    context: BrowserContext, embedded: tuple[ServerProcess, int]
) -> None:
    """Custom properties of the page reach into the element, and `theme` overrules the system."""
    server, port = embedded
    look = "<style>towpath-chat { --towpath-sheet: rgb(1, 2, 3); height: 30rem }</style>"
    page = look + three_lines(server).replace("<towpath-chat", '<towpath-chat theme="dark"')
    with foreign_site(port, page, server.token("dora")) as address:
        chat = Chat(context, address)
        chat.page.goto(address)
        expect(chat.connection).to_have_attribute("data-state", "online")
        element = chat.page.locator("towpath-chat")
        expect(element).to_have_css("background-color", "rgb(1, 2, 3)")
        expect(element).to_have_css("color-scheme", "dark")
        expect(element).to_have_css("height", "480px")
