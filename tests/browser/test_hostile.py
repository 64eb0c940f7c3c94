"""Nothing an agent or a person writes is ever more than text: not in a message, nor in a title."""

from playwright.sync_api import expect

from tests.browser.page import Chat

PAYLOADS = (
    "<script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "<svg onload='window.owned = 1'></svg>",
    "<svg><script>window.owned = 1</script></svg>",
    "<iframe srcdoc='<script>parent.owned = 1</script>'></iframe>",
    "<math><mtext><table><mglyph><style><img src=x onerror='window.owned = 1'>",
    "<details open ontoggle='window.owned = 1'>",
    "<form action='javascript:window.owned = 1'><button>x</button></form>",
    "<style>* { display: none }</style>",
    "<base href='https://evil.example/'>",
    "<a href='javascript:window.owned = 1'>x</a>",
    "[x](javascript:window.owned=1)",
    "[x](JaVaScRiPt:window.owned=1)",
    "[x](data:text/html,<script>window.owned=1</script>)",
    "[x](vbscript:x)",
    "<javascript:window.owned=1>",
    "[x]: javascript:window.owned=1\n\n[x]",
    "![x](x\"onerror='window.owned=1')",
    "![x](https://evil.example/pixel.png)",
    "```html\n<script>window.owned = 1</script>\n```",
    "```\"><img src=x onerror='window.owned=1'>\nx\n```",
    "`<img src=x onerror='window.owned=1'>`",
    "| <img src=x onerror='window.owned=1'> |\n| --- |\n| <script>window.owned=1</script> |",
    "- <img src=x onerror='window.owned=1'>\n\n  <script>window.owned = 1</script>",
    "**<b onmouseover='window.owned=1'>x</b>**",
    "&lt;img src=x onerror='window.owned=1'&gt;",
    "<!--><img src=x onerror='window.owned=1'>-->",
    "<noscript><p title='</noscript><img src=x onerror=window.owned=1>'>",
)
FORBIDDEN = ", ".join(
    f"towpath-chat {tag}"
    for tag in ("img", "script", "iframe", "svg[onload]", "object", "embed", "base", "math", "link",
                "[onerror]", "[onload]", "[onclick]", "[ontoggle]", "[style]", "[srcdoc]",
                "a:not([href^=http]):not([href^=mailto]):not([href^='#'])")
)  # fmt: skip
"""What would be more than text. Threads have addresses in this page."""


def harmless(chat: Chat) -> None:
    """Check that nothing ran, nothing was loaded, and nothing is there that could."""
    assert chat.page.evaluate("window.owned") is None
    assert chat.page.locator(FORBIDDEN).count() == 0
    assert chat.complaints == [], "the policy had nothing to refuse"


def test_nothing_in_a_message_or_a_title_is_more_than_text(chat: Chat) -> None:
    """Each payload is said by a person, by an agent, and by the title of its thread, live and
    after a reload, and each time it is words on a page.
    """
    requests: list[str] = []
    chat.page.on("request", lambda request: requests.append(request.url))
    chat.enter("alice")
    for payload in PAYLOADS:
        chat.page.get_by_role("link", name="New thread").click()
        chat.say(payload, agent="echo")
        chat.expect_phase("finished")
        expect(chat.user_messages).to_have_text([payload])
        assert chat.source() == payload
        harmless(chat)
        title = chat.page.get_by_role("heading", level=1)
        expect(title).to_contain_text(" ".join(payload.split())[:40], use_inner_text=False)
    chat.page.reload()
    chat.expect_phase("finished")
    expect(chat.threads).to_have_count(len(PAYLOADS))
    harmless(chat)
    chat.page.locator("#rename").click()
    chat.page.locator("#title").fill(PAYLOADS[1])
    chat.click("Save")
    expect(chat.page.get_by_role("heading", name=PAYLOADS[1])).to_be_visible()
    harmless(chat)
    assert [url for url in requests if "127.0.0.1" not in url] == []


def test_a_link_opens_elsewhere_and_tells_nothing_of_this_page(chat: Chat) -> None:
    """A link to the web is a link in a tab of its own, without an opener and a referrer."""
    chat.enter("bob").say("see [the handbook](https://example.org/locks)", agent="echo")
    link = chat.answer.get_by_role("link", name="the handbook")
    expect(link).to_have_attribute("target", "_blank")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")


def test_code_has_its_language_scrolls_by_itself_and_is_copied_whole(chat: Chat) -> None:
    """A long line of code does not move the page, and the button copies exactly the code."""
    code = "print('" + "x" * 400 + "')\n    # <b>end</b>\n"
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.enter("carol").say(f"```python\n{code}```", agent="echo")
    chat.expect_phase("finished")
    figure = chat.answer.locator("figure")
    expect(figure.locator("figcaption span")).to_have_text("python")
    assert figure.locator("pre").evaluate("pre => pre.scrollWidth > pre.clientWidth")
    assert chat.page.locator("#scroll").evaluate("box => box.scrollWidth <= box.clientWidth")
    figure.get_by_role("button", name="Copy").click()
    expect(figure.get_by_role("button", name="Copied")).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == code
