"""A token is good in exactly one way, and bad in every other."""

import base64
import hashlib
import hmac
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tests.auth.stage import NOW, Published, Verifying, answered
from towpath.auth.keys import ASYMMETRIC, FixedKey, read_key_set
from towpath.auth.tokens import (
    LEEWAY,
    MAX_KID_CHARACTERS,
    MAX_TIME,
    MAX_TOKEN_BYTES,
    Issuer,
    KeysUnavailable,
    TokenVerifier,
    claimed_issuer,
)
from towpath.auth.verdicts import Invalid, Unknown, Valid
from towpath.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

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


def issuer(*algorithms: str, **changes: Any) -> Issuer:
    fields: dict[str, Any] = {
        "issuer": "https://id.example/",
        "audience": "towpath",
        "algorithms": frozenset(algorithms or ("HS256",)),
        "tenant_claim": "org",
        "tenant": None,
    }
    return Issuer(**{**fields, **changes})


def entry(key: Key, kid: str, **members: Any) -> dict[str, Any]:
    """Return a key as a key set publishes it."""
    return {**key.as_dict(private=False), "kid": kid, **members}


WEAK_N = int(
    "0xb291c459109da018040d1ec61bf1e24e7ebf90f5ae8872a4d23350750a30eb96"
    "25097ca12c18b5b638401012fbbd7beef72d2ca73c9f4fa4b9b07c9c77e7e341",
    16,
)
WEAK_D = int(
    "0x7957a06b3d653f42d28defd98367ccf6b61e8aecc81b247c67f242bc259eb497"
    "018f53b54dcaaadac98c6bdbc322e732bb8d70ea568f72864109f1e560fc1859",
    16,
)
"""An RSA key of 512 bits, which anybody can take apart."""
PUBLISHED = {
    "keys": [
        entry(RSA, "rsa", alg="RS256"),
        entry(EC, "ec"),
        entry(ED, "ed"),
        {"kty": "RSA", "kid": "weak", "n": "", "e": "AQAB"},
    ]
}

HS = Verifying(issuer(), SECRET)
RS = Verifying(issuer("RS256"), RSAKey.import_key(RSA.as_pem(private=False)))


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: bytes | str, header: dict[str, Any] | str | None = None) -> str:
    """Return any payload under any header, signed with our secret."""
    head = header if isinstance(header, str) else json.dumps(header or {"alg": "HS256"})
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    return hs256(f"{b64(head)}.{b64(data)}", SECRET.raw_value)


