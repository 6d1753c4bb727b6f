"""One POST of a webhook: to the given address, over TLS with a valid certificate, bounded, without redirects."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.webhooks.destination import Destination, parse_url
from gateway.webhooks.keys import WebhookKeys
from gateway.webhooks.post import WebhookPostError, post
from gateway.webhooks.sender import AttemptOutcome, WebhookSender
from testing.certificates import Authority
from testing.webhook_receiver import Message, Receiver, receiving

LIMIT_S = 60.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def at(receiver: Receiver) -> Destination:
    return parse_url(receiver.url, frozenset({receiver.authority}))


def send(receiver: Receiver, tmp_path: Path, limit_s: float = LIMIT_S) -> AttemptOutcome:
    keys = WebhookKeys("", tmp_path / "key", needs_setting=False)
    sender = WebhookSender(keys, frozenset({receiver.authority}), limit_s=limit_s, wall_clock=lambda: 1234.9)
    return sender.send(receiver.url, "job-1", b'{"state": "done"}')


def server_tls(folder: Path, host: str) -> tuple[ssl.SSLContext, Authority]:
    authority = Authority(folder, "authority")
    signed = authority.sign(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.cert_file, signed.key_file)
    return context, authority


def test_message_has_the_headers_of_standard_webhooks(tmp_path: Path) -> None:
    with receiving() as receiver:
        outcome = send(receiver, tmp_path)

    assert outcome == AttemptOutcome(is_delivered=True, may_retry=False, status=200, reason="")
    (message,) = receiver.messages
    assert message.path == "/hook?secret=s3cret"
    assert message.body == b'{"state": "done"}'
    headers = message.headers
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("job-1", "1234")
    assert (headers["host"], headers["content-type"]) == (receiver.authority, "application/json")
    assert headers["user-agent"].startswith("serverless-superres/")


def test_connection_goes_to_the_address_and_the_certificate_is_that_of_the_name(tmp_path: Path) -> None:
    """The name does not exist in any DNS: only the address that was checked is used."""
    tls, authority = server_tls(tmp_path, "receiver.invalid")
    client = ssl.create_default_context(cafile=str(authority.file))
    with receiving(tls=tls, host="receiver.invalid") as receiver:
        status = post(at(receiver), ["127.0.0.1"], {}, b"{}", tls=client, limit_s=LIMIT_S)

    assert status == 200
    assert receiver.messages[0].headers["host"] == receiver.authority


@pytest.mark.parametrize("host", ["other.invalid", "receiver.invalid"])
def test_invalid_certificate_is_refused(tmp_path: Path, host: str) -> None:
    tls, authority = server_tls(tmp_path, "receiver.invalid")
    trusted = str(authority.file) if host == "other.invalid" else None
    client = ssl.create_default_context(cafile=trusted)
    with (
        receiving(tls=tls, host=host) as receiver,
        pytest.raises(WebhookPostError, match="certificate is not valid"),
    ):
        post(at(receiver), ["127.0.0.1"], {}, b"{}", tls=client, limit_s=LIMIT_S)
    assert receiver.messages == []


@pytest.mark.parametrize(("status", "may_retry"), [(410, False), (400, True), (404, True), (429, True), (503, True)])
def test_other_status_is_a_failure(tmp_path: Path, status: int, may_retry: bool) -> None:
    with receiving(lambda _: status) as receiver:
        outcome = send(receiver, tmp_path)

    assert outcome == AttemptOutcome(is_delivered=False, may_retry=may_retry, status=status, reason=f"status {status}")


@pytest.mark.parametrize("status", [201, 204, 299])
def test_every_2xx_is_a_success(tmp_path: Path, status: int) -> None:
    with receiving(lambda _: status) as receiver:
        assert send(receiver, tmp_path).is_delivered


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    with receiving() as elsewhere:
        location = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
        with receiving(lambda _: [location.encode()]) as receiver:
            outcome = send(receiver, tmp_path)

    assert "redirects are not followed" in outcome.reason
    assert elsewhere.connections == 0


def test_first_address_that_accepts_is_used() -> None:
    with receiving() as receiver:
        assert post(at(receiver), ["127.0.0.2", "127.0.0.1"], {}, b"{}", tls=NO_TLS, limit_s=LIMIT_S) == 200


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"nonsense\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n", "not valid HTTP"),
        (b"", "connection broke"),
    ],
)
def test_broken_response_is_a_failure(tmp_path: Path, response: bytes, reason: str) -> None:
    with receiving(lambda _: [response]) as receiver:
        outcome = send(receiver, tmp_path)

    assert (outcome.is_delivered, outcome.may_retry, outcome.status) == (False, True, None)
    assert reason in outcome.reason
    assert "s3cret" not in outcome.reason


def test_body_of_the_response_is_not_read(tmp_path: Path) -> None:
    """It announces more than it sends; who read it would wait."""
    with receiving(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx"]) as receiver:
        assert send(receiver, tmp_path).is_delivered


def test_receiver_that_is_silent_or_slow_ends_with_the_attempt(tmp_path: Path) -> None:
    """The second one sends a byte again and again, so that no wait for a byte is long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        destination = parse_url(f"http://{host}/", frozenset({host}))
        with pytest.raises(WebhookPostError, match=r"within 0\.2 seconds"):
            post(destination, ["127.0.0.1"], {}, b"{}", tls=NO_TLS, limit_s=0.2)
    with receiving(send_endless_header) as receiver:
        outcome = send(receiver, tmp_path, limit_s=0.5)
    assert (outcome.status, outcome.reason) == (None, "no response within 0.5 seconds")


def send_endless_header(_: Message) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:  # until the connection is shut down
        time.sleep(0.01)
        yield b"x"


def test_refused_connection_is_a_failure(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # it does not listen, and nobody else gets the port
        outcome = send(Receiver(port=closed.getsockname()[1]), tmp_path)

    assert outcome.reason == "the connection was refused"
    assert outcome.may_retry
