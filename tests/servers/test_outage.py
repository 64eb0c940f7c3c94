"""Identity providers on bad days: an outage refuses no good token and accepts no bad one.

Each fault is real: it is done to the answers of a provider, or to the TCP line to it.
"""

import asyncio
import functools
import itertools
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from tests.servers.conversation import ask, eventually, until_text
from tests.servers.issuing import (
    DEADLINE,
    Issuer,
    Outcome,
    breaker_moves,
    connect_once,
    get,
    issuing,
    log_events,
    metric,
    serving,
    trusting,
)
from towpath.testing.faults import (
    PASS,
    Delay,
    Drop,
    Garbage,
    HalfClose,
    ProxyFault,
    Refuse,
    Reset,
    Slow,
)
from towpath.testing.oidc_provider import (
    JWKS,
    Answer,
    Html,
    Json,
    Oversize,
    Raw,
    Redirect,
    Status,
)
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

RESET_SECONDS = 3.0
"""How long breakers stay open here: longer than anybody waits, as with the real settings."""
BRISK: dict[str, Any] = {
    "keys_timeout": 0.25,
    "auth_timeout": 1.2,
    "breaker_reset": RESET_SECONDS,
    "failures_burst": 100_000,  # Limits have tests of their own.
}
MOVED = "/moved"
FOREIGN = RSAKey.generate_key(2048)

LINES: dict[str, ProxyFault] = {
    "down": Refuse(),
    "reset": Reset(),
    "cut in the answer": HalfClose(after=40),
    "late": Delay(30),
    "hanging": Drop(),
    "byte by byte": Slow(20),
    "garbage": Garbage(b"\x00\xff\r\n" * 200),
}
"""What goes wrong on the line to a provider."""
ANSWERS: dict[str, Answer] = {
    "401": Status(401),
    "403": Status(403),
    "404": Status(404),
    "429": Status(429, retry_after=3600),
    "503": Status(503),
    "html": Html(),
    "no json": Raw(b'{"issuer": '),
    "no object": Json([1, 2]),
    "empty": Json({}),
    "nested": Raw(b"[" * 5000 + b"]" * 5000),
    "redirect": Redirect(MOVED),
}
"""What goes wrong in a provider's answers, whatever it is asked."""
FLOODS: dict[str, Answer] = {
    "100 MB": Oversize(),
    "100 MB in chunks": Oversize(framing="chunked"),
    "100 MB unpacked": Oversize(framing="gzip"),
}
"""Answers that do not end."""
DOCUMENTS: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://other.example"},
    "nearly the issuer": {"issuer": "http://127.0.0.1/"},
    "no issuer": {"issuer": ...},
    "no keys": {"jwks_uri": ...},
    "keys on another host, in the clear": {"jwks_uri": "http://169.254.169.254/latest"},
    "keys in a file": {"jwks_uri": "file:///etc/passwd"},
    "keys behind a password": {"jwks_uri": "https://me:secret@127.0.0.1/jwks"},
}
"""What a discovery document may say that is not to be followed."""
KEYS: dict[str, Answer] = {
    "503": Status(503),
    "html": Html(),
    "redirect": Redirect(MOVED),
    "none": Json({"keys": []}),
    "no list": Json({"keys": {}}),
    "shared secrets only": Json({"keys": [{"kty": "oct", "kid": "key-1", "k": "c2VjcmV0" * 8}]}),
}
"""What may come instead of keys."""


@asynccontextmanager
async def cold(
    data: Path, issuer: Issuer, **settings: object
) -> AsyncGenerator[ServerProcess, None]:
    """Run a server that has fetched no key yet, because it is ready without keys."""
    issuers = trusting(issuer, required=False)
    async with serving(data, issuers=issuers, **BRISK | settings) as server:
        yield server


