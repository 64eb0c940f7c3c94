"""Threads of legal runs, made by hypothesis: text, tools, reasoning, steps, state, activities."""

import copy
from typing import Any

from hypothesis import strategies as st

from tests.events.client import Client

Event = dict[str, Any]
pieces = st.text(st.sampled_from("ab \n😀é"), min_size=1, max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | pieces,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=4,
)
ACTIONS = (
    *("text", "say", "say", "say", "hush"),
    *("call", "argue", "argue", "called", "result"),
    *("think", "muse", "muse", "thought"),
    *("step", "stepped", "agent", "left"),
    *("state", "patch", "activity", "act", "snapshot", "custom", "unknown"),
)


class Author:
    """Writes one thread, event by event, never an illegal one."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.events: list[Event] = []
        self.count = 0
        self.client = Client()
        self.open: dict[str, dict[str, str | None]] = {}
        self.called: list[str] = []
        self.past: list[str] = []

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def add(self, kind: str, by: str | None = None, **fields: Any) -> None:
        event = {"type": kind, **fields, **({"subagentRunId": by} if by else {})}
        self.events.append(event)
        self.client.take(event)

    def pick(self, bracket: str) -> tuple[str, str | None] | None:
        names = list(self.open.get(bracket, {}).items())
        return self.draw(st.sampled_from(names)) if names else None

    def run(self, length: int) -> None:
        ids = {"threadId": "t", "runId": self.new("run")}
        question = {"id": self.new("u"), "role": "user", "content": self.draw(pieces)}
        self.open = {name: {} for name in ("text", "tool", "thought", "reasoning", "step", "agent")}
        self.called = []
        self.add("RUN_STARTED", **ids, input={**ids, "messages": [question]})
        for action in self.draw(st.lists(st.sampled_from(ACTIONS), max_size=length)):
            getattr(self, f"do_{action}")()
        if self.draw(st.integers(0, 3)) == 0:
            self.add("RUN_ERROR", message="broken", code="x")
            return
        for bracket, closing in (
            *(("text", self.do_hush), ("tool", self.do_called), ("thought", self.do_thought)),
            *(("step", self.do_stepped), ("agent", self.do_left)),
        ):
            while self.open[bracket]:
                closing()
        self.add("RUN_FINISHED", **ids, outcome={"type": "success"})

    def somebody(self) -> str | None:
        names = [None, *self.open["agent"]]
        return self.draw(st.sampled_from(names))

    def do_text(self) -> None:
        key, by = self.new("m"), self.somebody()
        self.open["text"][key] = by
        self.add("TEXT_MESSAGE_START", by, messageId=key, role="assistant")

    def do_say(self) -> None:
        if picked := self.pick("text"):
            key, by = picked
            self.add("TEXT_MESSAGE_CONTENT", by, messageId=key, delta=self.draw(pieces))

    def do_hush(self) -> None:
        if picked := self.pick("text"):
            by = self.open["text"].pop(picked[0])
            self.add("TEXT_MESSAGE_END", by, messageId=picked[0])

    def do_call(self) -> None:
        key, by = self.new("c"), self.somebody()
        said = [
            message["id"]
            for message in self.client.messages
            if message["role"] == "assistant" and message.get("subagentRunId") == by
        ]
        parent = self.draw(st.sampled_from([None, *said]))
        self.open["tool"][key] = by
        home = {"parentMessageId": parent} if parent else {}
        self.add("TOOL_CALL_START", by, toolCallId=key, toolCallName="look", **home)
        self.add("TOOL_CALL_ARGS", by, toolCallId=key, delta='["')

    def do_argue(self) -> None:
        if picked := self.pick("tool"):
            key, by = picked
            delta = self.draw(st.text("ab😀", min_size=1, max_size=3))
            self.add("TOOL_CALL_ARGS", by, toolCallId=key, delta=delta)

    def do_called(self) -> None:
        if picked := self.pick("tool"):
            key, by = picked
            del self.open["tool"][key]
            self.called.append(key)
            self.add("TOOL_CALL_ARGS", by, toolCallId=key, delta='"]')
            self.add("TOOL_CALL_END", by, toolCallId=key)

    def do_result(self) -> None:
        if self.called:
            key = self.called.pop()
            content = self.draw(pieces)
            self.add("TOOL_CALL_RESULT", messageId=self.new("r"), toolCallId=key, content=content)

    def do_think(self) -> None:
        key, by = self.new("th"), self.somebody()
        if self.draw(st.booleans()):
            self.open["reasoning"][key] = by
            self.add("REASONING_START", by, messageId=key)
        self.open["thought"][key] = by
        self.add("REASONING_MESSAGE_START", by, messageId=key, role="reasoning")

    def do_muse(self) -> None:
        if picked := self.pick("thought"):
            key, by = picked
            self.add("REASONING_MESSAGE_CONTENT", by, messageId=key, delta=self.draw(pieces))

    def do_thought(self) -> None:
        if picked := self.pick("thought"):
            key, by = picked
            del self.open["thought"][key]
            self.add("REASONING_MESSAGE_END", by, messageId=key)
            if self.open["reasoning"].pop(key, "absent") != "absent":
                self.add("REASONING_END", by, messageId=key)

    def do_step(self) -> None:
        key, by = self.new("step"), self.somebody()
        self.open["step"][key] = by
        self.add("STEP_STARTED", by, stepName=key)

    def do_stepped(self) -> None:
        if picked := self.pick("step"):
            del self.open["step"][picked[0]]
            self.add("STEP_FINISHED", picked[1], stepName=picked[0])

    def do_agent(self) -> None:
        key = self.new("agent")
        self.open["agent"][key] = None
        self.add("SUBAGENT_STARTED", subagentRunId=key, name="helper")

    def do_left(self) -> None:
        idle = [key for key in self.open["agent"] if not self.busy(key)]
        for key in [*self.open["agent"]][:1] if not idle else idle[:1]:
            self.dismiss(key)
            del self.open["agent"][key]
            if self.draw(st.booleans()):
                self.add("SUBAGENT_FINISHED", subagentRunId=key)
            else:
                self.add("SUBAGENT_ERROR", subagentRunId=key, message="tired")

    def busy(self, agent: str) -> bool:
        return any(agent in owners.values() for owners in self.open.values())

    def dismiss(self, agent: str) -> None:
        """Close what this sub-agent has open."""
        for bracket, kind, field in (
            ("text", "TEXT_MESSAGE_END", "messageId"),
            ("thought", "REASONING_MESSAGE_END", "messageId"),
            ("reasoning", "REASONING_END", "messageId"),
            ("step", "STEP_FINISHED", "stepName"),
        ):
            for key in [key for key, by in self.open[bracket].items() if by == agent]:
                del self.open[bracket][key]
                self.add(kind, agent, **{field: key})
        for key in [key for key, by in self.open["tool"].items() if by == agent]:
            del self.open["tool"][key]
            self.add("TOOL_CALL_ARGS", agent, toolCallId=key, delta='"]')
            self.add("TOOL_CALL_END", agent, toolCallId=key)

    def do_state(self) -> None:
        snapshot = self.draw(st.dictionaries(st.sampled_from("xyz"), values))
        self.add("STATE_SNAPSHOT", snapshot=snapshot)

    def do_patch(self) -> None:
        path = f"/{self.draw(st.sampled_from('xyz'))}"
        self.add("STATE_DELTA", delta=[{"op": "add", "path": path, "value": self.draw(values)}])

    def do_activity(self) -> None:
        known = [one["id"] for one in self.client.messages if one["role"] == "activity"]
        key = self.draw(st.sampled_from([self.new("a"), *known]))
        replace: list[Event] = [{}, {"replace": False}, {"replace": True}]
        content = {"at": self.draw(values)}
        fields = {"activityType": "PLAN", "content": content, **self.draw(st.sampled_from(replace))}
        self.add("ACTIVITY_SNAPSHOT", None, messageId=key, **fields)

    def do_act(self) -> None:
        known = [one["id"] for one in self.client.messages if one["role"] == "activity"]
        if known:
            key = self.draw(st.sampled_from(known))
            patch = [{"op": "replace", "path": "/at", "value": self.draw(values)}]
            self.add("ACTIVITY_DELTA", messageId=key, activityType="PLAN", patch=patch)

    def do_snapshot(self) -> None:
        """Say the conversation anew, perhaps without some of what is settled."""
        touched = {*self.open["text"], *self.open["thought"]}
        homes = {
            one["id"]
            for one in self.client.messages
            if any(call["id"] in self.open["tool"] for call in one.get("toolCalls", []))
        }
        told = []
        for message in self.client.messages:
            fixed = message["id"] in touched | homes or message["role"] in ("tool", "reasoning")
            if fixed or self.draw(st.integers(0, 4)):
                thought = {"content": ""} if message["role"] == "reasoning" else {}
                told.append({**thought, **copy.deepcopy(message)})
        self.add("MESSAGES_SNAPSHOT", messages=told)

    def do_custom(self) -> None:
        self.add("CUSTOM", name="app.ping", value=self.draw(values))

    def do_unknown(self) -> None:
        self.add("META_EVENT", metaType="thumbs_up", payload={})


@st.composite
def threads(draw: st.DrawFn, *, runs: int = 2, length: int = 30) -> list[Event]:
    """Draw the events of one thread: one or more runs, each ended."""
    author = Author(draw)
    for _ in range(draw(st.integers(1, runs))):
        author.run(length)
    return author.events
