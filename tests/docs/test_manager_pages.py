"""The pages about the manager and the bridge: their examples run, and their tables are whole."""

import inspect
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import execute_page
from tools.docs import ROOT
from towpath.events.types import IllegalEvent
from towpath.manager import AgentWebSocketBridge, WebSocketManager
from towpath.runs.golden import GoldenPath
from towpath.runs.model import RunKey
from towpath.runs.run import Run

REFERENCE = ROOT / "docs/reference"
SECRET = "a shared secret of thirty-two bytes or more"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment that the README tells people to set, and a data directory of its own."""
    monkeypatch.setenv("TOWPATH_JWT_KEY", SECRET)
    monkeypatch.setenv("TOWPATH_TENANT", "acme")
    monkeypatch.setenv("TOWPATH_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("page", ["websocket-manager.md", "agent-websocket-bridge.md", "python.md"])
async def test_the_examples_of_a_page_do_what_the_page_says(page: str) -> None:
    """Every block of the page runs, in order, in the application that the page begins with."""
    await execute_page(REFERENCE / page)


METHODS = re.findall(
    r"\w+",
    """
send_to_user send_to_user_with_wait send_agent_event connect_user disconnect_user broadcast
broadcast_message add_connection remove_connection add_connection_by_user remove_connection_by_user
handle_connection handle_disconnection get_connection get_user_connections find_connection
get_connection_id_by_websocket get_connection_count is_connection_active is_user_connected
get_connection_health wait_for_connection update_connection_thread send_to_thread handle_message
attempt_message_recovery connect_to_job disconnect_from_job force_cleanup_user_events
emit_critical_event
""",
)
"""The 29 methods of the design, and `emit_critical_event`."""
DUPLICATES = {
    "add_connection_by_user": "add_connection",
    "broadcast_message": "broadcast",
    "handle_disconnection": "remove_connection",
    "remove_connection_by_user": "disconnect_user",
}
BRIDGE_METHODS = [name for name in vars(AgentWebSocketBridge) if not name.startswith("_")]
MANAGER_TEXT = (REFERENCE / "websocket-manager.md").read_text()
BRIDGE_TEXT = (REFERENCE / "agent-websocket-bridge.md").read_text()
SHOWN_BY = re.compile(r"^\| \[`(\w+)`\].* \| (.*) \|$", re.MULTILINE)


def test_the_manager_has_the_methods_of_the_design_and_no_others() -> None:
    """The 29 methods and `emit_critical_event` are what people can call on a manager."""
    assert len(METHODS) == 30
    public = {name for name in dir(WebSocketManager) if not name.startswith("_")}
    assert public - {"context", "tenant", "check_running"} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_test_shows_the_behaviour_of_each_method(method: str) -> None:
    """The table names a test that exists, and whose name begins with that of the method."""
    shown = dict(SHOWN_BY.findall(MANAGER_TEXT))
    found = re.fullmatch(r"\[`(\w+)`\]\(\.\./\.\./(.*)\)", shown[method])
    assert found is not None, f"write tests/manager: test_{method}_…, then run `make docs`"
    name, path = found.groups()
    assert name.startswith(f"test_{method}_")
    assert f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("method", sorted(set(METHODS) - DUPLICATES.keys()))
def test_each_method_of_the_manager_has_a_section_and_an_example(method: str) -> None:
    """The section gives the call as it is, and an example of the reference uses it."""
    assert_described(MANAGER_TEXT, WebSocketManager, method)


@pytest.mark.parametrize("method", BRIDGE_METHODS)
def test_each_method_of_the_bridge_has_a_section_and_an_example(method: str) -> None:
    """The section gives the call as it is, and an example of the reference uses it."""
    assert_described(BRIDGE_TEXT, AgentWebSocketBridge, method)


def assert_described(page: str, owner: type, method: str) -> None:
    """Check the section of a method, and that the method is called in a block of the page."""
    (section,) = re.findall(rf"^#### `{method}`\n\n(.*?)(?=^#|^```|\Z)", page, re.M | re.S)
    (shown,) = re.findall(rf"`((?:await )?{method}\(.*?\))`", " ".join(section.split()))
    function = getattr(owner, method)
    assert shown.startswith("await ") == inspect.iscoroutinefunction(function)
    accepted = list(inspect.signature(function).parameters.values())[1:]
    written = inspect.signature(declared(shown)).parameters.values()
    assert [(one.name, one.kind, one.default) for one in written] == [
        (one.name, one.kind, one.default) for one in accepted
    ]
    examples = "".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S))
    assert f".{method}(" in examples


def declared(call: str) -> Callable[..., None]:
    """Return a function with the parameters that a call of the documentation shows."""
    names: dict[str, Callable[..., None]] = {}
    exec(f"def {call.removeprefix('await ')}: ...", names)
    return names[call.removeprefix("await ").partition("(")[0]]


@pytest.mark.parametrize(("duplicate", "replacement"), DUPLICATES.items())
def test_a_duplicate_is_its_replacement_with_a_warning(duplicate: str, replacement: str) -> None:
    """What the table of duplicates says is true: the same method, and a warning that names it."""
    assert re.search(rf"^\| `{duplicate}` \| `{replacement}` \|", MANAGER_TEXT, re.MULTILINE)
    with pytest.warns(DeprecationWarning, match=rf"WebSocketManager\.{replacement} "):
        found = getattr(WebSocketManager, duplicate)
    assert found is getattr(WebSocketManager, replacement)


def test_the_page_has_every_reason_of_a_refusal() -> None:
    """Each reason that the package gives has a row, and each row a reason that is given."""
    package = (ROOT / "src/towpath/manager").glob("*.py")
    given = {
        reason for path in package for reason in re.findall(r'Refused\("(\w+)"', path.read_text())
    }
    given |= {"no_run", "run_over"}  # One line gives either of the two.
    assert set(re.findall(r"^\| `(\w+)` \| [A-Z].*\. \|$", MANAGER_TEXT, re.MULTILINE)) == given


GOLDEN_ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", BRIDGE_TEXT, re.MULTILINE)
GOLDEN_EVENTS = {
    "agent_started": [],
    "agent_thinking": [
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
    ],
    "tool_executing": ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"],
    "tool_completed": ["TOOL_CALL_RESULT"],
    "agent_completed": ["RUN_FINISHED"],
    "agent_error": ["RUN_ERROR"],
}


def test_the_names_of_the_golden_path_are_all_in_the_table() -> None:
    """The five names, and the one for an error, have a row each."""
    assert [name for name, _, _ in GOLDEN_ROWS] == list(GOLDEN_EVENTS)


@pytest.mark.parametrize(("name", "fields", "becomes"), GOLDEN_ROWS)
def test_a_name_of_the_golden_path_is_what_its_row_says(
    name: str, fields: str, becomes: str
) -> None:
    """Its fields are accepted, a further one or a missing one is refused, and AG-UI comes out."""
    path, ids = GoldenPath(), itertools.count()
    key = RunKey(tenant="acme", user="alice", thread="t", run="r", agent="planner")
    run = Run(key, history=[], new_id=lambda: f"id-{next(ids)}")
    run.begin({"messages": []})
    if name == "tool_completed":
        run.feed(path.item("tool_executing", {"tool_name": "1", "tool_call_id": "1"}))
    known = dict.fromkeys(re.findall(r"`(\w+)`", fields), "1")
    required = [] if " or " in fields else re.findall(r"`(\w+)`(?!\?)", fields)
    with pytest.raises(IllegalEvent, match="has no field 'colour'"):
        path.item(name, {**known, "colour": "1"})
    for one in required:
        with pytest.raises(IllegalEvent, match=f"needs the field '{one}'"):
            path.item(name, {other: "1" for other in known if other != one})
    events = [made.event["type"] for made in run.feed(path.item(name, known))]
    assert events == GOLDEN_EVENTS[name]
    assert set(re.findall(r"\b(?:TOOL_CALL|RUN)_(?!STARTED)\w+", becomes)) <= set(events)
