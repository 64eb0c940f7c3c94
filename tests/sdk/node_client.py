"""The npm `centrifuge` package in Node as the tests see it: a process spoken to in JSON lines."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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

SCRIPTS = Path(__file__).with_name("js")
LINE_BYTES = 1 << 22
"""A line the process may print."""


class NodeClient(SdkClient):
    """One `Centrifuge` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, get_token: GetToken | None) -> None:
        super().__init__()
        self.frames: list[list[str]] = []
        """The names of the commands in each frame the SDK sent; a pong has none."""
        self.socket_closes: list[Ended] = []
        """How each of its sockets ended, close frame or not."""
        self._process = process
        self._get_token = get_token
        self._get_state: dict[str, GetState] = {}
        self._readers: dict[str, Reader] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0

    async def act(self, what: str, **given: Any) -> Any:
        """Have something done and return its result.

        Raises:
            RPCFailed: the SDK said that it failed.
        """
        self._last += 1
        answer = self._answers[self._last] = asyncio.get_running_loop().create_future()
        self._write({"id": self._last, "do": what, **given})
        async with asyncio.timeout(15):
            return await answer

    async def connect(self) -> None:
        await self.act("connect")

    async def disconnect(self) -> None:
        await self.act("disconnect")

    async def set_token(self, token: str) -> None:
        await self.act("setToken", token=token)

    async def rpc(self, method: str, data: Any = None) -> Any:
        return await self.act("rpc", method=method, data={} if data is None else data)

    async def subscribe(
        self, channel: str, since: Position | None = None, *, get_state: GetState | None = None
    ) -> Reader:
        reader = self._readers[channel] = Reader(channel, self.news)
        given: dict[str, Any] = {"channel": channel}
        if since is not None:
            given["since"] = since._asdict()
        if get_state is not None:
            self._get_state[channel] = get_state
            given["getState"] = True
        await self.act("subscribe", **given)
        return reader

    async def unsubscribe(self, reader: Reader) -> None:
        await self.act("unsubscribe", channel=reader.channel)

    async def resubscribe(self, reader: Reader) -> None:
        await self.act("resubscribe", channel=reader.channel)

    async def until_socket_closed(self) -> None:
        """Wait until one of its sockets ended."""
        await self.news.until(lambda: bool(self.socket_closes))

    async def listen(self) -> None:
        """Take what the process prints until it ends."""
        assert self._process.stdout is not None, "it is piped"
        while text := await self._process.stdout.readline():
            line = json.loads(text)
            if "ask" in line:
                task = asyncio.create_task(self._reply(line["ask"], line["what"]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif "answer" in line:
                self._settle(self._answers.pop(line["answer"]), line)
            else:
                self._take(line)
                self.news.emit()

    def _settle(self, answer: asyncio.Future[Any], line: dict[str, Any]) -> None:
        if answer.done():
            return
        if "error" in line:
            answer.set_exception(RPCFailed(line["error"]["code"], line["error"]["message"]))
        else:
            answer.set_result(line["result"])

    def _take(self, line: dict[str, Any]) -> None:
        context, reader = line.get("context", {}), self._readers.get(line.get("channel", ""))
        match line["tell"]:
            case "connected":
                self.connected.append(context["client"])
            case "connecting":
                self.connecting.append(_ended(context))
            case "disconnected":
                self.disconnected.append(_ended(context))
            case "error":
                self.errors.append(_error(context))
            case "server.subscribed":
                self.take_join(context["channel"], _joined(context))
            case "server.publication":
                self.take_notice(context["channel"], _delivery(context))
            case "close":
                self.socket_closes.append(Ended(line["code"], line["reason"]))
            case "sent":
                self.frames.append(line["commands"])
            case "thread.subscribed" if reader is not None:
                reader.take_join(_joined(context))
            case "thread.publication" if reader is not None:
                reader.take(_delivery(context))
            case "thread.unsubscribed" if reader is not None:
                reader.take_end(_ended(context))
            case "thread.error" if reader is not None:
                reader.errors.append(_error(context))

    async def _reply(self, number: int, what: str) -> None:
        value: Any
        if what == "token":
            assert self._get_token is not None, "the SDK was given one"
            value = await self._get_token()
        else:
            self._readers[what].begin_anew()
            value = (await self._get_state[what]())._asdict()
        self._write({"reply": number, "value": value})

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None, "it is piped"
        self._process.stdin.write(json.dumps(line).encode() + b"\n")


@asynccontextmanager
async def open_node(
    url: str, token: str = "", *, get_token: GetToken | None = None
) -> AsyncGenerator[NodeClient, None]:
    """Make a client of the npm SDK, and end its process afterwards."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPTS / "client.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    client = NodeClient(process, get_token)
    listening = asyncio.create_task(client.listen())
    try:
        await client.act("open", url=url, token=token, getToken=get_token is not None)
        yield client
    finally:
        assert process.stdin is not None, "it is piped"
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await listening


def _ended(context: dict[str, Any]) -> Ended:
    return Ended(context["code"], context["reason"])


def _error(context: dict[str, Any]) -> Ended:
    return Ended(context["error"]["code"], context["error"]["message"])


def _joined(context: dict[str, Any]) -> Joined:
    position = context.get("streamPosition") or {"offset": 0, "epoch": ""}
    return Joined(
        recoverable=context["recoverable"],
        positioned=context["positioned"],
        recovered=context["recovered"],
        was_recovering=context["wasRecovering"],
        position=Position(position["offset"], position["epoch"]),
    )


def _delivery(context: dict[str, Any]) -> Delivery:
    return Delivery(
        event=context["data"], offset=context.get("offset", 0), tags=context.get("tags", {})
    )
