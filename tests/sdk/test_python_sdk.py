"""PyPI `centrifuge-python`, unmodified, against a real server."""

from contextlib import AsyncExitStack

import pytest

from tests.sdk.client import START
from tests.sdk.contract import SdkContract, check_whole, counted, proxied, someone, websocket
from tests.sdk.python_client import open_python
from towpath.testing.server import ServerProcess

pytestmark = pytest.mark.servers


class TestPythonSdk(SdkContract):
    """The contract, as the Python SDK sees it."""

    open = staticmethod(open_python)

    async def test_r68_ten_tabs_end_with_the_same_text(self, server: ServerProcess) -> None:
        """Ten tabs of one person, opened one by one mid-run, half of them cut: one text, whole."""
        token = server.token(someone())
        async with AsyncExitStack() as stack:
            line = await stack.enter_async_context(proxied(server))
            urls = (server.ws, websocket(line)) * 5
            tabs = [await stack.enter_async_context(open_python(url, token)) for url in urls]
            for tab in tabs:
                await tab.connect()
                await tab.until_connected()
            channel, position = await tabs[0].start_run("count 250 at 100/s")
            readers = [await tabs[0].subscribe(channel, position)]
            for tab in tabs[1:]:
                await readers[0].until_words(5)
                readers.append(await tab.subscribe(channel, START))
            assert line.cut() == 5
            for reader in readers:
                await reader.until_over()
        assert [len(tab.connected) for tab in tabs] == [1, 2] * 5
        for reader in readers:
            check_whole(reader, counted(250))
            assert reader.conversation.texts == readers[0].conversation.texts
