"""A person asks again: the same, differently, or after a failure; and finds it again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.page import Chat
from towpath.testing.server import ServerProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with agents that fail, and that count what they are told."""
    data = tmp_path_factory.mktemp("again") / "data"
    with ServerProcess(data, "--app", "tests.browser.agents:gateway", cwd=ROOT) as process:
        yield process


@pytest.fixture
def chat(context: BrowserContext, server: ServerProcess) -> Chat:
    """A tab on that server."""
    return Chat(context, server.http, agents=5)


def test_a_failed_run_is_tried_again_without_asking_twice(chat: Chat) -> None:
    """The failure says why; trying again answers the same question, which stands there once."""
    chat.enter("alice").say("are you well?", agent="flaky")
    chat.expect_phase("failed")
    expect(chat.status).to_have_text("Failed: I lost the thread (flaky.lost)")
    chat.click("Try again")
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text("I begin. You asked: are you well?")
    expect(chat.user_messages).to_have_text(["are you well?"])
    chat.page.reload()
    chat.expect_phase("finished")
    expect(chat.user_messages).to_have_text(["are you well?"])
    expect(chat.page.locator("#stream .message.assistant")).to_have_count(2)


def test_an_answer_is_asked_for_again_of_the_agent_that_gave_it(chat: Chat) -> None:
    """Answer again adds an answer below the first, also after a reload has forgotten the agent.

    The agent is not shown the first.
    """
    chat.enter("bob").say("how many?", agent="counts")
    expect(chat.answer).to_have_text("1 messages, the last is “how many?”")
    chat.page.reload()
    chat.expect_phase("finished")
    expect(chat.page.get_by_label("Agent")).to_have_value("counts")
    chat.page.get_by_label("Agent").select_option("echo")
    chat.click("Answer again")
    expect(chat.page.locator("#stream .message.assistant")).to_have_count(2)
    expect(chat.answer).to_have_text("1 messages, the last is “how many?”")
    expect(chat.user_messages).to_have_count(1)
    expect(chat.page.get_by_role("button", name="Answer again")).to_have_count(1)


def test_an_earlier_message_said_differently_begins_a_thread_from_there(chat: Chat) -> None:
    """The new thread holds what came before, and the new words; the old thread stays as it is."""
    chat.enter("carol").say("first", agent="counts")
    chat.expect_phase("finished")
    chat.say("second", agent="counts")
    expect(chat.answer).to_have_text("3 messages, the last is “second”")
    before = chat.page.url
    chat.page.locator(".message.user").last.get_by_role("button", name="Edit").click()
    expect(chat.composer).to_have_value("second")
    expect(chat.composer).to_be_focused()
    chat.composer.press("Escape")
    expect(chat.composer).to_have_value("")
    chat.page.locator(".message.user").last.get_by_role("button", name="Edit").click()
    expect(chat.composer).to_have_value("second")
    chat.composer.fill("another second")
    chat.composer.press("Enter")
    expect(chat.user_messages).to_have_text(["first", "another second"])
    expect(chat.answer).to_have_text("3 messages, the last is “another second”")
    assert chat.page.url != before
    chat.page.goto(before)
    expect(chat.user_messages).to_have_text(["first", "second"])


def test_a_search_finds_threads_by_their_title(chat: Chat) -> None:
    """Words of a title leave the threads that have them; Escape brings back all."""
    chat.enter("alice")
    for title in ("weirs of the north", "locks of the north", "a lock alone"):
        chat.page.get_by_role("link", name="New thread").click()
        chat.say(title, agent="counts")
        chat.expect_phase("finished")
    search = chat.page.get_by_label("Search threads by title")
    search.fill("north LOCK")
    expect(chat.threads).to_have_text(["locks of the north"])
    search.fill("canal")
    expect(chat.threads).to_have_count(0)
    expect(chat.page.get_by_text("No title contains “canal”.")).to_be_visible()
    search.press("Escape")
    expect(chat.threads.filter(has_text="north")).to_have_count(2)


def test_a_developer_sees_the_raw_events_with_their_offsets(chat: Chat) -> None:
    """Live events stand there with offset and body; after a reload the prelude stands without."""
    chat.enter("bob").say("one", agent="counts")
    chat.expect_phase("finished")
    chat.click("Events")
    chat.say("two", agent="counts")
    chat.expect_phase("finished")
    rows = chat.page.locator("towpath-events li", has_text="RUN_FINISHED")
    offset = rows.first.locator(".offset")
    expect(offset).to_have_text(r"10")
    rows.first.locator("summary").click()
    expect(rows.first.locator("pre")).to_contain_text('"type": "RUN_FINISHED"')
    expect(rows.first.locator("pre")).to_contain_text('"digest"')
    chat.page.reload()
    chat.expect_phase("finished")
    chat.click("Events")
    expect(rows.first.locator(".offset")).to_have_text("none")
    expect(chat.page.locator("towpath-events")).to_contain_text("rebuild the thread")
    chat.page.get_by_role("button", name="Pause").focus()
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("towpath-events")).to_have_count(0)
    expect(chat.page.get_by_role("button", name="Events")).to_be_focused()