@asynccontextmanager
async def warm(
    data: Path, issuer: Issuer, **settings: object
) -> AsyncGenerator[ServerProcess, None]:
    """Run a server that has the keys of its issuer."""
    async with serving(data, issuers=trusting(issuer), **BRISK | settings) as server:
        yield server


def forged(issuer: Issuer, user: str = "mallory") -> str:
    """Return a token that looks like the issuer's, key id and all, signed with another key."""
    provider = issuer.provider
    true = provider.kids[-1]
    provider.add_key(kid="forged", key=FOREIGN)
    provider.drop_key("forged")
    token = provider.token(user, kid="forged")
    header, claims, _ = provider.token(user).split(".")
    assert provider.kids[-1] == true
    return ".".join((header, claims, token.rpartition(".")[2]))


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def failed_calls(server: ServerProcess, issuer: Issuer) -> float:
    """Return how many calls to the issuer failed, by the server's metrics."""
    return await metric(
        server, "towpath_key_fetch_seconds_count", issuer=issuer.issuer, outcome="failed"
    )


async def assert_refused_for_now(server: ServerProcess, issuer: Issuer) -> None:
    """Good, expired and forged tokens get the same temporary error at each endpoint, in time."""
    tokens = (issuer.token("mia"), issuer.token("mia", ttl=-600), forged(issuer))
    outcomes = await asyncio.gather(*(connect_once(server.ws, token) for token in tokens))
    assert all(outcome.later for outcome in outcomes), outcomes
    for token in tokens:
        answer = await get(server, "/api/v1/whoami", token)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == 100


async def assert_in_after_a_pause(server: ServerProcess, issuer: Issuer) -> None:
    """Once the provider is well, whoever knocks after the breaker's pause is in.

    The server looks after its keys by itself too: while that is the probe, a person is told to come
    back once more, and on a busy machine it may take its time.
    """
    issuer.heal()
    await asyncio.sleep(RESET_SECONDS)  # The pause itself, not a wait for something else.
    outcome = await connect_once(server.ws, issuer.token("mia"))
    if outcome.later:
        await asyncio.sleep(1)
        outcome = await connect_once(server.ws, issuer.token("mia"))
    assert outcome.accepted, outcome


async def assert_heals(server: ServerProcess, issuer: Issuer) -> None:
    """Once the provider is up, one probe after the pause closes the breaker: two calls in all."""
    before = issuer.calls
    await assert_in_after_a_pause(server, issuer)
    assert issuer.calls == before + 2, "its discovery document, and its keys"
    assert breaker_moves(server, issuer) == ["closed", "open", "half-open", "closed"]
    assert await metric(server, "towpath_breaker_state", dependency=issuer.issuer) == 0
    # It tells good from bad again.
    assert (await connect_once(server.ws, forged(issuer))).code == 3500
    assert (await connect_once(server.ws, issuer.token("mia", ttl=-600))).code == 109


async def each(
    names: Iterable[str], data: Path, check: Callable[[str, Issuer, ServerProcess], Awaitable[None]]
) -> None:
    """Check one thing for each of these at once, each with an issuer of its own, all cold, behind
    one server; a failure says whose it was.
    """
    async with AsyncExitStack() as stack:
        issuers = {name: await stack.enter_async_context(issuing()) for name in names}
        server = await stack.enter_async_context(
            serving(data, issuers=trusting(*issuers.values(), required=False), **BRISK)
        )

        async def named(name: str) -> None:
            try:
                await check(name, issuers[name], server)
            except BaseException as error:
                error.add_note(f"the fault is {name!r}")
                raise

        await asyncio.gather(*map(named, issuers))


