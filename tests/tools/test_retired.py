"""A retired identifier is found wherever it stands in code, and nowhere else."""

from pathlib import Path

import pytest

from tools.retired import EXEMPT, RETIRED, ROOT, SOON, Retired, check, check_all

TABLE = (Retired("Fault", "InternalError"), Retired("left", "remaining", ("src/towpath/log",)))


@pytest.mark.parametrize(
    "source",
    [
        "Fault",
        "errors.Fault",
        "def make(Fault): ...",
        "def Fault(): ...",
        "async def Fault(): ...",
        "class Fault: ...",
        "make(Fault=1)",
        "from towpath import Fault",
        "import errors as Fault",
        "try: ...\nexcept OSError as Fault: ...",
        "def set_it():\n    global Fault",
        "match it:\n    case Fault: ...",
        "match it:\n    case [*Fault]: ...",
        "match it:\n    case {**Fault}: ...",
        "match it:\n    case Error(Fault=1): ...",
        "lambda Fault: 1",
        'f"{Fault}"',
    ],
)
def test_every_kind_of_identifier_is_found(source: str) -> None:
    """A name, an attribute, a parameter, a keyword, a definition, an import, a pattern."""
    (finding,) = check("src/towpath/codes.py", source, TABLE)
    assert finding.retired is TABLE[0]


@pytest.mark.parametrize(
    "source",
    [
        '"""Fault, in prose."""',
        "# Fault, in a comment.",
        "where = 'Fault'",
        "FaultProxy",
        "fault",
        "from towpath.Fault import thing",
    ],
)
def test_prose_strings_and_parts_of_words_are_left_alone(source: str) -> None:
    """Only a whole identifier counts."""
    assert check("src/towpath/codes.py", source, TABLE) == []


def test_an_ambiguous_word_is_banned_only_where_it_came_from() -> None:
    """The same name may stand in another room, and in a room whose name begins alike."""
    assert check("src/towpath/log/broker.py", "left = 1", TABLE)
    assert check("src/towpath/http/agui.py", "left = 1", TABLE) == []
    assert check("src/towpath/logbook/page.py", "left = 1", TABLE) == []


def test_the_table_of_public_names_may_name_them() -> None:
    """`aliases.py` holds every retired public name, and is never looked at."""
    assert EXEMPT == ("src/towpath/aliases.py",)
    assert check(EXEMPT[0], "Fault = 1", TABLE) == []


def test_a_class_may_declare_a_retired_method() -> None:
    """Only as a `RetiredMethod`; each other use of the word in the same file is found."""
    source = "class It:\n    Fault = RetiredMethod(error)\nFault = Method(error)\nFault"
    assert [one.line for one in check("src/towpath/codes.py", source, TABLE)] == [3, 4]


def test_a_finding_says_where_it_is_and_what_to_write() -> None:
    """Path, line, word and replacement are in the one line that is printed."""
    (finding,) = check("src/towpath/codes.py", "\nFault", TABLE)
    assert str(finding) == ("src/towpath/codes.py:2: `Fault` is retired, use InternalError")


def test_a_whole_repository_is_walked(tmp_path: Path) -> None:
    """Every checked directory is searched, at any depth."""
    deep = tmp_path / "tests/log"
    deep.mkdir(parents=True)
    (deep / "test_it.py").write_text("class Fault: ...")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/it.py").write_text("class Fault: ...")
    assert [one.path for one in check_all(tmp_path, TABLE)] == ["tests/log/test_it.py"]


def test_this_repository_uses_nothing_retired() -> None:
    """What `make lint` checks."""
    assert list(map(str, check_all(ROOT))) == []


def test_the_table_names_places_that_exist() -> None:
    """A room that moved takes its retired words along."""
    places = {place for one in RETIRED + SOON for place in one.places}
    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []


def test_a_word_is_retired_once_in_each_place() -> None:
    """One word has one replacement in a place, and is in force or on its way, not both."""
    pairs = [(one.word, place) for one in RETIRED + SOON for place in one.places]
    assert len(pairs) == len(set(pairs))
