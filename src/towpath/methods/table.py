"""The table of methods, and the call of a method, for RPC and REST.

RPC and REST use the same parameters, handlers and errors, so neither is laxer than the other. A new
method is a class of parameters, a result, a handler and a row in the file of its noun.

Source: WIRE section 7.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from towpath.agents.agent import AgentRegistry
from towpath.auth.service import AuthService
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovery
from towpath.errors import BadRequest, MethodNotFound, StorageError, Unavailable
from towpath.log.broker import Broker
from towpath.methods import digests, meta, notices, runs, sessions, threads
from towpath.methods.method import Caller, Handler, Method, Params, bind
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry

_ROWS: tuple[Method[Any], ...] = (
    *runs.METHODS,
    *threads.METHODS,
    *digests.METHODS,
    *sessions.METHODS,
    *notices.METHODS,
    *meta.METHODS,
)
METHODS = {method.name: method for method in _ROWS}
"""Every method, by its RPC name."""


class Methods:
    """Calls the methods of one node."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """Take the handler of each method, by the method's name."""
        self._handlers = handlers

    async def call(self, name: str, data: bytes, caller: Caller) -> bytes:
        """Call a method with JSON parameters; return its JSON result.

        Raises:
            CommandError: the call failed; the code gives the reason.
        """
        method = METHODS.get(name)
        if method is None:
            raise MethodNotFound(f"no method {name[:64]!r}")
        try:
            params = msgspec.json.decode(data, type=method.params)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        return await self.invoke(method, params, caller)

    async def invoke(self, method: Method[Any], params: Params, caller: Caller) -> bytes:
        """Call a method with decoded parameters; see `call`."""
        try:
            result = await self._handlers[method.name](caller, params)
        except StorageError as error:
            raise Unavailable(str(error)) from None
        return msgspec.json.encode(result)


def make_methods(
    *,
    service: RunService,
    start_limit: runs.StartLimit,
    broker: Broker,
    store: ThreadStore,
    recovery: Recovery,
    auth_service: AuthService,
    hub: Hub,
    feed: sessions.RevocationFeed,
    registry: AgentRegistry,
    telemetry: Telemetry,
    now: Callable[[], float],
    new_id: Callable[[], str],
) -> Methods:
    """Return the methods of a node, each bound to its dependencies."""
    run_methods = runs.RunMethods(
        service=service, broker=broker, store=store, start_limit=start_limit, now=now
    )
    thread_methods = threads.ThreadMethods(broker=broker, store=store, now=now, new_id=new_id)
    digest_methods = digests.DigestMethods(recovery=recovery, telemetry=telemetry)
    session_methods = sessions.SessionMethods(
        auth_service=auth_service, hub=hub, feed=feed, broker=broker, now=now
    )
    return Methods(
        bind(runs.METHODS, run_methods)
        | bind(threads.METHODS, thread_methods)
        | bind(digests.METHODS, digest_methods)
        | bind(sessions.METHODS, session_methods)
        | bind(notices.METHODS, notices.NoticeMethods(broker=broker))
        | bind(meta.METHODS, meta.MetaMethods(registry=registry))
    )
