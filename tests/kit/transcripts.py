"""Recorded conversations with a server, and their replay against another server.

A transcript is a file of JSON lines. The first line says what the conversation is about and which
settings the server has. Each other line is one step:

    {"open": "phone"}                                   a socket is opened; the name is ours
    {"send": "phone", "frames": [{"id": 1, ...}]}       one message of the client
    {"receive": "phone", "frame": {"id": 1, ...}}       one frame of the server
    {"leave": "phone"}                                  the client closes the socket
    {"closed": "phone", "code": 3500, "reason": "..."}  the server has closed the socket
    {"stop": "server"}                                  the server gets SIGTERM

What differs from server to server has a placeholder. `<id 1>`, `<epoch 1>` and `<ticket 1>` stand
for one value in the whole transcript, and two numbers stand for two values. `<time>` is a Unix
time, `<seconds>` the rest of an hour at most, `<version>` the version of the server, `<text>` a
sentence for people: the message of an error, the description of an agent. The client's tokens are
`<token alice>`, with a role `<token olga towpath:operator>`, with a lifetime in seconds
`<token alice 4>`; one placeholder stands for one token.

What the wire leaves open is not compared: the order of replies among each other, of a reply and a
push, and of pushes in two channels; and text deltas that were merged on the way (`tags.from`). All
else is: every field of every frame, the order in each channel, the code and reason of a close
frame, and that nothing else came.
"""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

Frame = dict[str, Any]
Step = dict[str, Any]

SHAPES = {"id": "[0-9a-f]{32}", "epoch": "[0-9a-f]{16}", "ticket": r"tkt_[\w-]+"}
"""Values that differ from server to server, by the name of their placeholder."""
VALUES = re.compile("|".join(rf"(?P<{kind}>\b{shape}\b)" for kind, shape in SHAPES.items()))
PLACEHOLDER = re.compile(rf"<({'|'.join(SHAPES)}) (\d+)>")
TOKEN = re.compile(r"<token (\w+)(?: ([a-z]\S*))?(?: (-?\d+))?>")
TIMES = ("created_at", "updated_at", "started_at", "ended_at", "expires_at", "decided_at")
"""Fields that hold Unix times, or null."""
SERVER = "towpath "
"""What the version of a server begins with."""
YEAR_2020 = 1_577_836_800
HOUR = 3600
WAIT_SECONDS = 15.0
"""How long a replay waits for what the transcript promises."""
QUIET_SECONDS = 0.4
"""How long a recording waits for further frames."""


def load(path: Path) -> list[Step]:
    """Return the lines of a transcript."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def dump(steps: Iterable[Step]) -> str:
    """Return a transcript as it is stored."""
    return "".join(json.dumps(step, ensure_ascii=False) + "\n" for step in steps)


class Names:
    """Which value each placeholder stands for: one to one."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._placeholders: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    def replace(self, value: Any, field: str = "") -> Any:
        """Return what a transcript stores for a value of a real conversation."""
        match value:
            case {"code": int(), "message": str()}:  # An error: clients act on the code.
                return {**value, "message": "<text>"}
            case dict():
                return {self._text(key): self.replace(one, key) for key, one in value.items()}
            case list():
                return [self.replace(one) for one in value]
            case str() if field == "description":
                return "<text>"
            case str() if field == "version" and value.startswith(SERVER):
                return "<version>"
            case str():
                return self._text(value)
            case int() | float() if field in TIMES:
                return "<time>"
            case int() if field == "ttl":
                return "<seconds>"
        return value

    def _text(self, text: str) -> str:
        return VALUES.sub(self._placeholder, text)

    def _placeholder(self, found: re.Match[str]) -> str:
        kind = str(found.lastgroup)
        if found[0] not in self._placeholders:
            number = sum(one.startswith(f"<{kind} ") for one in self._values) + 1
            self._bind(f"<{kind} {number}>", found[0])
        return self._placeholders[found[0]]

    def _bind(self, placeholder: str, value: str) -> None:
        self._values[placeholder] = value
        self._placeholders[value] = placeholder

    def fill(self, value: Any, server: ServerProcess) -> Any:
        """Return what a client sends to this server for a value of a transcript.

        Raises:
            KeyError: a placeholder has no value yet.
        """
        match value:
            case dict():
                return {key: self.fill(one, server) for key, one in value.items()}
            case list():
                return [self.fill(one, server) for one in value]
            case str() if token := TOKEN.fullmatch(value):
                if value not in self._tokens:
                    self._tokens[value] = mint(server, token)
                return self._tokens[value]
            case str():
                return PLACEHOLDER.sub(lambda found: self._values[found[0]], value)
        return value

    def same(self, expected: str, actual: str) -> bool:
        """Whether a text is that of the transcript; learns the values of new placeholders."""
        kinds: list[str] = []
        pattern = ""
        end = 0
        for found in PLACEHOLDER.finditer(expected):
            pattern += re.escape(expected[end : found.start()]) + f"({SHAPES[found[1]]})"
            kinds.append(found[0])
            end = found.end()
        values = re.fullmatch(pattern + re.escape(expected[end:]), actual)
        if values is None:
            return False
        for placeholder, value in zip(kinds, values.groups(), strict=True):
            known = self._values.get(placeholder), self._placeholders.get(value)
            if known == (None, None):
                self._bind(placeholder, value)
            elif known != (value, placeholder):
                return False
        return True


