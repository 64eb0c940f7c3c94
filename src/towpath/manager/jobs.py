"""The events of a run, read by the application: from its first event to its last."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from towpath.channels import Channel, thread_channel
from towpath.delivery.catch_up import catch_up
from towpath.delivery.encoding import Encoding
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber
from towpath.events.types import TERMINAL, Event
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.node.node import Node
from towpath.runs.model import RunKey

SEPARATOR = b"\n"
PAGE_BYTES = 1024 * 1024
"""How much of the log is read at once."""


class JobEvents:
    """The events of one run; iterate them with `async for`, then `disconnect_from_job`.

    The iteration ends after the terminal event, or when the reader is closed. A reader that is
    slower than the run gets merged text, as a slow connection does.
    """

    def __init__(self, node: Node, key: RunKey) -> None:
        """Read a run of this key on this node."""
        self.thread, self.run = key.thread, key.run
        self._node = node
        self._channel = thread_channel(*key.thread_key)
        self._wake = asyncio.Event()
        self._outbox = Outbox(
            self._wake.set, max_bytes=node.parts.settings.outbox_bytes, separator=SEPARATOR
        )
        principal = Principal(tenant=key.tenant, user=key.user)
        self._subscriber = Subscriber(
            f"job-{uuid.uuid4().hex}",
            principal,
            self._outbox,
            lambda code: self._outbox.clear(),
            encoding=Encoding(_encode, SEPARATOR, None),
            internal=True,
        )
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate the events, each once."""
        return self._events

    async def aclose(self) -> None:
        """Stop reading; idempotent."""
        self._outbox.clear()
        self._wake.set()
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[Event, None]:
        hub, broker = self._node.parts.hub, self._node.parts.broker
        subscription = hub.subscribe(self._subscriber, self._channel, shows=self._is_of_run)
        after, more = None, True
        try:
            while more:
                replay = await broker.read(self._channel, after, max_bytes=PAGE_BYTES)
                if replay.gone:
                    return  # The run is over, and the log has dropped it meanwhile.
                for publication in filter(self._is_of_run, replay.publications):
                    event = msgspec.json.decode(publication.data)
                    yield event
                    if event["type"] in TERMINAL:
                        return
                more = replay.more
                after = replay.publications[-1].offset if more else replay.top
            hub.go_live(subscription, after or 0)
            while not self._outbox.closed:
                for event in await self._next():
                    yield event
                    if event["type"] in TERMINAL:
                        return
        finally:
            hub.unsubscribe(self._subscriber, self._channel)

    def _is_of_run(self, publication: Publication) -> bool:
        return publication.tags.get("run") == self.run

    async def _next(self) -> list[Event]:
        """Wait for the next events of the run, and return them."""
        parts = self._node.parts
        if taken := self._outbox.take():
            return [msgspec.json.decode(data) for data in taken.split(SEPARATOR)]
        caught_up = await catch_up(
            self._subscriber, hub=parts.hub, recovery=parts.recovery, telemetry=parts.telemetry
        )
        if not caught_up and not self._outbox.closed:
            await self._wake.wait()
            self._wake.clear()
        return []


def _encode(channel: Channel, publication: Publication) -> bytes:
    """Encode a publication as its event; JSON text holds no line end."""
    return publication.data
