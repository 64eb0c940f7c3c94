"""Print the parts of the documentation that come from tables in the code.

A page holds `<!-- begin: NAME -->` and `<!-- end: NAME -->`; what stands between them is made here
and nowhere else. `python tools/docs.py` writes the pages, `--check` only says which are out of
date, with exit status 1.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import typer
from prometheus_client.parser import text_string_to_metric_families

import towpath
from towpath import aliases, codes, settings, telemetry
from towpath.auth import breaker
from towpath.auth.policy import ROLES, Action
from towpath.cli import main as command_line
from towpath.events import order
from towpath.events.types import GOLDEN
from towpath.gateway import Gateway
from towpath.manager import AgentWebSocketBridge, Refused, WebSocketManager
from towpath.manager.connections import Connections
from towpath.methods.method import Method
from towpath.methods.table import METHODS
from towpath.node.metrics import EVENT_METRICS
from towpath.protocol import frames, states
from towpath.runs import golden as golden_input
from towpath.runs import interrupts, model
from towpath.settings import IssuerSettings, Settings

ROOT = Path(__file__).resolve().parent.parent
NONE = "none"
MARKED = re.compile(r"(<!-- begin: ([a-z-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def pages(root: Path = ROOT) -> Iterator[Path]:
    """Yield every page of the documentation, the README among them."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def render(text: str) -> str:
    """Return a page with its marked parts made anew.

    Raises:
        KeyError: a marker names a part that nobody makes.
    """
    return MARKED.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def errors() -> str:
    """Return the errors of replies."""
    rows = (
        (
            str(code.number),
            code.message,
            "yes" if code.temporary else "no",
            str(code.http_status),
            _meaning(code),
        )
        for code in codes.ERRORS.values()
    )
    return table(("code", "message", "temporary", "HTTP status", "meaning"), rows)


def closes() -> str:
    """Return the codes of close frames."""
    rows = (
        (
            str(code.number),
            code.reason,
            "come back" if code.come_back else "do not come back",
            _meaning(code),
        )
        for code in codes.CLOSES.values()
    )
    return table(("code", "reason", "advice", "meaning"), rows)


def _meaning(code: codes.ErrorCode | codes.CloseCode) -> str:
    """Return the string below a code in its module: when it is sent."""
    names = [name for name, value in vars(codes).items() if value is code]
    return dict(_attribute_docstrings(codes))[names[0]]


def run_codes() -> str:
    """Return the codes of the RUN_ERROR events that the gateway writes."""
    rows = ((f"`{code}`", sentence) for code, sentence in codes.RUN_CODES.items())
    return table(("code", "message"), rows)


def model_codes() -> str:
    """Return the codes of runs that a model's failure ended."""
    return table(("code", "message"), ((f"`{k}`", text) for k, text in codes.MODEL_CODES.items()))


def settings_table() -> str:
    """Return the settings by group, those that most deployments need first; each once."""
    parts = [_settings_section("First settings: what most deployments need.", settings.FIRST)]
    for group in settings.GROUPS:
        others = [name for name in group.model_fields if name not in settings.FIRST]
        parts.append(_settings_section(str(group.__doc__), others))
    return "\n\n".join(parts)


def _settings_section(sentence: str, names: Iterable[str]) -> str:
    """Return a section whose heading is the sentence up to its colon."""
    title, _, meaning = sentence.partition(": ")
    rows = table(("setting", "environment variable", "default", "meaning"), map(_setting, names))
    return f"## {title}\n\n{meaning[0].upper()}{meaning[1:]}\n\n{rows}"


def _setting(name: str) -> tuple[str, str, str, str]:
    """Return the row of one setting."""
    field, prefix = Settings.model_fields[name], Settings.model_config["env_prefix"]
    (meaning,) = [
        text
        for group in settings.GROUPS
        for attribute, text in _attribute_docstrings(group)
        if attribute == name
    ]
    return (
        f"`{name}`",
        f"`{field.validation_alias or prefix + name.upper()}`",
        _default(field.default, is_size=name.endswith("bytes")),
        meaning,
    )


def issuer_settings() -> str:
    """Return the fields of one issuer in the list of issuers."""
    sentences = dict(_attribute_docstrings(IssuerSettings))
    rows = (
        (f"`{name}`", _default(field.default), sentences[name])
        for name, field in IssuerSettings.model_fields.items()
    )
    return table(("field", "default", "meaning"), rows)


