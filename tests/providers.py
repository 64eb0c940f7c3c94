"""Real identity providers in processes of their own: one in Python, one in Node.

Both are context managers with the same attributes: `http` (where it listens), `issuer` (its name;
set it to a proxy's base URL to be reached that way), `rotate`, and `token`, which asks for a token
over HTTP as a client of it would. They differ as real providers do:

- `OidcProviderMock` (PyPI oidc-provider-mock) signs id tokens with RS256; its one key, for life,
  says neither `alg` nor `use`; `aud` is a list of the one client; access tokens are opaque. On
  Python 3.11, where an older version of it is current, its tokens do not name their key.
- `OAuth2MockServer` (npm oauth2-mock-server) signs access tokens with any algorithm and a key id;
  its keys say `alg`; `aud` is a string. It rotates keys while it runs. Its discovery document says
  RS256 whatever it signs with.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

import httpx2

from towpath.testing.server import free_port

SCRIPT = Path(__file__).parent / "js" / "provider.mjs"
START_SECONDS = 30.0
REDIRECT = "http://127.0.0.1/callback"
"""Where authorization codes go; nobody listens and nobody asks there."""


class OidcProviderMock:
    """PyPI `oidc-provider-mock`, unmodified."""

    def __init__(self, *, audience: str = "towpath", tenant_claim: str = "tenant", ttl: int = 3600):
        """Describe a provider; nothing runs yet.

        Args:
            audience: the client it issues tokens for, which is their `aud`.
            tenant_claim: the claim that is the tenant.
            ttl: seconds until its tokens expire.
        """
        self.audience = audience
        self.tenant_claim = tenant_claim
        self.port = free_port()
        self.issuer = self.http
        """What it calls itself: it believes the Host header of a request."""
        self._ttl = ttl
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http(self) -> str:
        """The base URL of where it really listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "oidc_provider_mock"]
        command += ["--port", str(self.port), "--token-max-age", str(self._ttl)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError("it did not start; what it said is in the captured stderr")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and wait until it has ended; it may be started again, and is then another."""
        assert self._process is not None, "it was started"
        _end(self._process)

    def rotate(self) -> None:
        """Replace its key, in the only way it has: it starts anew, and remembers nothing."""
        self.stop()
        self.start()

    async def token(self, user: str = "alice", tenant: str = "acme", **claims: Any) -> str:
        """Log a user in with these claims, by the authorization code flow; return the id token."""
        about = {self.tenant_claim: tenant, **claims}
        asked = {
            "response_type": "code",
            "client_id": self.audience,
            "redirect_uri": REDIRECT,
            "scope": "openid profile email",
        }
        as_asked = {"host": urlsplit(self.issuer).netloc}
        async with httpx2.AsyncClient(
            base_url=self.http, headers=as_asked, trust_env=False
        ) as client:
            known = await client.put(f"/users/{quote(user, safe='')}", json=about)
            assert known.status_code == 204, known.text
            agreed = await client.post("/oauth2/authorize", params=asked, data={"sub": user})
            assert agreed.status_code == 302, agreed.text
            query = parse_qs(urlsplit(agreed.headers["location"]).query)
            exchange = {
                "grant_type": "authorization_code",
                "code": query["code"][0],
                "redirect_uri": REDIRECT,
            }
            secret = (self.audience, "any")
            answer = await client.post("/oauth2/token", data=exchange, auth=secret)
            assert answer.status_code == 200, answer.text
        return str(answer.json()["id_token"])

    def _answers(self) -> bool:
        try:
            with httpx2.Client(base_url=self.http, trust_env=False, timeout=2) as client:
                return client.get("/jwks").status_code == 200
        except httpx2.TransportError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class OAuth2MockServer:
    """npm `oauth2-mock-server`, unmodified but for the choice of the key that is used."""

    def __init__(
        self,
        *,
        audience: str = "towpath",
        tenant_claim: str = "tenant",
        algorithm: str = "RS256",
    ) -> None:
        """Describe a provider; nothing runs yet.

        Args:
            audience: the `aud` of its tokens.
            tenant_claim: the claim that is the tenant.
            algorithm: of its first key: RS*, PS*, ES*, EdDSA or Ed25519.
        """
        self.audience = audience
        self.tenant_claim = tenant_claim
        self.port = 0
        """Where it listens; known once it runs, and kept."""
        self.kids: list[str] = []
        """The ids of the keys it serves, oldest first; the last one signs."""
        self._algorithm = algorithm
        self._issuer = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def http(self) -> str:
        """The base URL of where it really listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return self._issuer

    @issuer.setter
    def issuer(self, url: str) -> None:
        self._issuer = url
        self._act("issuer", url=url)

    def start(self) -> None:
        """Start it and wait until it listens; the second time, on the same port."""
        self._process = subprocess.Popen(
            ["node", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._act("start", port=self.port, algorithm=self._algorithm)
        self.issuer = self._issuer or self.http

    def stop(self) -> None:
        """End it and wait until it has ended; it may be started again, with another key."""
        assert self._process is not None, "it was started"
        assert self._process.stdin is not None, "it is piped"
        assert self._process.stdout is not None, "it is piped"
        _end(self._process)
        self._process.stdin.close()
        self._process.stdout.close()

    def rotate(self, algorithm: str = "RS256", *, keep_old: bool = False) -> str:
        """Make a key that signs from now on, serve it alone or beside the old; return its id."""
        self._act("rotate", algorithm=algorithm, keepOld=keep_old)
        return self.kids[-1]

    async def token(
        self, user: str = "alice", tenant: str = "acme", *, ttl: float = 3600.0, **claims: Any
    ) -> str:
        """Ask for an access token with these claims, by the password flow, and return it."""
        about = {
            "aud": self.audience,
            "exp": int(time.time() + ttl),
            self.tenant_claim: tenant,
            **claims,
        }
        asked = {
            "grant_type": "password",
            "username": user,
            "client_id": self.audience,
            "claims": json.dumps(about),
        }
        async with httpx2.AsyncClient(base_url=self.http, trust_env=False) as client:
            answer = await client.post("/token", data=asked)
            assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def _act(self, what: str, **given: Any) -> None:
        """Have something done, and take what is then the case."""
        assert self._process is not None, "it was started"
        assert self._process.stdin is not None, "it is piped"
        assert self._process.stdout is not None, "it is piped"
        self._process.stdin.write(json.dumps({"do": what, **given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "it ended; what it said is in the captured stderr"
        done = json.loads(line)
        self.port, self.kids = done["port"], done["kids"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
