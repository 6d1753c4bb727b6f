"""Why Redis is unavailable stands in the log, without the user or password of the URL."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.rate_limit_storage import FallbackStorage
from gateway.storage.redis import RedisUnavailableError, SharedRedis
from gateway.usage.records import UsageBatch
from gateway.usage.redis_store import RedisUsageStore
from testing.certificates import make_certificate
from testing.ports import find_free_port
from testing.redis_groups import running
from testing.redis_server import RedisServer

USER, PASSWORD = "operator7", "hunter2 &/"
QUOTED = "operator7:hunter2%20%26%2F@"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, int, Path]]:
    """A Redis with a user, its port for TLS, and its certificate for 127.0.0.1, which signs itself."""
    folder, port = tmp_path_factory.mktemp("tls"), find_free_port()
    certificate, key = make_certificate(folder)
    server = RedisServer(
        *(folder, "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", "--bind", "127.0.0.1", "127.0.0.2"),
    )
    with running(server):
        server.execute("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~superres:*", "+@all", "-lrem")
        yield server, port, certificate


def find_reason(url: str) -> str:
    with pytest.raises(RedisUnavailableError) as caught:
        SharedRedis(url).call(lambda client: client.lrem("superres:x", 1, "y"))
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s://{}127.0.0.1:{tls}", "its certificate is not trusted: self-signed certificate"),
        ("s://{}127.0.0.2:{tls}?ssl_ca_certs={ca}", "its certificate is not trusted: IP address mismatch"),
        pytest.param(
            "s://{}127.0.0.1:{plain}",
            "Timeout connecting to server",
            marks=pytest.mark.redis_timeouts,
        ),
        ("://{}127.0.0.1:{plain}", "it rejects the user or password"),
        ("://{}nohost.invalid:6379", "the host nohost.invalid was not found"),
        ("://{}127.0.0.1:1", "Error 111 connecting to 127.0.0.1:1. Connection refused"),
        pytest.param("://{}127.0.0.1:{silent}", "imeout", marks=pytest.mark.redis_timeouts),
    ],
    ids=["certificate", "name in the certificate", "no TLS", "password", "unknown host", "refused", "silent"],
)
def test_reason_is_named_without_a_secret(
    tls: tuple[RedisServer, int, Path], scheme: str, address: str, words: str
) -> None:
    server, tls_port, certificate = tls
    base, plus, kind = scheme.partition("+")
    service = "/service" if kind == "sentinel" else ""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        rest, question, query = address.partition("?")
        ports = {"tls": tls_port, "plain": server.port, "silent": silent.getsockname()[1], "ca": certificate}
        secret = "operator7:wrong%20%26%2F@"
        head, _, tail = rest.partition("://")
        url = f"{base}{head}{plus}{kind}://" + f"{tail}{service}{question}{query}".format(secret, **ports)

        reason = find_reason(url)

    assert words in reason
    assert ("perhaps the port does not use TLS" in reason) == (words == "Timeout connecting to server")
    assert "wrong" not in reason
    assert USER not in reason


def test_tls_with_its_certificate_works_and_a_missing_permission_is_named(
    tls: tuple[RedisServer, int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    server, port, certificate = tls
    url = f"rediss://{QUOTED}127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    storage = FallbackStorage(redis_url=url)
    storage._breaker.record_outage("it was away before")
    storage._breaker._retry_at = 1.0
    hit = storage.acquire("key", 1, 60)
    assert hit is not None
    assert hit.is_shared, "the user may use the names that the gateway needs, that of the test write included"
    RedisUsageStore(url).add(UsageBatch())
    RedisUsageStore(url).read()
    caplog.clear()

    reason = find_reason(url)
    with caplog.at_level(logging.DEBUG):
        FallbackStorage(redis_url=url.replace("hunter2", "hunter3")).acquire("key", 1, 60)

    line = "Redis is unavailable: it rejects the user or password. Until it is back, each gateway process counts rate "
    assert reason == "its user may not use a command or key that the gateway needs (ACL)"
    assert [record.getMessage() for record in caplog.records] == [line + "limits by itself."]
    assert server.execute("PING")


@pytest.mark.parametrize(
    ("url", "ends"),
    [
        ("redis://127.0.0.1:{plain}/99", "it rejects the connection: DB index is out of range"),
        (
            "rediss://127.0.0.1:{tls}?ssl_ca_certs=/x",
            "No such file or directory; check the files in the URL's ssl_ options",
        ),
        ("redis+cluster://127.0.0.1:{plain}", "Cluster mode is not enabled on this node"),
        ("redis+sentinel://127.0.0.1:{plain}/x", "the Sentinels do not name the master: unknown command 'SENTINEL'"),
    ],
    ids=["database", "file of the authority", "no cluster", "no Sentinel"],
)
def test_wrong_address_is_named(tls: tuple[RedisServer, int, Path], url: str, ends: str) -> None:
    reason = find_reason(url.format(plain=tls[0].port, tls=tls[1]))

    assert reason.split(", with args")[0].endswith(ends)
