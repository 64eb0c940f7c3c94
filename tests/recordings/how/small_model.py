"""Record the agent `assistant` with the small model: `python tests/recordings/how/small_model.py`.

Made with pydantic-ai-slim 2.68.0 and SmolLM2-135M in xllamacpp, as `make run` sets them up. These
are the events as a gateway publishes them.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from writing import record

from towpath.testing.server import ServerProcess

QUESTION = "Write three sentences about a narrow boat that waits at a lock in the rain."


async def told(server: ServerProcess) -> AsyncIterator[str]:
    """Yield what the gateway sends for one run."""
    message = {"id": "question", "role": "user", "content": QUESTION}
    asked = {"threadId": "canal", "runId": "passage", "messages": [message]}
    asked |= {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
    headers = {"Authorization": f"Bearer {server.token()}", "Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(timeout=120) as http,
        http.stream(
            "POST", f"{server.http}/agui/assistant", content=json.dumps(asked), headers=headers
        ) as answer,
    ):
        async for piece in answer.aiter_lines():
            yield piece


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        environment = {"TOWPATH_MODEL": "local"}
        with ServerProcess(Path(folder) / "data", environment=environment) as running:
            asyncio.run(record(told(running), "assistant-smollm2"))
