"""Where a credential is sent, and which origins may send one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.auth.handshake import (
    PLAIN_NAMES,
    SPELLING,
    Credential,
    Source,
    UpgradeInfo,
    bearer,
    find_credential,
    is_misspelt,
    negotiate,
    origin_allowed,
)
from towpath.errors import BadRequest

CONNECT, TICKET = Source.CONNECT, Source.TICKET
SUBPROTOCOL, HEADER = Source.SUBPROTOCOL, Source.AUTHORIZATION


@pytest.mark.parametrize(
    ("connect", "ticket", "offered", "header", "found"),
    [
        ("a", "b", "c", "Bearer d", Credential("a", CONNECT)),
        ("", "b", "c", "Bearer d", Credential("b", TICKET)),
        ("", "", "c", "Bearer d", Credential("c", SUBPROTOCOL)),
        ("", "", "", "Bearer d", Credential("d", HEADER)),
        ("a", "", "", "", Credential("a", CONNECT)),
        ("", "b", "", "", Credential("b", TICKET)),
        ("", "", "c", "", Credential("c", SUBPROTOCOL)),
        (" ", "b", "", "", Credential(" ", CONNECT)),
        ("", "", "", "", None),
        ("", "", "", "Bearer", None),
        ("", "", "", "Bearer ", None),
        ("", "", "", "Basic dXNlcjpw", None),
        ("", "", "", "Token b", None),
        ("", "", "", "b", None),
        ("", "", "", "Bearerb", None),
    ],
)
def test_r19_the_first_source_found_wins(
    connect: str, ticket: str, offered: str, header: str, found: Credential | None
) -> None:
    """The order is that of the documentation, and an empty string counts as absent."""
    handshake = UpgradeInfo(ticket=ticket, offered=offered, authorization=header)
    assert find_credential(connect, handshake) == found


def test_r63_without_any_source_there_is_no_credential() -> None:
    """No credential is invented."""
    assert find_credential("", UpgradeInfo()) is None


@given(st.text(), st.text(), st.text(), st.text(), st.text(), st.text(min_size=1))
def test_r11_nothing_else_changes_which_credential_is_taken(
    address: str, origin: str, ticket: str, offered: str, header: str, token: str
) -> None:
    """The first source is used whatever the others hold; address and origin are no credentials."""
    brought = UpgradeInfo(
        address=address, origin=origin, ticket=ticket, offered=offered, authorization=header
    )
    assert find_credential(token, brought) == Credential(token, CONNECT)
    assert find_credential("", UpgradeInfo(address=address, origin=origin)) is None


def test_the_sources_are_those_of_the_documentation() -> None:
    """A new source would be a new way to authenticate."""
    assert [source.value for source in Source] == [
        "connect.token",
        "?ticket=",
        "Sec-WebSocket-Protocol",
        "Authorization",
    ]


@pytest.mark.parametrize("header", ["Bearer t", "bearer t", "BEARER   t", "bEaReR t  "])
def test_r19_the_scheme_is_matched_in_any_case(header: str) -> None:
    """RFC 6750: case of the scheme and white space around the token are ignored."""
    assert bearer(header) == "t"


def test_only_a_token_of_the_connect_command_can_be_renewed() -> None:
    """An SDK can send a new token only where it sent the first."""
    assert [source for source in Source if Credential("t", source).renewable] == [CONNECT]


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize(
    ("token", "is_ticket"),
    [("tkt_" + "s" * 43, True), ("tkt_", True), ("a.b.c", False), ("TKT_x", False)],
)
def test_r16_a_credential_travels_only_where_its_kind_may(
    source: Source, token: str, is_ticket: bool
) -> None:
    """A JWT in a query and a ticket in a header are misplaced; `connect.token` takes both."""
    expected = {CONNECT: False, TICKET: not is_ticket, SUBPROTOCOL: is_ticket, HEADER: is_ticket}
    assert Credential(token, source).misplaced is expected[source]


@given(st.text(min_size=4))
def test_r17_a_credentials_repr_hides_it(secret: str) -> None:
    """Only its source is shown."""
    texts = {f"{Credential(secret, CONNECT)!r}", f"{Credential(secret, CONNECT)}"}
    assert texts == {"Credential(source='connect.token')"}


@given(st.text(min_size=4), st.text(min_size=4), st.text(min_size=4))
def test_r17_a_handshakes_repr_hides_what_it_brought(one: str, other: str, third: str) -> None:
    """Address and origin are shown, credentials and their presence are not."""
    plain = UpgradeInfo(address="192.0.2.1", origin="https://app.example")
    brought = UpgradeInfo(
        address="192.0.2.1",
        origin="https://app.example",
        offered=one,
        ticket=other,
        authorization=third,
    )
    assert f"{brought!r} {brought}" == f"{plain!r} {plain}"
    assert "192.0.2.1" in repr(plain)
    assert "https://app.example" in repr(plain)


# Sub-protocols.

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtaWEifQ.c2lnbmF0dXJl"


def encoded(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


ENCODED = encoded(JWT)


@pytest.mark.parametrize("name", PLAIN_NAMES)
@pytest.mark.parametrize("length", range(3))
@pytest.mark.parametrize("first", [False, True])
def test_r19_every_documented_spelling_brings_the_credential(
    name: str, length: int, first: bool
) -> None:
    """Both spellings, beside each plain name, before or behind it, at every length of padding."""
    token = JWT + "x" * length
    for entry in (f"jwt.{encoded(token)}", f"bearer.{token}"):
        offered = [entry, name] if first else [name, entry]
        assert negotiate(offered) == (name, token)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ([], None),
        (["centrifuge-json"], "centrifuge-json"),
        (["towpath.v1", "centrifuge-json"], "towpath.v1"),
        (["unheard", "jwt-auth", "towpath.v1"], "jwt-auth"),
        (["centrifuge-protobuf"], None),
        (["unheard"], None),
        (["CENTRIFUGE-JSON"], None),
        (["centrifuge-json "], None),
        (["graphql-ws", "soap", "jwt", "bearer", "token", "auth"], None),
        (["jwtx.1", "bearers", "authority.v1", "tokens.v2", "xjwt.1", "my.jwt.1"], None),
    ],
)
def test_r19_without_a_credential_the_first_plain_name_is_answered(
    offered: list[str], answered: str | None
) -> None:
    """Unknown names are ignored, and are no credentials."""
    assert negotiate(offered) == (answered, "")


NEAR_MISSES = [
    f"jwt.{ENCODED}=",
    f"jwt.{ENCODED}==",
    f"jwt.{ENCODED}%3D",
    f"jwt.{JWT}",
    "jwt.",
    "jwt.A",
    "jwt.AAAAA",
    f"jwt.{encoded('é')}",
    f"jwt.{base64.b64encode(b'~~~???').decode()}",
    f"jwt.{ENCODED} ",
    f"jwt. {ENCODED}",
    f"jwt.{ENCODED}\n",
    f"jwt-{ENCODED}",
    f"jwt_{ENCODED}",
    f"jwt:{ENCODED}",
    f"jwt {JWT}",
    f"JWT.{ENCODED}",
    f"Jwt.{ENCODED}",
    f"Bearer.{JWT}",
    f"BEARER.{JWT}",
    f"bearer {JWT}",
    f"Bearer {JWT}",
    f"bearer-{JWT}",
    f"bearer:{JWT}",
    f"bearer={JWT}",
    f"bearer.{JWT}=",
    f"bearer.{JWT}\n",
    "bearer.",
    f"token.{JWT}",
    f"token-{JWT}",
    f"Token {JWT}",
    f"access_token.{JWT}",
    f"access-token.{JWT}",
    f"accesstoken.{JWT}",
    f"access_token={JWT}",
    f"auth.{JWT}",
    f"auth-{JWT}",
    f"authorization.bearer.{JWT}",
    f"Authorization: Bearer {JWT}",
    f"jwt-auth.{ENCODED}",
    "jwt-auth ",
    "JWT-AUTH",
]


@pytest.mark.parametrize("entry", NEAR_MISSES)
@pytest.mark.parametrize("beside", [[], ["centrifuge-json"]])
def test_r19_a_near_miss_is_told_how_it_is_spelt(entry: str, beside: list[str]) -> None:
    """The reason names both spellings and the plain names, and quotes no input."""
    for offered in ([entry, *beside], [*beside, entry]):
        with pytest.raises(BadRequest) as refused:
            negotiate(offered)
        assert refused.value.message == SPELLING
    assert all(name in SPELLING for name in (*PLAIN_NAMES, "jwt.<base64url", "bearer.<JWT>"))
    assert "padding" in SPELLING


@pytest.mark.parametrize(
    "offered",
    [
        [f"jwt.{ENCODED}"],
        [f"bearer.{JWT}"],
        [f"jwt.{ENCODED}", "unheard"],
        [f"jwt.{ENCODED}", "centrifuge-protobuf"],
        [f"bearer.{JWT}", "CENTRIFUGE-JSON"],
        [f"jwt.{ENCODED}", f"bearer.{JWT}", "centrifuge-json"],
        [f"jwt.{ENCODED}", f"jwt.{ENCODED}", "centrifuge-json"],
        ["centrifuge-json", f"bearer.{JWT}", f"jwt.{ENCODED}="],
        ["centrifuge-json", f"token.{JWT}", f"bearer.{JWT}"],
    ],
)
def test_r19_a_credential_comes_once_and_beside_a_plain_name(offered: list[str]) -> None:
    """Alone it could only be echoed; of two credentials it is unclear which one counts."""
    with pytest.raises(BadRequest):
        negotiate(offered)


@given(
    st.lists(
        st.sampled_from([*PLAIN_NAMES, *NEAR_MISSES, f"jwt.{ENCODED}", f"bearer.{JWT}", "unheard"])
        | st.text(max_size=12),
        max_size=5,
    )
)
def test_r18_the_answer_is_never_a_credential(offered: list[str]) -> None:
    """Whatever is offered: the answer is a plain name that was offered, or none; or it is 400."""
    try:
        answered, token = negotiate(offered)
    except BadRequest:
        return
    assert answered is None or (answered in PLAIN_NAMES and answered in offered)
    assert token in ("", JWT) or token in {entry.partition(".")[2] for entry in offered}


@pytest.mark.parametrize("token", [f"Bearer {JWT}", f"bearer  {JWT}", f"JWT {JWT}", "token\tx"])
def test_r19_a_token_that_brings_its_scheme_along_is_misspelt(token: str) -> None:
    """A scheme in `connect.token` is reported as misspelt."""
    assert is_misspelt(token)


@pytest.mark.parametrize("token", [JWT, "", "bearer", f"bearer.{JWT}", "tokens x", " Bearer x"])
def test_r19_other_tokens_are_not_misspelt(token: str) -> None:
    """They are valid or invalid."""
    assert not is_misspelt(token)


# Origins.

LISTED = frozenset({"https://app.example", "http://localhost:3000", "null.example"})


@pytest.mark.parametrize(
    ("origin", "scheme", "allowed"),
    [
        (None, "https", True),
        ("https://gate.example", "https", True),
        ("http://gate.example", "http", True),
        ("https://app.example", "http", True),
        ("http://localhost:3000", "https", True),
        ("http://gate.example", "https", False),
        ("https://gate.example", "http", False),
        ("https://gate.example:8443", "https", False),
        ("https://gate.example/", "https", False),
        ("https://GATE.example", "https", False),
        ("https://gate.example.attacker", "https", False),
        ("https://attacker-gate.example", "https", False),
        ("https://user@gate.example", "https", False),
        ("https://app.example:443", "https", False),
        ("https://app.example/", "https", False),
        ("http://app.example", "https", False),
        ("https://sub.app.example", "https", False),
        ("http://localhost", "http", False),
        ("gate.example", "https", False),
        ("//gate.example", "https", False),
        ("null", "https", False),
        ("", "https", False),
        ("*", "https", False),
        ("file://gate.example", "https", False),
        ("ws://gate.example", "ws", False),
        ("http://[", "http", False),
        ("http://[::1", "http", False),
    ],
)
def test_r15_a_page_may_connect_from_here_or_from_a_listed_place(
    origin: str | None, scheme: str, allowed: bool
) -> None:
    """No origin, the same origin, or exactly one that is listed."""
    assert origin_allowed(origin, "gate.example", scheme, LISTED) is allowed


@pytest.mark.parametrize("origin", ["http://", "https://", "", "null"])
def test_r15_a_missing_host_is_the_same_as_nobody(origin: str) -> None:
    """A request without Host has no origin of its own."""
    assert not origin_allowed(origin, "", "http", frozenset())


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["http", "https"]))
def test_r15_no_origin_raises_or_slips_in(origin: str, host: str, scheme: str) -> None:
    """Whatever the two headers hold, only an identical origin is the same origin."""
    same = bool(host) and origin == f"{scheme}://{host}"
    assert origin_allowed(origin, host, scheme, frozenset()) is same


def test_r19_a_bare_token_among_the_sub_protocols_is_told_how_it_is_spelt() -> None:
    """It is taken for a credential, not for a protocol."""
    with pytest.raises(BadRequest, match="jwt"):
        negotiate(["centrifuge-json", "eyJhbGciOiJIUzI1NiJ9.e30.x"])
