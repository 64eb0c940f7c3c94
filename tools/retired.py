"""Fail on an identifier that this project has retired.

`RETIRED` is the table: a word, its replacement, and the places where it is banned. Only whole
identifiers count: names, attributes, parameters, keyword arguments, classes, functions and the
names of an import. Prose, strings and module paths are never looked at. A word that is ambiguous
is banned only in the room that it left. A class may declare a word as a `RetiredMethod`.

`python tools/retired.py` checks the repository and has exit status 1 if it finds one. `--soon`
checks the words of `SOON` too: they are on their way out, and still in use.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("src", "tests", "tools", "benchmarks", "examples")
"""Where identifiers are looked at."""
EXEMPT = ("src/towpath/aliases.py",)
"""The table of retired public names has to name them."""


@dataclass(frozen=True, slots=True)
class Retired:
    """One retired identifier."""

    word: str
    replacement: str
    places: tuple[str, ...] = CHECKED
    """Files and directories, relative to the root, in which the word is banned."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One use of a retired identifier."""

    path: str
    line: int
    retired: Retired

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}"
        return f"{where}: `{self.retired.word}` is retired, use {self.retired.replacement}"


AGENTS, AUTH = "src/towpath/agents", "src/towpath/auth"
CONNECTIONS, DELIVERY = "src/towpath/connections", "src/towpath/delivery"
HTTP, LOG, METHODS = "src/towpath/http", "src/towpath/log", "src/towpath/methods"
NODE, RUNS = "src/towpath/node", "src/towpath/runs"
MEMORY_BROKER = "src/towpath/testing/memory_broker.py"
CONTRACT = (f"{LOG}/broker.py", f"{LOG}/sqlite/batch.py", f"{LOG}/sqlite/broker.py", MEMORY_BROKER)
"""The contract of the log, and the files of its engines that take writes."""

RETIRED: tuple[Retired, ...] = (
    # Delivery.
    Retired("Backlog", "Ring", ("src",)),
    Retired("backlog_bytes", "ring_bytes", ("src", "tests", "benchmarks")),
    Retired("rejoin", "go_live", (DELIVERY,)),
    # The vocabulary.
    Retired("Happening", "TelemetryEvent"),
    Retired("Watcher", "Observer"),
    Retired("watchers", "observers"),
    Retired("Hooks", "Telemetry"),
    Retired("hooks", "telemetry", ("src", "tests", "benchmarks", "examples")),
    Retired("Fault", "InternalError"),
    Retired("tell", "emit", ("src/towpath/telemetry.py",)),
    Retired("watch", "add_observer", ("src/towpath/gateway.py", "src/towpath/telemetry.py")),
    # The tables of states.
    Retired("Move", "Transition"),
    Retired("TABLE", "TRANSITIONS", ("src",)),
    # The log.
    Retired("Condition", "LogHealth", (LOG,)),
    Retired("TAKEN", "FENCED"),
    Retired("admits", "allows", (LOG,)),
    Retired("flaw_of", "find_corruption"),
    Retired("look_at", "open_read_only"),
    Retired("Misplaced", "OffsetConflict"),
    Retired("TakenOver", "LogFenced"),
    Retired("Damaged", "LogCorrupted"),
    Retired("hold", "fence", CONTRACT),  # The column of the table has this name.
    Retired("within", "fencing_offset", (LOG, MEMORY_BROKER)),
    Retired("release", "unfence", (LOG, MEMORY_BROKER)),
    Retired("Key", "IdempotencyKey", (LOG, MEMORY_BROKER)),
    Retired("remembered", "stored_result", (LOG, MEMORY_BROKER, METHODS, RUNS)),
    Retired("forget", "truncate", (LOG, MEMORY_BROKER, METHODS)),
    Retired("Projection", "SqliteProjection"),
    Retired("query", "ask", (f"{LOG}/broker.py", MEMORY_BROKER, f"{RUNS}/store.py")),
    Retired("StoredPosition", "last_position"),
    # Authentication.
    Retired("Handshake", "UpgradeInfo", (AUTH, HTTP, NODE)),
    Retired("Flights", "SingleFlight"),
    Retired("riders", "waiters"),
    Retired("_land", "_finish"),
    Retired("tend", "keep_fresh"),
    Retired("hear", "apply", (AUTH, NODE)),
    # Methods.
    Retired("Operation", "Method"),
    Retired("Operations", "Methods"),
    Retired("OPERATIONS", "METHODS"),
    # Agents and runs.
    Retired("Surroundings", "RunDeps or AuthDeps"),
    Retired("around", "deps", ("src",)),
    Retired("asked", "request", (AGENTS, "examples")),
    Retired("LiveRun", "RunExecutor"),
    Retired("see_through", "run_to_end"),
    Retired("let_go", "end"),
    Retired("Place", "LogRange", (RUNS,)),
    Retired("home", "thread_key", (RUNS,)),
    Retired("address", "run_id_key", (RUNS,)),
    Retired("Made", "RunEvent", (RUNS, METHODS)),
    Retired("Question", "Interrupt", (AGENTS, METHODS, "examples")),
    Retired("Answer", "InterruptStatus", (RUNS, AGENTS)),
    Retired("Nothing", "NoParams"),
    Retired("Leases", "LostRuns"),
    Retired("LeaseHeld", "AlreadyEnded"),
    Retired("abandoned", "unfinished", (RUNS,)),
    Retired("lease_seconds", "LOST_SECONDS"),
    # Delivery and connections.
    Retired("Member", "Subscriber"),
    Retired("Dialect", "Encoding"),
    Retired("stir", "wake"),
    Retired("left", "on_unsubscribed", (DELIVERY, f"{CONNECTIONS}/session.py")),
    Retired("Answer", "Recovered", (DELIVERY,)),
    Retired("Asked", "RecoverFrom", (DELIVERY, CONNECTIONS)),
    Retired("asked", "recover_from", (DELIVERY,)),
    Retired("prelude", "snapshot"),
    Retired("Beginning", "StreamRequest"),
    Retired("Window", "RunFilter"),
    Retired("Line", "ClientConnection"),
    Retired("line", "connection", (CONNECTIONS, "src/towpath/gateway.py", f"{NODE}/node.py")),
    Retired("Performer", "CommandHandler"),
    Retired("performer", "commands", ("src",)),
    Retired("auth", "connection_auth", (CONNECTIONS,)),
    Retired("perform", "handle", (CONNECTIONS,)),
    Retired("_do", "dispatch", (CONNECTIONS,)),
    Retired("effects", "Allowed or Denied", (CONNECTIONS, "tests/connections")),
    Retired("dialect", "encoding", ("src", "tests/delivery", "tests/connections")),
    Retired("member", "subscriber", (DELIVERY, CONNECTIONS, "tests/delivery")),
    Retired("members", "subscribers", (DELIVERY, CONNECTIONS, METHODS)),
    # The node and HTTP.
    Retired("House", "Node"),
    Retired("Control", "RevocationFeed"),
    Retired("Peer", "ClientAddress", ("src",)),
    Retired("doors", "routes", ("src",)),
    Retired("door", "route", ("src",)),
    Retired("peer", "client_address", ("src",)),
    Retired("_subject", "rate_limit_key", ("src",)),
    # The test kit and the benchmarks.
    Retired("Fate", "CrashPoint"),
    Retired("epitaph", "crash_message"),
    Retired("Walk", "OffsetTracker"),
    Retired("speech", "workload"),
)
"""What is gone from the code, and must not come back."""

