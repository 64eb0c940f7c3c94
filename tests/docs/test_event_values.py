"""The reference of the values for agents: it misses none, and its examples publish what it says."""

import inspect
import re
from typing import Any

import pytest

from tools.docs import ROOT
from towpath import Gateway, Settings, events
from towpath.testing import FinishedRun, GatewayTestClient

_, _, REST = (ROOT / "docs/reference/python.md").read_text().partition("## Events in one line\n")
SECTION = re.split(r"^## ", REST, flags=re.MULTILINE)[0]
TABLE = re.findall(r"^\| (`.*`) \| (.*) \|$", SECTION, re.MULTILINE)
EXAMPLES = re.findall(r"^### (\w+)\n.*?^```python\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
FUNCTIONS = [
    name
    for name in events.__all__
    if inspect.isfunction(getattr(events, name)) and name != "golden_name"
]
MESSAGES = [
    {
        "id": "m",
        "role": "assistant",
        "toolCalls": [
            {"id": "c", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
        ],
    },
    {"id": "u", "role": "user", "content": "pears"},
]


async def published(code: str) -> FinishedRun:
    """Run the agent of an example to its end."""
    names: dict[str, Any] = {}
    exec(compile(code, "example", "exec"), names)
    (agent,) = [one for one in names.values() if inspect.isasyncgenfunction(one)]
    gateway = Gateway(Settings())
    gateway.agent("example")(agent)
    async with GatewayTestClient(gateway) as client:
        return await client.run("example", input={"messages": MESSAGES})


def test_the_reference_misses_no_function() -> None:
    """Each function stands in the table, with its parameters' names, and has an example."""
    assert sorted(name for name, _ in EXAMPLES) == sorted(FUNCTIONS)
    for name in FUNCTIONS:
        ((shown, _),) = [row for row in TABLE if f"`{name}(" in row[0]]
        (given,) = re.findall(rf"`{name}\((.*?)\)`", shown)
        named = [re.sub(r"=.*", "", one) for one in given.split(", ") if one != "*"]
        parameters = inspect.signature(getattr(events, name)).parameters
        assert named
        assert set(named) <= {str(one).partition(":")[0] for one in parameters.values()}


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
async def test_an_example_publishes_what_the_table_says(name: str, code: str) -> None:
    """Its run ends well, and has every event of the function's row."""
    run = await published(code)
    assert run.code is None
    ((_, row),) = [row for row in TABLE if f"`{name}(" in row[0]]
    promised = re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", row)
    assert promised
    kinds = [event["type"] for event in run.events]
    assert set(promised) <= set(kinds)
    if "`interrupt`" in row:
        assert run.ending["outcome"]["type"] == "interrupt"
