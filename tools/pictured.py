"""The agents in the pictures of the documentation: each says the same every time."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator

from towpath import AgentError, Gateway
from towpath.agents.agent import AgentInput
from towpath.agents.demo import tools

ANSWER = """\
A lock lifts a boat by letting the **water** do the work:

1. The lower gates close behind the boat.
2. Paddles let water in from above, and the chamber fills.
3. At the level of the upper pound the upper gates open.

| lock | rise | time to fill |
| --- | ---: | ---: |
| Foxton | 3.7 m | 4 min |
| Bingley Five Rise | 3.6 m | 5 min |

How long a chamber takes is its volume over the flow:

```python
def minutes(length: float, width: float, rise: float, flow: float) -> float:
    \"\"\"Return how long a chamber takes to fill; metres, cubic metres per second.\"\"\"
    return length * width * rise / flow / 60
```

> A full lock is lighter on its gates than half a one.

More is in the [Waterways handbook](https://example.org/locks).
"""

gateway = Gateway()


@gateway.agent("assistant", double_texting="queue")
async def assistant(asked: AgentInput) -> AsyncGenerator[object, None]:
    """Explains locks, weirs and the art of waiting."""
    if "broken" in asked.message:
        yield "The upper gate "
        raise AgentError("the model does not answer", code="model.unavailable")
    if "buy" in asked.message or asked.resume:
        async for item in tools(asked):
            yield item
        return
    yield {"type": "REASONING_START", "messageId": "t"}
    yield {"type": "REASONING_MESSAGE_START", "messageId": "t", "role": "reasoning"}
    yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": "t", "delta": "Look the locks up."}
    yield {"type": "REASONING_MESSAGE_END", "messageId": "t"}
    yield {"type": "REASONING_END", "messageId": "t"}
    call = f"call-{asked.context.run}"
    yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "find_locks"}
    arguments = json.dumps({"near": "Leicester", "rise_over": 3.5})
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": arguments}
    yield {"type": "TOOL_CALL_END", "toolCallId": call}
    yield {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"result-{call}",
        "toolCallId": call,
        "content": json.dumps({"found": ["Foxton", "Bingley Five Rise"]}),
        "role": "tool",
    }
    slow = "slowly" in asked.message
    for piece in re.findall(r"\s*\S+", ANSWER):
        yield piece
        await asyncio.sleep(0.08 if slow else 0)
