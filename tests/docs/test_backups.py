"""The commands of the page's part about backups, word for word, beside a real server."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.conversation import (
    Started,
    ask,
    from_the_start,
    seen_in,
    text_of,
    until_over,
    until_text,
)
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

PAGE = Path(__file__).parents[2] / "docs/how-to/operate.md"


def commands() -> dict[str, str]:
    """Return the commands of the part about backups, by the name of the command."""
    part = PAGE.read_text().partition("\n## Backups\n")[2].partition("\n## ")[0]
    blocks = [block.partition("\n```")[0] for block in part.split("```sh\n")[1:]]
    return {block.split()[1]: block for block in blocks}


@pytest.fixture
def shell(tmp_path: Path) -> "Shell":
    """A shell in the directory of a server, where `towpath` is this package."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "towpath"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m towpath "$@"\n')
    program.chmod(0o755)
    return Shell(tmp_path, f"{programs}:{os.environ['PATH']}")


class Shell:
    """Runs the commands of the page."""

    def __init__(self, directory: Path, path: str) -> None:
        self._directory = directory
        self._environment = {**os.environ, "PATH": path}
        self._commands = commands()

    async def run(self, name: str) -> str:
        """Run one command as it stands in the page, and return what it printed."""
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", self._commands[name]],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


async def recovered(client: WireClient, thread: str, position: dict[str, object]) -> bool:
    """Subscribe at a position, and return whether it is valid."""
    channel = f"thread:{thread}"
    answer = await client.command("subscribe", channel=channel, recover=True, **position)
    return bool(answer["subscribe"].get("recovered", False))


@pytest.mark.servers
async def test_the_backup_of_the_page_is_restored_by_the_page(tmp_path: Path, shell: Shell) -> None:
    """A copy made during runs comes back whole, and positions that clients had are gone."""
    server = ServerProcess(tmp_path / ".towpath")
    await asyncio.to_thread(server.start)
    try:
        token = server.token()
        async with wire_client(server.ws, token) as client:
            over = await ask(client, "hello", agent="echo")
            await until_over(client, over)
            running = await ask(client, "count 100000 at 100/s")
            await until_text(client, running)
            assert "checked" in await shell.run("backup")
            assert await shell.run("check") == "pages: sound\nrows: sound\n"
            later = await ask(client, "hello", agent="echo")
            await until_over(client, later)
            position = await position_of(client, over)
            text = text_of(client.events(over.channel))
        await asyncio.to_thread(server.stop)
        assert "towpath.db.replaced-1" in await shell.run("restore")
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, token) as client:
            assert not await recovered(client, over.thread, position)
            await client.command("unsubscribe", channel=over.channel)
            assert text_of(seen_in(await from_the_start(client, over.thread))) == text
            run = await client.rpc("run.get", run_id=running.run)
            assert (run["status"], run["code"]) == ("lost", "run.lost")
            events = seen_in(await from_the_start(client, running.thread))
            assert [one["type"] in TERMINAL for one in events].count(True) == 1
            gone = await client.command(
                "rpc", method="thread.get", data={"thread_id": later.thread}
            )
            assert gone["error"]["code"] == 404
            position = await position_of(client, over)
        await asyncio.to_thread(server.stop)
        await shell.run("new-epoch")
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, token) as client:
            assert not await recovered(client, over.thread, position)
        reasons = server.log.read_text()
        assert reasons.count("the log was restored from a backup") == 1
        assert reasons.count("`towpath new-epoch` was run") == 1
    finally:
        await asyncio.to_thread(server.kill)


async def position_of(client: WireClient, started: Started) -> dict[str, object]:
    """Return the position of a client that has seen all of a thread."""
    history = await client.command("history", channel=started.channel, limit=0)
    return {"offset": history["history"]["offset"], "epoch": history["history"]["epoch"]}