async def test_r22_r26_r32_a_line_that_fails_says_nothing_about_anybody(tmp_path: Path) -> None:
    """No keys and a bad line: 100 in time at each endpoint, an open breaker, one probe to heal."""

    async def check(name: str, issuer: Issuer, server: ServerProcess) -> None:
        issuer.line.fault = LINES[name]
        first = await connect_once(server.ws, issuer.token("mia"))
        assert first.later, first
        assert await failed_calls(server, issuer) == 3
        assert await metric(server, "towpath_breaker_state", dependency=issuer.issuer) == 2
        connections = issuer.line.connections
        await assert_refused_for_now(server, issuer)
        assert issuer.line.connections == connections, "an open breaker makes no calls"
        assert await failed_calls(server, issuer) == 3
        await assert_heals(server, issuer)

    await each(LINES, tmp_path / "data", check)


@pytest.mark.parametrize("answers", [ANSWERS, FLOODS], ids=["wrong", "endless"])
async def test_r22_r26_r31_r32_an_answer_that_is_none_says_nothing_about_anybody(
    tmp_path: Path, answers: dict[str, Answer]
) -> None:
    """No keys, bad responses: 100 at each endpoint; the third call is the last before a probe."""

    async def check(name: str, issuer: Issuer, server: ServerProcess) -> None:
        provider = issuer.provider
        # Who followed a redirect would find the truth.
        provider.answer(Json(provider.document()), path=MOVED)
        provider.answer(answers[name])
        first = await connect_once(server.ws, issuer.token("mia"))
        assert first.later, first
        await assert_refused_for_now(server, issuer)
        assert issuer.fetches == (3, 0), "the third failed call opened the breaker"
        assert issuer.calls == 3, "no redirect was followed"
        assert provider.bytes_sent < 50 * 1024 * 1024, "nor a flood swallowed"
        assert await metric(server, "towpath_breaker_state", dependency=issuer.issuer) == 2
        fetched_issuers = [one["issuer"] for one in log_events(server, "keys_fetched")]
        assert fetched_issuers.count(issuer.issuer) == 3
        await assert_heals(server, issuer)

    await each(answers, tmp_path / "data", check)


async def test_r22_r26_a_document_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    """Another issuer's document, or one that sends us elsewhere: later, and nobody asked there."""

    async def check(name: str, issuer: Issuer, server: ServerProcess) -> None:
        issuer.provider.metadata.update(DOCUMENTS[name])
        first = await connect_once(server.ws, issuer.token("mia"))
        assert first.later, first
        await assert_refused_for_now(server, issuer)
        assert issuer.fetches == (3, 0)
        await assert_heals(server, issuer)

    await each(DOCUMENTS, tmp_path / "data", check)


async def test_r22_r26_keys_that_are_none_let_nobody_in(tmp_path: Path) -> None:
    """A good document without keys: temporary at each endpoint; accepted once there are keys."""

    async def check(name: str, issuer: Issuer, server: ServerProcess) -> None:
        provider = issuer.provider
        provider.answer(Json(provider.key_set()), path=MOVED)
        provider.answer(KEYS[name], path=JWKS)
        first = await connect_once(server.ws, issuer.token("mia"))
        assert first.later, first
        await assert_refused_for_now(server, issuer)
        assert provider.requests[MOVED] == 0
        assert breaker_moves(server, issuer)[:2] == ["closed", "open"]
        await assert_in_after_a_pause(server, issuer)
        assert (await connect_once(server.ws, forged(issuer))).code == 3500

    await each(KEYS, tmp_path / "data", check)


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_r31_attempts_are_as_many_as_the_setting_says(tmp_path: Path, attempts: int) -> None:
    """One layer retries: a failing provider gets the setting's number of calls per connect."""
    settings = {"auth_attempts": attempts, "auth_timeout": 2.5, "breaker_failures": 1000}
    async with issuing() as issuer, cold(tmp_path / "data", issuer, **settings) as server:
        issuer.provider.answer(Status(503))
        for person in range(1, 4):
            outcome = await connect_once(server.ws, issuer.token(f"mia-{person}"))
            assert outcome.later, outcome
            assert issuer.fetches == (person * attempts, 0)
        # A token that is certainly invalid is refused at once: no call can change its verdict.
        assert (await connect_once(server.ws, "a.b.c")).code == 3500
        assert issuer.calls == 3 * attempts


