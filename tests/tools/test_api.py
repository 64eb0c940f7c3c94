"""The check of the public API finds each kind of break, and lets what breaks nobody pass."""

from collections.abc import Callable
from pathlib import Path

import griffe
import pytest

from tools.api import (
    BASELINE,
    DECLARED,
    breaks,
    current_api,
    main,
    public_names,
    render,
    undeclared,
)
from towpath.aliases import Alias

SOURCE = """
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pydantic import BaseModel, Field

__all__ = ["Client", "Limits", "Shape", "send"]

class Base:
    def inherited(self) -> None: ...

class Client(Base):
    def __init__(self, url: str, *, timeout: float = 3.0) -> None:
        self.url = url

    async def call(self, name: str, data: bytes = b"", *, retry: bool = True) -> bytes: ...

    def _prepare(self, name: str) -> None: ...

@dataclass(frozen=True, kw_only=True)
class Shape:
    width: int
    height: int = 1

class Limits(BaseModel):
    rate: float = Field(default=5.0, gt=0)
    burst: int = 10

def send(client: Client, text: str, *, times: int = 1) -> None: ...

def unlisted(text: str) -> None: ...
"""
DOCUMENTED = "Also public: `towpath.extra.documented(text)`."
EXTRA = "def documented(text: str) -> None: ...\ndef internal(text: str) -> None: ...\n"

Api = Callable[..., str]


@pytest.fixture
def api(tmp_path: Path) -> Api:
    """Make a package out of texts, and return the stubs of its public names."""

    def make(source: str = SOURCE, *, page: str = DOCUMENTED, table: tuple[Alias, ...] = ()) -> str:
        root = tmp_path / "towpath"
        (root / "auth").mkdir(parents=True, exist_ok=True)
        texts = {"__init__": source, "extra": EXTRA}
        texts |= dict.fromkeys(("events", "manager", "testing", "telemetry", "auth/__init__"), "")
        for name, text in {**texts, "auth/verdicts": "def judge(token: str) -> bool: ..."}.items():
            (root / f"{name}.py").write_text(text)
        package = griffe.load("towpath", search_paths=[tmp_path], allow_inspection=False)
        assert isinstance(package, griffe.Module)
        return render(public_names(package, page, table))

    return make


def edited(old: str, new: str, text: str = SOURCE) -> str:
    """Return a text with one edit."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (', "send"]', "]", "towpath.send: Public object was removed"),
        ("def inherited", "def renamed", "towpath.Client.inherited: Public object was removed"),
        (
            'data: bytes = b"", *, retry: bool = True',
            'data: bytes = b""',
            "towpath.Client.call(retry): Parameter was removed",
        ),
        (
            "timeout: float = 3.0",
            "timeout: float = 5.0",
            "towpath.Client.__init__(timeout): Parameter default was changed",
        ),
        (
            "timeout: float = 3.0",
            "timeout: float",
            "towpath.Client.__init__(timeout): Parameter is now required",
        ),
        (
            "text: str, *, times",
            "text: str, to: str, *, times",
            "towpath.send(to): Parameter was added as required",
        ),
        (
            "client: Client, text",
            "text: str, client",
            "towpath.send(client): Positional parameter was moved",
        ),
        (
            "text: str, *, times",
            "*, text: str, times",
            "towpath.send(text): Parameter kind was changed",
        ),
        ("async def call", "def call", "towpath.Client.call: Function is no longer async"),
        ("def send", "async def send", "towpath.send: Function became async"),
        ("class Client(Base)", "class Client", "towpath.Client: Base class was removed"),
        (
            "height: int = 1",
            "height: int",
            "towpath.Shape.__init__(height): Parameter is now required",
        ),
        ("    width: int\n", "", "towpath.Shape.width: Public object was removed"),
        (
            "burst: int = 10",
            "burst: int = 9",
            "towpath.Limits.__init__(burst): Parameter default was changed",
        ),
        (
            "burst: int = 10",
            "burst: int",
            "towpath.Limits.__init__(burst): Parameter is now required",
        ),
        (
            "    rate: float = Field(default=5.0, gt=0)\n",
            "",
            "towpath.Limits.rate: Public object was removed",
        ),
    ],
)
def test_a_break_is_found(api: Api, old: str, new: str, expected: str) -> None:
    """What stops a user's program is named, with the object and what happened to it."""
    before, after = api(), api(edited(old, new))
    assert expected in breaks(before, after)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (', "send"]', ', "send", "unlisted"]'),
        ("times: int = 1", "times: int = 1, urgent: bool = False"),
        ("def _prepare(self, name: str)", "def _prepare(self)"),
        ("def unlisted(text: str)", "def unlisted()"),
        ("burst: int = 10", "burst: int = 10\n    depth: int = 3"),
        ("def inherited(self) -> None: ...", "def inherited(self) -> int: ..."),
    ],
)
def test_what_breaks_nobody_is_no_break(api: Api, old: str, new: str) -> None:
    """An added name, an added optional parameter, and everything that is not public."""
    before, after = api(), api(edited(old, new))
    assert breaks(before, after) == []


