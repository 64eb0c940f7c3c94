"""A server that is killed at random moments and points, under unmodified SDKs of both kinds."""

import random
from collections.abc import Iterator, Sequence

import pytest

from tests.sdk.client import OpenClient
from tests.sdk.node_client import open_node
from tests.sdk.python_client import open_python
from tests.servers.killing import Killing, anyhow, anywhere

pytestmark = pytest.mark.servers

SEED = 20261126
KILLS = 3
"""In each stretch."""


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    """One server and one data directory for all of them."""
    killing = Killing(tmp_path_factory.mktemp("killing") / "data")
    yield killing
    killing.close()


async def live_through(
    killing: Killing, seed: str, clients: Sequence[OpenClient], devices: Sequence[OpenClient]
) -> None:
    """Let people live through random kills, and check that nothing is wrong with their history."""
    chance = random.Random(seed)
    kills = [(anywhere if index % 2 else anyhow)(chance) for index in range(KILLS)]
    found = await killing.stretch(kills, seed=seed, clients=clients, devices=devices)
    assert list(map(str, found)) == [], f"seed {seed!r}: {', '.join(map(str, kills))}"


@pytest.mark.parametrize("stretch", range(5))
async def test_r42_r47_r73_random_kills_break_no_promise(killing: Killing, stretch: int) -> None:
    """Whenever the server dies, nothing is lost, doubled or left open for the Python SDK."""
    seed = f"{SEED} python {stretch}"
    await live_through(killing, seed, [open_python], [open_python, open_python])


@pytest.mark.sdk_js
@pytest.mark.parametrize("stretch", range(2))
async def test_r42_r47_r73_random_kills_break_no_promise_to_javascript(
    killing: Killing, stretch: int
) -> None:
    """The same for the JavaScript SDK, and for a device of each kind beside one of the other."""
    seed = f"{SEED} javascript {stretch}"
    clients = [open_node, open_python]
    await live_through(killing, seed, clients, [open_python, open_node])