async def test_r32_with_the_settings_as_they_come_a_hang_is_answered_in_time(
    tmp_path: Path,
) -> None:
    """Default deadlines, a provider that hangs: every attempt is answered within 3 s."""
    async with (
        issuing() as issuer,
        serving(tmp_path / "data", issuers=trusting(issuer, required=False)) as server,
    ):
        issuer.line.fault = Drop()
        crowd = await asyncio.gather(
            *(connect_once(server.ws, issuer.token(f"mia-{number}")) for number in range(30))
        )
        assert all(outcome.later for outcome in crowd), crowd
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await get(server, "/api/v1/whoami", issuer.token("mia"))
        assert loop.time() - began < DEADLINE
        assert answer.status_code == 503
        assert breaker_moves(server, issuer) == ["closed", "open"]
        assert issuer.line.connections <= 4, "all of them shared three calls, cut short or not"


async def test_r24_r26_a_crowd_at_an_open_breaker_makes_one_probe(tmp_path: Path) -> None:
    """After the pause, fifty concurrent attempts make one call to a provider that is still down."""
    async with issuing() as issuer, cold(tmp_path / "data", issuer) as server:
        issuer.provider.answer(Status(503))
        assert (await connect_once(server.ws, issuer.token("mia"))).later
        assert issuer.calls == 3
        await asyncio.sleep(RESET_SECONDS)
        crowd = await asyncio.gather(
            *(connect_once(server.ws, issuer.token(f"mia-{number}")) for number in range(50))
        )
        assert all(outcome.later for outcome in crowd), crowd
        assert issuer.calls == 4
        assert breaker_moves(server, issuer) == ["closed", "open", "half-open", "open"]
        await assert_in_after_a_pause(server, issuer)


async def test_r29_known_keys_carry_on_through_every_outage(tmp_path: Path) -> None:
    """Within the stale window no good token is refused, and no bad one accepted."""
    settings = {"keys_fresh": 0.2, "keys_stale": 60}
    async with issuing() as issuer, warm(tmp_path / "data", issuer, **settings) as server:
        faults: list[Callable[[], None]] = [
            *(functools.partial(setattr, issuer.line, "fault", one) for one in LINES.values()),
            *(functools.partial(issuer.provider.answer, one) for one in ANSWERS.values()),
        ]
        issuer.line.fault = Refuse()
        await asyncio.sleep(0.3)  # They are stale from now on.
        for number, fault in enumerate(faults):
            issuer.heal()
            issuer.line.fault = Refuse() if number % 2 else PASS
            fault()
            good = [
                connect_once(server.ws, issuer.token(f"mia-{number}-{one}")) for one in range(3)
            ]
            outcomes = await asyncio.gather(*good)
            assert all(one.accepted and one.seconds < 1 for one in outcomes), (number, outcomes)
            answer = await get(server, "/api/v1/whoami", issuer.token(f"mia-{number}"))
            assert answer.status_code == 200
        issuer.line.fault = Refuse()
        assert (await connect_once(server.ws, forged(issuer))).code == 3500
        assert (await connect_once(server.ws, issuer.token("mia", ttl=-600))).code == 109
        assert (await connect_once(server.ws, issuer.token("mia", kid="unheard-of"))).later


async def test_r29_past_the_stale_window_old_keys_let_nobody_in(tmp_path: Path) -> None:
    """A key withdrawn in an outage is used no longer than the window; then errors are temporary."""
    settings = {"keys_fresh": 0.2, "keys_stale": 1}
    async with issuing() as issuer, warm(tmp_path / "data", issuer, **settings) as server:
        old = issuer.provider.kids[-1]
        issuer.provider.rotate()
        issuer.line.fault = Refuse()
        assert (await connect_once(server.ws, issuer.token("mia", kid=old))).accepted
        await asyncio.sleep(1.3)
        for number in range(3):
            outcome = await connect_once(server.ws, issuer.token(f"mia-{number}", kid=old))
            assert outcome.later, outcome
        await assert_in_after_a_pause(server, issuer)
        assert (await connect_once(server.ws, issuer.token("mia", kid=old, n=1))).code == 3500


