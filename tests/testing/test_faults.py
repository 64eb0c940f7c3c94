"""Each fault is what it says, seen from a socket that talks through it."""

import asyncio
import errno
import gc
import os
import socket
import struct
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from towpath.testing.faults import (
    PASS,
    Delay,
    Drop,
    FaultProxy,
    Flap,
    Garbage,
    HalfClose,
    Pass,
    ProxyFault,
    Refuse,
    Reset,
    Slow,
)

LONG = 30.0
"""Seconds that no test lets go by."""
SHORT = 0.2
"""Seconds after which silence counts as silence."""


def open_files() -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # What an earlier test left to the collector is none of ours.
    return {one.name for one in Path("/dev/fd").iterdir()}


def tasks_of_proxy() -> list[str]:
    return [text for text in map(repr, asyncio.all_tasks()) if "testing/faults.py" in text]


class Echo:
    """A target that says back what it hears, and remembers how it was left."""

    def __init__(self) -> None:
        self.heard = b""
        self.open = 0
        self.ends = 0
        self.resets = 0
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.writers.append(writer)
        try:
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
                await writer.drain()
            self.ends += 1
        except ConnectionError:
            self.resets += 1
        finally:
            writer.close()
            self.open -= 1


@asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    target = Echo()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()


@asynccontextmanager
async def proxied(fault: ProxyFault = PASS) -> AsyncIterator[tuple[Echo, FaultProxy]]:
    async with echo() as target, FaultProxy("127.0.0.1", target.port, fault=fault) as proxy:
        yield target, proxy


class Client:
    """A bare socket, which hides nothing."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.socket, size)

    async def receive_all(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.receive(size - len(data))
        return data

    async def ask(self, data: bytes) -> bytes:
        await self.send(data)
        return await self.receive_all(len(data))

    async def is_silent(self) -> bool:
        try:
            async with asyncio.timeout(SHORT):
                await asyncio.get_running_loop().sock_recv(self.socket, 1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    opened = Client()
    try:
        async with asyncio.timeout(5):
            address = (proxy.host, proxy.port)
            await asyncio.get_running_loop().sock_connect(opened.socket, address)
        yield opened
    finally:
        opened.socket.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what is on its way, and which nothing announces."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_nothing_goes_wrong_unless_asked() -> None:
    """Bytes pass both ways, and so does an end, which leaves the other way open."""
    async with proxied() as (target, proxy), client(proxy) as caller:
        assert await caller.ask(b"hello") == b"hello"
        caller.socket.shutdown(socket.SHUT_WR)
        assert await caller.receive() == b""
        await until(lambda: target.ends + target.resets == 1)
        await until(lambda: proxy.live == 0)
    assert (target.heard, target.ends, target.resets) == (b"hello", 1, 0)


async def test_much_passes_unharmed() -> None:
    """Several megabytes, read slower than written, come back as they were."""
    data = os.urandom(1 << 22)
    async with proxied() as (_, proxy), client(proxy) as caller, asyncio.TaskGroup() as group:
        group.create_task(caller.send(data))
        answer = group.create_task(caller.receive_all(len(data)))
    assert answer.result() == data


async def test_delayed_answers_are_late() -> None:
    """An answer comes no sooner than it should; the request was there at once."""
    async with proxied(Delay(SHORT)) as (target, proxy), client(proxy) as caller:
        started = time.monotonic()
        assert await caller.ask(b"late") == b"late"
    assert time.monotonic() - started >= SHORT
    assert target.heard == b"late"


async def test_a_burst_is_delayed_once() -> None:
    """What the target says within the delay comes with what it said first."""
    async with proxied(Delay(0.5)) as (target, proxy), client(proxy) as caller:
        await caller.send(b"one")
        await until(lambda: target.heard == b"one")
        await caller.send(b"two")
        assert await caller.receive() == b"onetwo"


async def test_a_delay_ends_with_its_fault() -> None:
    """What was held back goes on at once under the next fault."""
    async with proxied(Delay(LONG)) as (_, proxy), client(proxy) as caller:
        await caller.send(b"held")
        assert await caller.is_silent()
        proxy.fault = PASS
        assert await caller.receive_all(4) == b"held"


async def test_dropped_connections_hang() -> None:
    """A new connection is accepted, nothing reaches the target, nothing comes back."""
    async with proxied(Drop()) as (target, proxy), client(proxy) as caller:
        await caller.send(b"anyone?")
        assert await caller.is_silent()
        assert (target.heard, proxy.connections, proxy.live) == (b"", 1, 1)
        proxy.fault = Pass()
        assert await caller.ask(b"again") == b"again"
    assert target.heard == b"again"


async def test_a_dropped_target_may_say_what_it_likes() -> None:
    """Neither its words nor its end reach the client; the line ends when the client leaves."""
    async with proxied() as (target, proxy):
        async with client(proxy) as caller:
            assert await caller.ask(b"hello") == b"hello"
            proxy.fault = Drop()
            target.writers[0].write(b"by the way")
            assert await caller.is_silent()
            target.writers[0].close()
            assert await caller.is_silent()
            assert proxy.live == 1
        await until(lambda: proxy.live == 0)


async def test_refused_is_refused() -> None:
    """Nobody listens, open connections are reset, and the port is ours again afterwards."""
    async with proxied() as (target, proxy), client(proxy) as caller:
        assert await caller.ask(b"fine") == b"fine"
        port = proxy.port
        proxy.fault = Refuse()
        with pytest.raises(ConnectionResetError):
            await caller.receive()
        with pytest.raises(ConnectionRefusedError):
            async with client(proxy):
                pass
        with socket.socket() as stranger, pytest.raises(OSError) as taken:
            stranger.bind((proxy.host, port))
        assert taken.value.errno == errno.EADDRINUSE
        proxy.fault = PASS
        async with client(proxy) as later:
            assert await later.ask(b"healed") == b"healed"
        await until(lambda: target.ends + target.resets == 1)
        assert (proxy.port, proxy.connections, target.resets) == (port, 2, 1)


async def test_a_proxy_may_begin_refusing() -> None:
    """A dependency that is down from the start is a fault like any other."""
    async with proxied(Refuse()) as (_, proxy):
        with pytest.raises(ConnectionRefusedError):
            async with client(proxy):
                pass
    assert proxy.connections == 0


async def test_reset_at_once() -> None:
    """A connection is accepted and reset without waiting for a request."""
    async with proxied(Reset()) as (target, proxy), client(proxy) as caller:
        with pytest.raises(ConnectionResetError):
            await caller.receive()
        await until(lambda: proxy.live == 0)
    assert (proxy.connections, target.heard) == (1, b"")


async def test_reset_in_the_middle() -> None:
    """The client gets that many bytes of the answer, then a reset; so does the target."""
    async with proxied(Reset(after=4)) as (target, proxy), client(proxy) as caller:
        assert await caller.ask(b"ab") == b"ab"
        await caller.send(b"cdef")
        assert await caller.receive_all(2) == b"cd"
        with pytest.raises(ConnectionResetError):
            await caller.receive()
        await until(lambda: target.ends + target.resets == 1)
    assert target.resets == 1


async def test_a_reset_stays_one_when_the_target_ends_at_once() -> None:
    """The client does not read an end before the reset."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = FaultProxy("127.0.0.1", port, fault=Reset(after=2))
    async with server, proxy, client(proxy) as caller:
        assert await caller.receive_all(2) == b"he"
        with pytest.raises(ConnectionResetError):
            await caller.receive()


