"""Publications of runs: events in the thread's channel, notices in the person's channel."""

import msgspec

from towpath.channels import Channel, user_channel
from towpath.log.broker import Append, Item
from towpath.runs.encoding import RunEvent
from towpath.runs.run import Run


def items_of(events: list[RunEvent]) -> tuple[Item, ...]:
    """Return the events of a run as they are published."""
    return tuple(Item(one.data, one.tags) for one in events)


def notice(run: Run, name: str) -> Append:
    """Return the notice of a run for the person's devices."""
    key = run.key
    value = {
        "thread_id": key.thread,
        "run_id": key.run,
        "agent": key.agent,
        "status": run.status.value,
    }
    return custom(user_channel(key.tenant, key.user), name, value)


def custom(channel: Channel, name: str, value: object) -> Append:
    """Return an AG-UI CUSTOM event for a channel."""
    event = {"type": "CUSTOM", "name": name, "value": value}
    return Append(channel, (Item(msgspec.json.encode(event), {}),))
