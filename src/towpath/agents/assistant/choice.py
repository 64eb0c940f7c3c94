"""Which model answers as the agent `assistant`, by the settings.

`TOWPATH_MODEL` or `OPENAI_BASE_URL` choose a service; a key alone does not, since one that lies in
the environment is no wish to spend it. Where nothing is chosen it is the local model.
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
    """Whether the operator asked for a model; otherwise one that is not installed is left out."""
    return settings.model is not None or settings.openai_base_url is not None


def model_endpoint(settings: Settings) -> Endpoint | None:
    """Return where the model that is chosen is asked; None where that is no service.

    Raises:
        ConfigurationError: it can never be asked; the sentence says why.
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
            f"TOWPATH_MODEL={model} is asked at OpenAI and needs OPENAI_API_KEY; "
            "OPENAI_BASE_URL names another service"
        )
    secret = key.get_secret_value() if key is not None else ""
    return Endpoint(model=model, base_url=(url or OPENAI).rstrip("/"), key=secret)


def make_assistant(settings: Settings) -> "Assistant | None":
    """Return the assistant of the settings; None where they say `none`. Nothing is started.

    Raises:
        ConfigurationError: the model that is chosen cannot be asked.
        MissingExtra: what it needs is not installed.
    """
    endpoint = model_endpoint(settings)
    if settings.model == NONE:
        return None
    # Its dependencies are the extra `assistant`.
    from towpath.agents.assistant.assistant import Assistant

    return Assistant(endpoint or LocalModel(), tokens=settings.model_tokens)
