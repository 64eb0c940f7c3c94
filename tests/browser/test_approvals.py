"""A person is asked before something is done: on this page, on every tab, and only once."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, WebSocketRoute, expect

from tests.browser.page import Chat, device
from towpath.testing.server import ServerProcess

AGENT = '''
from towpath import Gateway
from towpath.agents import demo

gateway = Gateway()
gateway.agent("tools")(demo.tools)


@gateway.agent("two")
async def two(request):
    """Ask two things before it says what it was answered."""
    if request.resume:
        yield " and ".join(str(one["payload"]["approved"]) for one in request.resume)
        return
    yield "Two things."
    questions = [
        {"id": one, "reason": "confirmation", "message": f"May I {one}?"}
        for one in ("sail", "anchor")
    ]
    yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": questions}}
'''


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an agent that asks two questions beside the demo agent, which asks one."""
    place = tmp_path_factory.mktemp("asking")
    (place / "asking_agents.py").write_text(AGENT)
    application = ("--app", "asking_agents:gateway")
    with ServerProcess(place / "data", *application, cwd=place) as process:
        yield process


def card(chat: Chat, words: str) -> Locator:
    """Return the card of a question."""
    return chat.page.get_by_role("region", name="Decision").filter(has_text=words)


def state(chat: Chat, words: str, expected: str) -> None:
    """Wait until a question stands there."""
    expect(card(chat, words)).to_have_attribute("data-state", expected)


def press(chat: Chat, words: str, name: str) -> None:
    """Decide on a question."""
    card(chat, words).get_by_role("button", name=name).click()


def over(chat: Chat, words: str, outcome: str) -> None:
    """Wait until a question shows its outcome and can be decided no more."""
    expect(card(chat, words).locator(".question-state")).to_contain_text(outcome)
    for name in ("Approve", "Refuse"):
        expect(card(chat, words).get_by_role("button", name=name)).to_be_disabled()


@pytest.mark.parametrize(
    ("button", "outcome", "answer"),
    [("Approve", "Approved", "Bought."), ("Refuse", "Refused", "Then I will not buy it.")],
)
def test_a_person_decides_and_the_run_goes_on(
    chat: Chat, button: str, outcome: str, answer: str
) -> None:
    """The card shows what would be done; one press answers it, and the agent does as told."""
    chat.enter("alice").say("buy a barge")
    chat.expect_phase("interrupted")
    expect(chat.status).to_have_text("Waiting for a decision")
    shown = card(chat, "Buy a barge?")
    expect(shown).to_contain_text("buy")
    expect(shown.locator(".call-arguments")).to_have_text('{"what": "a barge"}')
    expect(shown.locator(".question-state")).to_contain_text("Waiting for you until")
    press(chat, "Buy a barge?", button)
    over(chat, "Buy a barge?", outcome)
    expect(chat.answer).to_have_text(answer)
    chat.expect_phase("finished")
    assert chat.complaints == []


def test_a_keyboard_is_enough(chat: Chat) -> None:
    """From the message on Shift+Tab reaches both buttons; Enter decides, and focus is not lost."""
    chat.enter("bob").say("buy a lock")
    state(chat, "Buy a lock?", "open")
    buttons = ["Refuse", "Approve"]
    for _ in range(20):
        chat.page.keyboard.press("Shift+Tab")
        if chat.focused().inner_text() == buttons[0]:
            buttons.pop(0)
        if not buttons:
            break
    assert buttons == []
    chat.page.keyboard.press("Enter")
    over(chat, "Buy a lock?", "Approved")
    expect(chat.answer).to_have_text("Bought.")
    expect(chat.focused()).to_have_class("question-state")


def test_the_question_and_its_outcome_are_read_out(chat: Chat) -> None:
    """What is asked, and what became of it, reach those who listen instead of looking."""
    chat.enter("carol").say("buy a horse")
    live = chat.page.locator("#announce[aria-live=polite]")
    expect(live).to_contain_text("Buy a horse? Approve or refuse.")
    live.evaluate(
        """(live) => {
          window.heard = [];
          new MutationObserver(() => window.heard.push(live.textContent))
            .observe(live, { childList: true });
        }"""
    )
    press(chat, "Buy a horse?", "Refuse")
    chat.expect_phase("finished")
    assert "Buy a horse? Refused." in " ".join(chat.page.evaluate("window.heard"))


def test_r94_a_reload_keeps_the_question(chat: Chat) -> None:
    """After a reload the card is there again, with its arguments, and can be decided."""
    chat.enter("alice").say("buy a windlass")
    state(chat, "Buy a windlass?", "open")
    chat.page.reload()
    state(chat, "Buy a windlass?", "open")
    expect(card(chat, "Buy a windlass?").locator(".call-arguments")).to_have_text(
        '{"what": "a windlass"}'
    )
    expect(chat.user_messages).to_have_text("buy a windlass")
    press(chat, "Buy a windlass?", "Approve")
    expect(chat.answer).to_have_text("Bought.")
    over(chat, "Buy a windlass?", "Approved")


def test_r94_another_device_decides_and_this_one_sees_it(
    browser: Browser, server: ServerProcess
) -> None:
    """The question shows on a second device; decided there, it is over on both, who read on."""
    with (
        device(browser, server.http, "bob") as phone,
        device(browser, server.http, "bob") as laptop,
    ):
        phone.say("buy a tug")
        state(phone, "Buy a tug?", "open")
        laptop.page.goto(phone.page.url)
        state(laptop, "Buy a tug?", "open")
        press(laptop, "Buy a tug?", "Refuse")
        for chat in (phone, laptop):
            over(chat, "Buy a tug?", "Refused")
            expect(chat.answer).to_have_text("Then I will not buy it.")
            assert chat.complaints == []


