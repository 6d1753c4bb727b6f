"""gateway.access.control over HTTP: blocklist, CSRF protection and API keys."""

from __future__ import annotations

import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from gateway.access.api_keys import ApiKeyStore
from gateway.access.csrf import CsrfTokens, Sender, allowed_origins, is_cross_site
from gateway.access.ip_blocklist import Blocklist
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.requests import FORM_SECRET, PHOTO, api_form, form, post_image, read_problem
from testing.weights_files import write_weights_file

JSON = {"Accept": "application/json"}


class Inputs(HTMLParser):
    """Collects the field values that a browser would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        field = dict(attrs)
        if tag == "input" and (field.get("type") not in ("radio", "checkbox") or "checked" in field):
            self.values[field.get("name") or ""] = field.get("value") or ""


# Blocked networks.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 403),
        ("POST", "/", 403),
        ("POST", "/api/v1/upscale", 403),
        ("GET", "/api/v1/variants", 403),
        ("POST", "/api/v1/wake", 403),
        ("GET", "/static/x/page.css", 403),
        ("GET", "/nothing", 403),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ],
)
def test_blocked_network_gets_403_except_for_health_checks(
    make_app: MakeApp, tmp_path: Path, key: str, upscaler: FakeBackend, method: str, path: str, status: int
) -> None:
    client = make_app(trusted_hops=1).test_client()
    Blocklist(tmp_path / "blocks.txt").add("203.0.113.0/24", "")

    def ask(address: str) -> bool:
        headers = {"X-Forwarded-For": address, "X-API-Key": key, **JSON}
        response = client.open(path, method=method, headers=headers, buffered=True)
        return response.status_code == 403 and response.get_json()["type"] == "/problems/blocked"

    assert ask("203.0.113.9") == ask("198.51.100.1, ::ffff:203.0.113.9") == (status == 403)
    assert not ask("203.0.114.9")
    assert upscaler.calls == []


def test_blocked_request_is_a_problem_and_is_logged_without_the_address(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Blocklist(tmp_path / "blocks.txt").add("127.0.0.0/8", "")

    response = make_app().test_client().post("/api/v1/upscale", data=PHOTO)

    assert read_problem(response) == (403, "blocked")
    assert f"{response.headers['X-Request-Id']}: rejected, network 127.0.0.0/8 is blocked" in caplog.text
    assert "127.0.0.1" not in caplog.text


@pytest.mark.parametrize(
    ("blocked", "address", "said"),
    [
        ("203.0.113.77", "203.0.113.77", "203.0.113.0/24"),
        ("203.0.113.64/26", "203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1:2::7", "2001:db8:1::/48"),
        ("2001:db8::/32", "2001:db8::7", "2001:db8::/32"),
    ],
)
def test_small_blocked_network_is_logged_truncated_with_its_line(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture, blocked: str, address: str, said: str
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "blocks.txt").write_text(f"# who\n{blocked}\n")

    make_app(trusted_hops=1).test_client().get("/", headers={"X-Forwarded-For": address})

    assert f"rejected, network {said} is blocked (line 2)" in caplog.text
    assert address not in caplog.text


def test_invalid_blocklist_keeps_the_previous_one_in_force(make_app: MakeApp, tmp_path: Path) -> None:
    client = make_app(trusted_hops=1).test_client()
    (tmp_path / "blocks.txt").write_text("203.0.113.0/24\n")
    blocked, other = {"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "198.51.100.9"}
    assert client.get("/", headers=blocked).status_code == 403

    (tmp_path / "blocks.txt").write_text("198.51.100.0/24\nnonsense\n")

    assert (client.get("/", headers=blocked).status_code, client.get("/", headers=other).status_code) == (403, 200)


# The form, without cookies.


OWN, FRONT, EVIL = "https://gate.example", "https://front.example", "https://evil.example"


@pytest.mark.parametrize(
    ("site", "origin", "is_cross_site_request"),
    [
        # Browsers that send Sec-Fetch-Site.
        ("same-origin", OWN, False),
        ("same-origin", "", False),
        ("same-origin", "null", False),
        ("none", "", False),
        ("cross-site", EVIL, True),
        ("cross-site", "", True),
        ("cross-site", "null", True),
        ("cross-site", FRONT, False),
        ("same-site", "https://other.gate.example", True),
        ("same-site", FRONT, False),
        ("nonsense", OWN, True),
        # Browsers that send only Origin.
        ("", OWN, False),
        ("", "http://gate.example", False),
        ("", OWN + ":443", False),
        ("", FRONT, False),
        ("", EVIL, True),
        ("", "null", True),
        ("", OWN + ":8443", True),
        ("", "https://gate.example.evil.example", True),
        ("", "https://evil.example/https://gate.example", True),
        ("", "https://front.example:444", True),
        ("", "http://front.example", True),
        ("", "https://[", True),
        # Programs.
        ("", "", False),
    ],
)
def test_cross_site_check_of_headers(site: str, origin: str, *, is_cross_site_request: bool) -> None:
    allowed = allowed_origins(f"'self' {FRONT} https://*.wild.example https:")

    assert is_cross_site(Sender(site, origin, OWN, ("gate.example",)), allowed) == is_cross_site_request


def test_wildcards_and_schemes_in_frame_ancestors_allow_no_origin() -> None:
    assert allowed_origins("'self' https: https://*.wild.example 'none'") == frozenset()
    sender = Sender("cross-site", "https://a.wild.example", OWN, ("gate.example",))
    assert is_cross_site(sender, allowed_origins("https://*.wild.example"))


def test_cross_site_request_is_rejected_before_the_body_is_read(make_app: MakeApp, upscaler: FakeBackend) -> None:
    client = make_app(frame_ancestors=f"'self' {FRONT}").test_client()

    def ask(path: str, **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(path, data=b"never read", headers={**JSON, **sent}).status_code

    assert ask("/", Sec_Fetch_Site="cross-site", Origin=EVIL) == 403
    assert ask("/", Origin=EVIL) == 403
    assert ask("/api/v1/wake", Sec_Fetch_Site="cross-site") == 403
    assert ask("/api/v1/wake", Sec_Fetch_Site="cross-site", Origin=FRONT) == 202
    assert client.post("/", **form(), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert upscaler.wakes == 1


def test_client_with_api_key_may_wake_cross_site(make_app: MakeApp, key: str) -> None:
    response = (
        make_app()
        .test_client()
        .post("/api/v1/wake", headers={"X-API-Key": key, "Sec-Fetch-Site": "cross-site", "Origin": EVIL})
    )

    assert response.status_code == 202


def test_form_as_a_browser_sends_it_is_accepted(client: FlaskClient) -> None:
    fields = Inputs(client.get("/").get_data(as_text=True)).values
    del fields["image"]

    assert client.post("/", **api_form(PHOTO, "photo.png", **fields)).status_code == 303


TOKENS = CsrfTokens(FORM_SECRET, 60)
OLD = CsrfTokens(FORM_SECRET, 60, clock=lambda: 1_700_000_000.0).create()
FUTURE_TOKEN = CsrfTokens(FORM_SECRET, 60, clock=lambda: 4_000_000_000.0).create()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        OLD,
        FUTURE_TOKEN,
        CsrfTokens("another secret", 60).create(),
        TOKENS.create()[:-1],
        TOKENS.create() + "x",
        "x" + TOKENS.create(),
        "\x00",
        "é",
        "x" * 100_000,
        TOKENS.create().replace(".", "..", 1),
    ],
    ids=[
        "none",
        "no token",
        "expired",
        "from the future",
        "another secret",
        "cut",
        "longer",
        "changed",
        "zero",
        "letter",
        "huge",
        "dots",
    ],
)
def test_form_with_invalid_token_returns_403_and_a_new_token(
    client: FlaskClient, upscaler: FakeBackend, token: str
) -> None:
    refused = client.post("/", **api_form(token=token), headers=JSON)

    assert read_problem(refused) == (403, "stale-form")
    assert upscaler.calls == []
    fresh = refused.get_json()["form_token"]
    assert client.post("/", **api_form(token=fresh)).status_code == 303


def test_expired_form_is_returned_with_its_choices(make_app: MakeApp, tmp_path: Path) -> None:
    write_weights_file(tmp_path / "weights", "real_x4")
    client = make_app(variants="compact_x4,real_x4").test_client()

    response = client.post("/", **api_form(token=OLD, variant="real_x4", format="webp", quality="71"))

    page = response.get_data(as_text=True)
    fields = Inputs(page).values
    assert (response.status_code, response.mimetype) == (403, "text/html")
    assert (fields["variant"], fields["format"], fields["quality"]) == ("real_x4", "webp", "71")
    assert "Please choose the image again: browsers do not keep it." in page
    del fields["image"]
    assert client.post("/", **api_form(PHOTO, "photo.png", **fields)).status_code == 303


def test_invalid_choices_are_not_repeated_in_the_new_form(client: FlaskClient) -> None:
    page = client.post("/", **api_form(token=OLD, variant='"><script>', format="x", quality="999")).get_data(
        as_text=True
    )

    assert "<script>" not in re.sub(r"<script [^>]*></script>", "", page)
    assert Inputs(page).values["quality"] == "92"


def test_token_expires_and_is_valid_in_every_replica_with_the_secret() -> None:
    clock = ManualClock()
    one, other = CsrfTokens("s", 60, clock=clock), CsrfTokens("s", 60, clock=clock)
    token = one.create()

    clock.now += 60
    assert other.is_valid(token)
    clock.now += 1
    assert not other.is_valid(token)
    assert not CsrfTokens("", 60).is_valid(CsrfTokens("", 60).create()), "without a secret each start has its own"


def test_token_of_a_clock_that_is_ahead_is_valid_within_its_age() -> None:
    ahead, behind = ManualClock(), ManualClock()
    ahead.now += 60
    token = CsrfTokens("s", 60, clock=ahead).create()

    assert CsrfTokens("s", 60, clock=behind).is_valid(token)
    behind.now -= 1
    assert not CsrfTokens("s", 60, clock=behind).is_valid(token)


def test_api_needs_no_csrf_token(client: FlaskClient, key: str) -> None:
    assert post_image(client, key, headers={"Sec-Fetch-Site": "cross-site", "Origin": EVIL}).status_code == 200
    refused = client.post("/api/v1/upscale", headers={"X-API-Key": key}, **form())
    assert read_problem(refused) == (400, "bad-parameter")


# Headers.


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/variants", "/healthz"])
@pytest.mark.parametrize("is_tls", [True, False])
def test_hsts_is_sent_over_tls_only(make_app: MakeApp, path: str, *, is_tls: bool) -> None:
    client = make_app(trusted_hops=1).test_client()

    headers = client.get(path, headers={"X-Forwarded-Proto": "https" if is_tls else "http"}).headers

    assert headers.get("Strict-Transport-Security") == ("max-age=63072000" if is_tls else None)


def test_missing_wrong_revoked_and_expired_keys_get_the_same_response(make_app: MakeApp, tmp_path: Path) -> None:
    keys = ApiKeyStore(tmp_path / "keys.json")
    revoked, expired = keys.new("gone"), keys.new("old")
    keys.revoke("gone")
    client = make_app().test_client()
    path = tmp_path / "keys.json"
    rows = json.loads(path.read_text())
    rows["keys"][0]["expires"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(rows))

    responses = [post_image(client, presented) for presented in ("", "ssr_wrong", revoked, expired)]

    assert {read_problem(response) for response in responses} == {(401, "key-required")}
    assert len({json.dumps({**response.get_json(), "request_id": ""}) for response in responses}) == 1
    names = {tuple(sorted(name for name in response.headers.keys())) for response in responses}  # noqa: SIM118
    assert len(names) == 1, "the headers are the same, too"