async def test_bytes_count_from_when_the_fault_holds() -> None:
    """What passed before does not count, and each connection counts its own."""
    async with proxied() as (_, proxy), client(proxy) as caller, client(proxy) as other:
        for each in (caller, other):
            assert await each.ask(b"before") == b"before"
        proxy.fault = Reset(after=3)
        for each in (caller, other):
            await each.send(b"after")
            assert await each.receive_all(3) == b"aft"
            with pytest.raises(ConnectionResetError):
                await each.receive()


async def test_half_closed_at_once() -> None:
    """The client reads an end before any answer, and the target still hears it."""
    async with proxied(HalfClose()) as (target, proxy), client(proxy) as caller:
        assert await caller.receive() == b""
        await caller.send(b"still here")
        await until(lambda: target.heard == b"still here")
        assert proxy.live == 1


async def test_half_closed_in_the_middle() -> None:
    """The client gets that many bytes, then an end; what follows is swallowed."""
    async with proxied(HalfClose(after=3)) as (target, proxy), client(proxy) as caller:
        await caller.send(b"abcdef")
        assert await caller.receive_all(3) == b"abc"
        assert await caller.receive() == b""
        await caller.send(b"more")
        await until(lambda: target.heard == b"abcdefmore")
        caller.socket.shutdown(socket.SHUT_WR)
        await until(lambda: proxy.live == 0)
        assert (target.ends, target.resets) == (1, 0)


@pytest.mark.parametrize("rate", [20.0, 1000.0])
async def test_slow_answers_take_their_time(rate: float) -> None:
    """So many bytes a second and no more, and the first not at once."""
    said = b"x" * int(rate * SHORT * 2)
    async with proxied(Slow(rate)) as (_, proxy), client(proxy) as caller:
        started = time.monotonic()
        await caller.send(said)
        first = await caller.receive()
        assert len(first) <= max(1, rate * SHORT)
        assert first + await caller.receive_all(len(said) - len(first)) == said
    assert time.monotonic() - started >= SHORT * 2 * 0.9


