"""Who is at the other end is what trusted proxies say, and nothing anybody else writes."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from towpath.http.client_address import ClientAddress, Network, client_address

TRUSTED: tuple[Network, ...] = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "192.0.2.5/32", "fd00::/8"))
)
PROXY, CLIENT, OTHER = "10.1.2.3", "203.0.113.9", "198.51.100.7"


def request(
    direct: str | None, *, scheme: str = "http", headers: list[tuple[str, str]] | None = None
) -> HTTPConnection:
    """Return a request as the server hands it on."""
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": scheme,
        "path": "/",
        "query_string": b"",
        "server": ("gate.example", 80),
        "client": (direct, 55555) if direct is not None else None,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers or []],
    }
    return HTTPConnection(scope)


def forwarded(direct: str, *lines: str, trusted: tuple[Network, ...] = TRUSTED) -> str:
    """Return whom a request counts against that came with these X-Forwarded-For lines."""
    headers = [("x-forwarded-for", line) for line in lines]
    return client_address(request(direct, headers=headers), trusted).rate_limit_key


# Without a proxy.


@pytest.mark.parametrize(
    ("direct", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unix:"),
        ("testclient", "testclient"),
        ("", ""),
        (None, ""),
    ],
)
def test_r23_a_source_is_an_address_or_an_ipv6_network(direct: str | None, address: str) -> None:
    """One IPv6 subscriber has 2^64 addresses to choose from, and counts as one all the same."""
    assert client_address(request(direct), TRUSTED).rate_limit_key == address
    assert client_address(request(direct), ()).rate_limit_key == address


@given(st.integers(2, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_r23_no_choice_of_addresses_within_a_network_is_a_new_source(
    network: int, one: int, other: int
) -> None:
    """Neighbours in a /64 count together, and only they do."""

    def source(prefix: int, host: int) -> str:
        address = ipaddress.IPv6Address(prefix << 64 | host)
        return client_address(request(str(address)), ()).rate_limit_key

    assert source(network, one) == source(network, other) != source(network ^ 1, one)


# Forwarded.


@pytest.mark.parametrize(
    ("direct", "lines", "address"),
    [
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"{CLIENT}, 10.9.9.9"], CLIENT),
        (PROXY, [f"{CLIENT},10.9.9.9,192.0.2.5 , fd00::1"], CLIENT),
        (PROXY, [f"{OTHER}, {CLIENT}"], CLIENT),
        (PROXY, [f"{OTHER}, {CLIENT}, 10.9.9.9"], CLIENT),
        (PROXY, ["10.9.9.9"], PROXY),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [f"{CLIENT}, "], CLIENT),
        (PROXY, [f"{CLIENT},, 10.9.9.9,"], CLIENT),
        (PROXY, ["2001:db8:1:2::9"], "2001:db8:1:2::/64"),
        (PROXY, ["[2001:db8:1:2::9]"], "2001:db8:1:2::/64"),
        (PROXY, ["::ffff:203.0.113.9"], CLIENT),
        (PROXY, ["::ffff:10.9.9.9"], PROXY),
        (PROXY, [f"{CLIENT}, unknown"], "unknown"),
        ("::ffff:10.1.2.3", [CLIENT], CLIENT),
        ("fd00::7", [CLIENT], CLIENT),
        ("192.0.2.5", [CLIENT], CLIENT),
        ("192.0.2.6", [CLIENT], "192.0.2.6"),
        (CLIENT, [OTHER], CLIENT),
        (CLIENT, ["10.1.2.3"], CLIENT),
        ("unix:", [OTHER], "unix:"),
    ],
)
def test_r23_a_proxy_is_believed_where_it_is_trusted(
    direct: str, lines: list[str], address: str
) -> None:
    """From the right, the first address that is no trusted proxy's is the client's."""
    assert forwarded(direct, *lines) == address


@pytest.mark.parametrize(
    "lines",
    [
        [OTHER, CLIENT],
        [OTHER, CLIENT, "10.9.9.9"],
        [OTHER, f"{CLIENT}, 10.9.9.9"],
        ["10.9.9.9", CLIENT],
    ],
)
def test_r23_a_header_in_several_lines_is_one_list(lines: list[str]) -> None:
    """Some proxies add a line of their own: what the client wrote above it is not believed."""
    assert forwarded(PROXY, *lines) == CLIENT


@given(
    st.lists(
        st.sampled_from([OTHER, "10.9.9.9", "127.0.0.1", "::1", "unknown", "", "a" * 300, "\xff"])
        | st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
        max_size=4,
    ),
    st.booleans(),
)
def test_r23_nothing_a_client_writes_makes_it_somebody_else(
    written: list[str], separate: bool
) -> None:
    """Directly it counts for nothing; through a trusted proxy what the proxy adds counts."""
    assert forwarded(CLIENT, *written) == CLIENT
    lines = [*written, CLIENT] if separate else [", ".join([*written, CLIENT])]
    assert forwarded(PROXY, *lines) == CLIENT


def test_r23_nobody_is_trusted_unless_configured() -> None:
    """Without trusted proxies the header is only text, from loopback too."""
    for direct in ("127.0.0.1", "10.0.0.1", CLIENT):
        assert forwarded(direct, OTHER, trusted=()) == direct


def test_r23_people_behind_a_trusted_proxy_are_told_apart() -> None:
    """What one of them does is not held against another."""
    people = [f"203.0.113.{number}" for number in range(20)]
    assert [forwarded(PROXY, address) for address in people] == people


@pytest.mark.parametrize("address", ["203.0.113.9:4711", "[2001:db8:1:2::9]:443"])
def test_r23_a_port_behind_an_address_is_no_part_of_the_source(address: str) -> None:
    """Some proxies write it: each connection would be a new source otherwise."""
    without = {"203.0.113.9:4711": CLIENT}.get(address, "2001:db8:1:2::/64")
    assert forwarded(PROXY, address) == without


def test_text_that_is_no_address_is_cut_short() -> None:
    """Whatever a proxy hands on, a source stays small."""
    assert forwarded(PROXY, "x" * 10_000) == "x" * 64


# The scheme.


@pytest.mark.parametrize(
    ("direct", "scheme", "told", "seen"),
    [
        (CLIENT, "http", None, "http"),
        (CLIENT, "https", None, "https"),
        (CLIENT, "ws", None, "http"),
        (CLIENT, "wss", None, "https"),
        (CLIENT, "http", "https", "http"),
        (CLIENT, "wss", "http", "https"),
        (PROXY, "http", "https", "https"),
        (PROXY, "ws", "HTTPS ", "https"),
        (PROXY, "wss", "http", "http"),
        (PROXY, "http", None, "http"),
        (PROXY, "https", "", "https"),
        (PROXY, "https", "gopher", "https"),
        (PROXY, "http", "wss", "http"),
    ],
)
def test_r15_the_scheme_is_the_trusted_proxys_word(
    direct: str, scheme: str, told: str | None, seen: str
) -> None:
    """It decides which origin is the same one, so nobody else is believed."""
    headers = [("x-forwarded-proto", told)] if told is not None else []
    peer = client_address(request(direct, scheme=scheme, headers=headers), TRUSTED)
    assert peer == ClientAddress(direct, seen)


@pytest.mark.parametrize("lines", [["http", "https"], ["http, https"], ["http", " HTTPS ", ""]])
def test_r15_what_the_client_wrote_above_a_proxys_scheme_is_not_believed(lines: list[str]) -> None:
    """The nearest proxy's word comes last, in a line of its own or in the same one."""
    headers = [("x-forwarded-proto", line) for line in lines]
    assert client_address(request(PROXY, headers=headers), TRUSTED).scheme == "https"
