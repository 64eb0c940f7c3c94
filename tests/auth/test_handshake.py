"""Where a credential travels, and which pages may bring one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.auth.handshake import Credential, Source, bearer, find_credential, origin_allowed


@pytest.mark.parametrize(
    ("connect", "header", "found"),
    [
        ("a", "Bearer b", Credential("a", Source.CONNECT)),
        ("a", "", Credential("a", Source.CONNECT)),
        ("", "Bearer b", Credential("b", Source.AUTHORIZATION)),
        ("", "", None),
        ("", "Bearer", None),
        ("", "Bearer ", None),
        ("", "Basic dXNlcjpw", None),
        ("", "Token b", None),
        ("", "b", None),
        ("", "Bearerb", None),
    ],
)
def test_r19_the_first_source_found_wins(
    connect: str, header: str, found: Credential | None
) -> None:
    """`connect.token` comes before the header, and an empty string counts as absent."""
    assert find_credential(connect, {"authorization": header}) == found


def test_r63_without_any_source_there_is_no_credential() -> None:
    """Nobody is made up."""
    assert find_credential("", {}) is None


@pytest.mark.parametrize(
    "name", ["cookie", "x-authorization", "x-test-token", "x-user", "sec-websocket-key", "token"]
)
def test_r11_no_other_header_is_a_credential(name: str) -> None:
    """Only the documented sources are looked at."""
    assert find_credential("", {name: "Bearer b"}) is None


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12)))
def test_r11_headers_never_change_which_connect_token_is_taken(headers: dict[str, str]) -> None:
    """Whatever stands beside it, the first source is the one that counts."""
    assert find_credential("t", headers) == Credential("t", Source.CONNECT)


@pytest.mark.parametrize("header", ["Bearer t", "bearer t", "BEARER   t", "bEaReR t  "])
def test_r19_the_scheme_is_matched_in_any_case(header: str) -> None:
    """RFC 6750: the scheme's case and the white space round the token mean nothing."""
    assert bearer(header) == "t"


def test_only_a_token_of_the_connect_command_can_be_renewed() -> None:
    """An SDK can bring a new one only where it brought the first."""
    assert Credential("t", Source.CONNECT).renewable
    assert not Credential("t", Source.AUTHORIZATION).renewable


@given(st.text(min_size=4))
def test_r17_a_credentials_repr_hides_it(secret: str) -> None:
    """Its source is all that shows."""
    texts = {f"{Credential(secret, Source.CONNECT)!r}", f"{Credential(secret, Source.CONNECT)}"}
    assert texts == {"Credential(source='connect.token')"}


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
    """Whatever the two headers hold, only the very same place is the same place."""
    same = bool(host) and origin == f"{scheme}://{host}"
    assert origin_allowed(origin, host, scheme, frozenset()) is same