@asynccontextmanager
async def flapping(issuer: Issuer) -> AsyncGenerator[None, None]:
    """Switch the provider off and on, a second each, until the context ends."""

    async def flap() -> None:
        turns: tuple[ProxyFault, ...] = (Refuse(), PASS, Drop(), PASS)
        for fault in itertools.cycle(turns):
            issuer.line.fault = fault
            issuer.line.cut()
            await asyncio.sleep(1)

    task = asyncio.create_task(flap())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        issuer.heal()


async def test_r22_r26_a_provider_that_comes_and_goes_every_second(tmp_path: Path) -> None:
    """With short-lived keys: good tokens accepted or temporary, bad ones never; then it heals."""
    settings = {"keys_fresh": 0.25, "keys_stale": 0, "breaker_reset": 0.5}
    async with issuing() as issuer, cold(tmp_path / "data", issuer, **settings) as server:
        good: list[Outcome] = []
        expired: list[Outcome] = []
        bad: list[Outcome] = []
        loop = asyncio.get_running_loop()
        async with flapping(issuer):
            until, number = loop.time() + 6, 0
            while loop.time() < until:
                number += 1
                tokens = (
                    issuer.token(f"mia-{number}"),
                    issuer.token(f"mia-{number}", ttl=-600),
                    forged(issuer, f"mallory-{number}"),
                )
                outcomes = await asyncio.gather(
                    *(connect_once(server.ws, token) for token in tokens)
                )
                for kept, outcome in zip((good, expired, bad), outcomes, strict=True):
                    kept.append(outcome)
        wrong = [one for one in good if not (one.accepted or one.later)]
        assert not wrong
        assert {one.code for one in good} == {0, 100}
        assert {one.code for one in expired} <= {100, 109}
        assert {one.code for one in bad} <= {100, 3500}
        assert max(one.seconds for one in (*good, *expired, *bad)) < DEADLINE
        await asyncio.sleep(0.5)
        assert (await connect_once(server.ws, issuer.token("mia"))).accepted


async def test_r29_with_lasting_keys_nobody_notices_the_flapping(tmp_path: Path) -> None:
    """With a stale window no good token is refused or delayed while the provider flaps."""
    settings = {"keys_fresh": 0.25, "keys_stale": 60, "breaker_reset": 0.5}
    async with issuing() as issuer, warm(tmp_path / "data", issuer, **settings) as server:
        loop = asyncio.get_running_loop()
        async with flapping(issuer):
            until, number = loop.time() + 4, 0
            while loop.time() < until:
                number += 1
                outcome = await connect_once(server.ws, issuer.token(f"mia-{number}"))
                assert outcome.accepted, outcome
                assert outcome.seconds < 1
        request = {"issuer": issuer.issuer, "outcome": "failed"}
        assert await metric(server, "towpath_key_fetch_seconds_count", **request) > 0


# -- those who are in already -------------------------------------------------------------------

GRACE = 1
"""Seconds a connection outlives its credential here."""
HOLD = 4
"""Seconds it does in an outage."""


async def live_until(client: WireClient, expires: float) -> tuple[int, float]:
    """Wait until a connection is closed; return its code, and how long past its expiry it was."""
    code = await client.until_closed(seconds=20)
    return code, time.time() - expires


async def talking(server: ServerProcess, token: str, stack: AsyncExitStack) -> WireClient:
    """Return the connection of somebody who listens to an agent that counts slowly."""
    client = await stack.enter_async_context(wire_client(server.ws, token))
    started = await ask(client, "count 100000 at 20/s")
    await until_text(client, started)
    return client


