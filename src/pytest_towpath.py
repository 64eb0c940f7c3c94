"""Fixtures of Towpath's test kit for pytest; the entry point `towpath` of the group `pytest11`.

pytest imports this file at the start of each run in an environment that has Towpath. So the file is
no module of the package `towpath`, whose import takes about a second, and each fixture imports what
it needs itself. `pytest -p no:towpath` leaves the fixtures out.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from towpath import Gateway
    from towpath.testing import GatewayTestClient, ServerProcess, TokenSigner, VirtualClock


@pytest.fixture
def towpath_gateway(tmp_path: Path) -> Gateway:
    """A gateway without agents; define a fixture of this name that returns your own gateway."""
    from towpath import Gateway, Settings

    return Gateway(Settings(data=tmp_path / "towpath"))


@pytest.fixture
def towpath_clock() -> VirtualClock:
    """A clock that stands still; the client and the tokens of a test that asks for it use it."""
    from towpath.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def towpath_signer(request: pytest.FixtureRequest) -> TokenSigner:
    """The signer of the tokens that the gateway of `towpath_client` accepts."""
    from towpath.testing import TokenSigner

    clock = _clock(request)
    return TokenSigner() if clock is None else TokenSigner(now=clock.now)


@pytest.fixture
def towpath_token(towpath_signer: TokenSigner) -> Callable[..., str]:
    """Returns signed tokens; see `TokenSigner.token`."""
    return towpath_signer.token


@pytest.fixture
def towpath_client(
    request: pytest.FixtureRequest, towpath_gateway: Gateway, towpath_signer: TokenSigner
) -> Iterator[GatewayTestClient]:
    """A client of `towpath_gateway` that runs while the test runs; the test must be `async`.

    It is entered within the test's own task, whatever plugin runs the test.
    """
    from towpath.testing import GatewayTestClient

    client = GatewayTestClient(towpath_gateway, clock=_clock(request), signer=towpath_signer)
    test = request.node.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail("towpath_client needs a test that is an `async def` function", pytrace=False)

    @functools.wraps(test)
    async def within_client(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        async with client:
            return await test(*args, **kwargs)

    request.node.obj = within_client
    yield client
    request.node.obj = test


@pytest.fixture
def towpath_app() -> str | None:
    """What `towpath_server` serves, as `module:gateway`; None is the demo agents."""
    return None


@pytest.fixture
def towpath_server(
    request: pytest.FixtureRequest, tmp_path: Path, towpath_app: str | None
) -> Iterator[ServerProcess]:
    """A real server, in a process of its own, on a free port, over a data directory of the test.

    It imports what the test can import.
    """
    from towpath.testing import ServerProcess

    arguments = () if towpath_app is None else ("--app", towpath_app)
    imports = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    root = request.config.rootpath
    with ServerProcess(
        tmp_path / "towpath-server", *arguments, environment=imports, cwd=root
    ) as server:
        yield server


def _clock(request: pytest.FixtureRequest) -> VirtualClock | None:
    """Return the virtual clock if the test, or a fixture of it, asks for the clock."""
    if "towpath_clock" not in request.fixturenames:
        return None
    clock: VirtualClock = request.getfixturevalue("towpath_clock")
    return clock
