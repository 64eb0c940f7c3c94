"""A token is good in exactly one way, and bad in every other."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from towpath.auth.tokens import (
    LEEWAY,
    MAX_TIME,
    MAX_TOKEN_BYTES,
    Invalid,
    Issuer,
    TokenVerifier,
    Valid,
)
from towpath.errors import ConfigurationError

NOW = 1_800_000_000.0
SECRET = OctKey.import_key("s" * 40)
RSA = RSAKey.generate_key(2048, auto_kid=False)
OTHER_RSA = RSAKey.generate_key(2048, auto_kid=False)
EC = ECKey.generate_key("P-256", auto_kid=False)
ED = OKPKey.generate_key("Ed25519", auto_kid=False)
CLAIMS: dict[str, Any] = {
    "iss": "https://id.example/",
    "aud": "towpath",
    "sub": "mia",
    "org": "acme",
    "exp": int(NOW) + 60,
}


def issuer(key: Key = SECRET, algorithm: str = "HS256", **changes: Any) -> Issuer:
    fields: dict[str, Any] = {
        "issuer": "https://id.example/",
        "audience": "towpath",
        "key": key,
        "algorithm": algorithm,
        "tenant_claim": "org",
        "tenant": None,
    }
    return Issuer(**{**fields, **changes})


HS = TokenVerifier(issuer())
RS = TokenVerifier(issuer(RSAKey.import_key(RSA.as_pem(private=False)), "RS256"))


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: bytes | str, header: dict[str, Any] | str | None = None) -> str:
    """Return any payload, under any header, with a signature that our secret makes."""
    head = header if isinstance(header, str) else json.dumps(header or {"alg": "HS256"})
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    return hs256(f"{b64(head)}.{b64(data)}", SECRET.raw_value)


def hs256(signing: str, secret: bytes) -> str:
    """Return what is to be signed with its signature, made without the library under test."""
    return f"{signing}.{b64(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def token(**changes: Any) -> str:
    """Return a token that is correctly signed; a claim that is `...` is left out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...}
    return signed(json.dumps(claims))


GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
GOOD_RS = jwt.encode({"alg": "RS256"}, CLAIMS, RSA)


