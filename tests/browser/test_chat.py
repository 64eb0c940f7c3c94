"""A person and an agent, on the page, with nothing going wrong."""

from playwright.sync_api import Browser, expect

from tests.browser.page import Chat, count, device
from towpath.testing.server import ServerProcess


def test_a_run_shows_reasoning_tools_and_text_in_order(chat: Chat) -> None:
    """Who asks the tools agent sees it think, call, get results, answer and finish."""
    chat.enter("alice").say("Which word wins?")
    chat.expect_phase("finished")

    rows = chat.page.locator("#stream .message")
    roles = [row.get_attribute("data-role") for row in rows.all()]
    assert roles == ["user", "reasoning", "assistant", "assistant", "assistant"]
    expect(rows.nth(1).locator("details")).not_to_have_attribute("open", "")
    rows.nth(1).get_by_text("Reasoning").click()
    expect(rows.nth(1).locator(".text")).to_be_visible()
    expect(rows.nth(1).locator(".text")).to_contain_text("Two will do.")
    for row, name, result in ((2, "count_words", '{"words":3}'), (3, "longest_word", '"Which"')):
        card = rows.nth(row).locator(".call")
        expect(card.locator(".call-name")).to_have_text(name)
        expect(card.locator(".call-arguments")).to_have_text('{"text":"Which word wins?"}')
        expect(card.locator(".call-result")).to_contain_text(result)
        expect(card).to_have_attribute("data-state", "done")
    expect(chat.answer).to_have_text("Your message has 3 words, the longest is “Which”.")
    expect(chat.status).to_have_text("Finished")
    assert chat.complaints == []


