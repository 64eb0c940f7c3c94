"""A browser for all tests of a module, and devices for each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.page import Chat, launch
from towpath.testing.server import ServerProcess

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs Chromium."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; it holds a loop, so it may not outlive the module's tests."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A device with nothing remembered."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def chat(context: BrowserContext, server: ServerProcess) -> Chat:
    """A tab on the shared server, where nobody is signed in yet."""
    return Chat(context, server.http)
