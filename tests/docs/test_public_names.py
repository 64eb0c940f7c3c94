"""The table of public names: each row is a name that users can import, as the row says."""

import ast
import inspect
import re
from typing import NamedTuple

import pytest

import towpath
from tools.docs import ROOT

PAGE = ROOT / "docs/reference/public-names.md"
DESIGNED = {
    "AgentWebSocketBridge",
    "CircuitBreaker",
    "Gateway",
    "UnifiedAuthenticationService",
    "UnifiedWebSocketAuth",
    "UserExecutionContext",
    "WebSocketManager",
    "create_websocket_manager",
    "get_websocket_manager",
}
"""The names of the design that exist so far: the validator has none yet."""
KINDS = {
    "class": lambda named: inspect.isclass(named) and not issubclass(named, BaseException),
    "exception": lambda named: inspect.isclass(named) and issubclass(named, BaseException),
    "function": lambda named: inspect.isfunction(named) and not inspect.iscoroutinefunction(named),
    "coroutine function": inspect.iscoroutinefunction,
}


class Row(NamedTuple):
    """One row of the table."""

    name: str
    parameters: str
    kind: str
    sentence: str
    link: str


ROWS = [
    Row(*found)
    for found in re.findall(
        r"^\| `(\w+)\((.*)\)` \| ([a-z ]+) \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE
    )
]


def test_the_table_has_every_public_name_once() -> None:
    """The rows are the names that `from towpath import *` gives, and those of the design."""
    names = [row.name for row in ROWS]
    assert sorted([*names, "__version__"]) == sorted(towpath.__all__)
    assert set(names) >= DESIGNED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_public_name_is_what_its_row_says(row: Row) -> None:
    """The name can be imported, is of this kind, takes these parameters, and is documented."""
    names: dict[str, object] = {}
    exec(f"from towpath import {row.name}", names)
    named = names[row.name]
    assert KINDS[row.kind](named)
    assert (inspect.getdoc(named) or "").replace("\n", " ").startswith(row.sentence.rstrip("."))
    assert callable(named)
    actual = inspect.signature(named).parameters
    if row.parameters == "*, …":
        assert len(actual) > 16
    else:
        positional, _, keywords = row.parameters.partition("*")
        given = [
            one.strip() for one in (*positional.split(","), *keywords.split(",")) if one.strip()
        ]
        assert [one.partition("=")[0] for one in given] == list(actual)
        assert keywords.count(",") == sum(one.kind is one.KEYWORD_ONLY for one in actual.values())
        for one, parameter in zip(given, actual.values(), strict=True):
            assert says_default(one.partition("=")[2], parameter)


def says_default(shown: str, parameter: inspect.Parameter) -> bool:
    """Whether the default that a row shows is that of the parameter; `…` stands for a value."""
    if shown in ("", "…"):
        return (parameter.default is parameter.empty) == (not shown)
    return bool(ast.literal_eval(shown) == parameter.default)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_public_name_has_a_place_in_the_reference(row: Row) -> None:
    """The row links to a section whose heading is the name."""
    found = re.fullmatch(r"\[.*\]\((.*\.md)#(.*)\)", row.link)
    assert found is not None, f"no page of the reference has a heading {row.name}"
    page = (PAGE.parent / found[1]).read_text()
    assert re.search(rf"^#+ {row.name}$", page, re.MULTILINE)