def forged() -> Iterator[tuple[str, str]]:
    """Tokens that our key did not sign, or not this way."""
    for name in ("none", "None", "NONE", "nOnE", "none ", "", "hs256", "HS", "*"):
        for end in ("", SIGNATURE, b64("x")):
            yield f"alg {name!r} {len(end)}", f"{b64(json.dumps({'alg': name}))}.{BODY}.{end}"
    for odd in (None, 5, True, ["HS256"], {"HS256": 1}, ["none"]):
        yield f"alg {odd!r}", f"{b64(json.dumps({'alg': odd}))}.{BODY}.{SIGNATURE}"
        yield f"signed alg {odd!r}", signed(json.dumps(CLAIMS), {"alg": odd})
    yield "no alg", signed(json.dumps(CLAIMS), {"typ": "JWT"})
    for head in ("", "{", "[]", "5", "null", '"HS256"', '{"alg":"HS256"', "\x00"):
        yield f"header {head!r}", signed(json.dumps(CLAIMS), head or "\n")
    for size in (40, 64):
        wrong = OctKey.import_key("w" * size)
        yield f"wrong key {size}", jwt.encode({"alg": "HS256"}, CLAIMS, wrong)
    for algorithm in ("HS384", "HS512"):
        key = OctKey.import_key("s" * 64)
        yield algorithm, jwt.encode({"alg": algorithm}, CLAIMS, key, algorithms=[algorithm])
        own = jwt.encode({"alg": algorithm}, CLAIMS, SECRET, algorithms=[algorithm])
        yield f"our secret with {algorithm}", own
    yield "RS256 where HS256 is taken", GOOD_RS
    yield "ES256 where HS256 is taken", jwt.encode({"alg": "ES256"}, CLAIMS, EC)
    attacker = OctKey.import_key("a" * 40)
    jwk = attacker.as_dict(private=True)
    hostile: list[dict[str, Any]] = [
        {"jwk": jwk},
        {"jku": "https://attacker.example/jwks.json"},
        {"jku": "file:///etc/passwd"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": [b64("certificate")]},
        {"kid": "../../../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"kid": "a" * 5000},
        {"kid": {"a": 1}},
        {"kid": None},
        {"jwk": jwk, "kid": "a", "jku": "http://127.0.0.1/"},
    ]
    for header in hostile:
        made = f"{b64(json.dumps({'alg': 'HS256', **header}))}.{BODY}"
        yield f"by {header}"[:60], hs256(made, attacker.raw_value)
        yield f"empty key {header}"[:60], f"{made}."
    for crit in (["exp"], ["unheard"], [], "exp", ["b64"], None):
        critical = {"alg": "HS256", "crit": crit, "unheard": 1, "b64": False}
        yield f"crit {crit}", signed(json.dumps(CLAIMS), critical)


def claimed() -> Iterator[tuple[str, str]]:
    """Tokens that our key did sign, whose claims are not good enough."""
    value: Any
    odd: Any
    for value in ("tomorrow", "1900000000", None, True, False, [], {}, -1, 10**18, 10**400, ""):
        yield f"exp {str(value)[:20]!r}", token(exp=value)
    yield "exp just too late", token(exp=MAX_TIME + 1)
    yield "exp missing", token(exp=...)
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e400"):
        for name in ("exp", "nbf", "iat"):
            claims = json.dumps({**CLAIMS, name: 7}).replace(f'"{name}": 7', f'"{name}": {text}')
            yield f"{name} {text}", signed(claims)
    for value in (0, 1, int(NOW) - 31, NOW - 30.0):
        yield f"expired {value}", token(exp=value)
    for name in ("nbf", "iat"):
        for odd in (NOW + 31, NOW + 30.5, 10**18, "0", None, True, [], -5):
            yield f"{name} {odd!r}", token(**{name: odd})
    for value in (
        ...,
        None,
        "",
        "Towpath",
        "towpath ",
        "towpath/",
        "tow",
        5,
        True,
        [],
        ["other"],
        ["TOWPATH"],
        [["towpath"]],
        {"towpath": 1},
        [None],
    ):
        yield f"aud {value!r}", token(aud=value)
    for value in (
        ...,
        None,
        "",
        "https://id.example",
        "https://id.example//",
        "https://ID.example/",
        "HTTPS://id.example/",
        "http://id.example/",
        "https://id.example/ ",
        "https://id.example/.",
        "https://id.example.attacker/",
        ["https://id.example/"],
        5,
        True,
        {"https://id.example/": 1},
    ):
        yield f"iss {value!r}", token(iss=value)
    for name in ("sub", "org"):
        for value in (..., None, "", " ", "\t\n", "\u3000", 5, 0, True, [], ["mia"], {}, "x" * 256):
            yield f"{name} {str(value)[:20]!r}", token(**{name: value})
        yield f"{name} é", token(**{name: "é" * 128})
        yield f"{name} lone surrogate", token(**{name: "\ud800"})
        yield f"{name} half a pair", token(**{name: "mia\udfff"})
        for again in ('"leo"', '"mia"', "null"):
            doubled = json.dumps(CLAIMS)[:-1] + f', "{name}": {again}}}'
            yield f"{name} twice {again}", signed(doubled)
    yield "exp twice", signed(json.dumps(CLAIMS)[:-1] + ', "exp": 1900000000}')
    yield "a member twice deep inside", signed(json.dumps(CLAIMS)[:-1] + ', "x": {"a":1,"a":2}}')
    for payload in ("", "null", "[]", "5", '"mia"', "{", "{}", "[{}]", "\ud800", "x" * 50):
        yield f"payload {payload[:10]!r}", signed(payload)
    yield "nested payload", signed('{"a":' * 3000 + "1" + "}" * 3000)
    yield "nested list", signed(json.dumps(CLAIMS)[:-1] + ',"a":' + "[" * 3000 + "]" * 3000 + "}")
    yield "not utf-8", signed(b'{"sub":"\xff"}')


def damaged() -> Iterator[tuple[str, str]]:
    """Good tokens of which a piece is missing, changed or too much."""
    for parts in ((HEAD,), (HEAD, BODY), (BODY, SIGNATURE), (HEAD, SIGNATURE)):
        yield f"{len(parts)} segments", ".".join(parts)
    for hole in range(3):
        segments = [HEAD, BODY, SIGNATURE]
        for cut in (0, 1, len(segments[hole]) // 2, len(segments[hole]) - 1):
            short = [s[:cut] if n == hole else s for n, s in enumerate(segments)]
            yield f"segment {hole} cut to {cut}", ".".join(short)
    for text in (".", "..", "...", "....", "a.b.c", "a.b.c.d.e", "Bearer", "null", "undefined"):
        yield text, text
    for odd in (
        f"{GOOD}.",
        f".{GOOD}",
        f"{GOOD}.{SIGNATURE}",
        f"{GOOD}..{SIGNATURE}",
        GOOD.replace(".", ".."),
        GOOD.replace(".", ""),
        GOOD.replace(".", ","),
        f"{GOOD}{GOOD}",
        f"{GOOD}\x00",
        f"{HEAD}.{BODY}.{SIGNATURE}é",
        f"Bearer {GOOD}",
        f"{GOOD} {GOOD}",
        GOOD.swapcase(),
        GOOD[::-1],
        "\ud800",
        "é" * 100,
        "",
        " ",
        "x" * 1024 * 1024,
        GOOD + "x" * 1024 * 1024,
        "." * 16000,
        token(pad="x" * MAX_TOKEN_BYTES),
    ):
        yield f"odd {odd[:20]!r}", odd
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at in range(0, len(GOOD) - 1, 5):
        if GOOD[at] != ".":
            other = alphabet[(alphabet.index(GOOD[at]) + 17) % 64]
            yield f"character {at}", GOOD[:at] + other + GOOD[at + 1 :]


def confused() -> Iterator[tuple[str, str]]:
    """Tokens against an issuer with an RSA key, made with what everybody knows of it."""
    public = RSA.as_pem(private=False)
    head, body, signature = GOOD_RS.split(".")
    for secret in (public, public.strip(), RSA.as_der(private=False), b"x"):
        made = f"{b64(json.dumps({'alg': 'HS256'}))}.{body}"
        yield f"HS256 with the public key {len(secret)}", hs256(made, secret)
    jwk = OTHER_RSA.as_dict(private=False)
    for header in ({}, {"jwk": jwk}, {"jku": "https://attacker.example/"}, {"kid": "x"}):
        yield (
            f"another key {sorted(header)}",
            jwt.encode({"alg": "RS256", **header}, CLAIMS, OTHER_RSA),
        )
    for algorithm in ("RS384", "RS512", "PS256"):
        yield algorithm, jwt.encode({"alg": algorithm}, CLAIMS, RSA, algorithms=[algorithm])
    yield "ES256", jwt.encode({"alg": "ES256"}, CLAIMS, EC)
    yield "no signature", f"{head}.{body}."
    yield "none", f"{b64(json.dumps({'alg': 'none'}))}.{body}."
    yield "zeros", f"{head}.{body}.{b64(bytes(256))}"
    yield "our secret", GOOD
    yield "cut", f"{head}.{body}.{signature[:-8]}"


BAD = [(name, text, HS) for make in (forged, claimed, damaged) for name, text in make()] + [
    (name, text, RS) for name, text in confused()
]


def test_r13_the_corpus_is_what_it_says() -> None:
    """There are enough bad tokens, no two alike, beside tokens that are good."""
    assert len({text for _, text, _ in BAD}) == len(BAD) >= 200
    assert isinstance(HS.verify(GOOD, NOW), Valid)
    assert isinstance(RS.verify(GOOD_RS, NOW), Valid)


@pytest.mark.parametrize("make", [forged, claimed, damaged, confused])
def test_r13_no_bad_token_is_accepted(make: Callable[[], Iterator[tuple[str, str]]]) -> None:
    """Of every kind of bad token not one gets in, and not one raises."""
    verifier = RS if make is confused else HS
    accepted = [
        name for name, text in make() if not isinstance(verifier.verify(text, NOW), Invalid)
    ]
    assert accepted == []


def test_r17_no_reason_holds_a_piece_of_the_token() -> None:
    """Whatever is wrong, the sentence for our logs quotes nothing that was presented."""
    for name, text, verifier in BAD:
        verdict = verifier.verify(text, NOW)
        assert isinstance(verdict, Invalid)
        assert verdict.reason
        pieces = {text[at : at + 8] for at in range(min(len(text), 3000) - 8)}
        assert not any(piece in verdict.reason for piece in pieces), name
        assert not any(value in verdict.reason for value in ("mia", "acme", "id.example"))


@given(st.data())
def test_r13_a_token_with_any_part_changed_is_refused(data: st.DataObject) -> None:
    """Whichever characters are put in the place of whichever, nothing but the original gets in."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 6)))
    put = data.draw(st.text(max_size=6))
    changed = GOOD[:start] + put + GOOD[end:]
    verdict = HS.verify(changed, NOW)
    # The last character of a signature has bits that mean nothing.
    if changed[:-1] != GOOD[:-1] or len(changed) != len(GOOD):
        assert isinstance(verdict, Invalid)


@given(st.text(max_size=60) | st.binary(max_size=60).map(b64))
def test_r13_no_text_raises(text: str) -> None:
    """A verdict is an answer, never an exception."""
    assert isinstance(HS.verify(text, NOW), Invalid)
    assert isinstance(HS.verify(f"{HEAD}.{text}.{SIGNATURE}", NOW), Invalid)
    assert isinstance(HS.verify(f"{text}.{BODY}.{SIGNATURE}", NOW), Invalid)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "org", "exp", "nbf", "iat", "jti", "roles"]),
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=5), max_size=2)
        | st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    )
)
def test_r13_whoever_gets_in_is_somebody(changes: dict[str, Any]) -> None:
    """At any values of all claims: no exception, and a principal has tenant, user and end."""
    verdict = HS.verify(token(**changes), NOW)
    if isinstance(verdict, Valid):
        who = verdict.principal
        assert who.user.strip()
        assert who.tenant.strip()
        assert who.expires_at is not None
        assert NOW - LEEWAY < who.expires_at <= MAX_TIME
        assert all(isinstance(role, str) and role for role in who.roles)


# What is good.


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    ("key", "public", "algorithm"),
    [
        (SECRET, SECRET, "HS256"),
        (RSA, RSAKey.import_key(RSA.as_pem(private=False)), "RS256"),
        (RSA, RSAKey.import_key(RSA.as_pem(private=False)), "PS256"),
        (EC, ECKey.import_key(EC.as_pem(private=False)), "ES256"),
        (ED, OKPKey.import_key(ED.as_pem(private=False)), "EdDSA"),
    ],
    ids=["HS256", "RS256", "PS256", "ES256", "EdDSA"],
)
def test_a_good_token_says_who(key: Key, public: Key, algorithm: str) -> None:
    """Tenant, user, roles, end and id are the claims'."""
    claims = {**CLAIMS, "roles": ["ops", "", 5, "admin"], "jti": "id-1"}
    made = jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])
    verdict = TokenVerifier(issuer(public, algorithm)).verify(made, NOW)
    assert isinstance(verdict, Valid)
    who = verdict.principal
    assert (who.tenant, who.user, sorted(who.roles)) == ("acme", "mia", ["admin", "ops"])
    assert (who.expires_at, who.token_id) == (NOW + 60, "id-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", "towpath"]},
        {"nbf": NOW + 30},
        {"iat": NOW + 30},
        {"nbf": 0, "iat": 0},
        {"exp": NOW + 0.5},
        {"exp": MAX_TIME},
        {"sub": "0"},
        {"sub": "default_user"},
        {"sub": "a:b%3A/é\u202e"},
        {"sub": "x" * 255},
        {"org": "😀"},
        {"unknown": {"deep": [1]}},
        {"email": "a@b"},
    ],
)
def test_r71_a_token_may_be_odd_and_good(changes: dict[str, Any]) -> None:
    """Ids of a verified issuer are opaque, and claims we do not know change nothing."""
    verdict = HS.verify(token(**changes), NOW)
    assert isinstance(verdict, Valid)
    assert verdict.principal.user == changes.get("sub", "mia")
    assert verdict.principal.tenant == changes.get("org", "acme")


