"""What a person sees when the line, the server or the credential fails them."""

import re
import urllib.request
from collections.abc import Callable

from playwright.sync_api import BrowserContext, WebSocketRoute, expect

from tests.browser.page import Chat, count
from towpath.testing.server import ServerProcess


def test_r73_r74_a_reload_in_the_middle_misses_nothing(chat: Chat) -> None:
    """Who reloads while an answer is written reads all of it, once, with what was asked."""
    chat.enter("alice").say("count 60 at 30/s")
    chat.expect_counting(15)
    chat.page.reload()
    chat.expect_phase("writing")
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text(count(60))
    expect(chat.user_messages).to_have_text("count 60 at 30/s")
    expect(chat.page.locator(".differs, .mended")).to_have_count(0)


def test_r73_a_cut_in_the_middle_loses_and_doubles_nothing(chat: Chat) -> None:
    """Offline in mid-run and back again, the page says both and ends with the exact text."""
    chat.enter("alice").say("count 90 at 30/s")
    chat.expect_counting(15)
    chat.page.context.set_offline(True)
    chat.expect_away("offline")
    at_the_cut = len(chat.answer.inner_text().split())
    chat.page.wait_for_timeout(600)
    # What had arrived may still be drawn; with a line, 600 ms would bring 18 more.
    assert len(chat.answer.inner_text().split()) < at_the_cut + 9, "the line is really cut"
    chat.page.context.set_offline(False)
    chat.expect_online()
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text(count(90))
    expect(chat.user_messages).to_have_count(1)
    assert chat.sockets >= 2
    expect(chat.page.locator(".differs, .mended")).to_have_count(0)


