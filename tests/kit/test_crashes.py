"""The table of points at which a server can be made to kill itself, and what stands behind it."""

import os
import subprocess
import sys

import pytest

from tests.kit.crashes import POINTS, VARIABLE, CrashPoint, crash_message
from tests.servers.killing import REACHED_BY, Kill
from tests.servers.test_crash_points import GROUPS


def test_every_point_has_its_round_and_its_way() -> None:
    """No point is left out of the rounds, and people know how to reach each one."""
    assert [point for group in GROUPS for point in group] == list(POINTS)
    assert {Kill(point).name for point in POINTS} == set(REACHED_BY)


def test_a_point_that_does_not_exist_is_refused() -> None:
    """A name with a slip of the pen kills nobody, and says so."""
    with pytest.raises(ValueError, match=r"there is no point ending\.during"):
        CrashPoint("ending.during:1")


@pytest.mark.servers
@pytest.mark.parametrize(("passings", "lives"), [(2, True), (3, False)])
def test_a_process_dies_at_the_passing_it_was_told(passings: int, lives: bool) -> None:
    """It passes its point so often, and other points too; then it dies with a line on stderr."""
    script = (
        "from tests.kit.crashes import CrashPoint\n"
        "crash = CrashPoint('reply:3')\n"
        f"for _ in range({passings}):\n"
        "    crash.passing('join', 'between')\n"
        "    crash.passing('between', 'reply')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if lives else -9)
    assert done.stderr == ("" if lives else f"{crash_message('reply')}\n")