@pytest.mark.parametrize("roles", [..., None, "ops", {"ops": 1}, 5, [], [None, 1, " "]])
def test_r13_roles_default_to_none(roles: Any) -> None:
    """Only a list of names gives roles."""
    verdict = HS.verify(token(roles=roles), NOW)
    assert isinstance(verdict, Valid)
    assert verdict.principal.roles == frozenset()


@pytest.mark.parametrize("value", [..., None, 5, ["a"]])
def test_a_token_without_a_usable_id_has_none(value: Any) -> None:
    """`jti` is optional."""
    verdict = HS.verify(token(jti=value), NOW)
    assert isinstance(verdict, Valid)
    assert verdict.principal.token_id is None


def test_one_fixed_tenant_ignores_what_the_token_claims() -> None:
    """Where the issuer has one tenant, no claim can name another."""
    verdict = TokenVerifier(issuer(tenant_claim=None, tenant="fixed")).verify(
        token(tenant="other", org="other"), NOW
    )
    assert isinstance(verdict, Valid)
    assert verdict.principal.tenant == "fixed"


def test_what_is_not_configured_is_not_asked_for() -> None:
    """Without a configured issuer or audience the key alone says who signed."""
    verifier = TokenVerifier(issuer(issuer=None, audience=None))
    assert isinstance(verifier.verify(token(iss=..., aud=...), NOW), Valid)


