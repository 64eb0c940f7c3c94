"""The wire is what it was: recorded conversations, replayed against a fresh real server.

Fields may be added to the wire, and nothing else may change. A field that is not in a transcript is
an error until `ADDED` declares it, so that it is added on purpose.
"""

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.transcripts import Replay, Step, load
from tools.transcripts import SCENARIOS, TRANSCRIPTS
from towpath.testing.server import ServerProcess

pytestmark = pytest.mark.servers

ADDED: dict[str, str] = {}
"""Fields that the wire got after the recording, like `connect.session`, and since when."""
PATHS = sorted(TRANSCRIPTS.glob("*.jsonl"))
LIMIT_SECONDS = 50.0


def replay(server: ServerProcess, steps: list[Step]) -> list[str]:
    """Replay the steps; return the problems."""

    async def bounded() -> list[str]:
        async with asyncio.timeout(LIMIT_SECONDS):
            return await Replay(server, ADDED).run(steps)

    return asyncio.run(bounded())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_server_says_today_what_it_said_when_it_was_recorded(path: Path, tmp_path: Path) -> None:
    """Every frame and every close has the fields and values of the transcript, in its order."""
    head, *steps = load(path)
    with ServerProcess(tmp_path / "data", environment=head["settings"]) as server:
        assert replay(server, steps) == []


def test_each_script_has_its_transcript() -> None:
    """What is recorded can be recorded again, from a script with the same settings."""
    recorded = {path.stem: load(path)[0] for path in PATHS}
    scripts = {one.name: {"about": one.about, "settings": one.settings} for one in SCENARIOS}
    assert recorded == scripts


def test_a_declared_field_is_in_no_transcript() -> None:
    """A declaration goes when its field is recorded."""
    texts = "".join(path.read_text() for path in PATHS)
    recorded = [path for path in ADDED if f'"{path.rpartition(".")[2]}":' in texts]
    assert recorded == []


def rename_a_field(steps: list[Step]) -> None:
    """Let the transcript have another name for the connection id."""
    connect = steps[2]["frame"]["connect"]
    connect["connection"] = connect.pop("client")


def change_a_code(steps: list[Step]) -> None:
    """Let the transcript have another code for an unknown method."""
    errors = [step["frame"]["error"] for step in steps if "error" in step.get("frame", {})]
    errors[0]["code"] += 1


def drop_a_field(steps: list[Step]) -> None:
    """Let the transcript lack a field: for its clients, the server has a new one."""
    del steps[2]["frame"]["connect"]["subs"]["user"]["recoverable"]


def change_a_type(steps: list[Step]) -> None:
    """Let the transcript have a text where the server has a number."""
    steps[2]["frame"]["connect"]["ping"] = "25"


def add_a_push(steps: list[Step]) -> None:
    """Let the transcript have a push that the server does not send."""
    push = {"channel": "user", "pub": {"data": {}, "offset": 1}}
    steps.append({"receive": "phone", "frame": {"push": push}})


def drop_a_reply(steps: list[Step]) -> None:
    """Let the transcript lack a reply that the server sends."""
    del steps[4]


def close_in_another_way(steps: list[Step]) -> None:
    """Let the transcript end with another code."""
    steps.append({"send": "phone", "frames": [{}]})
    steps.append({"closed": "phone", "code": 3502, "reason": "bad request"})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rename_a_field, "phone: connect.connection: missing"),
        (change_a_code, "phone: error.code: 104 instead of 105"),
        (drop_a_field, "phone: connect.subs.user.recoverable: a new field"),
        (change_a_type, "phone: connect.ping: 25 instead of '25'"),
        (add_a_push, "phone: did not come: {"),
        (drop_a_reply, "phone: came too: {"),
        (close_in_another_way, "phone: closed.code: 3501 instead of 3502"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_change_of_the_wire_is_found(
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[list[Step]], None],
    problem: str,
) -> None:
    """A transcript that differs from the server in one place is red, and names the place."""
    monkeypatch.setattr("tests.kit.transcripts.WAIT_SECONDS", 2.0)
    steps: list[Any] = copy.deepcopy(load(TRANSCRIPTS / "errors.jsonl")[1:])
    change(steps)
    problems = replay(server, steps)
    assert any(one.startswith(problem) for one in problems), problems
