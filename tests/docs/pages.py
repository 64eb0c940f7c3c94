"""The Python blocks of a page, executed as the page says: in order, in one running application."""

import ast
import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import uvicorn

ELSEWHERE = "<!-- not executed here: the guide executes it -->"
"""Stands above a block that needs a thread, or another application."""


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the Python blocks of a page in order, each with the number of its first line."""
    lines = page.read_text().splitlines()
    begins = [at for at, line in enumerate(lines) if line == "```python"]
    for at in begins:
        if lines[at - 1] != ELSEWHERE:
            end = lines.index("```", at)
            yield at + 2, "\n".join(lines[at + 1 : end]) + "\n"


def compiled(page: Path, line: int, text: str, port: int) -> CodeType:
    """Return a block as code that may await, whose line numbers are those of the page."""
    padded = "\n" * (line - 1) + text.replace(":8000", f":{port}")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(padded, str(page), "exec", flags=flags)
    return code


async def execute(code: CodeType, names: dict[str, Any]) -> None:
    """Execute a block of code, and await it if it awaits."""
    waiting = eval(code, names)
    if waiting is not None:
        await waiting


@asynccontextmanager
async def serving(app: Any, port_socket: socket.socket) -> AsyncGenerator[None, None]:
    """Serve an application on this event loop, as uvicorn serves it by default."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[port_socket]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    assert server.started
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def execute_page(page: Path) -> None:
    """Execute the blocks of a page: the first makes `app`, and the others run while it serves."""
    names: dict[str, Any] = {"__name__": page.stem}
    (line, code), *others = blocks(page)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        await execute(compiled(page, line, code, port), names)
        async with serving(names["app"], listening):
            for line, code in others:
                await execute(compiled(page, line, code, port), names)
