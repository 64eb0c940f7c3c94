"""Everybody can use the page: by keyboard, by ear, in light and in dark, with little motion."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.page import Chat
from towpath.testing.server import ServerProcess

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
MARKDOWN = """\
# A title

1. one
2. two

| a | b |
| - | - |
| 1 | 2 |

```py
x = 1
```

> said
"""
PHONE = {"width": 360, "height": 640}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an agent that fails beside those that do not."""
    data = tmp_path_factory.mktemp("access") / "data"
    with ServerProcess(data, "--app", "tests.browser.agents:gateway", cwd=ROOT) as process:
        yield process


@pytest.fixture
def chat(context: BrowserContext, server: ServerProcess) -> Chat:
    """A tab on that server."""
    return Chat(context, server.http, agents=5)


def gate(chat: Chat) -> None:
    chat.page.goto(chat.url)
    chat.page.get_by_role("button", name="alice").wait_for()


def empty(chat: Chat) -> None:
    chat.enter("carol")


def answered(chat: Chat) -> None:
    chat.enter("alice").say(MARKDOWN, agent="echo")
    chat.expect_phase("finished")
    chat.say("which tools?")
    chat.expect_phase("finished")
    chat.page.get_by_text("Reasoning").click()


def request(chat: Chat) -> None:
    chat.enter("bob").say("buy a boat")
    chat.expect_phase("interrupted")


def failed(chat: Chat) -> None:
    chat.enter("carol").say("hello", agent="flaky")
    chat.expect_phase("failed")


def away(chat: Chat) -> None:
    answered(chat)
    chat.page.context.set_offline(True)
    chat.expect_away("offline")
    chat.say("anyone?")
    expect(chat.problem).to_contain_text("Not sent")


def writing(chat: Chat) -> None:
    chat.enter("alice").say("count 900 at 50/s")
    chat.expect_counting(5)


def events(chat: Chat) -> None:
    answered(chat)
    chat.click("Events")
    expect(chat.page.locator("towpath-events li").first).to_be_visible()


def renaming(chat: Chat) -> None:
    answered(chat)
    chat.click("Rename")


def editing(chat: Chat) -> None:
    answered(chat)
    chat.page.get_by_role("button", name="Edit").first.click()


def confirming(chat: Chat) -> None:
    answered(chat)
    chat.click("Delete")


def drawer(chat: Chat) -> None:
    answered(chat)
    chat.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    chat.click("Threads")
    expect(chat.page.get_by_role("complementary", name="Threads")).to_be_visible()


STATES = (gate, empty, answered, request, failed, away, writing, events, renaming, editing,
          confirming, drawer)  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_no_state_has_a_serious_finding(
    browser: Browser, server: ServerProcess, state: Callable[[Chat], None]
) -> None:
    """Axe finds nothing serious in this state, in light and in dark."""
    context = browser.new_context(reduced_motion="reduce")
    chat = Chat(context, server.http, agents=5)
    state(chat)
    found = {}
    # Not as a script of the page: its policy lets none in but the gateway's.
    chat.page.evaluate(AXE.read_text())
    for theme in ("light", "dark"):
        chat.page.emulate_media(color_scheme=theme)
        found[theme] = chat.page.evaluate(
            """async () => (await axe.run({ resultTypes: ['violations'] })).violations
              .filter(({ impact }) => impact === 'serious' || impact === 'critical')
              .map(({ id, nodes }) => [id, nodes.map(({ target, failureSummary }) =>
                [target.flat().join(' '), failureSummary])])"""
        )
    context.close()
    assert found == {"light": [], "dark": []}


def test_the_theme_is_switched_and_remembered(context: BrowserContext, chat: Chat) -> None:
    """The switch overrules the system, on every page of this browser, until it is switched back."""
    chat.page.emulate_media(color_scheme="light")
    chat.enter("alice")
    element = chat.page.locator("towpath-chat")
    light = element.evaluate("chat => getComputedStyle(chat).backgroundColor")
    chat.click("Light or dark")
    expect(element).to_have_css("color-scheme", "dark")
    assert element.evaluate("chat => getComputedStyle(chat).backgroundColor") != light
    chat.page.reload()
    expect(element).to_have_css("color-scheme", "dark")
    chat.click("Light or dark")
    expect(element).to_have_css("background-color", light)
    chat.page.emulate_media(color_scheme="dark")
    expect(element).not_to_have_css("background-color", light)


def test_a_thread_is_worked_with_by_keyboard_alone(chat: Chat) -> None:
    """Rename, leave, delete and a new thread need no pointer, and the focus is never lost."""
    chat.enter("alice").say("for the keyboard", agent="echo")
    chat.expect_phase("finished")
    chat.page.get_by_role("button", name="Rename").focus()
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_label("Title of the thread")).to_be_focused()
    chat.page.keyboard.type("By keyboard")
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_role("heading", name="By keyboard")).to_be_visible()
    expect(chat.page.get_by_role("button", name="Rename")).to_be_focused()
    chat.page.keyboard.press("Enter")
    chat.page.keyboard.press("Escape")
    expect(chat.page.get_by_role("button", name="Rename")).to_be_focused()
    chat.page.keyboard.press("Tab")
    chat.page.keyboard.press("Enter")
    expect(chat.page.locator("dialog")).to_be_visible()
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("dialog")).to_be_hidden()
    expect(chat.page.get_by_role("button", name="Delete")).to_be_focused()
    chat.page.get_by_role("link", name="New thread").focus()
    chat.page.keyboard.press("Enter")
    expect(chat.composer).to_be_focused()


def test_escape_closes_the_drawer_and_returns_the_focus(
    browser: Browser, server: ServerProcess
) -> None:
    """On a phone the drawer takes the focus when it opens, and gives it back when it closes."""
    context = browser.new_context(viewport=PHONE)  # type: ignore[arg-type]
    chat = Chat(context, server.http, agents=5).enter("bob")
    chat.click("Threads")
    expect(chat.page.get_by_role("link", name="New thread")).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(chat.page.get_by_role("complementary", name="Threads")).to_be_hidden()
    expect(chat.page.get_by_role("button", name="Threads", exact=True)).to_be_focused()
    context.close()


def test_an_answer_is_read_out_when_it_is_whole_and_not_word_by_word(chat: Chat) -> None:
    """Those who listen hear the answer once, and how the run fares in between."""
    chat.enter("carol")
    chat.page.locator("#announce").evaluate(
        """(live) => {
          window.heard = [];
          new MutationObserver(() => heard.push(live.textContent))
            .observe(live, { childList: true });
        }"""
    )
    chat.say("count 60 at 60/s")
    chat.expect_phase("finished")
    expect(chat.page.locator("#announce")).to_contain_text("59 60")
    assert len([words for words in chat.page.evaluate("heard") if words]) == 1


def test_nothing_moves_for_those_who_asked_for_rest(chat: Chat) -> None:
    """With reduced motion no animation runs while an answer is written."""
    chat.enter("bob").say("count 400 at 50/s")
    chat.expect_counting(5)
    moving = "status => status.getAnimations({ subtree: true }).length"
    assert chat.status.evaluate(moving) == 1
    chat.page.emulate_media(reduced_motion="reduce")
    assert chat.status.evaluate(moving) == 0