def hs256(signing: str, secret: bytes) -> str:
    """Return the signing input with its HS256 signature, made without the library under test."""
    return f"{signing}.{b64(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def token(**changes: Any) -> str:
    """Return a token that is correctly signed; a claim that is `...` is left out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...}
    return signed(json.dumps(claims))


def padded_to(characters: int, kid: str) -> str:
    """Return a correctly signed token whose claims have this many characters."""
    bare = json.dumps(CLAIMS | {"pad": ""})
    claims = json.dumps(CLAIMS | {"pad": "x" * (characters - len(bare))})
    return signed(claims, {"alg": "HS256", "kid": kid})


def weakly_signed(header: dict[str, Any]) -> str:
    """Return a token signed with a 512-bit key, which libraries no longer create."""
    signing = f"{b64(json.dumps(header))}.{b64(json.dumps(CLAIMS))}"
    algorithm = bytes.fromhex("3031300d060960864801650304020105000420")
    digest = algorithm + hashlib.sha256(signing.encode()).digest()
    padded = b"\x00\x01" + b"\xff" * (61 - len(digest)) + b"\x00" + digest
    signature = pow(int.from_bytes(padded), WEAK_D, WEAK_N)
    return f"{signing}.{b64(signature.to_bytes(64))}"


PUBLISHED["keys"][-1]["n"] = b64(WEAK_N.to_bytes(64))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # The library warns of the weak key, which is left out.
    SET = Verifying(issuer(*ASYMMETRIC), Published(read_key_set(PUBLISHED)))

GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
GOOD_RS = jwt.encode({"alg": "RS256"}, CLAIMS, RSA)


def forged() -> Iterator[tuple[str, str]]:
    """Tokens that were not signed with our key, or not with its algorithm."""
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
    for twice in ('{"alg":"HS256","alg":"HS256"}', '{"alg":"none","alg":"HS256"}'):
        yield f"header {twice}", signed(json.dumps(CLAIMS), twice)
    for odd_kid in ({"a": 1}, ["rsa"], 5, True, "k" * (MAX_KID_CHARACTERS + 1), "k" * 64 * 1024):
        yield (
            f"our secret, kid {str(odd_kid)[:9]}",
            signed(json.dumps(CLAIMS), {"alg": "HS256", "kid": odd_kid}),
        )
    for crit in (["exp"], ["unheard"], [], "exp", ["b64"], None):
        critical = {"alg": "HS256", "crit": crit, "unheard": 1, "b64": False}
        yield f"crit {crit}", signed(json.dumps(CLAIMS), critical)


def claimed() -> Iterator[tuple[str, str]]:
    """Tokens signed with our key, whose claims are not acceptable."""
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
    """Good tokens with a piece missing, changed or added."""
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
        *(f"{space}{GOOD}" for space in " \t\r\n\v\f\u3000"),
        *(f"{GOOD}{space}" for space in " \t\r\n\v\f\u3000"),
        *(GOOD.replace(".", f".{space}", 1) for space in " \n"),
        *(GOOD.replace(".", f"{space}.", 1) for space in " \n"),
        f"{HEAD}.{BODY[:9]}\n{BODY[9:]}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE[:9]} {SIGNATURE[9:]}",
        f"{HEAD}.{BODY}.{SIGNATURE}=",
        f"{HEAD}=.{BODY}.{SIGNATURE}",
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
    """Tokens for an issuer with an RSA key, made from its public key."""
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


def published() -> Iterator[tuple[str, str]]:
    """Tokens for an issuer with published keys, made from these public keys."""
    attacker = RSAKey.generate_key(2048, auto_kid=False)
    jwk = attacker.as_dict(private=False)
    brought: list[dict[str, Any]] = [
        {},
        {"jwk": jwk},
        {"jwk": attacker.as_dict(private=True)},
        {"jku": "https://attacker.example/jwks.json"},
        {"jku": "https://id.example/jwks.json"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": [b64("certificate")]},
        {"x5t": b64("thumbprint"), "x5t#S256": b64("thumbprint")},
    ]
    for kid in ("rsa", "attacker", "", None):
        for extra in brought:
            named = {"alg": "RS256", **extra} | ({"kid": kid} if kid is not None else {})
            yield f"an attacker's {kid} {sorted(extra)}", jwt.encode(named, CLAIMS, attacker)
    for kid in (
        "../../../../etc/passwd",
        "/dev/null",
        "file:///dev/null",
        "https://attacker.example/key.pem",
        "http://169.254.169.254/latest/meta-data/",
        "' OR '1'='1",
        "rsa' UNION SELECT 'key' --",
        "rsa\x00",
        "rsa ",
        "RSA",
        "r",
        "*",
        "rsa\n",
        "__proto__",
        "k" * MAX_KID_CHARACTERS,
        "k" * (MAX_KID_CHARACTERS + 1),
        "k" * 64 * 1024,
    ):
        yield f"kid {kid[:20]!r}", jwt.encode({"alg": "RS256", "kid": kid}, CLAIMS, RSA)
    yield "another's kid", jwt.encode({"alg": "RS256", "kid": "ec"}, CLAIMS, RSA)
    for algorithm in ("PS256", "RS384", "RS512"):
        made = {"alg": algorithm, "kid": "rsa"}
        yield (
            f"{algorithm} with a key made for RS256",
            jwt.encode(made, CLAIMS, RSA, algorithms=[algorithm]),
        )
    body = b64(json.dumps(CLAIMS))
    for kid in ("rsa", "ec", "ed", "weak", None):
        for algorithm in ("HS256", "none", "ES512", "ES256K", "dir", "A128KW"):
            head = b64(json.dumps({"alg": algorithm, "kid": kid}))
            for secret in (RSA.as_pem(private=False), RSA.as_der(private=False), b""):
                yield (
                    f"{algorithm} {kid} with {len(secret)} known bytes",
                    hs256(f"{head}.{body}", secret),
                )
    head = b64(json.dumps({"alg": "ES256", "kid": "ec"}))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for name, signature in (
        ("zeros", bytes(64)),
        ("r = 0", bytes(32) + (1).to_bytes(32)),
        ("s = 0", (1).to_bytes(32) + bytes(32)),
        ("r = s = n", order.to_bytes(32) * 2),
        ("no bytes", b""),
        ("zeros of P-384", bytes(96)),
        ("zeros in DER", bytes.fromhex("3006020100020100")),
    ):
        yield f"ES256 {name}", f"{head}.{body}.{b64(signature)}"
    head = b64(json.dumps({"alg": "EdDSA", "kid": "ed"}))
    yield "EdDSA zeros", f"{head}.{body}.{b64(bytes(64))}"
    for kid in ("weak", "rsa", "other"):
        yield f"512 bits as {kid}", weakly_signed({"alg": "RS256", "kid": kid})
    yield "512 bits without a name", weakly_signed({"alg": "RS256"})


MAKERS = {forged: HS, claimed: HS, damaged: HS, confused: RS, published: SET}
BAD = [(name, text, verifier) for make, verifier in MAKERS.items() for name, text in make()]


def test_r13_the_corpus_is_what_it_says() -> None:
    """There are enough bad tokens, no two alike, beside tokens that are good."""
    assert len({text for _, text, _ in BAD}) == len(BAD) >= 200
    assert isinstance(HS.verify(GOOD, NOW), Valid)
    assert isinstance(RS.verify(GOOD_RS, NOW), Valid)
    for kid, algorithm, key in (("rsa", "RS256", RSA), ("ec", "ES256", EC), ("ed", "Ed25519", ED)):
        header = {"alg": algorithm, "kid": kid}
        made = jwt.encode(header, CLAIMS, key, algorithms=[algorithm])
        assert isinstance(SET.verify(made), Valid)


@pytest.mark.parametrize("make", MAKERS)
def test_r13_no_bad_token_is_accepted(make: Callable[[], Iterator[tuple[str, str]]]) -> None:
    """No bad token of any kind is accepted, and none raises an exception."""
    verifier = MAKERS[make]
    accepted = [
        name for name, text in make() if not isinstance(verifier.verify(text, NOW), Invalid)
    ]
    assert accepted == []


def test_r13_the_weak_signature_is_a_signature() -> None:
    """The 512-bit corpus fails for the size of its key; its signatures are correct."""
    head, body, signature = weakly_signed({"alg": "RS256"}).split(".")
    number = int.from_bytes(base64.urlsafe_b64decode(signature + "=="))
    digest = hashlib.sha256(f"{head}.{body}".encode()).digest()
    assert pow(number, 65537, WEAK_N).to_bytes(64).endswith(digest)


def test_r17_no_reason_holds_a_piece_of_the_token() -> None:
    """No reason in our logs contains a part of the token."""
    for name, text, verifier in BAD:
        verdict = verifier.verify(text, NOW)
        assert isinstance(verdict, Invalid)
        assert verdict.reason
        pieces = {text[at : at + 8] for at in range(min(len(text), 3000) - 8)}
        assert not any(piece in verdict.reason for piece in pieces), name
        assert not any(value in verdict.reason for value in ("mia", "acme", "id.example"))


@given(st.data())
def test_r13_a_token_with_any_part_changed_is_refused(data: st.DataObject) -> None:
    """Any change of characters makes the token invalid."""
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
    """The result is a verdict, never an exception."""
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
    """With any claims: no exception, and a principal has tenant, user and expiry."""
    verdict = HS.verify(token(**changes), NOW)
    if isinstance(verdict, Valid):
        who = verdict.principal
        assert who.user.strip()
        assert who.tenant.strip()
        assert who.expires_at is not None
        assert NOW - LEEWAY < who.expires_at <= MAX_TIME
        assert all(isinstance(role, str) and role for role in who.roles)


# What is good.


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
    """Tenant, user, roles, expiry and id come from the claims."""
    claims = {**CLAIMS, "roles": ["ops", "", 5, "admin"], "jti": "id-1"}
    made = jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])
    verdict = Verifying(issuer(algorithm), public).verify(made, NOW)
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
    """Ids of a verified issuer are opaque, and unknown claims are ignored."""
    verdict = HS.verify(token(**changes), NOW)
    assert isinstance(verdict, Valid)
    assert verdict.principal.user == changes.get("sub", "mia")
    assert verdict.principal.tenant == changes.get("org", "acme")


@pytest.mark.parametrize("roles", [..., None, "ops", {"ops": 1}, 5, [], [None, 1, " "]])
def test_r13_roles_default_to_none(roles: Any) -> None:
    """Only a list of strings gives roles."""
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
    """For an issuer with a fixed tenant, no claim can name another one."""
    verdict = Verifying(issuer(tenant_claim=None, tenant="fixed"), SECRET).verify(
        token(tenant="other", org="other"), NOW
    )
    assert isinstance(verdict, Valid)
    assert verdict.principal.tenant == "fixed"


def test_what_is_not_configured_is_not_asked_for() -> None:
    """Without a configured issuer or audience only the signature is checked."""
    verifier = Verifying(issuer(issuer=None, audience=None), SECRET)
    verdict = verifier.verify(token(iss=..., aud=...), NOW)
    assert isinstance(verdict, Valid)
    assert verdict.principal.issuer is None


def test_a_token_says_who_vouches_and_when_it_was_issued() -> None:
    """Revocations need `iat`, outages the issuer; a token without `iat` has none."""
    verdict = HS.verify(token(iat=NOW - 5), NOW)
    assert isinstance(verdict, Valid)
    assert (verdict.principal.issued_at, verdict.principal.issuer) == (
        NOW - 5,
        "https://id.example/",
    )
    for claims, issued in (({"iat": 0}, 0.0), ({}, None)):
        verdict = HS.verify(token(**claims), NOW)
        assert isinstance(verdict, Valid)
        assert verdict.principal.issued_at == issued


# Claims by name and by pointer.

MAPPED: list[tuple[str, Any, list[str]]] = [
    ("roles", {"roles": ["ops"]}, ["ops"]),
    ("https://x.example/roles", {"https://x.example/roles": ["ops"]}, ["ops"]),
    ("realm_access/roles", {"realm_access/roles": ["ops"]}, ["ops"]),
    ("realm_access/roles", {"realm_access": {"roles": ["ops"]}}, []),
    ("/realm_access/roles", {"realm_access": {"roles": ["ops"]}}, ["ops"]),
    ("/realm_access/roles", {"realm_access/roles": ["ops"]}, []),
    ("/realm_access/roles", {"/realm_access/roles": ["ops"]}, []),
    ("/roles", {"roles": ["ops"]}, ["ops"]),
    ("/https:~1~1x.example~1roles", {"https://x.example/roles": ["ops"]}, ["ops"]),
    ("/a~1b/c", {"a/b": {"c": ["ops"]}}, ["ops"]),
    ("/a~0b", {"a~b": ["ops"]}, ["ops"]),
    ("/a~01", {"a~1": ["ops"]}, ["ops"]),
    ("/a~01", {"a/": ["ops"]}, []),
    ("/", {"": ["ops"]}, ["ops"]),
    ("/a/", {"a": {"": ["ops"]}}, ["ops"]),
    ("/a/b/c", {"a": {"b": ["ops"]}}, []),
    ("/a/b", {"a": "b"}, []),
    ("/a/b", {"a": None}, []),
    ("/a/0", {"a": [["ops"]]}, []),
    ("/a/b", {}, []),
]


@pytest.mark.parametrize(("claim", "claims", "roles"), MAPPED)
def test_r13_roles_are_where_the_configuration_says(
    claim: str, claims: dict[str, Any], roles: list[str]
) -> None:
    """A name is a member of the claims, a pointer leads through objects only."""
    verdict = Verifying(issuer(roles_claim=claim), SECRET).verify(token(**claims))
    assert isinstance(verdict, Valid)
    assert verdict.principal.roles == set(roles)


@pytest.mark.parametrize(("claim", "claims", "found"), MAPPED)
def test_r13_the_tenant_is_where_the_configuration_says(
    claim: str, claims: dict[str, Any], found: list[str]
) -> None:
    """The same rule for the tenant; without a tenant the token is invalid."""
    text = json.dumps({**CLAIMS, **claims}).replace('["ops"]', '"globex"')
    verdict = Verifying(issuer(tenant_claim=claim), SECRET).verify(signed(text))
    assert isinstance(verdict, Valid) is bool(found)
    if isinstance(verdict, Valid):
        assert verdict.principal.tenant == "globex"


# Several issuers.


def test_r13_a_kid_of_one_issuer_opens_nothing_at_another() -> None:
    """Two issuers use the same key ids: each token is valid for its own issuer only."""
    one = Verifying(issuer("RS256"), Published(read_key_set({"keys": [entry(RSA, "k1")]})))
    other = Verifying(
        issuer("RS256", issuer="https://other.example/", tenant_claim=None, tenant="globex"),
        Published(read_key_set({"keys": [entry(OTHER_RSA, "k1")]})),
    )
    theirs = {**CLAIMS, "iss": "https://other.example/"}
    header = {"alg": "RS256", "kid": "k1"}
    mine, foreign = jwt.encode(header, CLAIMS, RSA), jwt.encode(header, theirs, OTHER_RSA)
    assert isinstance(one.verify(mine), Valid)
    assert isinstance(other.verify(foreign), Valid)
    assert isinstance(one.verify(foreign), Invalid)
    assert isinstance(other.verify(mine), Invalid)
    assert isinstance(one.verify(jwt.encode(header, CLAIMS, OTHER_RSA)), Invalid)
    assert isinstance(other.verify(jwt.encode(header, theirs, RSA)), Invalid)


def test_a_token_is_taken_by_the_issuer_it_names() -> None:
    """The claimed issuer selects the verifier; a verifier without an issuer takes all tokens."""
    verifier = TokenVerifier(issuer(), FixedKey(SECRET))
    assert verifier.takes(GOOD)
    assert verifier.takes(f"{HEAD}.{BODY}.forged")
    assert not verifier.takes(token(iss="https://other.example/"))
    assert not verifier.takes("no token")
    assert TokenVerifier(issuer(issuer=None), FixedKey(SECRET)).takes("no token")


@given(st.text(max_size=60) | st.binary(max_size=60).map(b64))
def test_r13_reading_what_a_token_claims_never_raises(text: str) -> None:
    """Before verification the claims may be anything."""
    for claimed_by in (text, f"{HEAD}.{text}.{SIGNATURE}", f"{text}.{text}.{text}"):
        assert not isinstance(claimed_issuer(claimed_by), bytes | int)


@pytest.mark.parametrize("payload", ["[]", "5", '{"iss":5}', '{"iss":null}', '{"iss":["a"]}', "{"])
def test_a_token_without_a_name_of_its_issuer_names_none(payload: str) -> None:
    """Only a string is an issuer."""
    assert claimed_issuer(signed(payload)) is None
    assert claimed_issuer(token(iss="x" * MAX_TOKEN_BYTES)) is None


# Keys that cannot be had.


class Unreachable:
    """Keys that cannot be fetched."""

    def __init__(self, outage: KeysUnavailable) -> None:
        self.outage = outage
        self.lookups: list[tuple[str | None, str]] = []

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        self.lookups.append((kid, algorithm))
        raise self.outage

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        raise self.outage


@pytest.mark.parametrize("suspect", [False, True])
def test_r22_an_outage_of_the_keys_is_no_verdict_about_a_token(suspect: bool) -> None:
    """The verdict is unknown, not invalid, and passes `retry_after` on."""
    keys = Unreachable(KeysUnavailable("no keys", 7.0, suspect=suspect))
    verdict = Verifying(issuer(), keys).verify(GOOD)
    assert verdict == Unknown("no keys", 7.0, suspect=suspect)
    assert keys.lookups == [(None, "HS256")]


def test_r23_what_cannot_be_good_asks_for_no_key() -> None:
    """A token with an invalid form or algorithm causes no key lookup."""
    keys = Unreachable(KeysUnavailable("no keys"))
    verifier = Verifying(issuer("RS256"), keys)
    for _, text in (*damaged(), *forged()):
        verifier.verify(text)
    assert {algorithm for _, algorithm in keys.lookups} <= {"RS256"}
    keys.lookups.clear()
    for text in (GOOD, "a.b.c", "", "x" * (MAX_TOKEN_BYTES + 1), "\u3000"):
        assert isinstance(verifier.verify(text), Invalid)
    long = jwt.encode({"alg": "RS256", "kid": "k" * (MAX_KID_CHARACTERS + 1)}, CLAIMS, RSA)
    assert isinstance(verifier.verify(long), Invalid)
    assert keys.lookups == []


class Rotating:
    """One known key, which another key may have replaced."""

    def __init__(self, newer: Key | KeysUnavailable | None) -> None:
        self.newer = newer
        self.lookups = 0

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        return OTHER_RSA

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        assert (key, kid, algorithm) == (OTHER_RSA, None, "RS256")
        self.lookups += 1
        if isinstance(self.newer, KeysUnavailable):
            raise self.newer
        return self.newer


NOT_SIGNED = Invalid("not signed with a key of this issuer")


def test_r29_a_token_without_a_key_id_is_tried_with_the_key_that_came_since() -> None:
    """Only the signature shows the rotation; the claims are checked as usual."""
    keys = Rotating(RSA)
    verifier = Verifying(issuer("RS256"), keys)
    assert isinstance(verifier.verify(GOOD_RS), Valid)
    late = jwt.encode({"alg": "RS256"}, {**CLAIMS, "exp": int(NOW) - 31}, RSA)
    assert verifier.verify(late) == Invalid("expired", expired=True)
    assert keys.lookups == 2


@pytest.mark.parametrize(
    ("newer", "verdict"),
    [
        (None, NOT_SIGNED),
        (RSAKey.generate_key(2048, auto_kid=False), NOT_SIGNED),
        (KeysUnavailable("the key id is unknown", 4.0, suspect=True), None),
        (KeysUnavailable("down"), None),
    ],
)
def test_r29_a_bad_signature_without_a_key_id_is_bad_once_the_keys_are_the_latest(
    newer: Key | KeysUnavailable | None, verdict: Invalid | None
) -> None:
    """Until then the verdict is unknown; the newer key is tried once, and no third one."""
    keys = Rotating(newer)
    made = Verifying(issuer("RS256"), keys).verify(GOOD_RS)
    if isinstance(newer, KeysUnavailable):
        assert made == Unknown(newer.reason, newer.retry_after, suspect=newer.suspect)
    else:
        assert made == verdict
    assert keys.lookups == 1


def test_r23_a_bad_signature_under_a_key_id_asks_for_no_other_key() -> None:
    """The key id names the key; good tokens and other bad ones look up no successor either."""
    keys = Rotating(RSA)
    verifier = Verifying(issuer("RS256"), keys)
    named = jwt.encode({"alg": "RS256", "kid": "k1"}, CLAIMS, RSA)
    assert verifier.verify(named) == NOT_SIGNED
    known = jwt.encode({"alg": "RS256"}, CLAIMS, OTHER_RSA)
    assert isinstance(verifier.verify(known), Valid)
    foreign = jwt.encode({"alg": "RS256"}, {**CLAIMS, "iss": "x"}, OTHER_RSA)
    assert verifier.verify(foreign) == Invalid("another issuer")
    assert keys.lookups == 0


async def test_nothing_takes_the_place_of_a_configured_key() -> None:
    """A change of the key needs a restart."""
    assert await FixedKey(RSA).successor(RSA, None, "RS256") is None


def test_a_verdict_about_a_token_with_keys_at_hand_waits_for_nothing() -> None:
    """If no key has to be fetched, the verification does not yield to the event loop."""
    assert isinstance(answered(TokenVerifier(issuer(), FixedKey(SECRET)).verify(GOOD, NOW)), Valid)


# Time.


@pytest.mark.parametrize(
    ("late", "valid"), [(-60.0, True), (0.0, True), (29.999, True), (30.0, False), (31.0, False)]
)
def test_r13_clocks_may_differ_by_exactly_30_seconds(late: float, valid: bool) -> None:
    """Within the leeway the token is valid, past it expired."""
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


def test_r28_only_what_begins_later_is_bad_for_a_while() -> None:
    """A token that is not valid yet must not be cached as invalid."""
    assert HS.verify(token(nbf=NOW + 60), NOW) == Invalid("not valid yet", passing=True)
    for _, text, verifier in BAD:
        verdict = verifier.verify(text, NOW)
        assert isinstance(verdict, Invalid)
        assert verdict.passing is (verdict.reason == "not valid yet")


@pytest.mark.parametrize(
    "changes", [{"iss": "x"}, {"aud": "x"}, {"sub": ""}, {"org": ""}, {"nbf": NOW * 2}]
)
def test_only_what_was_good_once_is_expired(changes: dict[str, Any]) -> None:
    """An expired token with another fault is invalid: a new one would not help."""
    verdict = HS.verify(token(exp=1, **changes), NOW)
    assert isinstance(verdict, Invalid)
    assert not verdict.expired


def test_a_forged_token_is_never_called_expired() -> None:
    """With a bad signature the verdict reveals nothing about the claims."""
    made = jwt.encode({"alg": "HS256"}, {**CLAIMS, "exp": 1}, OctKey.import_key("w" * 40))
    verdict = HS.verify(made, NOW)
    assert isinstance(verdict, Invalid)
    assert not verdict.expired


@pytest.mark.parametrize(("length", "good"), [(16_384, True), (16_385, False)])
def test_r67_a_token_has_16_kib_and_not_a_byte_more(length: int, good: bool) -> None:
    """The bound is the same for verifying a token and for reading its issuer."""
    made = next(
        made
        for kid, shorter in itertools.product(("", "k", "kk", "kkk"), range(40, 120))
        if len(made := padded_to(length * 3 // 4 - shorter, kid)) == length
    )
    assert isinstance(HS.verify(made, NOW), Valid) is good
    assert claimed_issuer(made) == (CLAIMS["iss"] if good else None)


@pytest.mark.parametrize(
    ("claim", "tenant"), [(None, None), ("org", "acme"), (None, ""), ("", None), ("", "")]
)
def test_r21_an_issuer_says_whose_its_users_are(claim: str | None, tenant: str | None) -> None:
    """No tenant setting, both of them, or a blank one is an error that names both settings."""
    with pytest.raises(ConfigurationError, match=r"TOWPATH_TENANT_CLAIM.*TOWPATH_TENANT\b"):
        issuer(tenant_claim=claim, tenant=tenant)


# Bounds, to the byte.


def test_r67_claims_nest_64_deep_and_no_deeper() -> None:
    """Our bound applies where the interpreter itself would not refuse."""
    for depth, good in ((60, True), (100, False)):
        nested = json.dumps(CLAIMS)[:-1] + ',"a":' + "[" * depth + "]" * depth + "}"
        assert isinstance(HS.verify(signed(nested), NOW), Valid) is good


@pytest.mark.parametrize(("length", "good"), [(256, True), (257, False)])
def test_r67_a_key_id_has_256_characters(length: int, good: bool) -> None:
    """A configured key ignores the key id, as long as it is valid."""
    made = signed(json.dumps(CLAIMS), {"alg": "HS256", "kid": "k" * length})
    assert isinstance(HS.verify(made, NOW), Valid) is good


@pytest.mark.parametrize(("end", "good"), [(253_402_300_799, True), (253_402_300_800, False)])
def test_r67_the_last_second_of_year_9999_is_the_last(end: int, good: bool) -> None:
    """A later time is invalid."""
    assert isinstance(HS.verify(token(exp=end), NOW), Valid) is good


def test_an_outage_that_says_nothing_may_be_asked_again_at_once() -> None:
    """No `retry_after` is invented."""
    outage = KeysUnavailable("gone")
    assert (outage.retry_after, outage.suspect, str(outage)) == (0.0, False, "gone")
