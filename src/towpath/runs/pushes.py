"""Events that the application pushes into a run, beside those that the agent yields.

A push passes the same checks as an event of the agent. An illegal one is an error at its caller,
and the run goes on. With a key, the same push takes effect once, also if two of them are under way.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from towpath.channels import Channel
from towpath.errors import Conflict, StorageError
from towpath.events.types import IllegalEvent
from towpath.log.broker import Broker, IdempotencyKey, Position, failure
from towpath.log.idempotency import last_position
from towpath.runs.executor import RunExecutor
from towpath.runs.golden import GoldenPath


class Pushes:
    """What is pushed into one run."""

    def __init__(self, executor: RunExecutor, broker: Broker) -> None:
        """Push into a run that is in progress, whose log is that of the broker."""
        self._executor = executor
        self._broker = broker
        self._golden = GoldenPath()
        self._keyed: dict[str, tuple[str, asyncio.Task[Position]]] = {}
        """For each key, the digest of the push and its result."""

    @property
    def channel(self) -> Channel:
        """The channel of the run's thread."""
        return self._executor.run.key.channel

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._executor.run.over

    async def push(
        self, event_type: str, fields: Mapping[str, Any], key: IdempotencyKey | None
    ) -> Position:
        """Publish an event, and wait until it is durable.

        Args:
            event_type: see `towpath.runs.golden`.
            fields: the fields of the event, in types that JSON can express.
            key: identifies the push; None lets it take effect each time.

        Returns:
            The position of the event: a reader that is after it has the event.

        Raises:
            RunIsOver: the run has ended.
            IllegalEvent: the event is malformed, too large, or not legal now; the run goes on.
            Conflict: the key was used with another event.
            StorageError: the event is not in the log, and the run ends.
        """
        if key is None:
            return await self._publish(event_type, fields, None)
        earlier = self._keyed.get(key.request_id)
        if earlier is None:
            task = asyncio.create_task(self._publish(event_type, fields, key))
            task.add_done_callback(failure)  # Retrieves the error: perhaps nobody awaits the push.
            earlier = self._keyed[key.request_id] = (key.digest, task)
        if earlier[0] != key.digest:
            raise Conflict("the key was used with another event")
        try:
            return await asyncio.shield(earlier[1])
        except IllegalEvent:
            self._keyed.pop(key.request_id, None)  # The push had no effect: the key is unused.
            raise

    async def _publish(
        self, event_type: str, fields: Mapping[str, Any], key: IdempotencyKey | None
    ) -> Position:
        executor = self._executor
        if key is not None and (earlier := await self._broker.stored_result(key)) is not None:
            return last_position(earlier)  # It was pushed into an earlier run.
        try:
            await executor.room()
            item = self._golden.item(event_type, fields)
            written = executor.publish(item, key)
            self._golden.published(item)
            if written is not None:
                return last_position(await asyncio.shield(written))
        except StorageError:
            executor.end_from_within(executor.run.fail("run.storage"))
            raise
        await executor.ended()
        replay = await self._broker.read(executor.run.key.channel, None, limit=0)
        return Position(replay.epoch, replay.top)
