"""Take the pictures of the chat page: `make pictures` takes those of the documentation.

With `--all DIRECTORY` it takes every state, light and dark, on a desktop and on a phone.
"""

import argparse
import base64
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.page import Chat, launch  # noqa: E402
from towpath.testing.server import ServerProcess  # noqa: E402

DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 390, "height": 780}
KEPT = {
    ("answered", "light", "desktop"): "chat.webp",
    ("writing", "dark", "phone"): "chat-phone.webp",
    ("asked", "light", "desktop"): "approval.webp",
    ("events", "dark", "desktop"): "events.webp",
}
"""The states that the documentation shows, and the names of their pictures."""
TO_WEBP = """
  async (png) => {
    const bytes = Uint8Array.from(atob(png), (one) => one.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d').drawImage(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: 'image/webp', quality: 0.9 });
    const webp = new Uint8Array(await blob.arrayBuffer());
    return btoa(Array.from(webp, (one) => String.fromCharCode(one)).join(''));
  }
"""
QUESTION = "How does a lock lift a boat?"


def gate(chat: Chat) -> None:
    """Nobody is signed in yet."""
    chat.page.goto(chat.url)
    chat.page.get_by_role("button", name="alice").wait_for()


def token(chat: Chat) -> None:
    """A person signs in with a token, and it is not accepted."""
    chat.page.route("**/page.json", lambda route: route.fulfill(json={"demo_users": []}))
    chat.page.goto(chat.url)
    chat.page.get_by_label("Your token").fill("nonsense")
    chat.click("Sign in")
    chat.page.get_by_role("alert").wait_for()


def empty(chat: Chat) -> None:
    """A new thread."""
    chat.enter("carol")


def answered(chat: Chat) -> None:
    """An answer with reasoning, a tool, a table and code."""
    _ask(chat, QUESTION)
    chat.expect_phase("finished")


def writing(chat: Chat) -> None:
    """An answer is being written, and a second question waits."""
    _ask(chat, QUESTION + " Tell it slowly.")
    chat.expect_phase("writing")
    chat.say("And a weir?", agent="assistant")
    expect(chat.waiting).to_have_count(1)
    expect(chat.answer).to_contain_text("upper gates")


def asked(chat: Chat) -> None:
    """An agent waits for a decision."""
    _ask(chat, "buy a windlass for the Bingley locks")
    chat.expect_phase("interrupted")
    expect(chat.page.get_by_text("Waiting for you until")).to_be_visible()


def decided(chat: Chat) -> None:
    """A decision was made."""
    asked(chat)
    chat.click("Approve")
    chat.expect_phase("finished")


def failed(chat: Chat) -> None:
    """A run failed."""
    _ask(chat, "what is broken?")
    chat.expect_phase("failed")


def offline(chat: Chat) -> None:
    """The line is down and a message could not be sent."""
    answered(chat)
    chat.page.context.set_offline(True)
    chat.expect_away("offline")
    chat.say("Are you there?", agent="assistant")
    expect(chat.problem).to_contain_text("Not sent")


def editing(chat: Chat) -> None:
    """An earlier message is said differently."""
    answered(chat)
    chat.page.get_by_role("button", name="Edit").first.click()


def events(chat: Chat) -> None:
    """The developer's drawer, with what a second question brought."""
    answered(chat)
    chat.click("Events")
    chat.say("And the Bingley Five Rise?", agent="assistant")
    expect(chat.user_messages).to_have_count(2)
    chat.expect_phase("finished")
    row = chat.page.locator("towpath-events li", has_text="RUN_FINISHED").first
    chat.page.wait_for_timeout(500)  # Until the drawer has drawn it.
    row.locator("summary").click()


def drawer(chat: Chat) -> None:
    """The threads, on a phone in a drawer."""
    answered(chat)
    if chat.page.get_by_role("button", name="Threads", exact=True).is_visible():
        chat.click("Threads")
        chat.page.wait_for_timeout(300)


def confirm(chat: Chat) -> None:
    """A thread is about to be deleted."""
    answered(chat)
    chat.click("Delete")


STATES: tuple[Callable[[Chat], None], ...] = (
    gate, token, empty, answered, writing, asked, decided, failed, offline, editing, events,
    drawer, confirm,
)  # fmt: skip


def _ask(chat: Chat, question: str) -> None:
    chat.enter("alice").say(question, agent="assistant")


@contextmanager
def _tab(browser: Browser, url: str, theme: str, device: str) -> Iterator[Chat]:
    size = PHONE if device == "phone" else DESKTOP
    context = browser.new_context(
        viewport=size,  # type: ignore[arg-type]
        color_scheme=theme,  # type: ignore[arg-type]
        has_touch=device == "phone",
        reduced_motion="reduce",
        locale="en-GB",
    )
    try:
        yield Chat(context, url, agents=1)
    finally:
        context.close()


def _shoot(page: Page, path: Path) -> None:
    """Take a picture; as WebP, which is a third of a PNG, where the name says so."""
    png = page.screenshot(animations="disabled", caret="hide")
    if path.suffix == ".png":
        path.write_bytes(png)
        return
    blank = page.context.new_page()
    webp = blank.evaluate(TO_WEBP, base64.b64encode(png).decode())
    path.write_bytes(base64.b64decode(webp))


def main() -> None:
    """Take the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIRECTORY", help="take every state")
    parser.add_argument("--only", default="", metavar="WORD", help="of states that hold this word")
    options = parser.parse_args()
    place = options.all or ROOT / "docs/images"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = launch(playwright)
        for theme in ("light", "dark"):
            for device in ("desktop", "phone"):
                data = Path(scratch) / f"{theme}-{device}"
                app = ("--app", "tools.pictured:gateway")
                with ServerProcess(data, *app, cwd=ROOT) as server:
                    for state in STATES:
                        name = f"{state.__name__}-{theme}-{device}.png"
                        kept = KEPT.get((state.__name__, theme, device))
                        if options.only in state.__name__ and (options.all or kept):
                            with _tab(browser, server.http, theme, device) as chat:
                                state(chat)
                                _shoot(chat.page, place / (name if options.all else str(kept)))
        browser.close()


if __name__ == "__main__":
    main()
