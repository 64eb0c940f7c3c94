"""What is written down about other frameworks is what the resolver says, without an address."""

from collections.abc import Iterable, Mapping

from tools.compat import FRAMEWORKS, PAGE, SHARED, Unresolvable, page, row

TOWPATH = "towpath[serve] @ file:///clone"


def old_beside_towpath(requirements: Iterable[str]) -> Mapping[str, str]:
    """Resolve as an index does where Towpath and a framework exclude each other's versions."""
    both = TOWPATH in requirements
    return {"crewai": "0.10.0" if both else "1.15.30", "rich": "15.0.0", "other": "1"}


def nothing_beside_towpath(requirements: Iterable[str]) -> Mapping[str, str]:
    """Resolve the framework alone only."""
    if TOWPATH in requirements:
        raise Unresolvable("no versions fit")
    return {"crewai": "1.15.30"}


def test_an_old_version_beside_towpath_is_found() -> None:
    """A resolver takes it silently; the row shows both versions and does not fit."""
    found = row("crewai", TOWPATH, old_beside_towpath)
    assert (found.alone, found.beside, found.fits) == ("1.15.30", "0.10.0", False)
    assert found.shared == {"rich": "15.0.0"}
    assert "| `crewai` | 1.15.30 | 0.10.0 |" in page([found])


def test_a_framework_that_cannot_be_resolved_beside_towpath_is_found() -> None:
    """The table says so in words."""
    found = row("crewai", TOWPATH, nothing_beside_towpath)
    assert not found.fits
    assert "cannot be resolved" in page([found])


def test_the_page_has_every_framework_at_its_current_version_and_no_address() -> None:
    """What is committed was written by the tool, when everything fitted."""
    text = PAGE.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [cells[0].strip("| `") for cells in rows] == list(FRAMEWORKS)
    assert [cells[0] for cells in rows if cells[1] != cells[2]] == []
    assert all(len(cells) == 3 + len(SHARED) for cells in rows)
    assert "://" not in text