def test_the_status_follows_the_run(chat: Chat) -> None:
    """While an answer is written the page says so and offers to stop; then it does not."""
    chat.enter("alice").say("count 40 at 40/s")
    chat.expect_phase("writing")
    expect(chat.page.get_by_role("button", name="Stop")).to_be_visible()
    chat.expect_phase("finished")
    expect(chat.page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(chat.answer).to_have_text(count(40))


def test_shift_enter_starts_a_line_and_a_second_message_continues_the_thread(chat: Chat) -> None:
    """Enter alone sends, and what is sent next stands below in the same thread."""
    chat.enter("alice")
    chat.composer.fill("one")
    chat.composer.press("Shift+Enter")
    chat.composer.press_sequentially("two")
    chat.composer.press("Enter")
    chat.expect_phase("finished")
    chat.say("three", agent="echo")
    expect(chat.user_messages).to_have_text(["one\ntwo", "three"])
    expect(chat.answer).to_have_text("three")
    expect(chat.composer).to_have_value("")
    expect(chat.page.locator(".thread[aria-current] .thread-title")).to_have_text("one two")


def test_r68_r46_two_tabs_end_with_the_same_text(chat: Chat) -> None:
    """A thread made in one tab appears in the other, streams there live, and reads the same."""
    first = chat.enter("bob")
    second = Chat(chat.page.context, chat.url).enter("bob")
    first.say("count 60 at 30/s")
    second.page.get_by_role("link", name="count 60 at 30/s").first.click()
    second.expect_phase("writing")
    first.expect_phase("writing")
    for tab in (first, second):
        tab.expect_phase("finished")
        expect(tab.answer).to_have_text(count(60))
        expect(tab.user_messages).to_have_count(1)

    second.say("and back", agent="echo")
    for tab in (first, second):
        expect(tab.user_messages).to_have_text(["count 60 at 30/s", "and back"])
        expect(tab.answer).to_have_text("and back")
        assert tab.sockets == 1


def test_r33_r86_nobody_sees_the_threads_of_another(
    browser: Browser, server: ServerProcess
) -> None:
    """Another user finds neither a title nor, with the address of the thread, its text."""
    with (
        device(browser, server.http, "alice") as alice,
        device(browser, server.http, "carol") as carol,
    ):
        alice.say("a secret of alice", agent="echo")
        expect(alice.answer).to_have_text("a secret of alice")
        alices = alice.page.url

        carol.say("carol was here", agent="echo")
        expect(carol.answer).to_have_text("carol was here")
        expect(carol.threads.filter(has_text="a secret")).to_have_count(0)
        expect(alice.threads.filter(has_text="carol")).to_have_count(0)

        carol.page.goto(alices)
        expect(carol.problem).to_contain_text("no such thread")
        expect(carol.page.get_by_text("a secret of alice")).to_have_count(0)


def test_r86_the_next_user_of_a_tab_sees_nothing_of_the_last(chat: Chat) -> None:
    """After signing out, another user in the same tab starts with a page of their own."""
    chat.enter("alice").say("for alice only", agent="echo")
    expect(chat.answer).to_have_text("for alice only")
    chat.click("Sign out")
    chat.page.get_by_role("button", name="carol").click()
    chat.expect_online()
    expect(chat.page.locator("#who")).to_have_text("carol")
    expect(chat.page.get_by_text("for alice only")).to_have_count(0)


def test_r88_r89_a_stopped_run_says_so_and_its_text_stays_as_it_is(chat: Chat) -> None:
    """Stop ends the run as cancelled, and no more text comes."""
    chat.enter("alice").say("count 900 at 30/s")
    chat.expect_counting(10)
    chat.click("Stop")
    chat.expect_phase("cancelled")
    text = chat.answer.inner_text()
    chat.page.wait_for_timeout(500)
    assert chat.answer.inner_text() == text
    chat.page.reload()
    chat.expect_phase("cancelled")
    assert chat.answer.inner_text() == text


def test_what_has_ended_waits_for_no_frame(chat: Chat) -> None:
    """In a tab in the background, which draws no frames, the whole answer is there at its end."""
    chat.page.add_init_script(
        """
        Object.defineProperty(document, 'hidden', { get: () => true });
        window.requestAnimationFrame = () => 1;
        """
    )
    chat.enter("alice").say("count 40 at 60/s")
    chat.expect_phase("finished")
    assert chat.answer.inner_text() == count(40)


def test_a_message_that_cannot_be_sent_stays_where_it_is(chat: Chat) -> None:
    """While a run is active a second message is refused in words, and not lost."""
    chat.enter("alice").say("count 900 at 30/s")
    chat.expect_phase("writing")
    chat.say("too early")
    expect(chat.problem).to_contain_text("a run is active")
    expect(chat.composer).to_have_value("too early")
    chat.click("Stop")
    chat.expect_phase("cancelled")
    chat.composer.press("Enter")
    chat.expect_phase("finished")
    expect(chat.user_messages).to_have_text(["count 900 at 30/s", "too early"])
    expect(chat.problem).to_be_hidden()


def test_a_thread_is_renamed_and_deleted_on_every_tab(chat: Chat) -> None:
    """A new title and a deletion show in the tab where they were made and in the other."""
    other = Chat(chat.page.context, chat.url).enter("bob")
    chat.page.bring_to_front()
    chat.enter("bob").say("to be renamed", agent="echo")
    expect(chat.answer).to_have_text("to be renamed")
    other.page.goto(chat.page.url)

    chat.click("Rename")
    chat.page.get_by_label("Title of the thread").fill("Locks and weirs")
    chat.click("Save")
    for tab in (chat, other):
        expect(tab.page.get_by_role("heading", name="Locks and weirs")).to_be_visible()
        expect(tab.threads.filter(has_text="Locks and weirs")).to_have_count(1)

    chat.click("Delete")
    chat.page.locator("dialog").get_by_role("button", name="Delete").click()
    for tab in (chat, other):
        expect(tab.page.get_by_role("heading", name="New thread")).to_be_visible()
        expect(tab.threads.filter(has_text="Locks and weirs")).to_have_count(0)
    expect(other.problem).to_have_text("This thread was deleted.")


def test_a_person_comes_back_tomorrow(browser: Browser, server: ServerProcess) -> None:
    """On a device that remembers nothing the thread is listed and shows all that was said."""
    with device(browser, server.http, "alice") as today:
        today.say("tea with tomorrow")
        today.expect_phase("finished")
        text = today.answer.inner_text()
    with device(browser, server.http, "alice") as tomorrow:
        tomorrow.page.get_by_role("link", name="tea with tomorrow").click()
        tomorrow.expect_phase("finished")
        expect(tomorrow.user_messages).to_have_text("tea with tomorrow")
        expect(tomorrow.answer).to_have_text(text)
        expect(tomorrow.page.locator(".call[data-state=done]")).to_have_count(2)
        expect(tomorrow.page.locator("details")).to_have_count(1)


def test_hostile_html_is_text(chat: Chat) -> None:
    """Markup in a message, an answer or a title is shown as it was typed and does nothing."""
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"
    chat.enter("alice").say(hostile, agent="echo")
    expect(chat.answer).to_have_text(hostile)
    expect(chat.user_messages).to_have_text(hostile)
    chat.page.reload()
    expect(chat.answer).to_have_text(hostile)
    expect(chat.page.get_by_role("heading", name="<img src=x")).to_be_visible()
    assert chat.page.locator("towpath-chat img, towpath-chat script").count() == 0
    assert "owned" not in chat.page.title().split("<")[0]
    assert chat.complaints == []


def test_the_page_keeps_its_policy(chat: Chat) -> None:
    """Nothing the page does is refused by the policy it is served with."""
    answer = chat.page.goto(chat.url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    chat.enter("carol").say("line\n" * 8)
    chat.expect_phase("finished")
    chat.click("Rename")
    chat.click("Cancel")
    chat.click("Delete")
    chat.click("Keep it")
    assert chat.complaints == []


def test_a_phone_has_a_drawer_and_no_sideways_scrolling(
    browser: Browser, server: ServerProcess
) -> None:
    """At phone width all controls fit, and threads are in a drawer that opens and closes."""
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True)
    chat = Chat(context, server.http).enter("alice")
    chat.say("w" * 300)
    chat.expect_phase("finished")
    drawer = chat.page.get_by_role("complementary", name="Threads")
    expect(drawer).to_be_hidden()
    for name in ("Threads", "Rename", "Delete", "Send"):
        expect(chat.page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
    assert chat.page.evaluate("document.documentElement.scrollWidth") == 360
    assert chat.page.locator("#scroll").evaluate("scroll => scroll.scrollWidth") <= 360

    chat.click("Threads")
    expect(drawer).to_be_visible()
    drawer.get_by_role("link", name="New thread").click()
    expect(drawer).to_be_hidden()
    expect(chat.page.get_by_role("heading", name="New thread")).to_be_visible()
    context.close()
