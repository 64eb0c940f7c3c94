"""Record the transcripts of the wire that `tests/servers/test_transcripts.py` replays.

`python -m tools.transcripts` starts a real server for each script below and writes its transcript;
with names, only these. What is recorded is what clients rely on: record again only for a new
script, or for a change of the wire that is in the changelog.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.transcripts import Device, Recording, Script, dump, record
from towpath.runs.interrupts import shown_digest
from towpath.testing.server import ServerProcess

ROOT = Path(__file__).resolve().parent.parent
TRANSCRIPTS = ROOT / "tests/servers/transcripts"
LONG = "count 9 at 0.01/s"
"""A message to `tools` that gives one piece of text at once, and the next after 100 seconds."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One script, and the settings of its server."""

    script: Script
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the transcript."""
        return self.script.__name__

    @property
    def about(self) -> str:
        """What the conversation is about."""
        return (self.script.__doc__ or "").strip()


async def connected(recording: Recording, name: str = "phone", user: str = "alice") -> Device:
    """Open a socket and connect."""
    device = await recording.open(name)
    await device.connect(user)
    return device


async def start(device: Device, request: str, thread: str, agent: str, message: str) -> str:
    """Start a run; return its id."""
    given = {"request_id": request, "agent": agent, "thread_id": thread, "message": message}
    started = await device.rpc("run.start", **given)
    return str(started["run_id"])


async def subscribe(device: Device, channel: str, **fields: object) -> None:
    """Subscribe to a channel."""
    await device.command("subscribe", channel=channel, **fields)


async def connect(recording: Recording) -> None:
    """Connect with a token, in one frame with a subscribe, with positions, and with a ticket."""
    phone = await recording.open("phone")
    first = await phone.connect(name="transcript", version="1")
    made = await phone.rpc("ticket.create")
    await phone.rpc("thread.create", request_id="c1", thread_id="t1", title="One")
    await phone.leave()
    laptop = await recording.open("laptop")
    await laptop.send(
        {"id": 1, "connect": {"token": "<token alice>", "flag": 1, "headers": {"x": "y"}}},
        {"id": 2, "subscribe": {"channel": "thread:t1"}},
        {"id": 3, "rpc": {"method": "whoami", "data": {}}},
    )
    await laptop.leave()
    known = {"recover": True, "offset": 0, "epoch": first["subs"]["user"]["epoch"]}
    tablet = await recording.open("tablet")
    await tablet.connect(subs={"user": known, "tenant": {"recover": True, "epoch": "0" * 8}})
    await tablet.leave()
    kiosk = await recording.open("kiosk")
    await kiosk.command("connect", token=made["ticket"])
    await kiosk.rpc("whoami")
    late = await recording.open("late")
    await late.command("connect", token=made["ticket"])


async def refused(recording: Recording) -> None:
    """Connections that the server refuses or ends for what the client sent."""
    for name, fields in {
        "no credential": {},
        "invalid token": {"token": "a.b.c"},
        "expired token": {"token": "<token alice -600>"},
    }.items():
        device = await recording.open(name)
        await device.command("connect", **fields)
    early = await recording.open("command before connect")
    await early.command("rpc", method="whoami", data={})
    twice = await connected(recording, "second connect")
    await twice.connect()
    pong = await connected(recording, "pong without ping")
    await pong.send({})
    used = await connected(recording, "id in use")
    await used.send({"id": 1, "rpc": {"method": "whoami", "data": {}}}, {"id": 0, "connect": {}})
    silent = await recording.open("no connect")
    await silent.until_closed()


async def refresh(recording: Recording) -> None:
    """Refresh: with a new token, an expired one, one of another person; and none in time."""
    phone = await connected(recording)
    await phone.command("refresh", token="<token alice>")  # noqa: S106
    await phone.command("refresh", token="<token alice -600>")  # noqa: S106
    await phone.rpc("whoami")
    await phone.command("refresh", token="<token bob>")  # noqa: S106
    late = await recording.open("late")
    await late.command("connect", token="<token alice 4>")  # noqa: S106
    await late.until_closed()


async def subscriptions(recording: Recording) -> None:
    """Subscribe: new, from the start, from a position, unrecovered; unsubscribe; and errors."""
    phone = await connected(recording)
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    await subscribe(phone, "thread:t1")
    await start(phone, "r1", "t1", "echo", "one two")
    await phone.command("unsubscribe", channel="thread:t1")
    await phone.command("unsubscribe", channel="thread:t1")
    await subscribe(phone, "thread:t1", recover=True, offset=0, epoch="")
    await phone.command("unsubscribe", channel="thread:t1")
    known = await phone.rpc("thread.get", thread_id="t1")
    epoch = known["position"]["epoch"]
    await subscribe(phone, "thread:t1", recover=True, offset=3, epoch=epoch)
    await phone.command("unsubscribe", channel="thread:t1")
    await subscribe(phone, "thread:t1", recover=True, offset=3, epoch="another")
    await phone.command("unsubscribe", channel="thread:t1")
    await subscribe(phone, "thread:t1", recover=True, offset=3, epoch="another", flag=2)
    await subscribe(phone, "thread:t1")
    for channel in ("user", "thread:nobody's", "nonsense", "acme:user"):
        await subscribe(phone, channel)
    await phone.command("sub_refresh", channel="thread:t1", token="x")  # noqa: S106
    await phone.command("publish", channel="thread:t1", data={})
    stranger = await connected(recording, "stranger", "bob")
    await subscribe(stranger, "thread:t1")


async def echo(recording: Recording) -> None:
    """A run of `echo`, seen by the device that started it and by another one."""
    phone = await connected(recording)
    laptop = await connected(recording, "laptop")
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    await subscribe(laptop, "thread:t1")
    run = await start(phone, "r1", "t1", "echo", "hello to all of you")
    await laptop.rpc("run.get", run_id=run)
    await phone.rpc("run.list", thread_id="t1")


async def tools(recording: Recording) -> None:
    """A run of `tools`, with reasoning and tool calls; its thread, and a request sent again."""
    phone = await connected(recording)
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    await start(phone, "r1", "t1", "tools", "hello there")
    await start(phone, "r1", "t1", "tools", "hello there")
    given = {"request_id": "r1", "agent": "tools", "thread_id": "t1", "message": "another"}
    await phone.rpc("run.start", **given)
    await phone.rpc("thread.get", thread_id="t1")
    await phone.rpc("thread.get", thread_id="t1", limit=1)
    inputs = {"messages": [{"id": "m1", "role": "user", "content": "and now"}], "state": {"a": 1}}
    await phone.rpc("run.start", request_id="r2", agent="echo", thread_id="t1", input=inputs)


async def cancel(recording: Recording) -> None:
    """A run that is cancelled, a second run beside it, a late cancel, a run nobody has."""
    phone = await connected(recording)
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    run = await start(phone, "r1", "t1", "tools", LONG)
    await phone.rpc("run.start", request_id="r2", agent="echo", thread_id="t1", message="hi")
    await phone.rpc("thread.delete", request_id="d1", thread_id="t1")
    await phone.rpc("run.cancel", request_id="x1", run_id=run)
    await phone.rpc("run.cancel", request_id="x2", run_id=run)
    await phone.rpc("run.cancel", request_id="x3", run_id="nobody's")
    await phone.rpc("run.get", run_id=run)
    stranger = await connected(recording, "stranger", "bob")
    await stranger.rpc("run.cancel", request_id="x1", run_id=run)
    await stranger.rpc("run.get", run_id=run)


async def approvals(recording: Recording) -> None:
    """Interrupts that are approved, refused, answered twice, and answered in the wrong way."""
    phone = await connected(recording)
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    shown = shown_digest('{"what": "a barge"}')
    for request, decision in (("r1", "approve"), ("r2", "refuse")):
        run = await start(phone, request, "t1", "tools", "buy a barge")
        (row,) = (await phone.rpc("run.get", run_id=run))["interrupts"]
        given = {"run_id": run, "interrupt_id": row["interrupt_id"], "decision": decision}
        await phone.rpc("run.approve", request_id=f"{request}-1", digest="0" * 64, **given)
        await phone.rpc("run.approve", request_id=f"{request}-2", digest=shown, **given)
        await phone.rpc("run.approve", request_id=f"{request}-3", digest=shown, **given)
        await phone.rpc("run.get", run_id=run)
        foreign = {**given, "interrupt_id": "nobody's"}
        await phone.rpc("run.approve", request_id=f"{request}-4", digest=shown, **foreign)


async def threads(recording: Recording) -> None:
    """Threads: made, made twice, renamed, listed, read, deleted; and those of other people."""
    phone = await connected(recording)
    laptop = await connected(recording, "laptop")
    await phone.rpc("thread.create", request_id="c1", thread_id="t1", title="One")
    await phone.rpc("thread.create", request_id="c1", thread_id="t1", title="One")
    await phone.rpc("thread.create", request_id="c2", thread_id="t1")
    await phone.rpc("thread.create", request_id="c3")
    await phone.rpc("thread.rename", request_id="n1", thread_id="t1", title="Another")
    await phone.rpc("thread.list", limit=5)
    await phone.rpc("thread.get", thread_id="t1")
    await laptop.rpc("thread.delete", request_id="d1", thread_id="t1")
    await phone.rpc("thread.get", thread_id="t1")
    await phone.rpc("thread.rename", request_id="n2", thread_id="t1", title="Gone")
    stranger = await connected(recording, "stranger", "bob")
    await stranger.rpc("thread.list")


async def history(recording: Recording) -> None:
    """History in both directions, since a position and since one that is gone; presence."""
    phone = await connected(recording)
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await start(phone, "r1", "t1", "echo", "one two three")
    await phone.command("history", channel="user")
    top = await phone.command("history", channel="user", limit=-1)
    await phone.command("history", channel="user", limit=2, reverse=True)
    since = {"offset": 1, "epoch": top["epoch"]}
    await phone.command("history", channel="user", limit=10, since=since)
    await phone.command("history", channel="user", limit=1, since={"offset": 1, "epoch": "x"})
    await phone.command("history", channel="thread:t1", limit=-1)
    await phone.command("history", channel="thread:nobody's", limit=1)
    await phone.command("presence", channel="user")
    await phone.command("presence_stats", channel="user")
    await phone.command("presence", channel="tenant")
    await phone.command("presence_stats", channel="thread:nobody's")


async def errors(recording: Recording) -> None:
    """Commands and methods that do not exist, lack something, or are not for everybody."""
    phone = await connected(recording)
    await phone.command("ping")
    await phone.command("no_such_command")
    await phone.rpc("no.such.method")
    await phone.rpc("run.start", request_id="r1")
    await phone.rpc("run.start", request_id="r1", agent="nobody", message="hi")
    await phone.rpc("thread.get", thread_id="")
    await phone.rpc("thread.create", request_id="c1", title=7)
    await phone.rpc("session.list", user="bob")
    await phone.rpc("agent.list")
    await phone.send({"send": {"data": {}}})


async def limits(recording: Recording) -> None:
    """The next subscription, connection and error past the limit."""
    phone = await connected(recording)
    for number in range(2):
        await phone.rpc("thread.create", request_id=f"c{number}", thread_id=f"t{number}")
        await subscribe(phone, f"thread:t{number}")
    await connected(recording, "laptop")
    await connected(recording, "tablet")
    for _ in range(3):
        await subscribe(phone, "nonsense")


async def operators(recording: Recording) -> None:
    """An operator lists, disconnects and revokes; the person comes back, and cannot."""
    operator = await connected(recording, "operator", "olga towpath:operator")
    await connected(recording)
    await operator.rpc("session.list", user="alice")
    await operator.rpc("session.disconnect", request_id="d1", user="alice")
    await connected(recording, "again")
    await operator.rpc("session.revoke", request_id="v1", user="alice")
    await connected(recording, "revoked")
    await operator.rpc("session.revoke", request_id="v2")


async def pings(recording: Recording) -> None:
    """A ping that is answered, and a ping that is not."""
    phone = await connected(recording)
    await phone.until_ping(1)
    await phone.send({})
    await phone.rpc("whoami")
    await phone.until_ping(2)
    await phone.until_closed()


async def drain(recording: Recording) -> None:
    """A server that stops: its run ends, and its connections are told to go elsewhere."""
    phone = await connected(recording)
    await connected(recording, "other", "bob")
    await phone.rpc("thread.create", request_id="c1", thread_id="t1")
    await subscribe(phone, "thread:t1")
    await start(phone, "r1", "t1", "tools", LONG)
    await recording.act({"stop": "server"})


SCENARIOS = (
    Scenario(connect),
    Scenario(refused, {"TOWPATH_CONNECT_TIMEOUT": "3"}),
    Scenario(refresh, {"TOWPATH_EXPIRY_GRACE": "1"}),
    Scenario(subscriptions),
    Scenario(echo),
    Scenario(tools),
    Scenario(cancel),
    Scenario(approvals),
    Scenario(threads),
    Scenario(history),
    Scenario(errors),
    Scenario(
        limits,
        {"TOWPATH_SUBSCRIPTIONS": "3", "TOWPATH_USER_CONNECTIONS": "2", "TOWPATH_ERRORS": "3"},
    ),
    Scenario(operators),
    Scenario(pings, {"TOWPATH_PING_INTERVAL": "2", "TOWPATH_PONG_TIMEOUT": "2"}),
    Scenario(drain, {"TOWPATH_DRAIN_TIMEOUT": "2", "TOWPATH_CLEANUP_TIMEOUT": "1"}),
)


def main(names: Sequence[str]) -> int:
    """Record the transcripts of these names, or all."""
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            data = Path(directory) / "data"
            with ServerProcess(data, environment=scenario.settings) as server:
                steps = asyncio.run(record(server, scenario.script))
        head = {"about": scenario.about, "settings": scenario.settings}
        path = TRANSCRIPTS / f"{scenario.name}.jsonl"
        path.write_text(dump([head, *steps]))
        print(f"{path.relative_to(ROOT)}: {len(steps)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
