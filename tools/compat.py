"""Resolve Towpath beside the current versions of agent frameworks, and write down what comes out.

For each framework uv resolves it alone, and then together with `towpath[serve]` of this checkout,
with the index that uv is configured for. Where the two resolutions hold different versions of the
framework, Towpath keeps it back: that is printed, and the exit status is 1. The page
docs/reference/compatibility.md holds what was found; it names versions, and no address.

`make compat` runs this. CI does not: it asks an index for what is current, and tomorrow's answer is
another one.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/compatibility.md"
FRAMEWORKS = (
    "openai-agents",
    "google-adk",
    "crewai",
    "langgraph",
    "pydantic-ai",
    "agno",
    "llama-index",
    "strands-agents",
    "fastmcp",
)
SHARED = ("websockets", "uvicorn", "starlette", "pydantic", "rich", "typer")
"""Packages that Towpath and frameworks both constrain."""
PYTHON = "3.11"

Resolve = Callable[[Iterable[str]], Mapping[str, str]]
"""Returns the version of each package that these requirements need."""


class Unresolvable(Exception):
    """No versions fit together; the sentence is the resolver's own."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found for one framework."""

    framework: str
    alone: str
    """Its version when it is resolved alone."""
    beside: str
    """Its version beside Towpath; empty where there is none."""
    shared: Mapping[str, str]
    """The versions of shared packages beside Towpath."""

    @property
    def fits(self) -> bool:
        """Whether Towpath leaves the framework at its current version."""
        return self.alone == self.beside


def resolve(requirements: Iterable[str]) -> Mapping[str, str]:
    """Ask uv for the versions that these requirements need, without any address.

    Raises:
        Unresolvable: there are none.
    """
    command = [
        str(Path(sys.executable).with_name("uv")),
        *("pip", "compile", "--quiet", "--python-version", PYTHON, "--no-header"),
        *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "-"),
    ]
    text = "\n".join(requirements)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unresolvable(done.stderr.strip())
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))


def row(framework: str, towpath: str, resolve: Resolve = resolve) -> Row:
    """Resolve one framework alone and beside Towpath.

    Raises:
        Unresolvable: the framework cannot be installed alone.
    """
    alone = resolve([framework])[framework]
    try:
        found = resolve([towpath, framework])
    except Unresolvable:
        found = {}
    shared = {name: found[name] for name in SHARED if name in found}
    return Row(framework=framework, alone=alone, beside=found.get(framework, ""), shared=shared)


def page(rows: Iterable[Row]) -> str:
    """Return the page of the documentation."""
    head = ("framework", "current", "beside Towpath", *SHARED)
    lines = [head, ["---"] * len(head)]
    for one in rows:
        beside = one.beside or "cannot be resolved"
        versions = (one.shared.get(name, "") for name in SHARED)
        lines.append([f"`{one.framework}`", one.alone, beside, *versions])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""# Compatibility

`towpath[serve]` installs beside the current version of each of these agent frameworks, on Python
{PYTHON}. `make compat` resolves them, one at a time, and writes this page. The other columns are
the versions of packages that both constrain, when the two are installed together.

{table}

CI runs the tests of the wire on the lowest versions that Towpath allows (`requirements/lowest.txt`)
and all tests on the newest ones (`requirements/dev.txt`). A mounted gateway needs fewer packages
than `towpath[serve]`: `towpath` alone requires neither uvicorn nor websockets, rich and typer.
"""


def main() -> int:
    """Write the page; return 1 where Towpath keeps a framework back."""
    towpath = f"towpath[serve] @ {ROOT.as_uri()}"
    rows = []
    for framework in FRAMEWORKS:
        rows.append(row(framework, towpath))
        verdict = "" if rows[-1].fits else f", which Towpath turns into {rows[-1].beside or 'none'}"
        print(f"{framework} {rows[-1].alone}{verdict}", flush=True)
    PAGE.write_text(page(rows))
    return int(not all(one.fits for one in rows))


if __name__ == "__main__":
    sys.exit(main())
