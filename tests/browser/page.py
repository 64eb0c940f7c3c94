"""The chat page as a person sees it: what they do, and what they read."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Locator,
    Page,
    Playwright,
    expect,
)

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 10_000
"""Milliseconds a person waits for what was promised."""


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium of this machine."""
    expect.set_options(timeout=PATIENCE)
    return playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
    )


class Chat:
    """One tab with the page in it."""

    def __init__(self, context: BrowserContext, url: str, *, agents: int = 2) -> None:
        """Open a tab and note what the browser complains about; there are so many agents."""
        self.agents = agents
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.url = url
        self.complaints: list[str] = []
        """Errors of scripts, refused by the policy or raised."""
        self.sockets = 0
        """How many WebSockets it has opened."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self._record(line.type, line.text))
        self.page.on("websocket", lambda _: self._count())

    @property
    def status(self) -> Locator:
        """The line that says how the run fares."""
        return self.page.locator("#run-status")

    @property
    def connection(self) -> Locator:
        """The words that say how the connection is."""
        return self.page.locator("#connection")

    @property
    def answer(self) -> Locator:
        """The last text of the agent."""
        return self.page.locator("#stream .message.assistant .text:not([hidden]) .prose").last

    @property
    def user_messages(self) -> Locator:
        """What the person said, message by message."""
        return self.page.locator("#stream .message.user .text")

    @property
    def waiting(self) -> Locator:
        """The questions that wait for their turn."""
        return self.page.locator("#waiting .text")

    @property
    def threads(self) -> Locator:
        """The titles in the list of threads."""
        return self.page.locator("#threads .thread-title")

    @property
    def problem(self) -> Locator:
        """The error near the input."""
        return self.page.locator("#problem")

    @property
    def composer(self) -> Locator:
        """Where the person writes."""
        return self.page.get_by_label("Your message")

    def enter(self, user: str) -> "Chat":
        """Open the page and continue as a demo user."""
        self.page.goto(self.url)
        self.page.get_by_role("button", name=user).click()
        return self.expect_online()

    def expect_online(self) -> "Chat":
        """Wait until the page says that it is connected, and knows whom to ask."""
        expect(self.connection).to_have_attribute("data-state", "online")
        expect(self.page.locator("#agent option")).to_have_count(self.agents)
        return self

    def expect_away(self, *states: str) -> None:
        """Wait until the page says that the line is down."""
        expect(self.connection).to_have_attribute("data-state", re.compile("|".join(states)))

    def try_now(self) -> "Chat":
        """Ask the page not to wait for its next attempt, if it has not come by now."""
        with suppress(Error):
            self.page.locator("#retry").dispatch_event("click", timeout=500)
        return self

    def focused(self) -> Locator:
        """Return what has the focus, in whichever element it is."""
        return self.page.locator(":focus").last

    def say(self, message: str, agent: str = "tools") -> None:
        """Write a message and press Enter."""
        self.page.get_by_label("Agent").select_option(agent)
        self.composer.fill(message)
        self.composer.press("Enter")

    def expect_phase(self, phase: str) -> None:
        """Wait until the run is said to be there."""
        expect(self.status).to_have_attribute("data-phase", phase)

    def expect_counting(self, number: int) -> None:
        """Wait until a count has come this far."""
        expect(self.answer).to_have_text(re.compile(rf"\b{number}\b"))

    def source(self) -> str:
        """Return the last answer as the agent wrote it, before it was drawn."""
        markdown = self.page.locator("#stream .message.assistant .text:not([hidden])").last
        return str(markdown.evaluate("markdown => markdown.text"))

    def click(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def _record(self, kind: str, text: str) -> None:
        # While the line is down the browser itself reports each attempt.
        if kind == "error" and "WebSocket connection" not in text:
            self.complaints.append(text)

    def _count(self) -> None:
        self.sockets += 1


@contextmanager
def device(browser: Browser, url: str, user: str) -> Iterator[Chat]:
    """Give a device of its own, with nothing remembered, on which a person continues."""
    context = browser.new_context()
    try:
        yield Chat(context, url).enter(user)
    finally:
        context.close()


def count(total: int) -> str:
    """Return what the demo agent says to `count <total>`."""
    return " ".join(str(number) for number in range(1, total + 1))
