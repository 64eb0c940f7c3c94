"""The documentation says what the code says, today."""

import re

import pytest
from typer.models import CommandInfo

from tools.docs import PARTS, ROOT, pages, render
from towpath import codes, telemetry
from towpath.auth.policy import ROLES
from towpath.cli import main
from towpath.gateway import Gateway
from towpath.methods.table import METHODS
from towpath.settings import IssuerSettings, Settings
from towpath.telemetry import TelemetryEvent

REFERENCE = ROOT / "docs/reference"
EXPLANATION = ROOT / "docs/explanation"
PAGES = [str(page.relative_to(ROOT)) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_up_to_date(page: str) -> None:
    """What is printed from the code is what stands in the page; `make docs` brings it there."""
    text = (ROOT / page).read_text()
    assert render(text) == text


def test_every_part_stands_in_some_page() -> None:
    """No table is printed for nobody, and no part is marked twice in one page."""
    markers = [
        name
        for page in pages()
        for name in re.findall(r"<!-- begin: ([a-z-]+) -->", page.read_text())
    ]
    assert sorted(markers) == sorted(PARTS)


def test_a_page_that_says_something_else_is_found() -> None:
    """A number changed by hand is put right."""
    text = (REFERENCE / "codes.md").read_text()
    wrong = text.replace("| 3008 | too slow |", "| 3008 | too fast |")
    assert wrong != text
    assert render(wrong) == text


def test_the_codes_page_misses_none() -> None:
    """Every number a client may meet is in the reference."""
    text = (REFERENCE / "codes.md").read_text()
    numbers = [*codes.ERRORS, *codes.CLOSES]
    assert [number for number in numbers if f"| {number} |" not in text] == []
    assert [code for code in codes.RUN_CODES if f"`{code}`" not in text] == []


def test_the_settings_page_misses_none() -> None:
    """Every setting is in the reference, with a meaning."""
    text = (REFERENCE / "settings.md").read_text()
    explained = set(re.findall(r"^\| `(\w+)` \|.*\| \S.* \|$", text, re.MULTILINE))
    assert Settings.model_fields.keys() - explained == set()


def test_the_metrics_page_misses_none() -> None:
    """Every number of `/metrics` is in the reference."""
    exposed, _ = Gateway(Settings.model_construct()).metrics.exposition()
    kinds = rb"^# TYPE (\w+) (?:counter|histogram|gauge)$"
    shown = {name.decode() for name in re.findall(kinds, exposed, re.MULTILINE)}
    text = (REFERENCE / "metrics.md").read_text()
    assert len(shown) > 10
    assert [name for name in sorted(shown) if f"`{name}`" not in text] == []


def test_only_sizes_have_a_unit_of_bytes() -> None:
    """10,000 connections are no KiB; a bound in bytes also shows in a larger unit."""
    text = (REFERENCE / "settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\((\d+ [KM]iB)\)", text, re.MULTILINE)
    assert {name for name, _ in rows if not name.endswith("bytes")} == set()
    assert ("message_bytes", "1 MiB") in rows


def test_the_reference_misses_no_telemetry_event() -> None:
    """Every event that observers may get is there, with all of its fields."""
    text = (REFERENCE / "python.md").read_text()
    kinds = [
        kind
        for kind in vars(telemetry).values()
        if isinstance(kind, type)
        and issubclass(kind, TelemetryEvent)
        and kind is not TelemetryEvent
    ]
    assert len(kinds) > 15
    for kind in kinds:
        (row,) = re.findall(rf"^\| `{kind.__name__}` \| (.*?) \| \S", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == list(kind.__dataclass_fields__)


def test_the_fields_of_an_issuer_are_all_there() -> None:
    """Every field of an entry of `issuers` is in the reference, with a meaning."""
    text = (REFERENCE / "settings.md").read_text()
    explained = set(re.findall(r"^\| `(\w+)` \|.*\| \S.* \|$", text, re.MULTILINE))
    assert IssuerSettings.model_fields.keys() - explained == set()


def test_every_label_is_explained() -> None:
    """What a label of a metric may say is in the reference."""
    text = (REFERENCE / "metrics.md").read_text()
    printed, _, explained = text.partition("<!-- end: metrics -->")
    labels = {
        label
        for cells in re.findall(r"^\| `towpath_\w+` \| \w+ \| (.*?) \|", printed, re.MULTILINE)
        for label in re.findall(r"`(\w+)`", cells)
    }
    heads = "".join(re.findall(r"^\| (`.*?) \|", explained, re.MULTILINE))
    assert len(labels) > 10
    assert [label for label in sorted(labels) if f"`{label}`" not in heads] == []


def test_the_page_of_the_command_line_misses_none() -> None:
    """Every command is in the reference, those of groups with the name of their group."""
    text = (REFERENCE / "cli.md").read_text()
    groups = {group.name: group.typer_instance for group in main.app.registered_groups}
    names = [callback_name(command) for command in main.app.registered_commands]
    for group, own in groups.items():
        assert own is not None
        names += [f"{group} {callback_name(command)}" for command in own.registered_commands]
    assert "config check" in names
    assert [name for name in names if f"## `towpath {name}`" not in text] == []


def callback_name(command: CommandInfo) -> str:
    """Return what a command is called by."""
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_says_what_it_allows(role: str) -> None:
    """A role of the policy stands in the guide with as many sentences as it allows actions."""
    text = (ROOT / "docs/how-to/revoke-access.md").read_text()
    found = re.search(rf"^\| `{role}` \| (.*) \|$", text, re.MULTILINE)
    assert found is not None
    assert found[1].count(".") == len(ROLES[role])


@pytest.mark.parametrize("page", ["wire.md", "rest.md"])
def test_both_references_name_every_method(page: str) -> None:
    """What a client can call is in the reference of the wire and of REST."""
    text = (REFERENCE / page).read_text()
    assert [name for name in METHODS if f"`{name}`" not in text] == []


def test_the_table_of_failures_is_whole() -> None:
    """R01 to R125 stand in order, one row each, so that `make failures` can read them."""
    text = (EXPLANATION / "failures.md").read_text()
    ids = re.findall(r"^\| (R\d{2,3}) \| [^|]+ \|", text, re.MULTILINE)
    assert ids == [f"R{number:02}" for number in range(1, 126)]


def test_every_promise_names_tests_that_exist() -> None:
    """A promise's guard is a test of the suite, or the promise says that it is open."""
    text = (EXPLANATION / "promises.md").read_text()
    promised = re.findall(r"^## (P\d+)", text, re.MULTILINE)
    assert promised == [f"P{number}" for number in range(1, 11)]
    suite = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert [name for name in sorted(tests) if f"def {name}(" not in suite] == []
