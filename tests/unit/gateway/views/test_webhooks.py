"""Webhooks over HTTP: the parameter, signed messages at the end of a job, their state, and the public keys."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.backend.interface import BackendFaultError
from gateway.services import services
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.redis_server import wait_for
from testing.requests import PHOTO, api_form, post_image, read_problem
from testing.webhook_receiver import Receiver, is_signed_by, receiving

ASYNC = {"Prefer": "respond-async"}
LIMIT_S = 60.0


def submit(client: FlaskClient, key: str, webhook: str, **headers: str) -> TestResponse:
    named = {"X-API-Key": key, **ASYNC, **{name.replace("_", "-"): value for name, value in headers.items()}}
    query = {"variant": "compact_x4", "webhook": webhook}
    return client.post("/api/v1/upscale", data=PHOTO, headers=named, query_string=query)


def trusting(make_app: MakeApp, receiver: Receiver, **changes: object) -> Flask:
    app = make_app(webhook_hosts=receiver.authority, **changes)
    services(app).webhook_deliveries.start()
    return app


def read_status(client: FlaskClient, key: str, url: str) -> dict[str, Any]:
    response = client.get(url, headers={"X-API-Key": key})
    assert response.status_code == 200
    body: dict[str, Any] = response.get_json()
    return body


def await_delivery(client: FlaskClient, key: str, url: str) -> dict[str, Any]:
    """Wait until a webhook was delivered, and return the status of its job."""
    wait_for(lambda: read_status(client, key, url)["webhook"]["state"] != "pending", "the webhook", LIMIT_S)
    return read_status(client, key, url)


def test_finished_job_is_announced_with_its_status_and_a_signature(make_app: MakeApp, key: str) -> None:
    with receiving() as receiver:
        client = trusting(make_app, receiver).test_client()

        url = submit(client, key, receiver.url).headers["Location"]

        status = await_delivery(client, key, url)
        (message,) = receiver.messages
        (public_key,) = client.get("/.well-known/jwks.json").get_json()["keys"]
        assert is_signed_by(message, public_key["standard_webhooks"])
        assert message.path == "/hook?secret=s3cret"
        assert message.id == status["id"]
        announced = message.status()
        assert (announced["state"], announced["result"]["url"]) == ("done", f"{url}/result")
        delivery = status.pop("webhook")
        assert announced == status
        assert (delivery["url"], delivery["state"], delivery["attempts"]) == (receiver.url, "delivered", 1)
        assert (delivery["last_status"], delivery["last_error"], delivery["next_attempt_at"]) == (200, None, None)


def test_failed_and_cancelled_jobs_are_announced_too(make_app: MakeApp, key: str) -> None:
    gate = threading.Event()
    faults = [BackendFaultError("broken"), BackendFaultError("broken")]
    upscaler = FakeBackend(failures=faults, gate=gate)
    with receiving() as receiver:
        client = trusting(make_app, receiver, upscaler=upscaler).test_client()
        failed = submit(client, key, receiver.url).headers["Location"]
        await_delivery(client, key, failed)
        cancelled = submit(client, key, receiver.url).headers["Location"]
        assert client.delete(cancelled, headers={"X-API-Key": key}).status_code == 204
        await_delivery(client, key, cancelled)

    states = [message.status()["state"] for message in receiver.messages]
    assert states == ["failed", "cancelled"]
    assert receiver.messages[0].status()["problem"]["type"] == "/problems/backend-fault"


def test_failed_attempt_is_visible_in_the_status(make_app: MakeApp, key: str) -> None:
    with receiving(lambda _: 503) as receiver:
        client = trusting(make_app, receiver).test_client()
        url = submit(client, key, receiver.url).headers["Location"]

        wait_for(lambda: read_status(client, key, url)["webhook"]["attempts"] == 1, "the attempt", LIMIT_S)

        delivery = read_status(client, key, url)["webhook"]
    assert (delivery["state"], delivery["last_status"], delivery["last_error"]) == ("pending", 503, "status 503")
    assert delivery["next_attempt_at"].endswith("Z")


def test_webhook_is_a_field_of_a_form_too_and_belongs_to_the_key(make_app: MakeApp, key: str) -> None:
    with receiving() as receiver:
        client = trusting(make_app, receiver).test_client()
        form = api_form(webhook=receiver.url)
        accepted = client.post("/api/v1/upscale", **form, headers={"X-API-Key": key, **ASYNC, "Idempotency-Key": "a"})
        await_delivery(client, key, accepted.headers["Location"])

        first = submit(client, key, receiver.url, Idempotency_Key="b")
        again = submit(client, key, receiver.url, Idempotency_Key="b")
        other = submit(client, key, f"{receiver.url}&x=1", Idempotency_Key="b")

        assert first.headers["Location"] == again.headers["Location"]
        assert read_problem(other) == (422, "idempotency-key-reused")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "must begin with https://"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::ffff:169.254.169.254]/", "not public"),
        ("https://localhost/", "not public"),
        ("https://no-such-host.invalid/", "not found"),
        ("nonsense", "must begin with https://"),
        ("https://a:b@example.org/", "name or a password"),
        ("https://" + "x" * 5_000, "maximum"),
        ("https://\N{LATIN SMALL LETTER E WITH ACUTE}.example/", "characters"),
    ],
)
def test_bad_url_is_a_400_with_a_reason_and_costs_nothing(
    make_app: MakeApp, key: str, upscaler: FakeBackend, url: str, reason: str
) -> None:
    client = make_app(client_megapixels="1 per hour").test_client()

    refused = submit(client, key, url)

    assert read_problem(refused) == (400, "bad-parameter")
    assert reason in refused.get_json()["detail"]
    assert refused.get_json()["parameter"] == "webhook"
    assert post_image(client, key).status_code == 200
    assert len(upscaler.calls) == 1


def test_webhook_without_an_asynchronous_job_is_rejected(client: FlaskClient, key: str) -> None:
    refused = post_image(client, key, query="?webhook=https://example.org/")

    assert read_problem(refused) == (400, "bad-parameter")
    assert "Prefer: respond-async" in refused.get_json()["detail"]


def test_service_without_a_key_sends_none_in_words(make_app: MakeApp, key: str, tmp_path: Any) -> None:
    (tmp_path / "webhook_key").write_text("not a key")
    client = make_app().test_client()

    refused = submit(client, key, "https://example.org/")

    assert read_problem(refused) == (400, "bad-parameter")
    assert "sends no webhooks" in refused.get_json()["detail"]
    assert client.get("/.well-known/jwks.json").get_json() == {"keys": []}


def test_public_keys_may_be_cached_and_are_those_of_the_setting(make_app: MakeApp) -> None:
    client = make_app(webhook_key="whsk_" + "A" * 43 + "=").test_client()

    response = client.get("/.well-known/jwks.json")

    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert len(response.get_json()["keys"]) == 1
    assert client.get("/.well-known/jwks.json").data == response.data


def test_log_has_the_request_and_neither_url_nor_key(
    make_app: MakeApp, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with receiving(lambda _: 410) as receiver:
        client = trusting(make_app, receiver).test_client()
        accepted = submit(client, key, receiver.url)
        await_delivery(client, key, accepted.headers["Location"])
        wait_for(lambda: "webhook of job" in caplog.text, "the line", LIMIT_S)

    assert f"{accepted.headers['X-Request-Id']}: webhook of job" in caplog.text
    assert "failed, attempt 1: status 410" in caplog.text
    assert "s3cret" not in caplog.text
    assert "whsk_" not in caplog.text
