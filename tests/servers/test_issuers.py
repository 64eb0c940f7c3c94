"""Issuers whose keys are fetched: discovery, several at once, rotation, and a late start."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.providers import OAuth2MockServer, OidcProviderMock
from tests.servers.conversation import eventually
from tests.servers.issuing import (
    UPGRADE,
    Issuer,
    Outcome,
    breaker_moves,
    connect_once,
    get,
    issuing,
    metric,
    serving,
    trusting,
)
from towpath.testing.faults import Drop, Refuse
from towpath.testing.oidc_provider import JWKS
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


async def who(server: ServerProcess, token: str) -> tuple[str, str]:
    """Return the tenant and user of a token: the same over the socket and over REST."""
    async with wire_client(server.ws, token) as client:
        identity = await client.rpc("whoami")
    answer = (await get(server, "/api/v1/whoami", token)).json()
    assert {**identity, "connection": None} == answer
    return identity["tenant"], identity["user"]


async def enter(server: ServerProcess, token: str) -> list[Outcome]:
    """Retry until a connection is accepted; return the outcomes before, all of them temporary."""
    outcomes: list[Outcome] = []
    while not (outcome := await connect_once(server.ws, token)).accepted:
        assert outcome.later, outcome
        outcomes.append(outcome)
        assert len(outcomes) < 100, "it does open at last"
        await asyncio.sleep(0.1)  # SDKs wait longer before they try again.
    return outcomes


@pytest.mark.parametrize("path", ["", "/realms/acme", "/"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "Ed25519"])
async def test_an_issuer_is_found_by_its_discovery_document(
    tmp_path: Path, path: str, algorithm: str
) -> None:
    """An issuer, an audience and a claim are enough; its keys are fetched once for all users."""
    async with (
        issuing(path, algorithm=algorithm) as issuer,
        serving(
            tmp_path / "data",
            jwt_issuer=issuer.issuer,
            jwt_audience=issuer.audience,
            tenant_claim=issuer.tenant_claim,
        ) as server,
    ):
        for user in ("mia", "ann|37", "müller@example.com"):
            assert await who(server, issuer.token(user, "acme")) == ("acme", user)
        assert issuer.fetches == (1, 1)
        async with wire_client(server.ws, issuer.token("mia")) as client:
            assert (await client.rpc("whoami"))["roles"] == []
        ruler = issuer.token("mia", roles=["towpath:inspect"])
        async with wire_client(server.ws, ruler) as client:
            assert (await client.rpc("whoami"))["roles"] == ["towpath:inspect"]


async def test_keys_come_from_a_configured_address_without_discovery(tmp_path: Path) -> None:
    """With TOWPATH_JWKS_URL the server requests no discovery document and no other address."""
    async with (
        issuing() as issuer,
        serving(
            tmp_path / "data",
            jwt_issuer="https://login.example/",
            jwt_audience="towpath",
            jwks_url=f"{issuer.line.http}{JWKS}",
            tenant="acme",
        ) as server,
    ):
        token = issuer.token("mia", iss="https://login.example/")
        assert await who(server, token) == ("acme", "mia")
        assert issuer.fetches == (0, 1)
        wrong = issuer.token("mia", iss="https://login.example")
        assert (await connect_once(server.ws, wrong)).code == 3500


async def test_r13_tokens_of_other_issuers_and_audiences_are_refused(tmp_path: Path) -> None:
    """Two issuers use the same key ids; a token is valid only for the issuer that signed it."""
    async with (
        issuing(tenant_claim="org") as acme,
        issuing() as globex,
        issuing() as stranger,
        serving(tmp_path / "data", issuers=trusting(acme, globex)) as server,
    ):
        assert acme.provider.kids == globex.provider.kids == stranger.provider.kids
        assert await who(server, acme.token("mia", "acme")) == ("acme", "mia")
        assert await who(server, globex.token("mia", "globex")) == ("globex", "mia")
        bad = {
            "signed by the other": acme.token("mia", iss=globex.issuer),
            "signed by the other, the other way": globex.token("mia", iss=acme.issuer),
            "of a stranger": stranger.token("mia"),
            "of a stranger in a known name": stranger.token("mia", iss=acme.issuer),
            "of no issuer": acme.token("mia", iss=...),
            "of a list of issuers": acme.token("mia", iss=[acme.issuer]),
            "of nearly the issuer": acme.token("mia", iss=acme.issuer + "/"),
            "for another audience": acme.token("mia", aud="other"),
            "for no audience": acme.token("mia", aud=...),
            "without an end": acme.token("mia", exp=...),
            "of nobody": acme.token("mia", sub=...),
            "of no tenant": acme.token("mia", org=...),
            "of a tenant that is no text": acme.token("mia", org=["acme"]),
        }
        for what, token in bad.items():
            assert (await connect_once(server.ws, token)).code == 3500, what
            assert (await get(server, "/api/v1/whoami", token)).status_code == 401, what
        assert stranger.calls == 0, "addresses come from configuration, never from a token"
        assert await who(server, acme.token("mia", aud=["x", "towpath"])) == ("acme", "mia")


async def test_r13_a_tenant_that_is_fixed_is_no_claims_business(tmp_path: Path) -> None:
    """Issuers with a fixed tenant: the same subject and key id never cross, whatever the claims."""
    async with issuing() as acme, issuing() as globex:
        first, second = (
            trusting(one, tenant=name)[1:-1] for one, name in ((acme, "acme"), (globex, "globex"))
        )
        async with serving(tmp_path / "data", issuers=f"[{first},{second}]") as server:
            assert await who(server, acme.token("mia", "globex")) == ("acme", "mia")
            assert await who(server, globex.token("mia", "acme")) == ("globex", "mia")
            async with wire_client(server.ws, acme.token("mia")) as client:
                made = await client.rpc("thread.create", request_id="one")
            async with wire_client(server.ws, globex.token("mia")) as client:
                assert (await client.rpc("thread.list"))["threads"] == []
                channel = f"thread:{made['thread_id']}"
                assert (await client.command("subscribe", channel=channel))["error"]["code"] == 102


async def test_r23_one_issuers_outage_leaves_the_other_alone(tmp_path: Path) -> None:
    """While one issuer hangs and its breaker opens, users of the other connect as usual."""
    async with (
        issuing() as well,
        issuing() as ill,
        serving(tmp_path / "data", issuers=trusting(well, ill, required=False)) as server,
    ):
        ill.line.fault = Drop()
        waiting = [
            asyncio.create_task(connect_once(server.ws, ill.token(f"x{n}"))) for n in range(5)
        ]
        for number in range(30):
            outcome = await connect_once(server.ws, well.token(f"mia-{number}"))
            assert outcome.accepted
            assert outcome.seconds < 0.5
        assert not any(task.done() for task in waiting), "it was while the other hung"
        assert all(outcome.later for outcome in await asyncio.gather(*waiting))
        assert (await connect_once(server.ws, ill.token("x"))).later
        assert breaker_moves(server, ill) == ["closed", "open"]
        assert breaker_moves(server, well) == ["closed"]
        assert await metric(server, "towpath_breaker_state", dependency=ill.issuer) == 2
        assert (await connect_once(server.ws, well.token("new"))).accepted


@asynccontextmanager
async def crowd(
    server: ServerProcess, issuer: Issuer, outcomes: list[Outcome]
) -> AsyncGenerator[None]:
    """Let four users connect in a loop, each time with a new token."""
    numbers = itertools.count()

    async def one() -> None:
        while True:
            outcomes.extend(await enter(server, issuer.token(f"mia-{next(numbers)}")))
            outcomes.append(Outcome(0))

    async with asyncio.TaskGroup() as group:
        people = [group.create_task(one()) for _ in range(4)]
        yield
        for person in people:
            person.cancel()


async def test_r29_keys_rotate_under_load(tmp_path: Path) -> None:
    """Through four rotations each good token gets in, at most a moment later; withdrawn keys end.

    A provider signs with a new key at once and publishes the one before it for a while.
    """
    outcomes: list[Outcome] = []
    async with (
        issuing() as issuer,
        serving(
            tmp_path / "data",
            issuers=trusting(issuer),
            keys_cooldown=0.5,
            keys_fresh=1,
            keys_stale=60,
        ) as server,
    ):
        async with crowd(server, issuer, outcomes):
            for algorithm in ("ES256", "RS256", "Ed25519", "RS256"):
                known = len(outcomes)
                issuer.provider.add_key(algorithm)
                await enter(server, issuer.token(f"after-{algorithm}-{known}"))
                while len(outcomes) < known + 40:  # noqa: ASYNC110 - others make it longer.
                    await asyncio.sleep(0.01)
                issuer.provider.drop_key(issuer.provider.kids[0])
        assert sum(one.accepted for one in outcomes) > 100
        assert issuer.fetches[1] < 30, "it was not asked for each of them"
        withdrawn = issuer.token("mallory", kid="key-1")

        async def refused() -> bool:
            # It is good until the keys that are known are fetched anew.
            return (await connect_once(server.ws, withdrawn)).code == 3500

        await asyncio.sleep(1)
        await eventually(refused)
        assert breaker_moves(server, issuer) == ["closed"]


async def test_r23_made_up_key_ids_neither_flood_the_issuer_nor_stop_anybody(
    tmp_path: Path,
) -> None:
    """200 tokens with unknown key ids cost the issuer one or two fetches; good ones connect."""
    async with (
        issuing() as issuer,
        serving(tmp_path / "data", issuers=trusting(issuer), failures_burst=10_000) as server,
    ):
        bad = [issuer.token("mallory", kid=f"made-up-{number}") for number in range(200)]
        outcomes = await asyncio.gather(
            *(connect_once(server.ws, token) for token in bad),
            *(connect_once(server.ws, issuer.token(f"mia-{number}")) for number in range(20)),
        )
        assert {one.code for one in outcomes[:200]} <= {100, 3500}
        assert all(one.accepted for one in outcomes[200:])
        assert issuer.fetches[1] <= 2
        for number in range(20):  # One after the other they share no fetch.
            token = issuer.token("mallory", kid=f"made-up-later-{number}")
            assert (await connect_once(server.ws, token)).later
        assert issuer.fetches[1] <= 3
        assert breaker_moves(server, issuer) == ["closed"]


async def test_r30_a_server_is_ready_once_its_issuer_is_there(tmp_path: Path) -> None:
    """No issuer at the start: alive, not ready, with a reason; later ready, and users connect."""
    async with issuing() as issuer, issuing() as other, AsyncExitStack() as stack:
        issuer.line.fault = Refuse()
        issuers = f"{trusting(issuer)[:-1]},{trusting(other, required=False)[1:]}"
        server = await stack.enter_async_context(
            serving(tmp_path / "data", start=False, issuers=issuers, breaker_reset=1)
        )

        async def log_open() -> bool:
            try:
                phase = (await get(server, "/health/startup")).json()["phase"]
            except httpx2.TransportError:
                return False
            return bool(phase == "warming")

        await eventually(log_open, seconds=30)
        ready = await get(server, "/health/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert issuer.issuer in ready.json()["error"]
        startup = await get(server, "/health/startup")
        assert startup.status_code == 503
        assert startup.json() == {"phase": "warming", "waiting_for": [issuer.issuer]}
        for token in (issuer.token("mia"), other.token("mia")):
            answer = await get(server, "/api/v1/whoami", token)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, 100)
            upgrade = await get(server, "/connection/websocket", token, UPGRADE)
            assert (upgrade.status_code, upgrade.headers["retry-after"]) == (503, "1")
        issuer.heal()

        async def ready_now() -> bool:
            return (await get(server, "/health/ready")).status_code == 200

        await eventually(ready_now, seconds=5)
        assert (await get(server, "/health/startup")).json() == {
            "phase": "ready",
            "waiting_for": [],
        }
        assert (await connect_once(server.ws, issuer.token("mia"))).accepted
        # A later outage takes nobody out of service.
        issuer.line.fault = Refuse()
        assert (await connect_once(server.ws, issuer.token("ann", kid="unheard-of"))).later
        assert await ready_now()


async def test_r30_a_restart_calls_no_good_token_bad(tmp_path: Path) -> None:
    """After a kill a good token gets 503 until the keys are there, and is then accepted."""
    async with (
        issuing() as issuer,
        serving(tmp_path / "data", issuers=trusting(issuer), breaker_reset=1) as server,
    ):
        assert (await connect_once(server.ws, issuer.token("mia"))).accepted
        await asyncio.to_thread(server.kill)
        issuer.line.fault = Refuse()
        server.launch()
        seen: set[int] = set()

        async def let_in() -> bool:
            answer = await get(server, "/api/v1/whoami", issuer.token("mia"))
            seen.add(answer.status_code)
            if answer.status_code == 503 and "keys" in answer.text:
                issuer.heal()
            return answer.status_code == 200

        async def eventually_let_in() -> bool:
            try:
                return await let_in()
            except httpx2.TransportError:  # Nobody listens yet.
                return False

        await eventually(eventually_let_in, seconds=30)
        assert seen == {503, 200}
        assert (await connect_once(server.ws, issuer.token("mia"))).accepted


# -- providers that others made -------------------------------------------------------------------


@pytest.fixture(scope="module")
def python_provider() -> Iterator[OidcProviderMock]:
    """PyPI oidc-provider-mock."""
    with OidcProviderMock() as provider:
        yield provider


async def test_people_of_oidc_provider_mock_come_in(
    tmp_path: Path, python_provider: OidcProviderMock
) -> None:
    """Tokens without a key id, a list as audience, keys without alg or use: in, and only those."""
    provider = python_provider
    async with serving(
        tmp_path / "data",
        jwt_issuer=provider.issuer,
        jwt_audience=provider.audience,
        tenant_claim=provider.tenant_claim,
    ) as server:
        token = await provider.token("mia", "acme")
        assert await who(server, token) == ("acme", "mia")
        assert await who(server, await provider.token("ann", "globex")) == ("globex", "ann")
        header, claims, signature = token.split(".")
        forged = ".".join((header, claims, signature[:-4] + "AAAA"))
        assert (await connect_once(server.ws, forged)).code == 3500
        await asyncio.to_thread(provider.stop)
        assert (await connect_once(server.ws, token)).accepted
        await asyncio.to_thread(provider.start)


@pytest.mark.sdk_js
async def test_r29_people_of_oauth2_mock_server_come_in_through_rotations(tmp_path: Path) -> None:
    """Rotations of a real provider, to another algorithm and back: in, at most a moment later."""
    with OAuth2MockServer() as provider:
        async with serving(
            tmp_path / "data",
            jwt_issuer=provider.issuer,
            jwt_audience=provider.audience,
            tenant_claim=provider.tenant_claim,
            keys_cooldown=0.5,
        ) as server:
            assert await who(server, await provider.token("mia", "acme")) == ("acme", "mia")
            for algorithm, keep in (("ES256", True), ("RS256", False), ("RS256", False)):
                await asyncio.to_thread(provider.rotate, algorithm, keep_old=keep)
                token = await provider.token(f"mia-{provider.kids[-1]}", "acme")
                await enter(server, token)
                assert (await who(server, token))[0] == "acme"
