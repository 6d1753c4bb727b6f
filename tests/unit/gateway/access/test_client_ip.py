"""gateway.access.client_ip: the client's address, which forged headers do not change."""

from __future__ import annotations

import pytest
from flask import request
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.client_ip import client_address, rate_limit_key
from testing.fixtures import MakeApp

PEER = "192.0.2.1"
FORGED = "6.6.6.6"


@pytest.mark.parametrize(
    ("proxies", "forwarded_for", "address"),
    [
        # Without a proxy, the header is ignored.
        (0, "", PEER),
        (0, FORGED, PEER),
        (0, f"{FORGED}, {FORGED}", PEER),
        # 1 proxy: it wrote the last entry.
        (1, "", PEER),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, f"{FORGED}, 203.0.113.7", "203.0.113.7"),
        (1, f"{FORGED},{FORGED} ,203.0.113.7 ", "203.0.113.7"),
        (1, '"x, 203.0.113.7', "203.0.113.7"),  # Werkzeug's ProxyFix reports the proxy's address
        # 2 proxies: the last entry but one.
        (2, "", PEER),
        (2, "203.0.113.7", PEER),
        (2, "203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (2, f"{FORGED}, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        # 3 proxies, as behind Knative.
        (3, "203.0.113.7, 10.0.0.1", PEER),
        (3, "203.0.113.7, 10.0.0.1, 10.0.0.2", "203.0.113.7"),
        (3, f"{FORGED}, {FORGED}, 203.0.113.7, 10.0.0.1, 10.0.0.2", "203.0.113.7"),
        # An invalid entry is ignored.
        (1, "unknown", PEER),
        (1, "203.0.113.7,", PEER),
        (1, "_hidden", PEER),
        (1, "1.2.3", PEER),
        (1, "127.0.0.1\x00", PEER),
        (1, "0x7f.1", PEER),
        (1, "010.0.0.1", PEER),
        (2, "evil, 10.0.0.1", PEER),
        # Ports, brackets, zones; IPv4 in IPv6 is IPv4.
        (1, "203.0.113.7:4711", "203.0.113.7"),
        (1, "[2001:db8::1]:443", "2001:db8::1"),
        (1, "[2001:db8::1]", "2001:db8::1"),
        (1, "fe80::1%eth0", "fe80::1"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
        (1, "::FFFF:CB00:7107", "203.0.113.7"),
    ],
)
def test_client_address_behind_a_number_of_trusted_proxies(proxies: int, forwarded_for: str, address: str) -> None:
    assert client_address(PEER, forwarded_for, proxies) == address


@given(forged=st.lists(st.text(st.characters(codec="ascii"), max_size=20), max_size=5), proxies=st.integers(1, 3))
def test_forged_entries_do_not_change_the_client_address(forged: list[str], proxies: int) -> None:
    appended = ["203.0.113.7", "10.0.0.1", "10.0.0.2"][:proxies]

    assert client_address(PEER, ", ".join([*forged, *appended]), proxies) == "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "address"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("", ""), ("unix:", "")],
)
def test_peer_is_unmapped_and_may_be_unknown(peer: str, address: str) -> None:
    assert client_address(peer, "", 0) == address


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.8", False),
        ("", "unix:", True),
        ("", "203.0.113.7", False),
    ],
)
def test_rate_limit_key_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, *, is_shared: bool) -> None:
    assert (rate_limit_key(one) == rate_limit_key(other)) == is_shared


def test_gateway_reads_the_address_behind_its_proxies(make_app: MakeApp) -> None:
    app = make_app(trusted_hops=1)
    app.add_url_rule("/who", view_func=lambda: request.remote_addr or "")

    response = app.test_client().get("/who", headers={"X-Forwarded-For": f"{FORGED}, ::ffff:203.0.113.7"})

    assert response.get_data(as_text=True) == "203.0.113.7"
