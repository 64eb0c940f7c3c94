"""What users write passes their type checker: `make types` checks this file, the tests run it.

An ignore that is needed no more is an error of mypy, so each one here is a promise too. More
promises, for pyright as well, are in `typing_tests/`.
"""

import runpy
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from towpath import AgentInput, Gateway, Settings
from towpath.agents.agent import DoubleTexting, InvalidAgent
from towpath.settings import IssuerSettings

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret of thirty-two bytes or more"


async def parrot(request: AgentInput) -> AsyncGenerator[str, None]:
    """Repeat the message."""
    yield request.message


def test_a_secret_is_given_as_text_and_kept_as_a_secret() -> None:
    """Every field that holds one takes both; reading gives a SecretStr, which does not show."""
    for key in (SECRET, SecretStr(SECRET)):
        settings = Settings(jwt_key=key, openai_api_key=key, tenant="acme")
        issuer = IssuerSettings(key=key, tenant="acme")
        for kept in (settings.jwt_key, settings.openai_api_key, issuer.key):
            assert kept is not None
            secret: str = kept.get_secret_value()
            assert secret == SECRET
        assert SECRET not in f"{settings!r} {issuer!r}"
    assert Settings(jwt_key=None).jwt_key is None


def test_a_secret_is_no_number() -> None:
    """A type checker says so, and so does pydantic."""
    with pytest.raises(ValidationError):
        Settings(jwt_key=5)  # type: ignore[arg-type]


def test_the_data_directory_is_given_as_text_or_path(tmp_path: Path) -> None:
    """Reading gives a path."""
    for data in (str(tmp_path), tmp_path):
        path: Path = Settings(data=data).data
        assert path == tmp_path


def test_double_texting_is_one_of_three_words() -> None:
    """A type checker finds another one before the registration does."""
    gateway = Gateway(Settings())
    gateway.agent("rejecting", double_texting="reject")(parrot)
    gateway.agent("queueing", double_texting="queue")(parrot)
    gateway.agent("interrupting", double_texting="interrupt")(parrot)
    assert [agent.double_texting for agent in gateway.agents] == list(DoubleTexting)
    with pytest.raises(InvalidAgent, match="reject, queue, interrupt"):
        gateway.agent("wrong", double_texting="wait")(parrot)  # type: ignore[arg-type]


def test_a_decorated_agent_keeps_its_type() -> None:
    """The decorator returns the function itself, so that it can be called and tested."""
    decorated = Gateway(Settings()).agent("parrot")(parrot)
    assert decorated is parrot


@pytest.mark.parametrize(
    "program", sorted((ROOT / "typing_tests").glob("*.py")), ids=lambda p: p.stem
)
def test_what_the_type_checkers_read_is_a_program_that_runs(program: Path) -> None:
    """The types are those of values that exist: each program is imported without an error."""
    assert runpy.run_path(str(program))["__doc__"]
