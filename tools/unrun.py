"""Name the tests that pytest collects and the last run skipped or left out; exit 1 if any.

Usage: python tools/unrun.py JUNIT COLLECTED, where COLLECTED is the output of
`pytest --collect-only -q`. A test that is expected to fail has run.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree


def collected_in(listing: str) -> list[str]:
    """Return the node ids of a listing, `tests/delivery/test_outbox.py::test_merge[1]`."""
    return [line for line in listing.splitlines() if "::" in line.partition("[")[0]]


def report_id(node_id: str) -> str:
    """Return what a JUnit report calls a node: `tests.delivery.test_outbox.test_merge[1]`."""
    path, bracket, parameters = node_id.partition("[")
    file, *names = path.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names]) + bracket + parameters


def unrun(junit: str, listing: str) -> list[str]:
    """Return what was collected and has no result of its own in the report."""
    ran = set()
    for case in ElementTree.fromstring(junit).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is None or skipped.get("type") == "pytest.xfail":
            ran.add(f"{case.get('classname')}.{case.get('name')}")
    return [node_id for node_id in collected_in(listing) if report_id(node_id) not in ran]


def main() -> int:
    """Print each test that did not run."""
    junit, listing = (Path(name).read_text() for name in sys.argv[1:3])
    left_out = unrun(junit, listing)
    for node_id in left_out:
        print(f"not run: {node_id}")
    if not collected_in(listing):
        print("no tests were collected")
        return 1
    return int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