def mint(server: ServerProcess, token: re.Match[str]) -> str:
    """Return the token that a placeholder describes."""
    user, role, ttl = token.groups()
    return server.token(user, role=role or "", ttl=float(ttl or HOUR))


class Comparison:
    """Compares frames with those of a transcript."""

    def __init__(self, added: Collection[str] = ()) -> None:
        """Compare with no value known.

        Args:
            added: paths of fields that the wire got after the recording, like `connect.session`.
        """
        self.names = Names()
        self._added = added

    def problems(self, expected: Any, actual: Any, path: str = "") -> Iterator[str]:
        """Yield where a frame, or a part of one, is not what the transcript has."""
        match expected:
            case dict() if isinstance(actual, dict):
                yield from self._fields(expected, actual, path)
            case list() if isinstance(actual, list) and len(actual) == len(expected):
                for one, other in zip(expected, actual, strict=True):
                    yield from self.problems(one, other, path)
            case _:
                if not self._same(expected, actual):
                    yield f"{path}: {actual!r} instead of {expected!r}"

    def _fields(self, expected: Frame, actual: Frame, path: str) -> Iterator[str]:
        left = dict(actual)
        for name, value in expected.items():
            key = next((key for key in left if self.names.same(name, key)), None)
            where = f"{path}.{name}".lstrip(".")
            if key is None:
                yield f"{where}: missing"
            else:
                yield from self.problems(value, left.pop(key), where)
        for name in left:
            where = f"{path}.{name}".lstrip(".")
            if where not in self._added:
                yield f"{where}: a new field"

    def _same(self, expected: Any, actual: Any) -> bool:
        match expected:
            case "<version>":
                return isinstance(actual, str) and actual.startswith(SERVER)
            case "<text>":
                return isinstance(actual, str) and actual != ""
            case "<time>":
                return type(actual) in (int, float) and actual > YEAR_2020
            case "<seconds>":
                return type(actual) is int and 0 < actual <= HOUR
            case str() if isinstance(actual, str):
                return self.names.same(expected, actual)
        return type(expected) is type(actual) and bool(expected == actual)


def stream_of(frame: Frame) -> str:
    """Return what a frame belongs to; inside of it the wire has an order."""
    if "push" in frame:
        return f"push {frame['push'].get('channel', '')}"
    return f"reply {frame['id']}" if "id" in frame else "ping"


def merged_with(frame: Frame) -> int:
    """Return how many publications a frame stands for; more than one if deltas were merged."""
    tags = frame.get("push", {}).get("pub", {}).get("tags", {})
    return int(tags["seq"]) - int(tags["from"]) + 1 if "from" in tags else 1


def merged(frames: list[Frame]) -> Frame:
    """Return the one frame that the wire may send for these, each with a delta."""
    if len(frames) == 1:
        return frames[0]
    first, last = (frames[index]["push"]["pub"] for index in (0, -1))
    delta = "".join(frame["push"]["pub"]["data"]["delta"] for frame in frames)
    data = {**last["data"], "delta": delta}
    tags = {**last["tags"], "from": first["tags"].get("from", first["tags"]["seq"])}
    return {"push": {**frames[-1]["push"], "pub": {**last, "data": data, "tags": tags}}}