async def test_slowness_ends_with_its_fault() -> None:
    """What was held back comes whole, and nothing twice, under the next fault."""
    said = bytes(range(200))
    async with proxied(Slow(10.0)) as (_, proxy), client(proxy) as caller:
        await caller.send(said)
        first = await caller.receive()
        assert len(first) == 1
        proxy.fault = PASS
        assert first + await caller.receive_all(len(said) - len(first)) == said


async def test_garbage_instead_of_the_answer() -> None:
    """The target hears the request, the client hears something else and then an end."""
    async with proxied(Garbage(b"\x00<html>")) as (target, proxy), client(proxy) as caller:
        await caller.send(b"the truth?")
        assert await caller.receive_all(7) == b"\x00<html>"
        assert await caller.receive() == b""
        assert target.heard == b"the truth?"
        async with client(proxy) as other:
            await other.send(b"x")
            assert await other.receive_all(7) == b"\x00<html>"


async def test_flapping_takes_turns() -> None:
    """Every other connection is in trouble, from the first one on."""
    async with proxied(Flap(Reset(), PASS)) as (_, proxy):
        for _ in range(3):
            async with client(proxy) as bad:
                with pytest.raises(ConnectionResetError):
                    await bad.receive()
            async with client(proxy) as good:
                assert await good.ask(b"ok") == b"ok"
        proxy.fault = Flap(PASS, Refuse())
        async with client(proxy) as good, client(proxy) as bad:
            assert await good.ask(b"ok") == b"ok"
            with pytest.raises(ConnectionResetError):
                await bad.receive()


async def test_cut_ends_what_is_open_and_nothing_else() -> None:
    """Both sides of each open connection are reset; a new one works."""
    async with proxied() as (target, proxy):
        async with client(proxy) as one, client(proxy) as two:
            for each in (one, two):
                assert await each.ask(b"hi") == b"hi"
            assert proxy.cut() == 2
            for each in (one, two):
                with pytest.raises(ConnectionResetError):
                    await each.receive()
        await until(lambda: proxy.live == 0)
        async with client(proxy) as three:
            assert await three.ask(b"hi") == b"hi"
        assert target.resets == 2


async def test_a_target_that_is_down_resets() -> None:
    """Nobody behind the proxy is a reset, and the next connection finds who is there by then."""
    async with echo() as target:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            async with FaultProxy("127.0.0.1", nobody.getsockname()[1]) as proxy:
                async with client(proxy) as caller:
                    with pytest.raises(ConnectionResetError):
                        await caller.receive()
                proxy.target = ("localhost", target.port)
                async with client(proxy) as caller:
                    assert await caller.ask(b"up") == b"up"


async def test_a_client_that_is_gone_is_gone_for_the_target() -> None:
    """A client's reset reaches the target as one."""
    async with proxied() as (target, proxy):
        async with client(proxy) as caller:
            assert await caller.ask(b"x") == b"x"
            reset = struct.pack("ii", 1, 0)
            caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await until(lambda: target.ends + target.resets == 1)
        await until(lambda: proxy.live == 0)
    assert target.resets == 1


FAULTS: list[ProxyFault] = [
    PASS,
    Delay(LONG),
    Drop(),
    Refuse(),
    Reset(after=1),
    HalfClose(),
    Slow(0.5),
    Garbage(b"no"),
    Flap(Drop(), PASS),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_nothing_is_left_behind(fault: ProxyFault) -> None:
    """Whatever was going on, the end of the context leaves no task and no open file."""
    files = open_files()
    async with echo() as target:
        async with AsyncExitStack() as clients:
            async with FaultProxy("127.0.0.1", target.port) as proxy:
                one = await clients.enter_async_context(client(proxy))
                two = await clients.enter_async_context(client(proxy))
                for caller in (one, two):
                    assert await caller.ask(b"x") == b"x"
                assert tasks_of_proxy(), "the check below sees what it looks for"
                proxy.fault = fault
                await one.send(b"abc")
                if fault != Refuse():
                    await clients.enter_async_context(client(proxy))
            assert (proxy.live, tasks_of_proxy()) == (0, [])
        await until(lambda: target.open == 0)
    assert open_files() == files


async def test_what_a_test_raises_stays_what_it_is() -> None:
    """A failure in the context is not wrapped on its way out."""
    with pytest.raises(ZeroDivisionError):
        async with proxied() as (_, proxy), client(proxy):
            raise ZeroDivisionError


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_a_cancelled_test_leaves_nothing_behind() -> None:
    """A test that runs out of time in the middle of a hang ends its proxy all the same."""

    async def hang(port: int) -> None:
        async with FaultProxy("127.0.0.1", port, fault=Drop()) as proxy, client(proxy) as caller:
            await caller.send(b"x")
            await asyncio.get_running_loop().sock_recv(caller.socket, 1)

    files = open_files()
    async with echo() as target:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hang(target.port), SHORT)
        assert tasks_of_proxy() == []
        await until(lambda: target.open == 0)
    assert open_files() == files
