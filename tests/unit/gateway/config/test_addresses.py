"""Addresses in settings: a Triton elsewhere, and the addresses to listen on."""

from __future__ import annotations

import pytest

from gateway.config.addresses import BackendAddress, parse_backend_address
from gateway.config.environment import read_settings
from gateway.config.fields import SettingsError
from gateway.config.settings import Settings

HOME = {"HOME": "/home/somebody"}
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing binds it


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8001", BackendAddress("localhost:8001", is_tls=False)),
        ("10.0.0.7:1", BackendAddress("10.0.0.7:1", is_tls=False)),
        ("triton_gpu-1:65535", BackendAddress("triton_gpu-1:65535", is_tls=False)),
        ("backend.superres.svc.cluster.local.:80", BackendAddress("backend.superres.svc.cluster.local.:80", False)),
        ("[::1]:8001", BackendAddress("[::1]:8001", is_tls=False)),
        ("[fe80::1%eth0]:8001", BackendAddress("[fe80::1%eth0]:8001", is_tls=False)),
        ("grpcs://triton.example:443", BackendAddress("triton.example:443", is_tls=True)),
        ("grpcs://[2001:db8::7]:443", BackendAddress("[2001:db8::7]:443", is_tls=True)),
    ],
)
def test_backend_address_is_parsed(text: str, address: BackendAddress) -> None:
    assert parse_backend_address(text) == address
    assert Settings(backend_address=text).backend_address == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost", "the port is missing. Triton's gRPC port is 8001 by default"),
        ("http://localhost:8001", "without another scheme"),
        ("https://localhost:8001", "without another scheme"),
        ("grpc://x:1", "without another scheme"),
        ("grpcs://grpcs://x:1", "without another scheme"),
        (":8001", "the host is missing"),
        ("grpcs://:8001", "the host is missing"),
        ("localhost:", "with a port between 1 and 65,535"),
        ("localhost:0", "with a port between 1 and 65,535"),
        ("localhost:99999", "with a port between 1 and 65,535"),
        ("localhost:-1", "with a port between 1 and 65,535"),
        ("localhost:٨", "with a port between 1 and 65,535"),
        ("localhost:8001/v2", "without a path or a user name"),
        ("me@localhost:8001", "without a path or a user name"),
        ("foo bar:1", "'foo bar' is not a host name"),
        ("-x:1", "'-x' is not a host name"),
        ("a..b:1", "'a..b' is not a host name"),
        ("x" * 64 + ":1", "is not a host name"),
        ("höst:1", "write an international name in its ASCII form"),
        ("10.0.0.300:1", "'10.0.0.300' is not an IPv4 address"),
        ("127.1:1", "'127.1' is not an IPv4 address"),
        ("::1:8001", "with an IPv6 address in brackets: [::1]:8001"),
        ("[::1]", "the port is missing"),
        ("[::x]:1", "'::x' is not an IPv6 address"),
        ("[]:1", "the host is missing"),
        ("unix:/run/triton.sock", "not on Unix sockets"),
        ("unix:///run/triton.sock", "not on Unix sockets"),
        ("a:1,b:2", "is not a host name"),
    ],
)
def test_senseless_backend_address_is_rejected_at_start(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, "SUPERRES_BACKEND_ADDRESS": text})

    message = str(caught.value)
    assert message.startswith(f"Invalid backend_address {text!r}: must be host:port or grpcs://host:port")
    assert words in message


def test_long_value_is_shortened_and_a_password_hidden() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(backend_address="localhost:" + "9" * 5_000)
    assert len(str(caught.value)) < 300
    with pytest.raises(SettingsError) as caught:
        Settings(backend_address="https://me:hunter2@localhost:1", public_url="https://me:hunter2@localhost")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["host", "metrics_host"])
@pytest.mark.parametrize(
    "value", ["http://0.0.0.0", "localhost:8080", "[::1]", "foo bar", "a..b", "x" * 300, "1.2.3", "ü"]
)
def test_senseless_listen_address_is_rejected(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"Invalid {name} .*must be one IP address or host name without scheme"):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["127.0.0.1", EVERY_ADDRESS, "::", "::1", "fe80::1%eth0", "localhost", "my_host.lan"])
def test_listen_address_is_accepted(value: str) -> None:
    assert Settings(host=value, metrics_host=value).host == value


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"port": 9_000, "metrics_port": 9_000}, "port", "metrics_port"),
        ({"port": 9_000, "metrics_port": 9_000, "host": EVERY_ADDRESS}, "port", "metrics_port"),
        ({"port": 9_000, "triton_grpc_port": 9_000}, "port", "triton_grpc_port"),
        ({"metrics_port": 9_000, "triton_http_port": 9_000}, "metrics_port", "triton_http_port"),
        ({"triton_grpc_port": 9_000, "triton_http_port": 9_000}, "triton_grpc_port", "triton_http_port"),
    ],
)
def test_equal_ports_are_rejected(changes: dict[str, object], first: str, second: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**changes)  # type: ignore[arg-type]

    assert str(caught.value) == (
        f"Invalid {second} 9000: {first} has the same number on the same address. Choose another one."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0, "metrics_port": 0},
        {"port": 9_000, "metrics_port": 9_000, "metrics_host": "10.0.0.7"},
        {"port": 9_000, "triton_grpc_port": 9_000, "backend_address": "triton:8001"},
    ],
)
def test_ports_that_do_not_collide_are_accepted(changes: dict[str, object]) -> None:
    Settings(**changes)  # type: ignore[arg-type]