def test_what_the_page_names_is_public(api: Api) -> None:
    """A function that the reference names by its full path stays; the one beside it may go."""
    before = api()
    assert "def documented(" in before
    assert "def internal(" not in before
    assert breaks(before, api(page="")) == ["towpath.extra.documented: Public object was removed"]


def test_the_whole_of_some_modules_is_public(api: Api) -> None:
    """Verdicts and telemetry events need not be listed one by one."""
    assert "# module towpath.auth.verdicts\ndef judge(token: str) -> bool: ...\n" in api()


def row(name: str, replacement: str) -> Alias:
    """Return a row of the table."""
    return Alias(name=name, replacement=replacement, since="1", removed_in="2")


RENAMED = edited("def send", "def post", edited(', "send"]', ', "post"]'))


def test_a_row_of_the_table_declares_a_renaming(api: Api) -> None:
    """A name that is retired still works: it is no break, for functions, methods and classes."""
    before = api()
    assert breaks(before, api(RENAMED, table=(row("towpath.send", "towpath.post"),))) == []
    method = edited("async def call", "async def request")
    renamed = api(method, table=(row("towpath.Client.call", "towpath.Client.request"),))
    assert breaks(before, renamed) == []
    cls = edited("class Shape", "class Form", edited(', "Shape"', ', "Form"'))
    assert breaks(before, api(cls, table=(row("towpath.Shape", "towpath.Form"),))) == []


def test_a_row_does_not_hide_another_signature(api: Api) -> None:
    """The old name is called with the old arguments, which the replacement has to take."""
    table = (row("towpath.send", "towpath.post"),)
    after = api(edited(", *, times: int = 1", "", RENAMED), table=table)
    assert breaks(api(), after) == ["towpath.send(times): Parameter was removed"]


def test_a_row_that_is_dropped_is_a_break(api: Api) -> None:
    """A retired name is part of the next baseline, also in a module that is retired as a whole."""
    before = api(table=(row("towpath.old", "towpath.extra"), row("towpath.say", "towpath.send")))
    assert sorted(breaks(before, api())) == [
        "towpath.old.documented: Public object was removed",
        "towpath.say: Public object was removed",
    ]


def test_a_declared_break_needs_a_reason_and_a_break() -> None:
    """Each break is declared once, and each declaration is of a break."""
    found = ["towpath.a: Public object was removed", "towpath.b: Public object was removed"]
    assert undeclared(found, dict.fromkeys(found, "Nobody can call it.")) == []
    assert undeclared(found, {found[0]: "Nobody can call it.", found[1]: " "}) == [
        f"{found[1]}: not declared"
    ]
    assert undeclared([], {found[0]: "Nobody can call it."}) == [
        f"{found[0]}: declared, and is no break"
    ]


def test_the_committed_baseline_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make compare-api` is red for a name that the baseline has and the code has not."""
    assert main(["--check"]) == 0
    baseline = tmp_path / "baseline.pyi"
    baseline.write_text(f"{BASELINE.read_text()}\n# module towpath.gone\ndef gone() -> None: ...\n")
    monkeypatch.setattr("tools.api.BASELINE", baseline)
    monkeypatch.setattr("tools.api.current_api", lambda: BASELINE.read_text())
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert "towpath.gone.gone: Public object was removed: not declared" in capsys.readouterr().out


def test_the_baseline_is_written_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make api` writes what the code has, which breaks nothing that the code has."""
    baseline = tmp_path / "baseline.pyi"
    monkeypatch.setattr("tools.api.BASELINE", baseline)
    assert main([]) == 0
    assert baseline.read_text() == current_api()
    assert breaks(baseline.read_text(), baseline.read_text()) == []
    assert DECLARED.exists()
