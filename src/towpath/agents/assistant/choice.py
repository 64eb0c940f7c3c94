"""Which model answers as the agent `assistant`, by the settings.

`TOWPATH_MODEL` or `OPENAI_BASE_URL` choose a service. `OPENAI_API_KEY` is never used unless one of
them is set too. If nothing is chosen, the local model answers.
"""

from typing import TYPE_CHECKING

from towpath.agents.assistant.endpoint import OPENAI, Endpoint
from towpath.agents.assistant.local_model import LocalModel
from towpath.errors import ConfigurationError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.agents.assistant.assistant import Assistant

LOCAL = "local"
NONE = "none"


def model_chosen(settings: Settings) -> bool:
    """Whether the settings name a model; the default one is left out if it is not installed."""
    return settings.model is not None or settings.openai_base_url is not None


def model_endpoint(settings: Settings) -> Endpoint | None:
    """Return the endpoint of the chosen model; None if no service was chosen.

    Raises:
        ConfigurationError: the settings cannot work; the message says why.
    """
    model, url, key = settings.model, settings.openai_base_url, settings.openai_api_key
    if model in (LOCAL, NONE) or not model_chosen(settings):
        return None
    if model is None:
        raise ConfigurationError(
            "OPENAI_BASE_URL is set: name its model in TOWPATH_MODEL, or take local, or none"
        )
    if url is None and key is None:
        raise ConfigurationError(
            f"TOWPATH_MODEL={model} needs OPENAI_API_KEY, or OPENAI_BASE_URL of another service "
            "than OpenAI"
        )
    secret = key.get_secret_value() if key is not None else ""
    return Endpoint(model=model, base_url=(url or OPENAI).rstrip("/"), key=secret)


def make_assistant(settings: Settings) -> "Assistant | None":
    """Return the assistant of the settings; None if the model is `none`. Nothing is started.

    Raises:
        ConfigurationError: the settings of the model cannot work.
        MissingExtra: a package that it needs is not installed.
    """
    endpoint = model_endpoint(settings)
    if settings.model == NONE:
        return None
    # Its dependencies are the extra `assistant`.
    from towpath.agents.assistant.assistant import Assistant

    return Assistant(endpoint or LocalModel(), tokens=settings.model_tokens)