# Time.


@pytest.mark.parametrize(
    ("late", "valid"), [(-60.0, True), (0.0, True), (29.999, True), (30.0, False), (31.0, False)]
)
def test_r13_clocks_may_differ_by_exactly_30_seconds(late: float, valid: bool) -> None:
    """The last moment of the leeway is good, the next one is expired."""
    verdict = HS.verify(token(), NOW + 60 + late)
    if valid:
        assert isinstance(verdict, Valid)
    else:
        assert verdict == Invalid("expired", expired=True)


@pytest.mark.parametrize(("early", "valid"), [(30.0, True), (30.001, False)])
@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_r13_a_token_may_begin_at_most_30_seconds_from_now(
    claim: str, early: float, valid: bool
) -> None:
    """The leeway is the same at both ends."""
    verdict = HS.verify(token(**{claim: NOW}), NOW - early)
    assert isinstance(verdict, Valid) is valid


@pytest.mark.parametrize(
    "changes", [{"iss": "x"}, {"aud": "x"}, {"sub": ""}, {"org": ""}, {"nbf": NOW * 2}]
)
def test_only_what_was_good_once_is_expired(changes: dict[str, Any]) -> None:
    """An expired token with another fault is invalid: a new one would not help."""
    verdict = HS.verify(token(exp=1, **changes), NOW)
    assert isinstance(verdict, Invalid)
    assert not verdict.expired


def test_a_forged_token_is_never_called_expired() -> None:
    """Whose signature does not hold learns nothing about its claims."""
    made = jwt.encode({"alg": "HS256"}, {**CLAIMS, "exp": 1}, OctKey.import_key("w" * 40))
    verdict = HS.verify(made, NOW)
    assert isinstance(verdict, Invalid)
    assert not verdict.expired


def test_r67_a_token_may_have_16_kib() -> None:
    """A token of just under the bound is read."""
    length = (MAX_TOKEN_BYTES - len(token(pad=""))) * 3 // 4 - 4
    made = token(pad="x" * length)
    assert MAX_TOKEN_BYTES - 16 < len(made) <= MAX_TOKEN_BYTES
    assert isinstance(HS.verify(made, NOW), Valid)


@pytest.mark.parametrize(("claim", "tenant"), [(None, None), ("org", "acme")])
def test_r21_an_issuer_says_whose_its_users_are(claim: str | None, tenant: str | None) -> None:
    """Neither a claim nor a fixed tenant, or both, is an error at start that says both ways out."""
    with pytest.raises(ConfigurationError, match=r"TOWPATH_TENANT_CLAIM.*TOWPATH_TENANT\b"):
        issuer(tenant_claim=claim, tenant=tenant)