SOON: tuple[Retired, ...] = (
    Retired("doors", "routes", ("tests", "benchmarks")),
    Retired("door", "route", ("tests", "benchmarks")),
    Retired("Wanted", "RunRequest"),
    Retired("StartRun", "RunRequest"),
    Retired("Opening", "StartOptions", (RUNS, METHODS, HTTP, "tests/runs")),
    Retired("asked", "request, recover_from, run_input or interrupt", ("src",)),
    Retired("said", "decision", (RUNS, METHODS)),
    Retired("hold", "fence", (RUNS,)),
    Retired("give_up", "stop_retrying", (RUNS, "src/towpath/gateway.py", NODE)),
    Retired("clock", "now or monotonic", ("src",)),
    Retired("auth", "auth_service or connection_auth", (METHODS, NODE)),
    Retired("member", "subscriber", (METHODS,)),
    Retired("happenings", "events"),
)


def identifiers(source: str) -> Iterator[tuple[str, int]]:
    """Yield every identifier of a module with the number of its line."""
    nodes = list(ast.walk(ast.parse(source)))
    declared = [node.targets[0] for node in nodes if _declares(node)]
    for node in nodes:
        if node not in declared:
            line = getattr(node, "lineno", 0)
            yield from ((word, line) for word in _words(node))


def _declares(node: ast.AST) -> TypeGuard[ast.Assign]:
    """Whether a statement is `old = RetiredMethod(new)`."""
    match node:
        case ast.Assign(targets=[ast.Name()], value=ast.Call(func=ast.Name("RetiredMethod"))):
            return True
    return False


def _words(node: ast.AST) -> Iterable[str]:
    """Return the identifiers that one node of the syntax tree holds itself."""
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word):
            return (word,)
        case ast.ClassDef(name=word) | ast.FunctionDef(name=word):
            return (word,)
        case ast.AsyncFunctionDef(name=word):
            return (word,)
        case ast.keyword(arg=str(word)) | ast.ExceptHandler(name=str(word)):
            return (word,)
        case ast.alias(name=name, asname=given):
            # The last part of a path that is imported, and the name it gets here.
            return (name.rpartition(".")[2], given or "")
        case ast.Global(names=words) | ast.Nonlocal(names=words):
            return words
        case ast.MatchAs(name=str(word)) | ast.MatchStar(name=str(word)):
            return (word,)
        case ast.MatchMapping(rest=str(word)):
            return (word,)
        case ast.MatchClass(kwd_attrs=words):
            return words
    return ()


def check(path: str, source: str, table: Sequence[Retired] = RETIRED) -> list[Finding]:
    """Return the uses of retired identifiers in a file.

    Args:
        path: of the file, relative to the root, with slashes.
        source: its text.
        table: what is retired.
    """
    if path in EXEMPT:
        return []
    banned: dict[str, Retired] = {}
    for one in table:
        if any(path == place or path.startswith(f"{place}/") for place in one.places):
            banned.setdefault(one.word, one)
    return [
        Finding(path, line, banned[word]) for word, line in identifiers(source) if word in banned
    ]


def check_all(root: Path, table: Sequence[Retired] = RETIRED) -> Iterator[Finding]:
    """Yield the uses of retired identifiers in a repository, file by file."""
    banned = re.compile(rf"\b(?:{'|'.join({one.word for one in table})})\b")
    for directory in CHECKED:
        for file in sorted((root / directory).rglob("*.py")):
            source = file.read_text()
            if banned.search(source):  # Parsing every file would take seconds.
                yield from check(file.relative_to(root).as_posix(), source, table)


def main(arguments: Sequence[str]) -> int:
    """Print what was found and return the exit status."""
    table = RETIRED + SOON if "--soon" in arguments else RETIRED
    found = list(check_all(ROOT, table))
    for finding in sorted(found, key=lambda one: (one.path, one.line)):
        print(finding)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
