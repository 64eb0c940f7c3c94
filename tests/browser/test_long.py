"""Long answers and long threads stay smooth, whole, and where the reader is."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.agents import tokens
from tests.browser.page import Chat
from towpath.testing.server import ServerProcess

ROOT = Path(__file__).parents[2]
TOKENS, AT_PACE = 20_000, 1_200
LONGEST = 100.0
"""Milliseconds that a page may be busy without a frame."""
WATCH = """
  window.tasks = [];
  new PerformanceObserver((list) => tasks.push(...list.getEntries().map((one) => one.duration)))
    .observe({ type: 'longtask' });
"""
TRACED = ["toplevel", "disabled-by-default-devtools.timeline"]


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with agents that write much."""
    data = tmp_path_factory.mktemp("writing") / "data"
    generous = {"TOWPATH_RUNS_BURST": "500", "TOWPATH_RUNS_PER_SECOND": "200"}
    arguments = ("--app", "tests.browser.agents:gateway")
    with ServerProcess(data, *arguments, cwd=ROOT, environment=generous) as process:
        yield process


def busiest(trace: bytes) -> float:
    """Return the most milliseconds of processor that one task of the page's thread took."""
    events = json.loads(trace)["traceEvents"]
    main = {
        (one["pid"], one["tid"])
        for one in events
        if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    tasks = [one["tdur"] / 1000 for one in events if _is_task(one) and _thread(one) in main]
    assert len(tasks) > 500, "the trace holds the work of the page"
    return float(max(tasks))


def _is_task(event: dict[str, Any]) -> bool:
    return event["name"] in ("RunTask", "ThreadControllerImpl::RunTask") and "tdur" in event


def _thread(event: dict[str, Any]) -> tuple[int, int]:
    return event["pid"], event["tid"]


def test_a_long_answer_stays_smooth_and_whole(browser: Browser, writing: ServerProcess) -> None:
    """20,000 tokens, the last at 200 a second: no task over 100 ms, and each token is there.

    What the page's own observer calls long by the clock on the wall may have waited for other
    processes; then half of it by the processor's clock is the bound.
    """
    context = browser.new_context()
    chat = Chat(context, writing.http, agents=5).enter("alice")
    chat.say(f"{TOKENS} {AT_PACE}", agent="writer")
    before = len("".join(islice(tokens(), TOKENS - AT_PACE)))
    answer = chat.page.locator("#stream .message.assistant .text:not([hidden])").last
    answer.evaluate(
        """(markdown, before) => new Promise((resolve) => {
          const look = () => markdown.text.length > before ? resolve() : setTimeout(look, 20);
          look();
        })""",
        before,
    )
    browser.start_tracing(page=chat.page, categories=TRACED)
    chat.page.evaluate(WATCH)
    chat.expect_phase("finished")
    chat.page.wait_for_timeout(300)  # Until the last of them was told.
    processor = busiest(browser.stop_tracing())
    wall = max(chat.page.evaluate("window.tasks"), default=0.0)
    assert min(wall, 2 * processor) < LONGEST, (wall, processor)
    assert chat.source() == "".join(islice(tokens(), TOKENS))
    expect(chat.page.locator(".differs, .mended")).to_have_count(0)
    expect(chat.page.get_by_role("heading", name="Chapter 12", exact=True)).to_have_count(1)
    drawn = chat.answer.text_content()
    chat.page.reload()
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text(drawn or "nothing", use_inner_text=False)
    context.close()


def test_a_thread_of_200_messages_opens_at_its_end(chat: Chat, writing: ServerProcess) -> None:
    """All are there and in order, with the newest in view."""
    chat.url, chat.agents = writing.http, 5
    chat.enter("bob")
    chat.page.evaluate(
        """async () => {
          const { session } = document.querySelector('towpath-chat');
          session.choose('echo');
          for (let number = 0; number < 100; number += 1) {
            while (!await session.send(`message ${number}`)) {
              await new Promise((later) => setTimeout(later, 5));
            }
          }
        }"""
    )
    chat.expect_phase("finished")
    chat.page.reload()
    expect(chat.user_messages).to_have_text([f"message {number}" for number in range(100)])
    expect(chat.page.locator("#stream .message")).to_have_count(200)
    expect(chat.page.locator("#stream .message").last).to_be_in_viewport()
    expect(chat.answer).to_have_text("message 99")


def test_what_the_prelude_left_out_is_there_when_asked_for(
    context: BrowserContext, tmp_path: Path
) -> None:
    """The newest messages come by themselves, earlier ones by a button, until there are no more."""
    small = {"TOWPATH_SNAPSHOT_MAX_BYTES": "1024"}
    with ServerProcess(tmp_path / "data", environment=small) as server:
        chat = Chat(context, server.http).enter("alice")
        for number in range(4):
            chat.say(f"number {number} " + "and so on " * 30, agent="echo")
            expect(chat.user_messages).to_have_count(number + 1)
            chat.expect_phase("finished")
        chat.page.reload()
        expect(chat.answer).to_contain_text("number 3")
        assert chat.user_messages.count() < 4
        chat.click("Earlier messages")
        expect(chat.user_messages).to_contain_text([f"number {number} and" for number in range(4)])
        expect(chat.page.get_by_role("button", name="Earlier messages")).to_have_count(0)
        chat.say("one more", agent="echo")
        expect(chat.answer).to_have_text("one more")
        expect(chat.user_messages).to_have_count(5)


def test_the_page_follows_only_a_reader_who_is_at_the_end(
    context: BrowserContext, writing: ServerProcess
) -> None:
    """Who reads further up is left there while text comes; one press brings them back."""
    chat = Chat(context, writing.http, agents=5).enter("carol")
    chat.say("2600 1200", agent="writer")
    scroll = chat.page.locator("#scroll")
    gap = "box => box.scrollHeight - box.scrollTop - box.clientHeight"
    chat.page.wait_for_timeout(1500)
    assert scroll.evaluate(gap) < 80
    scroll.hover()
    chat.page.mouse.wheel(0, -1500)
    expect(chat.page.get_by_role("button", name="Latest")).to_be_visible()
    top = scroll.evaluate("box => box.scrollTop")
    chat.page.wait_for_timeout(1000)
    assert abs(scroll.evaluate("box => box.scrollTop") - top) < 40
    assert scroll.evaluate(gap) > 500
    chat.click("Latest")
    expect(chat.page.get_by_role("button", name="Latest")).to_be_hidden()
    chat.expect_phase("finished")
    assert scroll.evaluate(gap) < 80