class Socket:
    """One socket of a replay: what was expected of it, and what came."""

    def __init__(self, name: str, client: WireClient, comparison: Comparison) -> None:
        self.name = name
        self.client = client
        self.problems: list[str] = []
        self._comparison = comparison
        self._expected: dict[str, list[Frame]] = defaultdict(list)
        self._came: dict[str, list[Frame]] = defaultdict(list)
        self._read = 0

    def expect(self, frame: Frame) -> None:
        """Add a frame of the transcript."""
        self._expected[stream_of(frame)].append(frame)

    def compare(self) -> bool:
        """Compare what came; return whether everything that was expected came, or is wrong."""
        for frame in self.client.frames[self._read :]:
            self._came[stream_of(frame)].append(frame)
        self._read = len(self.client.frames)
        for stream, expected in self._expected.items():
            came = self._came[stream]
            while came and merged_with(came[0]) <= len(expected):
                frame = came.pop(0)
                count = merged_with(frame)
                parts, expected[:count] = expected[:count], []
                self.problems += self._comparison.problems(merged(parts), frame)
        return bool(self.problems) or not any(self._expected.values())

    def missing(self) -> Iterator[str]:
        """Yield what was expected and did not come."""
        for frames in self._expected.values():
            yield from (f"did not come: {json.dumps(frame)}" for frame in frames)

    def unexpected(self) -> Iterator[str]:
        """Yield what came and was not expected."""
        for frames in self._came.values():
            yield from (f"came too: {json.dumps(frame)}" for frame in frames)


class Replay:
    """Plays the client's side of a transcript against a server, and compares the other side."""

    def __init__(self, server: ServerProcess, added: Collection[str] = ()) -> None:
        self._server = server
        self._comparison = Comparison(added)
        self._sockets: dict[str, Socket] = {}
        self._stopping: asyncio.Task[int] | None = None

    async def run(self, steps: Iterable[Step]) -> list[str]:
        """Replay every step; return the problems, the first of which ends the replay."""
        async with AsyncExitStack() as stack:
            for step in steps:
                if not await self._take(step, stack):
                    break
            await self._settled()
            if self._stopping is not None:
                await self._stopping
            return list(self._problems())

    def _problems(self) -> Iterator[str]:
        for socket in self._sockets.values():
            found = [*socket.problems, *socket.missing(), *socket.unexpected()]
            yield from (f"{socket.name}: {problem}" for problem in found)

    async def _take(self, step: Step, stack: AsyncExitStack) -> bool:
        """Take one step; return whether the replay can go on."""
        match step:
            case {"open": name}:
                opening = wire_client(self._server.ws, answer_pings=False)
                client = await stack.enter_async_context(opening)
                self._sockets[name] = Socket(name, client, self._comparison)
            case {"receive": name, "frame": frame}:
                self._sockets[name].expect(frame)
            case {"closed": name, "code": code, "reason": reason}:
                return await self._closed(self._sockets[name], code, reason)
            case _:
                return await self._settled() and await self._act(step)
        return True

    async def _act(self, step: Step) -> bool:
        """Do what the client, or the operator of the server, does."""
        match step:
            case {"send": name, "frames": frames}:
                filled = self._comparison.names.fill(frames, self._server)
                await self._sockets[name].client.send(*filled)
            case {"leave": name}:
                await self._sockets[name].client.leave()
            case {"stop": "server"}:
                self._stopping = asyncio.create_task(asyncio.to_thread(self._server.stop))
            case _:
                raise ValueError(f"no such step: {step}")
        return True

    async def _settled(self) -> bool:
        """Wait for every frame that the transcript has so far; return whether all are right."""
        for socket in self._sockets.values():
            try:
                await socket.client.until(socket.compare, seconds=WAIT_SECONDS)
            except TimeoutError:
                return False
        return not any(socket.problems for socket in self._sockets.values())

    async def _closed(self, socket: Socket, code: int, reason: str) -> bool:
        settled = await self._settled()
        try:
            await socket.client.until_closed(seconds=WAIT_SECONDS)
        except TimeoutError:
            socket.problems.append(f"not closed with {code}")
            return False
        expected = {"closed": {"code": code, "reason": reason}}
        actual = {
            "closed": {"code": socket.client.close_code, "reason": socket.client.close_reason}
        }
        socket.compare()
        socket.problems += self._comparison.problems(expected, actual)
        return settled and not socket.problems


