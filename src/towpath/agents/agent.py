"""Agents: their input, their error, and the registry that refuses an invalid agent.

An agent is an async generator function of one argument. It gets an `AgentInput` and yields text,
AG-UI events, or mappings in wire form; it never sees a connection.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from towpath import codes
from towpath.channels import is_id
from towpath.errors import NotFound, TowpathError
from towpath.events.types import Message
from towpath.identity import UserExecutionContext


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInput:
    """The input of an agent: AG-UI's RunAgentInput, and the user it works for."""

    context: UserExecutionContext
    """The user and the thread of the run."""
    message: str
    """The text of the newest user message."""
    messages: list[Message]
    """The conversation, oldest first, up to the message that is to be answered; AG-UI wire form.

    Where a person requests another answer to a message, the messages after it are left out.
    """
    state: Any = None
    """The shared state of the thread."""
    tools: list[Mapping[str, Any]] = field(default_factory=list)
    """Tools the client offers, in AG-UI wire form."""
    client_context: list[Mapping[str, Any]] = field(default_factory=list)
    """What the client describes of its environment (AG-UI's `context`)."""
    forwarded_props: Any = None
    """What the client forwards uninterpreted."""
    resume: list[Mapping[str, Any]] = field(default_factory=list)
    """The answers to the interrupts of an earlier run."""


class AgentError(TowpathError):
    """Raised by an agent to end its run with a message that a person may read.

    Any other exception ends it too, with a general message, because its own may hold secrets.
    A code that begins with `run.` is the gateway's: the run then ends with `agent.failed`.
    """

    def __init__(self, message: str, *, code: str = codes.AGENT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class DoubleTexting(Enum):
    """How a run starts that is requested while another run is active on its thread."""

    REJECT = "reject"
    """It is refused; the person may stop the other run, or wait."""
    QUEUE = "queue"
    """It begins when the other run has ended, and those queued before it."""
    INTERRUPT = "interrupt"
    """The other run is cancelled first."""


DoubleTextingName = Literal["reject", "queue", "interrupt"]
"""The values of `DoubleTexting`, as `Gateway.agent` takes them."""

AgentFunction = Callable[[AgentInput], AsyncGenerator[object, None]]


class InvalidAgent(TowpathError):
    """The function or its registration is invalid; `reason` says why."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"agent {self.name!r} {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One registered agent."""

    name: str
    function: AgentFunction
    description: str
    deadline: float | None = None
    """Seconds until a run of it is ended with `run.deadline`; None takes the setting's."""
    double_texting: DoubleTexting = DoubleTexting.REJECT
    """How a run starts that is requested while another run is active on its thread."""


class AgentRegistry:
    """The agents of one gateway."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def register(
        self,
        name: str,
        function: AgentFunction,
        *,
        deadline: float | None = None,
        description: str = "",
        double_texting: str = DoubleTexting.REJECT.value,
    ) -> None:
        """Register an agent.

        Raises:
            InvalidAgent: the name is taken or malformed, or the function is not an async generator
                function of one argument. The other agents stay registered.
        """
        if not isinstance(name, str) or not is_id(name):
            raise InvalidAgent(name, "needs a name of 1 to 128 printable characters")
        if name in self._agents:
            raise InvalidAgent(name, "is registered already")
        if not _yields(function):
            raise InvalidAgent(name, "is not an async generator function: it must `yield`")
        if not _takes_one(function):
            raise InvalidAgent(name, "must take exactly one argument, the AgentInput")
        if deadline is not None and deadline <= 0:
            raise InvalidAgent(name, "needs a deadline above 0 seconds")
        policies = {policy.value: policy for policy in DoubleTexting}
        if double_texting not in policies:
            raise InvalidAgent(name, f"needs a double_texting that is one of {', '.join(policies)}")
        text = description or (inspect.getdoc(function) or "").partition("\n")[0]
        self._agents[name] = Agent(
            name=name,
            function=function,
            description=text,
            deadline=deadline,
            double_texting=policies[double_texting],
        )

    def get(self, name: str) -> Agent:
        """Return the agent of that name.

        Raises:
            NotFound: no agent has that name.
        """
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound("no such agent")
        return agent

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)


def _yields(function: object) -> bool:
    if inspect.isclass(function):
        return False
    target = function if inspect.isroutine(function) else getattr(function, "__call__", None)  # noqa: B004
    return inspect.isasyncgenfunction(target)


def _takes_one(function: AgentFunction) -> bool:
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        return False
    return True
