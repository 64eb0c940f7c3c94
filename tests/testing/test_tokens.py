"""Tokens of a test's own signer, before a real gateway."""

import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.testclient import TestClient

from towpath import Gateway, Settings
from towpath.testing import TokenSigner

SECRET = "a shared secret of sixty-four bytes, which HS512 asks for as well"
OTHER_ISSUER = {
    "jwt_issuer": "https://id.example.com/",
    "jwt_audience": "chat",
    "jwt_key": SECRET,
    "jwt_algorithm": "HS512",
    "tenant": "globex",
    "roles_claim": "groups",
    "issuers": ({"issuer": "https://other.example.com/", "key": SECRET, "tenant": "other"},),
}


def token_of_the_other_issuer() -> str:
    """Return a token that `OTHER_ISSUER` accepts."""
    claims = {"iss": "https://other.example.com/", "sub": "mia", "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def test_the_other_issuer_is_one(tmp_path: Path) -> None:
    """Before the signer's settings, its token is accepted."""
    gateway = Gateway(Settings.model_validate({**OTHER_ISSUER, "data": tmp_path}))
    with TestClient(gateway) as app:
        assert whoami(app, token_of_the_other_issuer())[0] == 200


def whoami(app: TestClient, token: str) -> tuple[int, dict[str, object]]:
    """Return the status and the answer to the question who a token's user is."""
    answer = app.get("/api/v1/whoami", headers={"authorization": f"Bearer {token}"})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("configured", [{}, OTHER_ISSUER], ids=["nothing", "another issuer"])
def test_a_gateway_with_the_signers_settings_takes_its_tokens(
    tmp_path: Path, configured: dict[str, object]
) -> None:
    """User, tenant and roles come from the token, whatever issuer was configured before."""
    signer = TokenSigner()
    settings = Settings.model_validate({**configured, "data": tmp_path, "run_deadline": 7})
    gateway = Gateway(signer.configure(settings))
    assert (gateway.settings.data, gateway.settings.run_deadline) == (tmp_path, 7)
    with TestClient(gateway) as app:
        token = signer.token("bob", tenant="acme", roles=["towpath:service"])
        status, answer = whoami(app, token)
        assert status == 200
        assert [answer[name] for name in ("user", "tenant", "roles")] == [
            "bob",
            "acme",
            ["towpath:service"],
        ]
        assert whoami(app, signer.token(expires_in=-60))[0] == 401
        assert whoami(app, TokenSigner().token())[0] == 401
        assert whoami(app, token_of_the_other_issuer())[0] == 401
