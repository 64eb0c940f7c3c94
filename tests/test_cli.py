"""The command line: what it prints, and how it refuses."""

import logging
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tests.servers.conversation import ask, text_of, until_over
from towpath import cli
from towpath.auth.keys import development_issuer, development_key
from towpath.auth.tokens import TokenVerifier, Valid
from towpath.testing.client import wire_client
from towpath.testing.server import ServerProcess, free_port

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


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture
def towpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run the command to its end in this process, in a directory and environment of its own.

    An exception that would be a traceback in a process fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in os.environ:
        if name.startswith("TOWPATH_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["towpath", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    sys.modules.pop("own", None)


def in_a_process(*arguments: str, cwd: Path) -> Ended:
    """Run the command to its end in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "towpath", *arguments],
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if not key.startswith("TOWPATH_")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def assert_refused(done: Ended, *words: str) -> None:
    """One clear line on standard error, exit status 2, nothing else."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("towpath: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.servers
def test_version_is_one_line(tmp_path: Path) -> None:
    """`--version` prints the version and nothing else."""
    done = in_a_process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0.1.0", "")


def test_token_is_one_line_and_good(towpath: Command, tmp_path: Path) -> None:
    """`token` prints one good token; the key it made is readable by its owner alone."""
    done = towpath(
        "token", "--user", "alice", "--tenant", "acme", "--role", "operator", "--data", "d",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    key_file = tmp_path / "d" / "dev-key.json"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    verifier = TokenVerifier(development_issuer(development_key(tmp_path / "d")))
    verdict = verifier.verify(done.stdout.strip(), key_file.stat().st_mtime)
    assert isinstance(verdict, Valid)
    assert (verdict.principal.user, verdict.principal.tenant) == ("alice", "acme")
    assert verdict.principal.roles == {"operator"}


def test_a_token_needs_a_user_and_a_tenant(towpath: Command) -> None:
    """A blank name is refused."""
    done = towpath("token", "--user", " ", "--tenant", "acme", "--data", "d")
    assert_refused(done, "a user and a tenant")


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
        ("own:parrot", ("parrot", "no Gateway")),
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


def test_a_log_level_that_is_none_is_named(towpath: Command) -> None:
    """A wrong --log-level is refused with those there are."""
    done = towpath("serve", "--dev", "--log-level", "chatty")
    assert_refused(done, "chatty", "WARNING")


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
