"""Where a model is asked is checked before anything is sent, and shows no key."""

import pytest

from towpath.agents.assistant.endpoint import OPENAI, Endpoint
from towpath.errors import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com/v1",
        "ftp://api.example.com/v1",
        "https:///v1",
        "https://api.example.com:port/v1",
        "https://api.example.com/v1?key=secret",
        "https://api.example.com/v1#secret",
        "https://user:secret@api.example.com/v1",
        "https://secret@api.example.com/v1",
        "http://[::1/v1",
    ],
)
def test_what_no_request_could_be_sent_to_is_refused(url: str) -> None:
    """The sentence names the variable and repeats no secret."""
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL") as refused:
        Endpoint(model="m", base_url=url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", [OPENAI, "http://127.0.0.1:11434/v1", "http://[::1]:8080/v1"])
def test_what_can_be_asked_is_taken(url: str) -> None:
    """Services of any host, port and scheme, by their host's name."""
    assert Endpoint(model="m", base_url=url).host in url


def test_a_key_is_not_shown() -> None:
    """The repr of an endpoint holds no key."""
    assert "sk-secret" not in repr(Endpoint(model="m", key="sk-secret"))
