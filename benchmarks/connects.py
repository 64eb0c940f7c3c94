"""How many people a second get in, and how much of that is finding out who they are.

Three servers take turns on the server's core: one that asks for nothing, one that shares a secret
with whoever signs, and one that has fetched its keys from a provider in this process.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from benchmarks import servers
from benchmarks.figures import Measure, Sample
from benchmarks.load import LoadError, ignore, open_client, undisturbed
from benchmarks.machine import CLIENT_CPU, Usage
from towpath.testing.oidc_provider import OidcProvider

CONSTANT_APP = "benchmarks.peers.constant"
OPENING = 32
"""How many connections are being opened at the same time."""
USERS = 100
"""Whose tokens they are; each has one that is remembered."""
TURN = 100
"""Connections of each case before it is the next one's turn."""
WARM_UP_TURNS = 3

REFUSED = Measure("good tokens refused", "tokens", zero=True)


@dataclass(slots=True)
class Case:
    """One server and one kind of token."""

    title: str
    server: servers.Running
    token: Callable[[str], str]
    """Returns the token of a user."""
    refused: int = 0
    taken: int = 0
    seconds: float = 0.0
    client: list[float] = field(default_factory=list)
    """How busy this client was, in percent, of each turn."""

    @property
    def rate(self) -> float:
        """Connections a second."""
        return self.taken / self.seconds

    async def take_turn(self) -> None:
        """Let as many people in as a turn has."""
        tokens = [self.token(f"user{at % USERS}") for at in range(TURN)]
        with undisturbed():
            before = Usage.now(self.server.pid)
            self.refused += await _connect_all(self.server.port, tokens)
            after = Usage.now(self.server.pid)
        self.taken += TURN
        self.seconds += after.at - before.at
        self.client.append(after.since(before)[CLIENT_CPU])


@dataclass(frozen=True, slots=True)
class Connects:
    """People who connect, are let in, and leave."""

    name = "connects"
    turns: int

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.turns * TURN} connections in each case, {OPENING} at a time and in turns of "
            f"{TURN}, of {USERS} users; each closes when it has its connect reply"
        )

    def sample(self) -> Sample:
        """Measure once."""
        return uvloop.run(self._measure())

    async def _measure(self) -> Sample:
        async with contextlib.AsyncExitStack() as stack:
            cases = await _open(stack)
            for _ in range(WARM_UP_TURNS):
                for case in cases:
                    await case.take_turn()
            for case in cases:
                case.taken, case.seconds, case.client = 0, 0.0, []
            for _ in range(self.turns):
                for case in cases:
                    await case.take_turn()
        return _outcome(cases)


async def _open(stack: contextlib.AsyncExitStack) -> list[Case]:
    """Start the servers and return the cases, that without authentication first."""
    constant, _ = stack.enter_context(servers.gateway(CONSTANT_APP))
    shared, process = stack.enter_context(servers.gateway())
    provider = await stack.enter_async_context(OidcProvider())
    fetched = await stack.enter_async_context(servers.gateway_of(provider))

    def issued(user: str) -> str:
        return provider.token(user, jti=uuid.uuid4().hex)

    return [
        Case("constant", constant, lambda user: user),
        Case("HS256, never seen", shared, process.token),
        Case("HS256, remembered", shared, _repeated(process.token)),
        Case("RS256, never seen", fetched, issued),
        Case("RS256, remembered", fetched, _repeated(issued)),
    ]


def _repeated(token: Callable[[str], str]) -> Callable[[str], str]:
    """Return the same token for the same user each time."""
    known: dict[str, str] = {}

    def repeat(user: str) -> str:
        if user not in known:
            known[user] = token(user)
        return known[user]

    return repeat


async def _connect_all(port: int, tokens: Sequence[str]) -> int:
    """Let a connection in for each token, `OPENING` at a time; return how many were refused."""
    waiting = iter(tokens)
    refused = 0

    async def connect_some() -> None:
        nonlocal refused
        for token in waiting:
            try:
                client = await open_client(port, token, ignore)
            except LoadError:
                refused += 1
            else:
                await client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(OPENING):
            group.create_task(connect_some())
    return refused


def _outcome(cases: Sequence[Case]) -> Sample:
    sample: Sample = {REFUSED: sum(case.refused for case in cases)}
    for case in cases:
        sample[Measure(f"{case.title}: connects", "/s")] = case.rate
        busy = Measure(f"{case.title}: client CPU", "% of a core")
        sample[busy] = sum(case.client) / len(case.client)
    constant, *others = cases
    for case in others:
        sample[Measure(f"ratio: {case.title}", "÷ constant")] = case.rate / constant.rate
    return sample


FULL = Connects(turns=20)
QUICK = Connects(turns=2)