def _attribute_docstrings(owner: type | ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the attributes of a class or module and the strings below them."""
    body = ast.parse(inspect.getsource(owner)).body
    if isinstance(body[0], ast.ClassDef):
        body = body[0].body
    for here, below in itertools.pairwise(body):
        target = _target(here)
        if target and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield target, str(below.value.value)


def _target(statement: ast.stmt) -> str:
    """Return the one name a statement assigns to; empty for any other statement."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return ""


def _default(value: object, *, is_size: bool = False) -> str:
    """Return a default as the page shows it; a size in bytes in a larger unit too."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | frozenset):
        return f"`{msgspec.json.encode(sorted(value, reverse=True)).decode()}`"
    if is_size and isinstance(value, int) and value >= 1024:
        unit, size = ("MiB", 1024**2) if value % 1024**2 == 0 else ("KiB", 1024)
        return f"`{value}` ({value // size} {unit})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def metrics() -> str:
    """Return every metric with its labels and meaning, as an empty gateway shows them."""
    text, _ = Gateway(Settings.model_construct()).metrics.exposition()
    known = {metric.name: metric.labels for metric in EVENT_METRICS}
    rows = []
    for family in text_string_to_metric_families(text.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        here = {label for sample in family.samples for label in sample.labels} - {"le"}
        labels = sorted(known.get(family.name) or here)
        shown = ", ".join(f"`{label}`" for label in labels) or NONE
        rows.append((f"`{name}`", family.type, shown, family.documentation))
    return table(("metric", "type", "labels", "meaning"), rows)


def telemetry_events() -> str:
    """Return every event that observers get, with its fields and what it says."""
    rows = (
        (f"`{kind.__name__}`", _fields(kind), _sentence(kind))
        for kind in vars(telemetry).values()
        if isinstance(kind, type)
        and issubclass(kind, telemetry.TelemetryEvent)
        and dataclasses.fields(kind)
    )
    return table(("event", "fields", "when"), rows)


def _fields(kind: type[telemetry.TelemetryEvent]) -> str:
    return ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))


def rpc() -> str:
    """Return every method with its parameters and its result."""
    return "\n\n".join(_method(method) for method in METHODS.values())


def _method(method: Method[Any]) -> str:
    parts = [f"### `{method.name}`", _purpose(method)]
    fields = msgspec.structs.fields(method.params)
    if fields:
        rows = (
            (f"`{field.name}`", _shape(field.type), "required" if field.required else "optional")
            for field in fields
        )
        parts.append(table(("parameter", "type", ""), rows))
    else:
        parts.append("No parameters.")
    results = msgspec.structs.fields(method.result)
    if results:
        rows = ((f"`{field.name}`", _shape(field.type), "") for field in results)
        parts.append("Result:\n\n" + table(("field", "type"), (row[:2] for row in rows)))
    else:
        parts.append("Result: `{}`.")
    return "\n\n".join(parts)


def rows_of_results() -> str:
    """Return the objects that stand inside results."""
    _, components = msgspec.json.schema_components(
        [method.result for method in METHODS.values()], ref_template="{name}"
    )
    tops = {method.result.__name__ for method in METHODS.values()}
    parts = []
    for name in sorted(components.keys() - (tops - {"RunRow"})):
        fields = components[name]["properties"].items()
        rows = ((f"`{field}`", _schema_shape(schema)) for field, schema in fields)
        parts.append(f"### {name}\n\n" + table(("field", "type"), rows))
    return "\n\n".join(parts)


def rest() -> str:
    """Return every method's route over REST."""
    rows = (
        (
            f"`{method.route[0]}`",
            f"`/api/v1{method.route[1]}`",
            f"`{method.name}`",
            _purpose(method),
        )
        for method in METHODS.values()
    )
    return table(("HTTP", "path", "method", "what it does"), rows)


def _purpose(method: Method[Any]) -> str:
    """Return what describes a method: the docstring of its parameters, or of its result."""
    asked = msgspec.structs.fields(method.params)
    return _sentence(method.params if asked else method.result)


def _sentence(owner: type) -> str:
    """Return a class's docstring on one line, without what only its reader in Python wants."""
    return re.sub(r" The repr leaves .*", "", " ".join((owner.__doc__ or "").split()))


def _shape(kind: Any) -> str:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="{name}")
    return _schema_shape(schema)


