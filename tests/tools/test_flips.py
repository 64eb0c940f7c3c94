"""The long check of flipped bytes reports what is wrong, with the file, the byte and the copy."""

from pathlib import Path

import pytest

from tests.runs.tables.sqlite.test_damage import Left, leave
from tools import flips as tool
from tools.flips import STATES, Flip, flips, planned


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed server's log, with its content in the file."""
    return leave(tmp_path_factory.mktemp("flips") / "files", checkpointed=True)


def test_a_flip_that_costs_nothing_or_is_reported_is_counted(killed: Left, tmp_path: Path) -> None:
    """The lock file holds nothing that is read; a companion that is damaged costs the epoch."""
    flipped = [Flip(STATES[0], "log.lock", 0, 1), Flip(STATES[0], "log.companion", 0, 0xFF)]
    costs, wrong = flips(tmp_path, {STATES[0]: killed}, iter(flipped))
    assert wrong == []
    assert dict(costs) == {"no effect": 1, "reported": 1}
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_was_never_written_is_reported(
    killed: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is kept as it was after the flip, so that the same byte can be looked at."""
    monkeypatch.setattr(killed.known, "stored_result", b"another")
    one = Flip(STATES[0], "log.lock", 0, 1)
    costs, wrong = flips(tmp_path, {STATES[0]: killed}, iter([one]))
    assert costs.total() == 0
    assert [found.flip for found in wrong] == [one]
    assert (wrong[0].directory / "log.lock").read_bytes() != (
        killed.files / "log.lock"
    ).read_bytes()
    assert (wrong[0].directory / "log").read_bytes() == (killed.files / "log").read_bytes()


def test_many_wrong_logs_end_the_check(
    killed: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One defect that shows everywhere does not fill the disk with copies."""
    monkeypatch.setattr(tool, "MANY", 2)
    monkeypatch.setattr(killed.known, "stored_result", b"another")
    plan = (Flip(STATES[0], "log.lock", 0, 1) for _ in range(5))
    _, wrong = flips(tmp_path, {STATES[0]: killed}, plan)
    assert len(wrong) == 2


def test_a_plan_is_the_same_for_the_same_seed_and_reaches_each_state(killed: Left) -> None:
    """The states come in turn, and each byte of a state is as likely as any other."""
    left = dict.fromkeys(STATES, killed)
    plan = list(planned(left, 300, "7"))
    assert plan == list(planned(left, 300, "7"))
    assert [one.state for one in plan[:3]] == list(STATES)
    assert {"log", "log-shm", "log-wal"} <= {one.file for one in plan}
    assert all(one.at < (killed.files / one.file).stat().st_size for one in plan)
