"""A person asks again while the agent answers, and sees the question wait for its turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.page import Chat
from towpath.testing.server import ServerProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an agent for each policy."""
    data = tmp_path_factory.mktemp("patient") / "data"
    arguments = ("--app", "tests.servers.patient_agents:gateway")
    with ServerProcess(data, *arguments, cwd=ROOT) as process:
        yield process


def test_r91_a_queued_question_is_shown_until_its_turn(
    context: BrowserContext, patient: ServerProcess
) -> None:
    """Questions wait below the answer, in order, also after a reload; one of them is cancelled."""
    chat = Chat(context, patient.http, agents=4).enter("alice")
    chat.say("wait", agent="queue")
    chat.expect_phase("writing")
    for question in ("<b>second</b>", "third", "fourth"):
        chat.say(question, agent="queue")
        expect(chat.composer).to_have_value("")
    expect(chat.waiting).to_have_text(["<b>second</b>", "third", "fourth"])
    expect(chat.user_messages).to_have_text(["wait"])
    chat.page.get_by_role("button", name="Cancel", exact=True).nth(1).click()
    expect(chat.waiting).to_have_text(["<b>second</b>", "fourth"])

    other = Chat(context, chat.page.url, agents=4)
    other.page.goto(other.url)
    other.page.get_by_role("button", name="alice").click()
    expect(other.expect_online().waiting).to_have_count(3)
    chat.click("Stop")
    for tab in (chat, other):
        expect(tab.user_messages).to_have_text(["wait", "<b>second</b>", "third", "fourth"])
        expect(tab.waiting).to_have_count(0)
        expect(tab.answer).to_have_text("You said: fourth")
        assert tab.complaints == []