def _schema_shape(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(_schema_shape(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return f"[{schema['$ref']}](#{schema['$ref'].lower()})"
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_schema_shape(schema.get('items', {}))}"
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if high is not None:
        return f"{kind}, {low} to {high} characters"
    if "maximum" in schema:
        return f"{kind}, {schema['minimum']} to {schema['maximum']}"
    return str(kind)


def commands() -> str:
    """Return every command of the wire with the fields it may hold."""
    rows = []
    for name, shape in frames.COMMANDS.items():
        fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(shape))
        sentence = _sentence(shape) if shape is not frames.Empty else "Ask for an empty reply."
        rows.append((f"`{name}`", fields or NONE, sentence))
    return table(("command", "fields", "what it asks"), rows)


def golden() -> str:
    """Return the five golden-path names and the event types they stand for."""
    types: dict[str, list[str]] = defaultdict(list)
    for kind, name in GOLDEN.items():
        types[name].append(f"`{kind}`")
    rows = ((f"`{name}`", ", ".join(kinds)) for name, kinds in types.items())
    return table(("golden-path name", "AG-UI events"), rows)


def options() -> str:
    """Return every command of the command line with its options."""
    return "\n\n".join(_commands_below("towpath", typer.main.get_command(command_line.app)))


def _commands_below(path: str, command: Any) -> Iterator[str]:
    """Yield what stands under a command; a group stands for the commands in it."""
    group = vars(command).get("commands")
    if group is None:
        yield _command(path, command)
        return
    for name, sub in group.items():
        yield from _commands_below(f"{path} {name}", sub)


def _command(path: str, command: Any) -> str:
    rows = []
    for option in command.params:
        given = "required" if option.required else _option_default(option.default)
        also = f" Also from `{option.envvar}`." if option.envvar else ""
        rows.append((f"`{'`, `'.join(option.opts)}`", given, f"{option.help}{also}"))
    head = f"## `{path}`\n\n{(command.help or '').strip()}"
    return f"{head}\n\n{table(('option', 'default', 'meaning'), rows)}"


def _option_default(value: object) -> str:
    return NONE if value is None or value is False or value == [] else f"`{value}`"


def connection_diagram() -> str:
    """Return the life of a connection as a diagram."""
    moves = ((a.value, move.value, b.value) for (a, move), b in states.TRANSITIONS.items())
    return _diagram(states.State.OPENING.value, moves, {states.State.CLOSED.value})


def breaker_diagram() -> str:
    """Return the states of a circuit breaker as a diagram."""
    moves = ((a.value, move.value, b.value) for (a, move), b in breaker.TRANSITIONS.items())
    return _diagram(breaker.State.CLOSED.value, moves, set())


def run_diagram() -> str:
    """Return the life of a run as a diagram."""
    moves = ((a.value, move.value, b.value) for (a, move), b in model.TRANSITIONS.items())
    return _diagram(model.Status.PENDING.value, moves, {status.value for status in model.OVER})


def interrupt_diagram() -> str:
    """Return the life of a question as a diagram."""
    moves = ((a.value, move.value, b.value) for (a, move), b in interrupts.TRANSITIONS.items())
    ends = {answer.value for answer in interrupts.LATE}
    return _diagram(interrupts.InterruptStatus.OPEN.value, moves, ends)


def _diagram(start: str, moves: Iterable[tuple[str, str, str]], ends: set[str]) -> str:
    """Return a Mermaid diagram; moves between the same two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for before, move, after in moves:
        # A colon ends a label in Mermaid.
        arrows[before, after].append(move.replace(":", ""))
    lines = ["```mermaid", "stateDiagram-v2"]
    # A hyphen ends a name in Mermaid.
    hyphened = sorted({name for pair in arrows for name in pair if "-" in name})
    lines += [f'    state "{name}" as {_state(name)}' for name in hyphened]
    lines.append(f"    [*] --> {start}")
    lines += [
        f"    {_state(a)} --> {_state(b)} : {', '.join(names)}" for (a, b), names in arrows.items()
    ]
    lines += [f"    {end} --> [*]" for end in sorted(ends)]
    return "\n".join([*lines, "```"])


def _state(name: str) -> str:
    return name.replace("-", "_")


def order_diagram() -> str:
    """Return the brackets of a run as a diagram: open, used, closed."""
    names = {order.Act.OPEN: "run --> {0}", order.Act.USE: "{0} --> {0}"}
    arrows: dict[str, list[str]] = defaultdict(list)
    for kind, rule in order.RULES.items():
        arrows[names.get(rule.act, "{0} --> run").format(rule.bracket)].append(kind)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> run : RUN_STARTED"]
    lines += [f"    {arrow} : {', '.join(kinds)}" for arrow, kinds in arrows.items()]
    lines.append("    run --> [*] : RUN_FINISHED, RUN_ERROR")
    return "\n".join([*lines, "```"])


def retired_names() -> str:
    """Return every retired public name."""
    rows = (
        (f"`{alias.name}`", f"`{alias.replacement}`", alias.since, alias.removed_in)
        for alias in aliases.ALIASES
    )
    return table(("old name", "replacement", "since", "removed in"), rows)


def roles() -> str:
    """Return every role with what it allows inside its own tenant."""
    sentences = dict(_attribute_docstrings(Action))
    rows = (
        (f"`{role}`", " ".join(sentences[one.name] for one in Action if one in allowed))
        for role, allowed in ROLES.items()
    )
    return table(("role", "what it allows"), rows)


def order_rules() -> str:
    """Return the legal order as a table."""
    rows = (
        (f"`{kind}`", rule.act.value, rule.bracket, f"`{rule.field}`")
        for kind, rule in order.RULES.items()
    )
    return table(("event", "what it does", "bracket", "named by"), rows)


# The public Python API.

REFERENCE = "docs/reference"
MANAGER = "towpath.WebSocketManager"
MANAGER_TESTS = "tests/manager"
MANY_PARAMETERS = 16
"""A signature with more parameters is shortened: the settings have a page of their own."""


def public_names() -> str:
    """Return every name that users import from `towpath`, with the page that describes it."""
    rows = (
        (f"`{call(name)}`", kind(named), first_sentence(named), _described(name))
        for name, named in _exported()
    )
    return table(("name", "kind", "what it is", "reference"), rows)


def _exported() -> Iterator[tuple[str, Any]]:
    """Yield the names that are exported, and what they are; the version is text."""
    for name in towpath.__all__:
        if name != "__version__":
            yield name, getattr(towpath, name)


def call(name: str) -> str:
    """Return how a public name is called: its parameters with their defaults, without types."""
    named: Any = towpath
    for part in name.split("."):
        named = inspect.getattr_static(named, part)
    parameters = list(inspect.signature(named).parameters.values())
    short = _last(name)
    if len(parameters) > MANY_PARAMETERS:
        return f"{short}(*, …)"
    return f"{short}({_parameters(one for one in parameters if one.name != 'self')})"


def _parameters(parameters: Iterable[inspect.Parameter]) -> str:
    shown: list[str] = []
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if one.default is one.empty else f"={_default_of(one.default)}"
        shown.append(f"{one.name}{default}")
    return ", ".join(shown)


def _default_of(value: object) -> str:
    """Return the default of a parameter, as an author would write it."""
    if isinstance(value, str):
        return f'"{value}"'
    plainly = value is None or isinstance(value, bool | int | float)
    return repr(value) if plainly else "…"


def kind(named: object) -> str:
    """Return in a word what a name stands for."""
    if isinstance(named, type):
        return "exception" if issubclass(named, BaseException) else "class"
    return "coroutine function" if inspect.iscoroutinefunction(named) else "function"


def first_sentence(named: object) -> str:
    """Return the first sentence of a docstring, without its reference to another one."""
    text = " ".join((inspect.getdoc(named) or "").split())
    sentence = re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
    return re.sub(r"; see .*", ".", sentence)


def _described(name: str) -> str:
    """Return a link to the section or page whose heading is this name."""
    for page in sorted((ROOT / REFERENCE).glob("*.md")):
        if re.search(rf"^#+ `?{name}`?$", page.read_text(), re.MULTILINE):
            return f"[{page.stem}]({page.name}#{name.lower()})"
    return NONE


def manager_methods() -> str:
    """Return every method of the manager with its result, and the first test that shows it."""
    tests = tests_of_methods()
    rows = (
        (*_method_row(name, named), _shown_by(tests.get(name)))
        for name, named in methods_of_the_manager().items()
    )
    duplicates = (
        (
            f"[`{_last(alias.name)}`](#deprecated-duplicates)",
            f"Deprecated: the same as `{_last(alias.replacement)}`.",
            _result(methods_of_the_manager()[_last(alias.replacement)]),
            _shown_by(tests.get(_last(alias.name))),
        )
        for alias in duplicates_of_the_manager()
    )
    return table(("method", "what it does", "result", "test"), (*rows, *duplicates))


def methods_of_the_manager() -> dict[str, Any]:
    """Return the methods of the manager by name, without the deprecated duplicates."""
    return {
        name: named
        for owner in (WebSocketManager, Connections)
        for name, named in vars(owner).items()
        if not name.startswith("_") and inspect.isfunction(named)
    }


def duplicates_of_the_manager() -> list[aliases.Alias]:
    """Return the deprecated duplicates of the manager's methods."""
    return [one for one in aliases.ALIASES if one.name.rpartition(".")[0] == MANAGER]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _method_row(name: str, named: Any) -> tuple[str, str, str]:
    """Return a link to the section of a method, what the method does, and its result."""
    return f"[`{name}`](#{name})", first_sentence(named), _result(named)


def _result(named: Any) -> str:
    return f"`{_type(inspect.signature(named).return_annotation)}`"


def _type(annotation: Any) -> str:
    """Return a type without the modules of its parts."""
    shown = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", shown)


def _shown_by(test: tuple[Path, str] | None) -> str:
    if test is None:
        return "no test yet"
    path, name = test
    return f"[`{name}`](../../{path.relative_to(ROOT).as_posix()})"


def names_of_the_manager() -> list[str]:
    """Return the names of the manager's methods, those of the deprecated duplicates last."""
    return [*methods_of_the_manager(), *(_last(one.name) for one in duplicates_of_the_manager())]


def tests_of_methods() -> dict[str, tuple[Path, str]]:
    """Return the first test of each method of the manager, by file and line.

    A test belongs to the method whose name follows `test_` in its name: `test_send_to_user_…`. If
    several do, it belongs to the longest.
    """
    names = sorted(names_of_the_manager(), key=len, reverse=True)
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted((ROOT / MANAGER_TESTS).glob("test_*.py")):
        for test in _tests_in(path):
            owner = next((name for name in names if test.startswith(f"test_{name}_")), None)
            if owner is not None:
                found.setdefault(owner, (path, test))
    return found


def _tests_in(path: Path) -> list[str]:
    """Return the names of the test functions of a module, in the order of its lines."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)]


def manager_aliases() -> str:
    """Return the deprecated duplicates of the manager, and what replaces each."""
    rows = (
        (f"`{_last(one.name)}`", f"`{_last(one.replacement)}`", one.since, one.removed_in)
        for one in duplicates_of_the_manager()
    )
    return table(("name", "replaced by", "since", "removed in"), rows)


def refusals() -> str:
    """Return the reasons of a refusal: the docstring of the attribute, a row for each reason."""
    text = " ".join(dict(_attribute_docstrings(Refused))["reason"].split())
    rows = re.findall(r"(`\w+`): (.*?\.)(?= `|$)", text)
    return table(("reason", "when"), ((reason, _sentence_case(when)) for reason, when in rows))


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def bridge_methods() -> str:
    """Return every method of the bridge with its result."""
    rows = (
        _method_row(name, named)
        for name, named in vars(AgentWebSocketBridge).items()
        if not name.startswith("_")
    )
    return table(("method", "what it does", "result"), rows)


def golden_names() -> str:
    """Return the names of the golden path as input: the table in the docstring of the module."""
    lines = (golden_input.__doc__ or "").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return table(cells[0], cells[1:])


PARTS: dict[str, Callable[[], str]] = {
    "errors": errors,
    "closes": closes,
    "run-codes": run_codes,
    "model-codes": model_codes,
    "settings": settings_table,
    "issuer-settings": issuer_settings,
    "metrics": metrics,
    "telemetry-events": telemetry_events,
    "rpc": rpc,
    "rpc-objects": rows_of_results,
    "rest": rest,
    "commands": commands,
    "golden": golden,
    "cli": options,
    "connection-states": connection_diagram,
    "run-states": run_diagram,
    "interrupt-states": interrupt_diagram,
    "breaker-states": breaker_diagram,
    "retired-names": retired_names,
    "roles": roles,
    "event-order": order_diagram,
    "event-rules": order_rules,
    "public-names": public_names,
    "manager-methods": manager_methods,
    "manager-aliases": manager_aliases,
    "refusals": refusals,
    "bridge-methods": bridge_methods,
    "golden-input": golden_names,
}
"""What stands between the markers of each name."""


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` only say which are out of date."""
    stale = []
    for page in pages():
        text = page.read_text()
        made = render(text)
        if made == text:
            continue
        stale.append(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(made)
    verb = "is out of date: run `make docs`" if "--check" in arguments else "written"
    for page in stale:
        print(f"{page} {verb}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
