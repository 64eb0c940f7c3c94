"""Compare the public Python API with the API of the last release.

`api/baseline.pyi` holds the public API of the last release as stubs, one section for each module.
`python tools/api.py` writes it. `--check` compares the code with it, prints every undeclared break,
and has exit status 1 if there is one. griffe reads both sides and finds the breaks.

Public are the names in `__all__` of `EXPORTING`, the names of `WHOLE`, and every class and function
that `docs/reference/python.md` gives by its full path; of a class, the members without an
underscore, and its special methods. A retired name is public until its row leaves the table of
`towpath.aliases`; its signature is that of its replacement. A row therefore declares a renaming.
Every other break is declared in `api/breaks.toml`, with a reason, until the next release.
"""

import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import griffe
from griffe import ParameterKind

from towpath.aliases import ALIASES, Alias

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "api/baseline.pyi"
DECLARED = ROOT / "api/breaks.toml"
PAGE = ROOT / "docs/reference/python.md"
EXPORTING = ("towpath", "towpath.events", "towpath.manager", "towpath.testing")
"""Packages whose `__all__` is public."""
WHOLE = ("towpath.telemetry", "towpath.auth.verdicts")
"""Modules whose names without an underscore are all public."""
FULL_PATH = re.compile(r"`(towpath(?:\.\w+)+)")
SECTION = re.compile(r"^# module (\S+)\n", re.MULTILINE)
WIDTH = 96
HEAD = '"""The public API of the last release; `make api` writes this file. See tools/api.py."""\n'
NOT_CALLED = ("__post_init__",)
"""Special methods that are no part of an API."""
PREFIXES = {ParameterKind.var_positional: "*", ParameterKind.var_keyword: "**"}
FIELDS_ARE_PARAMETERS = ("BaseModel", "BaseSettings")
"""Bases of pydantic: the fields of a class are the keywords of its constructor."""

Names = dict[str, griffe.Object]
"""The public objects by their public paths."""


def public_names(package: griffe.Module, page: str, table: Iterable[Alias] = ALIASES) -> Names:
    """Return everything that is public in a package.

    Args:
        package: `towpath`, loaded with its modules.
        page: the text of the reference page.
        table: the retired names.

    Raises:
        KeyError: the page, an `__all__` or the table names something that does not exist.
    """
    paths = [f"{path}.{name}" for path in EXPORTING for name in _find(package, path).exports or ()]
    paths += [f"{path}.{name}" for path in WHOLE for name in _defined(_find(package, path))]
    found = {path: _find(package, path) for path in (*paths, *FULL_PATH.findall(page))}
    names = {path: one for path, one in found.items() if not one.is_module}
    for alias in table:
        names |= _retired(package, alias, names)
    return names


def _find(package: griffe.Module, path: str) -> griffe.Object:
    """Return the object at a dotted path, behind its aliases."""
    found: griffe.Object | griffe.Alias = package
    for part in path.split(".")[1:]:
        found = found.all_members[part]
        if isinstance(found, griffe.Alias):
            found = found.final_target
    assert isinstance(found, griffe.Object)
    return found


def _defined(module: griffe.Object) -> list[str]:
    """Return the names without an underscore that a module does not only import."""
    members = module.members.items()
    return [name for name, one in members if not one.is_alias and not name.startswith("_")]


def _retired(package: griffe.Module, alias: Alias, names: Names) -> Names:
    """Return the public names that a row of the table keeps alive."""
    replacement = _find(package, alias.replacement)
    if not replacement.is_module:
        return {alias.name: replacement}
    inside = [one for one in names.values() if one.parent is replacement]
    return {f"{alias.name}.{one.name}": one for one in inside}


def render(names: Names) -> str:
    """Return the stubs of these names, sorted, so that a change of the API is a small diff."""
    sections: dict[str, list[str]] = defaultdict(list)
    methods: dict[str, dict[str, griffe.Object]] = defaultdict(dict)
    for path, found in sorted(names.items()):
        parent, _, name = path.rpartition(".")
        if parent in names:
            methods[parent][name] = found
    for path, found in sorted(names.items()):
        parent, _, name = path.rpartition(".")
        if parent not in names:
            sections[parent] += _stub(name, found, methods[path])
    text = "".join(
        f"\n# module {module}\n" + "\n".join(lines) + "\n"
        for module, lines in sorted(sections.items())
    )
    return HEAD + text


def _stub(name: str, found: griffe.Object, more: Mapping[str, griffe.Object]) -> Iterator[str]:
    """Yield the lines of one object; `more` are retired names of a class."""
    if isinstance(found, griffe.Class):
        yield f"class {name}{_bases(found)}:"
        members = {**_members(found), **more}
        for member in sorted(members):
            yield from (f"    {line}" for line in _stub(member, members[member], {}))
        if not members:
            yield "    ..."
    elif isinstance(found, griffe.Function):
        yield from (
            f"@{label}" for label in ("classmethod", "staticmethod") if label in found.labels
        )
        yield from _definition(name, found)
    elif isinstance(found, griffe.Attribute):
        yield f"{name}: {found.annotation}" if found.annotation is not None else f"{name} = ..."