def test_each_of_several_questions_is_decided_by_itself(
    browser: Browser, asking: ServerProcess
) -> None:
    """One of two is decided: the other device shows it, also after a reload; the last goes on."""
    with (
        device(browser, asking.http, "bob") as phone,
        device(browser, asking.http, "bob") as laptop,
    ):
        phone.say("please", agent="two")
        state(phone, "May I sail?", "open")
        laptop.page.goto(phone.page.url)
        state(laptop, "May I anchor?", "open")
        press(phone, "May I sail?", "Refuse")
        for chat in (phone, laptop):
            over(chat, "May I sail?", "Refused")
            state(chat, "May I anchor?", "open")
            chat.expect_phase("interrupted")
        laptop.page.reload()
        over(laptop, "May I sail?", "Refused")
        press(laptop, "May I anchor?", "Approve")
        for chat in (phone, laptop):
            over(chat, "May I anchor?", "Approved")
            over(chat, "May I sail?", "Refused")
            expect(chat.answer).to_have_text("False and True")


def test_r95_an_expired_question_says_so(context: BrowserContext, tmp_path: Path) -> None:
    """When its time is over the card says that nobody decided, here and after a reload."""
    hurry = {"TOWPATH_INTERRUPT_TIMEOUT": "2"}
    with ServerProcess(tmp_path / "data", environment=hurry) as server:
        chat = Chat(context, server.http).enter("alice")
        chat.say("buy time")
        state(chat, "Buy time?", "open")
        over(chat, "Buy time?", "Expired, nobody decided in time")
        expect(chat.status).to_have_text("Ended without a decision")
        chat.page.reload()
        over(chat, "Buy time?", "Expired, nobody decided in time")


def test_r96_a_conversation_that_goes_on_leaves_the_question_behind(chat: Chat) -> None:
    """Who writes on instead of deciding finds the card left behind, and it cannot be decided."""
    chat.enter("carol").say("buy a bridge")
    state(chat, "Buy a bridge?", "open")
    chat.say("never mind")
    chat.expect_phase("finished")
    over(chat, "Buy a bridge?", "Not decided")


def test_a_decision_that_comes_second_shows_the_first(
    browser: Browser, server: ServerProcess
) -> None:
    """A device that has not heard of a decision yet is told of it when it decides itself."""
    context = browser.new_context()
    deaf: list[bool] = []

    def keep_back(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            lines = str(message).split("\n")
            kept = [line for line in lines if not deaf or '"push"' not in line]
            if kept:
                socket.send("\n".join(kept))

        upstream.on_message(pass_on)

    context.route_web_socket(re.compile("connection/websocket"), keep_back)
    late = Chat(context, server.http).enter("alice")
    late.say("buy a winch")
    state(late, "Buy a winch?", "open")
    deaf.append(True)
    with device(browser, server.http, "alice") as quick:
        quick.page.goto(late.page.url)
        press(quick, "Buy a winch?", "Refuse")
        over(quick, "Buy a winch?", "Refused")
    state(late, "Buy a winch?", "open")
    press(late, "Buy a winch?", "Approve")
    over(late, "Buy a winch?", "Refused")
    context.close()


def test_what_was_shown_is_what_is_decided_on(browser: Browser, server: ServerProcess) -> None:
    """When the arguments are damaged on their way to the page its decision is refused."""
    context = browser.new_context()

    def damage(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()
        # The text is a string in JSON in an event.
        upstream.on_message(
            lambda message: socket.send(str(message).replace('a skiff\\"}', 'tea\\"}'))
        )

    context.route_web_socket(re.compile("connection/websocket"), damage)
    chat = Chat(context, server.http).enter("bob")
    chat.say("buy a skiff")
    shown = card(chat, "Buy a skiff?").locator(".call-arguments")
    expect(shown).to_have_text(json.dumps({"what": "tea"}))
    press(chat, "Buy a skiff?", "Approve")
    expect(chat.problem).to_contain_text("not the arguments of the interrupt")
    state(chat, "Buy a skiff?", "open")
    expect(card(chat, "Buy a skiff?").get_by_role("button", name="Approve")).to_be_enabled()
    context.close()


def test_hostile_words_in_a_question_are_text(chat: Chat) -> None:
    """Markup in a question or in its arguments is shown as it was written and does nothing."""
    hostile = "<img src=x onerror=alert(1)>"
    chat.enter("carol").say(f"buy {hostile}")
    expect(card(chat, f"Buy {hostile}?").locator(".call-arguments")).to_have_text(
        json.dumps({"what": hostile})
    )
    assert chat.page.locator("towpath-chat img").count() == 0
    assert chat.complaints == []


def test_a_phone_shows_the_whole_card(browser: Browser, server: ServerProcess) -> None:
    """At phone width nothing scrolls sideways, and both buttons are in view."""
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True)
    chat = Chat(context, server.http).enter("alice")
    chat.say("buy " + "w" * 150)
    state(chat, "Buy w", "open")
    for name in ("Approve", "Refuse"):
        button = card(chat, "Buy w").get_by_role("button", name=name)
        expect(button).to_be_in_viewport(ratio=1)
    assert chat.page.evaluate("document.documentElement.scrollWidth") == 360
    assert chat.page.locator("#scroll").evaluate("scroll => scroll.scrollWidth") <= 360
    context.close()
