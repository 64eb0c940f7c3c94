"""An agent that pushes: a framework with callbacks, whose callbacks push events with the bridge.

    pip install towpath fastapi 'uvicorn[standard]'
    export TOWPATH_JWT_KEY="$(openssl rand -hex 32)" TOWPATH_TENANT=acme
    uvicorn examples.push_agent:app

Open http://127.0.0.1:8000/towpath/ and paste a token; `python examples/sign_token.py alice` signs
one, where the variables are set too. The agent `grocer` answers there. With the token in TOKEN, the
same work begins from outside of the chat, and the chat page shows it:

    curl -X POST -H "Authorization: Bearer $TOKEN" \
        "http://127.0.0.1:8000/questions?question=pears+and+plums"
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, Header, HTTPException
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from towpath import (
    AgentInput,
    AgentWebSocketBridge,
    Delivered,
    Gateway,
    Queued,
    Refused,
    UserExecutionContext,
)

logger = logging.getLogger("grocer")
gateway = Gateway()
app = FastAPI()
gateway.mount(app, "/towpath")

PRICES = {"pears": 0.3, "plums": 0.2, "quinces": 0.9}


class Callbacks(Protocol):
    """What the framework calls while it works."""

    async def on_thought(self, text: str) -> None: ...
    async def on_tool_start(self, tool: str, arguments: dict[str, str]) -> None: ...
    async def on_tool_end(self, tool: str, result: float) -> None: ...


async def framework(question: str, callbacks: Callbacks) -> str:
    """Answer a question; stands for an agent framework with callbacks.

    Raises:
        LookupError: the question names nothing that has a price.
    """
    await callbacks.on_thought("Which fruits does the question name?")
    fruits = [word for word in question.lower().split() if word in PRICES]
    if not fruits:
        raise LookupError("We have none of that.")
    for fruit in fruits:
        await callbacks.on_tool_start("price", {"of": fruit})
        await asyncio.sleep(0.1)  # A tool takes its time.
        await callbacks.on_tool_end("price", PRICES[fruit])
    return f"Together they cost {sum(PRICES[fruit] for fruit in fruits):.2f}."


class RunEnded(Exception):
    """The run has ended, so the framework need not go on."""


class PushingCallbacks:
    """Callbacks that push what happens into a run."""

    def __init__(self, bridge: AgentWebSocketBridge, run: str) -> None:
        self._bridge = bridge
        self._run = run

    async def on_thought(self, text: str) -> None:
        """Push a reasoning message."""
        check(await self._bridge.notify_agent_thinking(self._run, text))

    async def on_tool_start(self, tool: str, arguments: dict[str, str]) -> None:
        """Push a tool call."""
        check(await self._bridge.notify_tool_executing(self._run, tool, arguments))

    async def on_tool_end(self, tool: str, result: float) -> None:
        """Push the result of the tool call."""
        check(await self._bridge.notify_tool_completed(self._run, tool, result))


def check(sent: Delivered | Queued | Refused) -> None:
    """Stop the framework once its run has ended: stopped by the person, or past its deadline.

    Raises:
        RunEnded: the event was refused.
    """
    if isinstance(sent, Refused):
        raise RunEnded(sent.reason)


async def work(bridge: AgentWebSocketBridge, run: str, question: str) -> None:
    """Run the framework, push what happens, and end the run in each case."""
    try:
        answer = await framework(question, PushingCallbacks(bridge, run))
        await bridge.notify_agent_text(run, answer)
        await bridge.notify_agent_completed(run)
    except RunEnded:
        return
    except LookupError as error:
        await bridge.notify_agent_error(run, str(error), code="grocer.unknown")
    except Exception:
        logger.exception("the framework failed in run %s", run)
        await bridge.notify_agent_error(run, "The grocer has failed.")


def signed_in(authorization: Annotated[str, Header()] = "") -> UserExecutionContext:
    """Return the person who sent a request: your own log-in goes here."""
    key = OctKey.import_key(os.environ["TOWPATH_JWT_KEY"])
    try:
        token = jwt.decode(authorization.removeprefix("Bearer "), key, algorithms=["HS256"])
        jwt.JWTClaimsRegistry(exp={"essential": True}, sub={"essential": True}).validate(
            token.claims
        )
    except (JoseError, ValueError) as error:
        raise HTTPException(401, "sign in first") from error
    return UserExecutionContext(tenant=os.environ["TOWPATH_TENANT"], user=token.claims["sub"])


SignedIn = Annotated[UserExecutionContext, Depends(signed_in)]
working: set[asyncio.Task[None]] = set()


@app.post("/questions", status_code=202)
async def ask(question: str, person: SignedIn) -> dict[str, Any]:
    """Begin a run that no client starts, work on it in the background, and say where it begins."""
    bridge = AgentWebSocketBridge(person, gateway=gateway)
    started = await bridge.notify_agent_started(None, "grocer", question)
    if isinstance(started, Refused):
        raise HTTPException(503, started.reason)
    task = asyncio.create_task(work(bridge, started.run, question))
    working.add(task)  # The event loop keeps weak references to tasks only.
    task.add_done_callback(working.discard)
    position = {"epoch": started.position.epoch, "offset": started.position.offset}
    return {"thread_id": started.thread, "run_id": started.run, "position": position}


@app.get("/questions")
async def questions_in_progress() -> dict[str, int]:
    """Say how many questions the framework works on."""
    return {"working": len(working)}


@gateway.agent("grocer")
async def grocer(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say what fruits cost together."""
    run = request.context.run
    assert run is not None, "an agent works in a run"
    bridge = AgentWebSocketBridge(request.context, gateway=gateway)
    yield await framework(request.message, PushingCallbacks(bridge, run))
