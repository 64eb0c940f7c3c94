"""The check of commit messages finds what breaks a rule, and says what it cannot check."""

import os
import subprocess
from pathlib import Path

import pytest

from tools import history
from tools.history import BASE, LONGEST_SUBJECT, ROOT, Commit, problems

WHY = "\n\nBecause it was needed.\n"


def message(text: str, parents: int = 1) -> list[str]:
    """Return what is wrong with this message."""
    return list(problems(Commit(id="abc1234", parents=parents, message=text)))


@pytest.mark.parametrize(
    "subject",
    ["auth: read the key", "log/integrity: check", "tests.kit: x", "ci: " + "y" * 66],
)
def test_a_scope_a_short_subject_and_a_body_are_enough(subject: str) -> None:
    """One word or two, joined by a slash, and a subject of up to 70 characters."""
    assert message(subject + WHY) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Read the key" + WHY, "scope prefix"),
        ("auth read: the key" + WHY, "scope prefix"),
        ("a/b/c: too deep" + WHY, "scope prefix"),
        ("auth:no space" + WHY, "scope prefix"),
        ("auth: " + "y" * 65 + WHY, "71 characters"),
        ("auth: read the key", "body"),
        ("auth: read the key\n\n  \n", "body"),
        ("auth: read the key\nBecause.", "empty line"),
    ],
)
def test_each_broken_rule_is_named(text: str, words: str) -> None:
    """One problem, in words that say which rule it breaks."""
    (problem,) = message(text)
    assert words in problem


def test_a_merge_is_exempt() -> None:
    """git writes the message of a merge."""
    assert message("Merge branch 'a-very-long-name-" + "x" * LONGEST_SUBJECT, parents=2) == []


class Repository:
    """A repository of its own, with a base that is recorded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("An old subject")
        self.record(self.git("rev-parse", "HEAD"))

    def git(self, *arguments: str) -> str:
        """Run git here, apart from the settings of whoever runs the test."""
        who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "commit.gpgsign=false")
        plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.run(
            ["git", *who, *arguments],
            cwd=self.root,
            env={**os.environ, **plain},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def commit(self, text: str) -> None:
        """Make an empty commit with this message."""
        self.git("commit", "--quiet", "--allow-empty", "-m", text)

    def record(self, base: str) -> None:
        """Record the newest commit that is not checked."""
        (self.root / BASE).parent.mkdir(exist_ok=True)
        (self.root / BASE).write_text(f"{base}\n")


def test_only_commits_after_the_base_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base and what it follows may say what they like; what comes after may not."""
    repository = Repository(tmp_path / "one")
    repository.commit("auth: read the key" + WHY)
    assert history.main(repository.root) == 0
    assert "1 commits after" in capsys.readouterr().out
    repository.commit("Read it again")
    assert history.main(repository.root) == 1
    said = capsys.readouterr().out
    assert said.count("Read it again") == 2
    assert "An old subject" not in said


def test_a_clone_without_the_base_is_not_checked_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shallow, without that commit, or no repository: one line and success."""
    repository = Repository(tmp_path / "one")
    repository.commit("No scope")
    clone = tmp_path / "shallow"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(clone))
    (clone / BASE).parent.mkdir()
    (clone / BASE).write_text((repository.root / BASE).read_text())
    assert history.main(clone) == 0
    assert capsys.readouterr().out == "NOT CHECKED: commit messages; the clone is shallow\n"
    repository.record("0123456789" * 4)
    assert history.main(repository.root) == 0
    assert "is unknown here" in capsys.readouterr().out
    bare = tmp_path / "bare" / BASE
    bare.parent.mkdir(parents=True)
    bare.write_text("0123456\n")
    assert history.main(tmp_path / "bare") == 0
    assert "no git repository" in capsys.readouterr().out


def test_the_base_of_this_repository_is_one_whole_hash() -> None:
    """A name or a short hash may come to mean another commit."""
    base = (ROOT / BASE).read_text()
    assert len(base) == 41
    assert set(base.strip()) <= set("0123456789abcdef")
