"""The gateway tells a caller who they are to it, and which agents there are."""

from pathlib import Path

from tests.methods.stage import OPERATOR, methods_staged
from tests.runs.stage import saying
from towpath.methods.method import Caller


async def test_a_caller_learns_who_they_are(tmp_path: Path) -> None:
    """The principal and the connection of the call come back; over REST there is none."""
    expected = {
        "user": "olga",
        "tenant": "acme",
        "roles": ["towpath:operator"],
        "expires_at": None,
        "connection": None,
    }
    async with methods_staged(tmp_path) as stage:
        assert await stage.call("whoami", OPERATOR) == expected
        over_rpc = await stage.call("whoami", Caller(principal=OPERATOR, connection="c1"))
        assert over_rpc == {**expected, "connection": "c1"}


async def test_the_agents_are_listed(tmp_path: Path) -> None:
    """Each agent that is registered has a name, and its docstring as description."""
    async with methods_staged(tmp_path) as stage:
        assert await stage.call("agent.list") == {"agents": []}
        stage.runs.cast(saying("x"), "one")
        (row,) = (await stage.call("agent.list"))["agents"]
        assert (row["name"], row["description"]) == ("one", "Say what it was told to say.")