async def test_r22_r84_an_outage_logs_nobody_out_for_as_long_as_its_grace(tmp_path: Path) -> None:
    """Expired in an outage, a session goes on, events flowing, and ends with 3005 after the grace;
    a refresh meanwhile gets a temporary error, and the session stays.
    """
    settings = {"expiry_grace": GRACE, "outage_grace": HOLD, "keys_fresh": 0.2, "keys_stale": 0}
    async with (
        issuing() as issuer,
        warm(tmp_path / "data", issuer, **settings) as server,
        AsyncExitStack() as stack,
    ):
        token = issuer.token("mia", ttl=2)
        expires = claims_of(token)["exp"]
        client = await talking(server, token, stack)
        issuer.line.fault = Refuse()
        await asyncio.sleep(expires + GRACE + 1 - time.time())
        seen = len(client.frames)
        reply = await client.command("refresh", token=issuer.token("mia"))
        assert reply["error"]["code"] == 100
        assert reply["error"]["temporary"] is True
        await client.until(lambda: len(client.frames) > seen + 20)
        assert (await client.rpc("whoami"))["user"] == "mia"
        # It holds on to those who are in; it lets nobody in, this very person included.
        assert (await connect_once(server.ws, token)).code in (100, 109)
        assert (await connect_once(server.ws, issuer.token("mia"))).later
        code, late = await live_until(client, expires)
        assert code == 3005
        assert HOLD - 0.2 <= late < HOLD + 1.5


async def test_r84_without_an_outage_or_its_grace_a_session_ends_as_ever(tmp_path: Path) -> None:
    """With outage_grace 0 an outage changes nothing; without an outage the setting does not."""
    settings = {"expiry_grace": GRACE, "keys_fresh": 0.2, "keys_stale": 60}

    async def ends_after_its_grace(data: Path, fault: ProxyFault, hold: int) -> None:
        async with (
            issuing() as issuer,
            warm(data, issuer, **settings, outage_grace=hold) as server,
            AsyncExitStack() as stack,
        ):
            token = issuer.token("mia", ttl=2)
            client = await talking(server, token, stack)
            issuer.line.fault = fault
            code, late = await live_until(client, claims_of(token)["exp"])
            assert code == 3005
            assert GRACE - 0.2 <= late < GRACE + 1.5, (fault, late)

    await asyncio.gather(
        ends_after_its_grace(tmp_path / "down", Refuse(), 0),
        ends_after_its_grace(tmp_path / "well", PASS, 900),
    )


async def test_r84_after_the_outage_an_unrefreshed_session_ends(tmp_path: Path) -> None:
    """When the provider is up again, a session without a new token ends with 3005."""
    settings = {"expiry_grace": GRACE, "outage_grace": 900, "keys_fresh": 0.2, "keys_stale": 60}
    async with (
        issuing() as issuer,
        warm(tmp_path / "data", issuer, **settings) as server,
        AsyncExitStack() as stack,
    ):
        token = issuer.token("mia", ttl=2)
        expires = claims_of(token)["exp"]
        lazy = await talking(server, token, stack)
        diligent = await talking(server, issuer.token("ann", ttl=2), stack)
        issuer.line.fault = Refuse()
        await asyncio.sleep(expires + GRACE + 0.5 - time.time())
        assert (lazy.close_code, diligent.close_code) == (None, None)
        issuer.heal()
        reply = await diligent.command("refresh", token=issuer.token("ann"))
        assert reply["refresh"]["ttl"] > 3000
        # A token with a new key id causes the next fetch from the provider.
        issuer.provider.rotate()

        async def let_in() -> bool:
            return (await connect_once(server.ws, issuer.token("new"))).accepted

        await eventually(let_in, seconds=30.0)
        code, _ = await live_until(lazy, expires)
        assert code == 3005
        assert (await diligent.rpc("whoami"))["user"] == "ann"
        assert log_events(server, "fault") == []
