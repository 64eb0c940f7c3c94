"""The settings choose a model, or none; what is missing is named before anybody asks."""

import importlib.util
import subprocess
import sys

import pytest

from towpath.agents.assistant.choice import make_assistant, model_chosen, model_endpoint
from towpath.agents.assistant.endpoint import OPENAI
from towpath.agents.assistant.local_model import LocalModel
from towpath.errors import ConfigurationError, MissingExtra
from towpath.settings import Settings

KEY = "sk-0123456789"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's owner set for other programs is left out."""
    for name in ("TOWPATH_MODEL", "TOWPATH_MODEL_TOKENS", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def chosen(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    """Return the settings of an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_without_a_choice_it_is_the_local_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set, `local`, and a key alone: the model of this machine, and no key is spent."""
    for environment in ({}, {"TOWPATH_MODEL": "local"}, {"OPENAI_API_KEY": KEY}):
        with monkeypatch.context() as given:
            settings = chosen(given, **environment)
            assert model_endpoint(settings) is None
            assistant = make_assistant(settings)
            assert assistant is not None
            assert assistant.title == LocalModel.title
            assert model_chosen(settings) is ("TOWPATH_MODEL" in environment)


def test_local_beats_the_endpoint_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says `local` stays on this machine whatever else is set."""
    settings = chosen(monkeypatch, TOWPATH_MODEL="local", OPENAI_BASE_URL="https://x/v1")
    assert model_endpoint(settings) is None


def test_a_name_and_a_key_are_asked_at_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is OpenAI's own where no other is named."""
    settings = chosen(monkeypatch, TOWPATH_MODEL="gpt", OPENAI_API_KEY=KEY)
    endpoint = model_endpoint(settings)
    assert endpoint is not None
    assert (endpoint.model, endpoint.base_url, endpoint.key) == ("gpt", OPENAI, KEY)


def test_another_service_may_ask_for_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL names the service; a key is sent only where one is set."""
    settings = chosen(monkeypatch, TOWPATH_MODEL="qwen", OPENAI_BASE_URL="http://127.0.0.1:1/v1/")
    endpoint = model_endpoint(settings)
    assert endpoint is not None
    assert (endpoint.base_url, endpoint.key) == ("http://127.0.0.1:1/v1", "")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, ("OPENAI_BASE_URL", "TOWPATH_MODEL")),
        ({"TOWPATH_MODEL": "gpt"}, ("TOWPATH_MODEL=gpt", "OPENAI_API_KEY", "OPENAI_BASE_URL")),
        ({"TOWPATH_MODEL": "gpt", "OPENAI_BASE_URL": "x"}, ("OPENAI_BASE_URL",)),
    ],
)
def test_a_choice_that_cannot_be_asked_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    """Half a choice does not start: the sentence names both ways out."""
    with pytest.raises(ConfigurationError) as refused:
        make_assistant(chosen(monkeypatch, **environment))
    for word in words:
        assert word in str(refused.value)


def test_none_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `none` there is no assistant, and nothing of what it needs is imported."""
    monkeypatch.delitem(sys.modules, "towpath.agents.assistant.assistant", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    assert make_assistant(chosen(monkeypatch, TOWPATH_MODEL="none")) is None


@pytest.mark.parametrize("missing", ["pydantic_ai", "openai"])
def test_r52_a_missing_package_is_named_by_the_agent_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without the extra there is no assistant, not one that fails when it is asked."""
    for name in ("towpath.agents.assistant.assistant", "towpath.agents.adapters.pydantic_ai"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [one for one in sys.modules if one.startswith("pydantic_ai.")]:
        if name.rpartition(".")[2] == "openai" or ".openai" in name:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=r"pip install 'towpath\[assistant\]'"):
        make_assistant(chosen(monkeypatch, TOWPATH_MODEL="local"))


def test_importing_the_server_imports_no_model() -> None:
    """Who mounts a gateway with agents of their own pays for no library of the assistant."""
    code = "import sys, towpath.cli.main; print([n for n in sys.modules if 'pydantic_ai' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec("pydantic_ai") is not None
