"""Write what an agent framework sends as a recording: one JSON object a line, with its pauses."""

import json
import time
from collections.abc import AsyncIterable
from pathlib import Path


async def record(events: AsyncIterable[str], name: str) -> None:
    """Take a stream of server-sent events, as a framework encodes it, and keep it.

    Args:
        events: the pieces of the stream.
        name: what the recording is called.
    """
    lines, before = [], time.monotonic()
    async for piece in events:
        for line in piece.splitlines():
            if line.startswith("data: "):
                now = time.monotonic()
                event = json.loads(line.removeprefix("data: "))
                lines.append(json.dumps({"after": round(now - before, 4), "event": event}))
                before = now
    path = Path(__file__).parents[1] / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} events, {path.stat().st_size} bytes")