class Recording:
    """Writes a transcript of what a script does with a server."""

    def __init__(self, server: ServerProcess, stack: AsyncExitStack) -> None:
        self.steps: list[Step] = []
        self._server = server
        self._stack = stack
        self._names = Names()
        self._devices: list[Device] = []

    async def open(self, name: str) -> "Device":
        """Open a socket."""
        opening = wire_client(self._server.ws, answer_pings=False)
        client = await self._stack.enter_async_context(opening)
        device = Device(self, name, client)
        self._devices.append(device)
        self.steps.append({"open": name})
        return device

    async def act(self, step: Step) -> None:
        """Take one step of the client, and write down all that follows until it is quiet."""
        self.steps.append(self._names.replace(step))
        match step:
            case {"send": name, "frames": frames}:
                device = next(one for one in self._devices if one.name == name)
                await device.client.send(*self._names.fill(frames, self._server))
            case {"leave": name}:
                device = next(one for one in self._devices if one.name == name)
                await device.client.leave()
            case {"stop": "server"}:
                await asyncio.to_thread(self._server.stop)
        await self.settle()

    async def settle(self) -> None:
        """Write down what came, until nothing comes."""
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            news = [device.write_down() for device in self._devices]
            if not any(news):
                return

    async def finish(self) -> None:
        """End with a command on each socket: what came before its reply is all that came."""
        for device in self._devices:
            if not device.closed:
                await device.rpc("whoami")

    def write(self, step: Step) -> None:
        """Add what a server did."""
        self.steps.append(self._names.replace(step))


class Device:
    """One socket of a script."""

    def __init__(self, recording: Recording, name: str, client: WireClient) -> None:
        self.name = name
        self.client = client
        self._recording = recording
        self._written = 0
        self.closed = False
        self._number = 0

    async def send(self, *frames: Frame) -> None:
        """Send frames as they are, in one message."""
        await self._recording.act({"send": self.name, "frames": list(frames)})

    async def command(self, name: str, /, **fields: Any) -> Any:
        """Send a command; return its result or its error."""
        self._number += 1
        number = self._number
        await self.send({"id": number, name: fields})
        for frame in self.client.frames:
            if frame.get("id") == number:
                return frame.get(name, frame.get("error"))
        return None

    async def rpc(self, method: str, /, **data: Any) -> Any:
        """Call a method; return its result or its error."""
        result = await self.command("rpc", method=method, data=data)
        return result.get("data", result)

    async def connect(self, user: str = "alice", **fields: Any) -> Any:
        """Connect with a token; return the result."""
        return await self.command("connect", token=f"<token {user}>", **fields)

    async def leave(self) -> None:
        """Close the socket."""
        self.closed = True
        await self._recording.act({"leave": self.name})

    async def until_ping(self, number: int) -> None:
        """Wait for so many pings."""
        await self.client.until(lambda: self.client.frames.count({}) >= number)
        await self._recording.settle()

    async def until_closed(self) -> None:
        """Wait until the server has closed the socket."""
        await self.client.until_closed(seconds=WAIT_SECONDS)
        await self._recording.settle()

    def write_down(self) -> bool:
        """Write down what came since the last call; return whether anything did."""
        new = self.client.frames[self._written :]
        self._written += len(new)
        for frame in new:
            self._recording.write({"receive": self.name, "frame": frame})
        closed = self.client.close_code is not None and not self.closed
        if closed:
            self.closed = True
            code, reason = self.client.close_code, self.client.close_reason
            self._recording.write({"closed": self.name, "code": code, "reason": reason})
        return bool(new) or closed


async def record(server: ServerProcess, script: "Script") -> list[Step]:
    """Return the transcript of a script, without its first line."""
    async with AsyncExitStack() as stack:
        recording = Recording(server, stack)
        await script(recording)
        await recording.finish()
        return recording.steps


Script = Callable[[Recording], Awaitable[None]]
