"""The table of known failures says what the last run proved."""

import pytest

from tools.failures import Failure, Guard, read_failures, read_guards, result_of

LIST = """
| id | failure |
|---|---|
| R01 | an event is lost on reconnect |
| R17 | a token reaches the logs | extra |
"""

JUNIT = """
<testsuites><testsuite>
<testcase classname="tests.a" name="test_r01_r04_resume[one]" />
<testcase classname="tests.a" name="test_r01_r04_resume[two]"><failure>boom</failure></testcase>
<testcase classname="tests.a" name="test_r17_no_token_in_logs" />
<testcase classname="tests.a" name="test_r20_later"><skipped type="pytest.skip" /></testcase>
<testcase classname="tests.a" name="test_r21_r121_fixture"><error>boom</error></testcase>
<testcase classname="tests.a" name="test_error99_r5_r1234_names_no_failure" />
</testsuite></testsuites>
"""


def test_the_rows_with_an_id_are_the_failures() -> None:
    """Headings and further columns are not part of a title."""
    assert read_failures(LIST) == [
        Failure(id="R01", title="an event is lost on reconnect"),
        Failure(id="R17", title="a token reaches the logs"),
    ]


def test_a_test_guards_against_each_id_in_its_name() -> None:
    """Two ids in one name are two guards, and only whole ids count."""
    assert sorted(read_guards(JUNIT)) == [*("R01", "R04", "R121", "R17", "R20", "R21")]


def test_one_failing_parameter_fails_the_guard() -> None:
    """A guard is as good as its worst case."""
    assert read_guards(JUNIT)["R04"] == [Guard(name="test_r01_r04_resume", outcome="failed")]


@pytest.mark.parametrize(
    ("failure", "result"),
    [("R01", "failed"), ("R17", "passed"), ("R20", "skipped"), ("R21", "failed"), ("R99", "open")],
)
def test_the_result_of_a_failure_is_that_of_its_guards(failure: str, result: str) -> None:
    """Without a guard a failure is open, and an error in a fixture is a failed guard."""
    assert result_of(read_guards(JUNIT).get(failure, [])) == result
