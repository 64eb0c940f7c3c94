"""The plugin of pytest, in runs of pytest of its own, as a user of the package has them."""

import re
import tomllib
from importlib.metadata import entry_points

import pytest

from tools.docs import ROOT

pytest_plugins = ["pytester"]

INSTALLED = any(one.name == "towpath" for one in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "pytest_towpath")
"""Loads the plugin where the installed package has no entry point yet."""

ASYNC_TESTS = """
    import pytest
    from towpath import Gateway, Settings
    from towpath.testing import scripted

    {mark}

    @pytest.fixture
    def towpath_gateway():
        gateway = Gateway(Settings())
        gateway.agent("parrot")(scripted("Hello."))
        return gateway

    async def test_runs(towpath_client):
        assert (await towpath_client.run("parrot", "go")).text == "Hello."

    @pytest.mark.parametrize("user", ["alice", "bob"])
    async def test_runs_with_parameters(towpath_client, user):
        run = await towpath_client.run("parrot", "go", user=user)
        assert run.principal.user == user

    class TestInAClass:
        async def test_runs(self, towpath_client):
            assert (await towpath_client.run("parrot", "go")).text == "Hello."

    async def test_fails(towpath_client):
        run = await towpath_client.run("parrot", "go")
        assert run.text == "Goodbye."

    async def test_without_the_client():
        pass
"""

RUNNERS = {
    "asyncio strict": ("pytest.mark.asyncio", "asyncio_mode = strict"),
    "asyncio auto": ("[]", "asyncio_mode = auto"),
    "anyio": ("pytest.mark.anyio", ""),
    "anyio auto": ("[]", "anyio_mode = auto"),
}
"""How async tests are marked, and the setting, for each way to run them."""


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> str:
    """Configure one way to run async tests; returns the line that marks them."""
    kind = str(request.param)
    if kind.startswith("asyncio"):
        pytest.importorskip("pytest_asyncio")
    mark, setting = RUNNERS[kind]
    pytester.makeini(f"[pytest]\n{setting}\n")
    return f"pytestmark = {mark}"


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in a process of its own."""
    return pytester.runpytest_subprocess(*PLUGIN, *arguments)


def test_a_client_is_there_whatever_runs_the_test(pytester: pytest.Pytester, runner: str) -> None:
    """Async tests of functions and classes have a running client; a failure shows as it is."""
    pytester.makepyfile(ASYNC_TESTS.replace("{mark}", runner))
    result = run(pytester)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: assert 'Hello.' == 'Goodbye.'"])
    result.stdout.no_fnmatch_line("*ExceptionGroup*")


def test_a_client_in_the_wrong_place_says_so(pytester: pytest.Pytester) -> None:
    """A test that is not async, and a fixture that uses the client, get a sentence."""
    pytester.makepyfile("""
        import asyncio
        import pytest

        @pytest.fixture
        def asked(towpath_client):
            return asyncio.run(towpath_client.run("parrot", "go"))

        def test_is_not_async(towpath_client):
            pass

        @pytest.mark.anyio
        async def test_asks_too_early(asked):
            pass
    """)
    result = run(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*needs a test that is an `async def` function*", "*the client is not running*"],
    )


def test_client_clock_and_tokens_belong_together(pytester: pytest.Pytester) -> None:
    """The client's gateway takes the tokens, by the clock if the test asks for it."""
    pytester.makepyfile("""
        import httpx2
        import pytest
        import time

        pytestmark = pytest.mark.anyio

        async def status(gateway, token):
            transport = httpx2.ASGITransport(app=gateway)
            async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
                headers = {"authorization": f"Bearer {token}"}
                return (await http.get("/api/v1/whoami", headers=headers)).status_code

        async def test_with_a_clock(towpath_client, towpath_gateway, towpath_token, towpath_clock):
            token = towpath_token("bob", expires_in=60)
            assert await status(towpath_gateway, token) == 200
            towpath_clock.advance(7200)
            assert await status(towpath_gateway, token) == 401
            assert await status(towpath_gateway, towpath_token("bob")) == 200

        async def test_in_real_time(towpath_client, towpath_gateway, towpath_token):
            assert await status(towpath_gateway, towpath_token()) == 200
            assert await status(towpath_gateway, towpath_token(expires_in=-60)) == 401
    """)
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.servers
def test_a_server_serves_the_agents_of_a_test(pytester: pytest.Pytester) -> None:
    """A real server runs the module's gateway, on a port and a directory of its own."""
    pytester.makepyfile(
        shop="""
            from towpath import Gateway

            gateway = Gateway()

            @gateway.agent("grocer")
            async def grocer(request):
                "Sell fruit."
                yield "Pears."
        """,
        test_shop="""
            import httpx2
            import pytest

            @pytest.fixture
            def towpath_app():
                return "shop:gateway"

            def test_lists_its_agents(towpath_server, tmp_path):
                headers = {"authorization": f"Bearer {towpath_server.token()}"}
                url = f"{towpath_server.http}/api/v1/agents"
                agents = httpx2.get(url, headers=headers, trust_env=False).json()["agents"]
                assert agents == [{"name": "grocer", "description": "Sell fruit."}]
                assert towpath_server.data.parent == tmp_path
        """,
    )
    run(pytester).assert_outcomes(passed=1)


def test_the_plugin_costs_nothing_unless_it_is_used(pytester: pytest.Pytester) -> None:
    """A run of pytest that uses no fixture of it imports neither Towpath nor a plugin for async."""
    pytester.makepyfile("""
        import sys

        def test_imports():
            assert "pytest_towpath" in sys.modules
            heavy = {name.partition(".")[0] for name in sys.modules}
            assert not heavy & {"towpath", "pydantic", "starlette", "anyio", "pytest_asyncio"}
    """)
    run(pytester, "-p", "no:anyio", "-p", "no:asyncio").assert_outcomes(passed=1)


def test_every_fixture_is_explained(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` has a sentence on each, and the reference an entry."""
    shown = run(pytester, "--fixtures").stdout.str()
    reference = (ROOT / "docs/reference/testing.md").read_text()
    names = re.findall(r"^(towpath_\w+) -- .*\n    \w", shown, re.MULTILINE)
    assert sorted(names) == [
        "towpath_app",
        "towpath_client",
        "towpath_clock",
        "towpath_gateway",
        "towpath_server",
        "towpath_signer",
        "towpath_token",
    ]
    assert [name for name in names if f"`{name}`" not in reference] == []


def test_the_entry_point_names_the_plugin() -> None:
    """The package that is built announces the file that these tests load."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"towpath": "pytest_towpath"}
    assert (
        "src/pytest_towpath.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    )
