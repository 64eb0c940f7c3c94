"""Check the messages of the commits after a base that the repository records.

The base is the hash in `.ci/history-base`: the newest commit that is not checked. A subject has a
scope prefix (`auth:`, `log/integrity:`) and at most 70 characters; a body says why. Merges are
exempt. A clone that does not hold the base is not checked, and a printed line says so.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = Path(".ci/history-base")
LONGEST_SUBJECT = 70
"""Characters, the scope prefix included."""
SUBJECT = re.compile(r"[\w.-]+(/[\w.-]+)?: \S")
_FIELD, _RECORD = "\x1f", "\x1e"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit as `git log` shows it."""

    id: str
    parents: int
    message: str


def problems(commit: Commit) -> Iterator[str]:
    """Yield what is wrong with the message of a commit; nothing for a merge."""
    if commit.parents > 1:
        return
    subject, _, body = commit.message.strip().partition("\n")
    if SUBJECT.match(subject) is None:
        yield "the subject has no scope prefix such as `auth:`"
    if len(subject) > LONGEST_SUBJECT:
        yield f"the subject has {len(subject)} characters, {LONGEST_SUBJECT} are allowed"
    if body and not body.startswith("\n"):
        yield "no empty line between subject and body"
    if not body.strip():
        yield "the body that says why is missing"


def commits(root: Path, base: str) -> list[Commit]:
    """Return the commits that HEAD has and the base does not, newest first."""
    layout = f"%h{_FIELD}%P{_FIELD}%B{_RECORD}"
    printed = _git(root, "log", f"--format={layout}", f"{base}..HEAD")
    found = []
    for record in filter(str.strip, printed.split(_RECORD)):
        commit_id, parents, message = record.strip("\n").split(_FIELD)
        found.append(Commit(id=commit_id, parents=len(parents.split()), message=message))
    return found


def unchecked(root: Path, base: str) -> str:
    """Return why this clone cannot be checked; empty where it can."""
    inside = _git(root, "rev-parse", "--is-shallow-repository").strip()
    if not inside:
        return "this is no git repository"
    if inside == "true":
        return "the clone is shallow"
    if not _git(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"):
        return f"the base {base} of {BASE} is unknown here"
    return ""


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints; nothing where it fails."""
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def main(root: Path = ROOT) -> int:
    """Print what is wrong, one line each; return 1 if anything is."""
    base = (root / BASE).read_text().strip()
    if reason := unchecked(root, base):
        print(f"NOT CHECKED: commit messages; {reason}")
        return 0
    checked = commits(root, base)
    found = [
        f"{commit.id} {commit.message.partition(chr(10))[0]}\n  {problem}"
        for commit in checked
        for problem in problems(commit)
    ]
    for line in found:
        print(line)
    print(f"{len(checked)} commits after {base[:7]}, {len(found)} problems")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