def _definition(name: str, found: griffe.Function) -> Iterator[str]:
    """Yield a function; one parameter a line where they do not fit in one line."""
    head = f"{'async def' if 'async' in found.labels else 'def'} {name}("
    tail = f") -> {found.returns}: ..." if found.returns is not None else "): ..."
    parameters = list(_parameters(found.parameters))
    line = f"{head}{', '.join(parameters)}{tail}"
    if len(line) <= WIDTH:
        yield line
        return
    yield head
    yield from (f"    {parameter}," for parameter in parameters)
    yield tail


def _bases(found: griffe.Class) -> str:
    return f"({', '.join(map(str, found.bases))})" if found.bases else ""


def _members(found: griffe.Class) -> dict[str, griffe.Object]:
    """Return the public members of a class, inherited ones too."""
    members: dict[str, griffe.Object] = {}
    for name, member in found.all_members.items():
        if isinstance(member, griffe.Alias):
            member = member.final_target
        is_public = name[0] != "_" or (member.is_special and name not in NOT_CALLED)
        if isinstance(member, griffe.Object) and is_public:
            members[name] = member
    if any(str(base) in FIELDS_ARE_PARAMETERS for one in _ancestors(found) for base in one.bases):
        members["__init__"] = _constructor(members)
    return members


def _ancestors(found: griffe.Class) -> list[griffe.Class]:
    return [found, *found.mro()]


def _constructor(members: Mapping[str, griffe.Object]) -> griffe.Function:
    """Return the constructor that pydantic makes of the fields."""
    fields = [
        griffe.Parameter(
            name,
            annotation=member.annotation,
            default=member.value,
            kind=ParameterKind.keyword_only,
        )
        for name, member in sorted(members.items())
        if isinstance(member, griffe.Attribute)
        and member.annotation is not None
        and "property" not in member.labels
    ]
    this = griffe.Parameter("self", kind=ParameterKind.positional_or_keyword)
    return griffe.Function("__init__", parameters=griffe.Parameters(this, *fields), returns="None")


def _parameters(parameters: griffe.Parameters) -> Iterator[str]:
    """Yield the parameters as they are written."""
    kinds = [one.kind for one in parameters]
    for index, one in enumerate(parameters):
        before = kinds[:index]
        if one.kind is ParameterKind.keyword_only and not {
            ParameterKind.keyword_only,
            ParameterKind.var_positional,
        } & set(before):
            yield "*"
        is_variadic = one.kind in PREFIXES
        text = PREFIXES.get(one.kind, "") + one.name
        if one.annotation is not None:
            text += f": {one.annotation}"
        if one.default is not None and not is_variadic:
            text += f" = {one.default}"
        yield text
        if one.kind is ParameterKind.positional_only and (
            kinds[index + 1 : index + 2] != [ParameterKind.positional_only]
        ):
            yield "/"


def breaks(baseline: str, current: str) -> list[str]:
    """Return what the current stubs break of the baseline, as sentences that name the object."""
    old, new = _modules(baseline), _modules(current)
    found: list[str] = []
    for name, module in old.items():
        successor = new.get(name) or _visit(name, "")
        found += map(_sentence, griffe.find_breaking_changes(module, successor))
        found += _changed_waiting(module, successor)
    return found


def _modules(text: str) -> dict[str, griffe.Module]:
    _, *parts = SECTION.split(text)
    return {name: _visit(name, code) for name, code in zip(parts[::2], parts[1::2], strict=True)}


def _visit(name: str, code: str) -> griffe.Module:
    return griffe.visit(name, filepath=BASELINE, code=code)


def _sentence(breakage: griffe.Breakage) -> str:
    path, kind = breakage.obj.path, breakage.kind
    if kind.name.startswith("PARAMETER_"):
        parameter = breakage.old_value or breakage.new_value
        path += f"({parameter.name})"
    return f"{path}: {kind.value}"


def _changed_waiting(old: griffe.Object, new: griffe.Object) -> Iterator[str]:
    """Yield the functions that are awaited now, or no longer: griffe does not compare that."""
    for name, member in old.members.items():
        other = new.members.get(name)
        if isinstance(member, griffe.Class) and isinstance(other, griffe.Class):
            yield from _changed_waiting(member, other)
        if isinstance(member, griffe.Function) and isinstance(other, griffe.Function):
            before, after = "async" in member.labels, "async" in other.labels
            if before is not after:
                yield f"{member.path}: Function {'became' if after else 'is no longer'} async"


def undeclared(found: Sequence[str], declared: Mapping[str, str]) -> list[str]:
    """Return the problems: a break without a declaration, and a declaration without its break."""
    return [
        *(f"{one}: not declared" for one in found if not declared.get(one, "").strip()),
        *(f"{one}: declared, and is no break" for one in declared if one not in found),
    ]


def current_api() -> str:
    """Return the stubs of the API as the code has it."""
    package = griffe.load("towpath", search_paths=[ROOT / "src"], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    return render(public_names(package, PAGE.read_text()))


def main(arguments: Sequence[str]) -> int:
    """Write the baseline, or with `--check` compare with it."""
    current = current_api()
    if "--check" not in arguments:
        BASELINE.write_text(current)
        return 0
    found = breaks(BASELINE.read_text(), current)
    problems = undeclared(found, tomllib.loads(DECLARED.read_text()))
    for problem in problems:
        print(problem)
    if problems:
        print("Keep the old API, retire the name in towpath/aliases.py, or explain the break")
        print(f"in {DECLARED.relative_to(ROOT)} and in CHANGELOG.md.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
