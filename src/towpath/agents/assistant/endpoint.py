"""The endpoint of a model: one model behind an OpenAI-compatible API."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from towpath.errors import ConfigurationError

OPENAI = "https://api.openai.com/v1"
"""OpenAI's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One model of one service."""

    model: str
    """Its name at the service."""
    base_url: str = OPENAI
    """The URL before `/chat/completions`."""
    key: str = field(default="", repr=False)
    """The API key; empty for a service without keys."""

    def __post_init__(self) -> None:
        """Validate the URL.

        Raises:
            ConfigurationError: it is malformed, or holds a password, which would be logged.
        """
        try:
            url = urlsplit(self.base_url)
            good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            raise ConfigurationError("OPENAI_BASE_URL is no URL") from None
        if url.username is not None or url.password is not None:
            raise ConfigurationError("OPENAI_BASE_URL holds a password: give OPENAI_API_KEY")
        if not good or url.query or url.fragment:
            raise ConfigurationError(
                "OPENAI_BASE_URL must be http(s)://host/path, without query: the part before "
                "/chat/completions"
            )

    @property
    def host(self) -> str:
        """The host, for one line."""
        return urlsplit(self.base_url).netloc
