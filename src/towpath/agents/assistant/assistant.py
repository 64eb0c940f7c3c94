"""The agent `assistant`: a language model answers, the local one or one of a service.

It is a plain agent of pydantic-ai behind the adapter. Added here: where the model is, and that it
gets no more of a conversation than its context window holds.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx2

from towpath.agents.agent import AgentFunction, AgentInput
from towpath.agents.assistant.context_window import recent
from towpath.agents.assistant.endpoint import OPENAI, Endpoint
from towpath.agents.assistant.local_model import LocalModel
from towpath.errors import MissingExtra

try:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
    from pydantic_ai.settings import ModelSettings

    from towpath.agents.adapters.pydantic_ai import from_pydantic_ai
except ImportError as error:
    raise MissingExtra(
        f"the agent assistant needs pydantic-ai: pip install 'towpath[assistant]' ({error})"
    ) from error

INSTRUCTIONS = "You are a helpful assistant. Answer briefly."
"""The instructions of a service's model."""
LOCAL_INSTRUCTIONS = (
    "You are a helpful assistant who speaks English and gives short, correct answers."
)
"""The instructions of the local model. Without them it answers questions about France in French."""
LOCAL_SETTINGS = ModelSettings(
    temperature=0.2, top_p=0.9, max_tokens=512, extra_body={"repeat_penalty": 1.1}
)
"""The settings that its makers recommend, and a penalty against endless repetition."""
LOCAL_TOKENS = 1_500
"""How much of a conversation the local model gets: what two slow cores read in a few seconds. Its
context window is larger, so an estimate that is too low does no harm."""
SERVICE_TOKENS = 32_000
"""How much of a conversation another model gets by default."""
ATTEMPTS = 3
"""How often a request is sent to a service that is busy or unreachable, before the run fails."""
TIMEOUT = httpx2.Timeout(120.0, connect=5.0)
"""Seconds until a service must be reached, and between two pieces of its answer."""

LOADING = "load the model"
"""The step that is shown while the local model is loaded."""


class Assistant:
    """One model and the function that calls it; close it when no run is in progress any more."""

    def __init__(self, source: Endpoint | LocalModel, *, tokens: int | None = None) -> None:
        """Describe an assistant; nothing is sent or started yet.

        Args:
            source: where the model is.
            tokens: how much of a conversation the model gets; None takes what suits the source.
        """
        self._source = source
        local = isinstance(source, LocalModel)
        self._tokens = tokens or (LOCAL_TOKENS if local else SERVICE_TOKENS)
        self._endpoint: Endpoint | None = None
        self._client: AsyncOpenAI | None = None
        self._model: AgentFunction | None = None
        self._connecting = asyncio.Lock()

    @property
    def title(self) -> str:
        """The model and where it is, for one line."""
        source = self._source
        return (
            source.title if isinstance(source, LocalModel) else f"{source.model} at {source.host}"
        )

    async def answer(self, request: AgentInput) -> AsyncGenerator[object, None]:
        """A language model answers."""
        source = self._source
        request = replace(request, messages=recent(request.messages, self._tokens))
        if isinstance(source, LocalModel):
            if not source.runs:
                yield {"type": "STEP_STARTED", "stepName": LOADING}
                await source.endpoint()
                yield {"type": "STEP_FINISHED", "stepName": LOADING}
            # A model of this size cannot use tools.
            request = replace(request, tools=[])
            source = await source.endpoint()
        model = await self._model_at(source)
        async with contextlib.aclosing(model(request)) as items:
            async for item in items:
                yield item

    async def aclose(self) -> None:
        """Close the connections to the service, or end the local model."""
        if self._client is not None:
            await self._client.close()
        if isinstance(self._source, LocalModel):
            await self._source.aclose()

    async def _model_at(self, endpoint: Endpoint) -> AgentFunction:
        """Return the function that calls this endpoint; a crashed local model gets another one."""
        async with self._connecting:
            if self._model is not None and endpoint == self._endpoint:
                return self._model
            # Reading certificates blocks for a moment, so it happens in a thread.
            client, model = await asyncio.to_thread(self._connect, endpoint)
            self._client, self._model, self._endpoint = client, model, endpoint
            return model

    def _connect(self, endpoint: Endpoint) -> tuple[AsyncOpenAI, AgentFunction]:
        client = _client(endpoint, trust_env=isinstance(self._source, Endpoint))
        return client, from_pydantic_ai(self._agent(client, endpoint))

    def _agent(self, client: AsyncOpenAI, endpoint: Endpoint) -> Agent[None, str]:
        provider: OpenAIProvider | OpenAICompatibleProvider
        if endpoint.base_url == OPENAI:
            provider = OpenAIProvider(openai_client=client)
        else:
            provider = OpenAICompatibleProvider("endpoint", openai_client=client)
        local = isinstance(self._source, LocalModel)
        return Agent(
            OpenAIChatModel(endpoint.model, provider=provider),
            instructions=LOCAL_INSTRUCTIONS if local else INSTRUCTIONS,
            model_settings=LOCAL_SETTINGS if local else None,
        )


def _client(endpoint: Endpoint, *, trust_env: bool) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        # Without a key the library would look for another one; a service without keys ignores it.
        api_key=endpoint.key or "none",
        max_retries=ATTEMPTS - 1,
        timeout=TIMEOUT,
        # A proxy of the environment is for services elsewhere.
        http_client=httpx2.AsyncClient(trust_env=trust_env, timeout=TIMEOUT),
    )