def test_r47_a_killed_server_leaves_a_failed_run_and_all_its_text(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """After kill -9 and a new start the run has failed as lost; what was read is there, once."""
    chat = Chat(context, own_server.http).enter("alice")
    chat.say("count 900 at 30/s")
    chat.expect_counting(30)
    own_server.kill()
    chat.expect_away("reconnecting")
    seen = chat.answer.inner_text().strip()
    own_server.start()
    chat.try_now().expect_online()
    chat.expect_phase("failed")
    expect(chat.status).to_contain_text("run.lost")
    text = chat.answer.inner_text().strip()
    assert text == count(len(text.split())), "each number once, in order"
    assert text.startswith(seen)
    expect(chat.user_messages).to_have_count(1)

    chat.say("still there?", agent="echo")
    expect(chat.answer).to_have_text("still there?")


def test_r65_a_message_without_a_line_is_not_lost(chat: Chat) -> None:
    """What could not be sent stays in its field with the reason, and can be sent later."""
    chat.enter("carol")
    chat.page.context.set_offline(True)
    chat.expect_away("offline")
    chat.say("hold the line", agent="echo")
    expect(chat.problem).to_contain_text("Not sent")
    expect(chat.composer).to_have_value("hold the line")
    chat.page.context.set_offline(False)
    chat.expect_online()
    chat.composer.press("Enter")
    expect(chat.answer).to_have_text("hold the line")
    expect(chat.threads.filter(has_text="hold the line")).to_have_count(1)


def test_r65_r81_a_lost_answer_makes_no_second_run(
    context: BrowserContext, server: ServerProcess
) -> None:
    """When only the answer to a message is lost, sending it again shows the run that began."""
    lost: list[str] = []

    def lose_one(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            text = str(message)
            if not lost and '"run_id"' in text and '"position"' in text:
                lost.append(text)
            else:
                socket.send(text)

        upstream.on_message(pass_on)

    context.route_web_socket(re.compile("connection/websocket"), lose_one)
    chat = Chat(context, server.http).enter("bob")
    chat.say("only once", agent="echo")
    expect(chat.problem).to_contain_text("it takes effect only once")
    chat.composer.press("Enter")
    expect(chat.answer).to_have_text("only once")
    expect(chat.user_messages).to_have_count(1)
    expect(chat.threads.filter(has_text="only once")).to_have_count(1)
    assert len(lost) == 1


def test_r63_a_page_without_a_credential_opens_no_connection(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """Where there are no demo users the page asks for a token, and connects only with one."""
    context.route("**/page.json", lambda route: route.fulfill(json={"demo_users": []}))
    chat = Chat(context, own_server.http)
    chat.page.goto(chat.url)
    expect(chat.page.get_by_label("Your token")).to_be_visible()
    assert chat.sockets == 0

    chat.page.get_by_label("Your token").fill("nonsense")
    chat.click("Sign in")
    expect(chat.page.get_by_role("alert")).to_have_text("Signed out. The token was not accepted.")
    assert chat.sockets == 1

    chat.page.get_by_label("Your token").fill(own_server.token("dora"))
    chat.click("Sign in")
    chat.expect_online()
    expect(chat.page.locator("#who")).to_have_text("dora")


def test_r64_an_expired_token_ends_in_words_and_not_in_a_loop(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """A pasted token that is over is tried once and then said to be over."""
    context.route("**/page.json", lambda route: route.fulfill(json={"demo_users": []}))
    chat = Chat(context, own_server.http)
    chat.page.goto(chat.url)
    chat.page.get_by_label("Your token").fill(own_server.token("dora", ttl=-3600))
    chat.click("Sign in")
    expect(chat.page.get_by_role("alert")).to_contain_text("not valid any more")
    chat.page.wait_for_timeout(1500)
    assert chat.sockets <= 2


def test_r64_a_server_that_is_away_is_not_hammered(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """While the server is away a tab tries again a few times a second at most."""
    chat = Chat(context, own_server.http).enter("alice")
    own_server.kill()
    chat.expect_away("reconnecting")
    before = chat.sockets
    chat.page.wait_for_timeout(3000)
    assert 1 <= chat.sockets - before <= 8


def mismatches(server: ServerProcess) -> float:
    """Return how many damaged messages, whole in its log, the server was told of."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r'^towpath_digest_mismatches_total\{log="agrees"\} (\S+)', text, re.M)
    return float(found[1]) if found else 0


def damage(
    context: BrowserContext, pattern: str, instead: str | Callable[[re.Match[str]], str]
) -> None:
    """Damage what the server says on its way to the pages of a device."""

    def pass_on(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()
        upstream.on_message(lambda message: socket.send(re.sub(pattern, instead, str(message))))

    context.route_web_socket(re.compile("connection/websocket"), pass_on)


def test_text_that_came_damaged_is_fetched_again(
    context: BrowserContext, server: ServerProcess
) -> None:
    """When a piece of an answer is damaged on its way, the digest tells, it is made whole, and the
    server counts it.
    """
    before = mismatches(server)
    damage(context, r'"delta":"fine', '"delta":"fire')
    chat = Chat(context, server.http).enter("alice")
    chat.say("first", agent="echo")
    expect(chat.answer).to_have_text("first")
    chat.say("all is fine", agent="echo")
    expect(chat.answer).to_have_text("all is fine")
    expect(chat.page.locator(".mended")).to_have_count(1)
    expect(chat.page.locator(".differs")).to_have_count(0)
    expect(chat.user_messages).to_have_text(["first", "all is fine"])
    chat.say("and on it goes", agent="echo")
    expect(chat.answer).to_have_text("and on it goes")
    assert mismatches(server) == before + 1


def test_text_that_stays_damaged_is_marked_and_not_fetched_for_ever(
    context: BrowserContext, server: ServerProcess
) -> None:
    """Where the text is still not what was sent, the person is told, and the page rests."""
    damage(context, r'all is fine|"delta":"fine', lambda found: found[0].replace("fine", "fire"))
    chat = Chat(context, server.http).enter("bob")
    chat.say("first", agent="echo")
    expect(chat.answer).to_have_text("first")
    chat.say("all is fine", agent="echo")
    expect(chat.page.get_by_role("alert")).to_contain_text("differs from the text that was sent")
    chat.say("and on it goes", agent="echo")
    expect(chat.answer).to_have_text("and on it goes")
    expect(chat.page.locator(".differs")).to_have_count(1)
    log = chat.page.locator("towpath-chat").evaluate(
        "chat => chat.session.conversation.log.all.filter((entry) => !entry.publication).length"
    )
    assert log == 2, "once to open, once to fetch again"


def test_r74_a_reload_at_any_point_reads_the_same(chat: Chat) -> None:
    """Reloaded again and again while it is written, an answer is whole and there once."""
    chat.enter("bob").say("count 120 at 30/s")
    for number in (3, 11, 24, 40, 57, 75, 96):
        chat.expect_counting(number)
        chat.page.reload()
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text(count(120))
    expect(chat.user_messages).to_have_count(1)
    expect(chat.page.locator(".differs, .mended")).to_have_count(0)


def test_the_wait_for_the_next_attempt_is_counted_down(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """While the server is away the page says when it tries again, and does then."""
    chat = Chat(context, own_server.http).enter("alice")
    own_server.kill()
    chat.expect_away("reconnecting")
    expect(chat.connection).to_have_text(re.compile(r"Reconnecting in \d+ s"))
    first = chat.sockets
    left = chat.page.locator("towpath-connection").evaluate("one => one.state.at - Date.now()")
    chat.page.wait_for_timeout(max(left, 0) + 300)
    assert chat.sockets > first, "it tried when it said it would"
    own_server.start()
    chat.try_now().expect_online()
    expect(chat.connection).to_have_text("Online")


def test_r59_a_server_that_leaves_says_so(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """A stopping server is told from a lost line, and the page comes back to the next one."""
    chat = Chat(context, own_server.http).enter("alice")
    own_server.stop()
    chat.expect_away("moving")
    expect(chat.connection).to_contain_text("Server is restarting")
    own_server.start()
    chat.try_now().expect_online()
    chat.say("back again", agent="echo")
    expect(chat.answer).to_have_text("back again")


def test_r85_a_token_that_ends_in_mid_answer_is_renewed(
    context: BrowserContext, own_server: ServerProcess
) -> None:
    """A new token is asked for when the old one is over; no word is lost and the line stays."""
    context.route("**/page.json", lambda route: route.fulfill(json={"demo_users": []}))
    chat = Chat(context, own_server.http)
    chat.page.goto(chat.url)
    request: list[str] = []

    def token() -> str:
        request.append(own_server.token("dora", ttl=3))
        return request[-1]

    expect(chat.page.locator("#token-form")).to_be_visible()  # Until then the page hides the chat.
    chat.page.expose_function("freshToken", token)
    chat.page.evaluate(
        """() => {
          const chat = document.querySelector('towpath-chat');
          chat.getToken = () => window.freshToken();
          chat.hidden = false;
          document.querySelector('#gate').hidden = true;
        }"""
    )
    chat.expect_online()
    chat.say("count 150 at 20/s")
    chat.expect_phase("finished")
    expect(chat.answer).to_have_text(count(150))
    assert len(request) >= 3
    assert chat.sockets == 1
    expect(chat.page.locator(".differs, .mended")).to_have_count(0)
