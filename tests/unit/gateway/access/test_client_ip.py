"""The client's IP address, with 0 to 3 trusted proxies and forged headers."""

from __future__ import annotations

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.client_ip import TrustedProxies, client_address, rate_limit_key
from testing.fixtures import MakeApp
from testing.requests import problem_of

PEER = "192.0.2.1"
FORGED = "6.6.6.6"


@pytest.mark.parametrize(
    ("hops", "forwarded_for", "address"),
    [
        # 0 proxies: headers are ignored.
        (0, "", PEER),
        (0, FORGED, PEER),
        (0, f"{FORGED}, {FORGED}", PEER),
        # 1 proxy: the last entry counts.
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
        # An invalid address counts as missing.
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
def test_exactly_as_many_hops_count_as_are_trusted(hops: int, forwarded_for: str, address: str) -> None:
    assert client_address(PEER, forwarded_for, hops) == address


@given(forged=st.lists(st.text(st.characters(codec="ascii"), max_size=20), max_size=5), hops=st.integers(1, 3))
def test_nothing_sent_from_outside_changes_whom_the_proxies_name(forged: list[str], hops: int) -> None:
    appended = ["203.0.113.7", "10.0.0.1", "10.0.0.2"][:hops]

    assert client_address(PEER, ", ".join([*forged, *appended]), hops) == "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "address"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("", ""), ("unix:", "")],
)
def test_the_peer_is_folded_and_may_be_unknown(peer: str, address: str) -> None:
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
def test_an_ipv4_address_stands_alone_and_a_64_together(one: str, other: str, *, is_shared: bool) -> None:
    assert (rate_limit_key(one) == rate_limit_key(other)) == is_shared


@pytest.mark.parametrize(
    ("hops", "headers", "url"),
    [
        (0, {"X-Forwarded-Proto": "https"}, "http://localhost/where"),
        (1, {"X-Forwarded-Proto": "https"}, "https://localhost/where"),
        (2, {"X-Forwarded-Proto": "http, https"}, "https://localhost/where"),
        (1, {"X-Forwarded-Proto": "gopher"}, "http://localhost/where"),
        (1, {}, "http://localhost/where"),
        (1, {"X-Forwarded-Host": "evil.example"}, "http://localhost/where"),
        (1, {"X-Forwarded-Host": "evil.example", "Host": "me.example"}, "http://me.example/where"),
    ],
)
def test_the_scheme_is_that_of_the_nearest_proxy_and_the_host_that_of_the_header_host(
    hops: int, headers: dict[str, str], url: str
) -> None:
    app = Flask("test")
    app.add_url_rule("/where", view_func=lambda: f"{request.url} {request.remote_addr}")
    app.wsgi_app = TrustedProxies(app.wsgi_app, hops)  # type: ignore[method-assign]

    assert app.test_client().get("/where", headers=headers).get_data(as_text=True) == f"{url} 127.0.0.1"


@pytest.mark.parametrize("hops", [0, 2])
def test_where_proxies_change_the_host_the_public_url_says_who_we_are(make_app: MakeApp, hops: int) -> None:
    client = make_app(trusted_hops=hops, public_url="https://me.example:8443").test_client()

    page = client.get("/", headers={"Host": "gateway.internal", "X-Forwarded-Proto": "http"}).get_data(as_text=True)

    assert "https://me.example:8443/api/v1/upscale" in page
    assert "gateway.internal" not in page


def test_no_stranger_names_a_host_from_which_forms_may_come(make_app: MakeApp) -> None:
    headers = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "Accept": "application/json"}

    answer = make_app(trusted_hops=1).test_client().post("/", headers=headers)

    assert problem_of(answer) == (403, "foreign-origin")


@pytest.mark.parametrize("host", ["evil.example", "no host"])
def test_a_redirect_names_no_host(client: FlaskClient, host: str) -> None:
    answer = client.get("/problems//head-too-long?a=b", headers={"Host": host})

    assert (answer.status_code, answer.headers["Location"]) == (308, "/problems/head-too-long?a=b")
    assert answer.data == b""


def test_the_gateway_uses_it(make_app: MakeApp) -> None:
    app = make_app(trusted_hops=1)
    app.add_url_rule("/who", view_func=lambda: request.remote_addr or "")

    answer = app.test_client().get("/who", headers={"X-Forwarded-For": f"{FORGED}, ::ffff:203.0.113.7"})

    assert answer.get_data(as_text=True) == "203.0.113.7"
