"""PyPI `centrifuge-python` as the tests see it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from centrifuge import (  # type: ignore[import-untyped] # it ships no types
    CentrifugeError,
    Client,
    ClientEventHandler,
    ReplyError,
    StreamPosition,
    Subscription,
    SubscriptionEventHandler,
)

from tests.sdk.client import (
    Delivery,
    Ended,
    GetState,
    GetToken,
    Joined,
    Position,
    Reader,
    RPCFailed,
    SdkClient,
)


class PythonClient(SdkClient):
    """One `centrifuge.Client`, JSON protocol."""

    def __init__(self, url: str, token: str, get_token: GetToken | None) -> None:
        super().__init__()
        self._sdk = Client(
            url,
            events=_ClientEvents(self),
            token=token,
            get_token=get_token,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
        )
        self._subscriptions: dict[str, Subscription] = {}

    async def connect(self) -> None:
        await self._sdk.connect()

    async def disconnect(self) -> None:
        await self._sdk.disconnect()

    async def set_token(self, token: str) -> None:
        self._sdk.set_token(token)

    async def rpc(self, method: str, data: Any = None) -> Any:
        try:
            return (await self._sdk.rpc(method, {} if data is None else data)).data
        except ReplyError as error:
            raise RPCFailed(error.code, error.message) from None
        except CentrifugeError as error:
            raise RPCFailed(0, str(error)) from None

    async def subscribe(
        self, channel: str, since: Position | None = None, *, get_state: GetState | None = None
    ) -> Reader:
        reader = Reader(channel, self.news)
        options: dict[str, Any] = {}
        request = get_state or (_once(since) if since is not None else None)
        if request is not None:

            async def load(_: str) -> StreamPosition:
                reader.begin_anew()
                position = await request()
                return StreamPosition(offset=position.offset, epoch=position.epoch)

            options["get_state"] = load
        subscription = self._sdk.new_subscription(channel, events=_Events(reader), **options)
        self._subscriptions[channel] = subscription
        await subscription.subscribe()
        return reader

    async def unsubscribe(self, reader: Reader) -> None:
        await self._subscriptions[reader.channel].unsubscribe()

    async def resubscribe(self, reader: Reader) -> None:
        await self._subscriptions[reader.channel].subscribe()


@asynccontextmanager
async def open_python(
    url: str, token: str = "", *, get_token: GetToken | None = None
) -> AsyncGenerator[SdkClient, None]:
    """Make a client of the Python SDK, and disconnect it afterwards."""
    client = PythonClient(url, token, get_token)
    try:
        yield client
    finally:
        await client.disconnect()
        await asyncio.sleep(0)


def _once(since: Position) -> GetState:
    """Return a `get_state` that knows one position, and after it only the start."""
    positions = [since]

    async def get_state() -> Position:
        return positions.pop() if positions else Position(0, "")

    return get_state


def _joined(context: Any) -> Joined:
    position = context.stream_position
    return Joined(
        recoverable=context.recoverable,
        positioned=context.positioned,
        recovered=context.recovered,
        was_recovering=context.was_recovering,
        position=Position(position.offset, position.epoch) if position else Position(0, ""),
    )


def _delivery(context: Any) -> Delivery:
    published = context.pub
    return Delivery(event=published.data, offset=published.offset, tags=published.tags)


def _error(context: Any) -> Ended:
    error = context.error
    return Ended(error.code if isinstance(error, ReplyError) else context.code, str(error))


class _ClientEvents(ClientEventHandler):  # type: ignore[misc] # the SDK has no types
    def __init__(self, client: PythonClient) -> None:
        self._client = client

    async def on_connected(self, ctx: Any) -> None:
        self._client.connected.append(ctx.client)
        self._client.news.emit()

    async def on_connecting(self, ctx: Any) -> None:
        self._client.connecting.append(Ended(ctx.code, ctx.reason))
        self._client.news.emit()

    async def on_disconnected(self, ctx: Any) -> None:
        self._client.disconnected.append(Ended(ctx.code, ctx.reason))
        self._client.news.emit()

    async def on_error(self, ctx: Any) -> None:
        self._client.errors.append(_error(ctx))
        self._client.news.emit()

    async def on_subscribed(self, ctx: Any) -> None:
        self._client.take_join(ctx.channel, _joined(ctx))
        self._client.news.emit()

    async def on_publication(self, ctx: Any) -> None:
        self._client.take_notice(ctx.channel, _delivery(ctx))
        self._client.news.emit()


class _Events(SubscriptionEventHandler):  # type: ignore[misc] # the SDK has no types
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def on_subscribed(self, ctx: Any) -> None:
        self._reader.take_join(_joined(ctx))

    async def on_publication(self, ctx: Any) -> None:
        self._reader.take(_delivery(ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._reader.take_end(Ended(ctx.code, ctx.reason))

    async def on_error(self, ctx: Any) -> None:
        self._reader.errors.append(_error(ctx))
