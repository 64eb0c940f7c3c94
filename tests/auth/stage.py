"""Shared by the tests of authentication: manual clocks, coroutines run by hand, keys."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import detangle
from joserfc.jwk import Key

from towpath.auth.keys import FixedKey, KeyRing
from towpath.auth.tokens import Issuer, Keys, TokenVerifier
from towpath.auth.verdicts import Verdict

NOW = 1_800_000_000.0
"""The Unix time at which these tests start."""

P = ParamSpec("P")
T = TypeVar("T")


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def wall_clock() -> float:
    """Return the Unix time of a virtual loop."""
    return NOW + detangle.now()


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time, where a wait takes no real time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        detangle.run(functools.partial(test, *args, **kwargs))

    return run


def answered(awaited: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that awaits nothing."""
    try:
        awaited.send(None)
    except StopIteration as done:
        made: T = done.value
        return made
    awaited.close()
    raise AssertionError("it waited for something")


class Verifying:
    """A verifier whose keys are in memory, so that it returns without waiting."""

    def __init__(self, issuer: Issuer, keys: Keys | Key) -> None:
        fixed = FixedKey(keys) if isinstance(keys, Key) else keys
        self.verifier = TokenVerifier(issuer, fixed)

    def verify(self, credential: str, now: float = NOW) -> Verdict:
        return answered(self.verifier.verify(credential, now))


class Published:
    """A published key set that has been fetched already; see `towpath.auth.tokens.Keys`."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        return self.ring.find(kid, algorithm)

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        return None
