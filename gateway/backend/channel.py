"""The gRPC channel to one Triton: its options, keepalive pings and TLS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

# A band of 8192 columns has 25 MB; gRPC's default maximum is 4 MB.
MAX_MESSAGE_BYTES = 2**31 - 1
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # gRPC reconnects by itself to a server that slept or was replaced. By default it waits up to 120 s in between.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A look-up of the host name that gets no response ends after 5 s, and not after 13 s (grpcio 1.85, measured).
    ("grpc.dns_ares_query_timeout", 5000),
    ("grpc.enable_http_proxy", 0),
)

# Options of tritonserver (2.51 and later) that match: docker/triton/start has the same, which a test compares.
SERVER_KEEPALIVE_OPTIONS = (
    # Clients may ping every half second, with and without calls. By default Triton ends the connection of a client that
    # pings more often than every 5 minutes: "Too many pings" (measured with 1 s).
    "--grpc-http2-min-recv-ping-interval-without-data=500",
    "--grpc-keepalive-permit-without-calls=true",
    # Triton pings, too: it cancels the work of a client that is silent for 40 s.
    "--grpc-keepalive-time=30000",
    "--grpc-keepalive-timeout=10000",
    "--grpc-http2-max-pings-without-data=0",
)


@dataclass(frozen=True)
class Keepalive:
    """Pings on a connection with calls. They find a peer that is silent although the connection looks open.

    No ping is sent without a call, so they keep no sleeping backend awake.
    """

    interval_s: float = 5.0
    """Seconds without a byte from the server after which a ping is sent."""
    timeout_s: float = 5.0
    """Seconds to wait for the response to a ping. Then all calls on the connection fail."""


@dataclass(frozen=True)
class TlsOptions:
    """How a client checks the server's certificate, and how it identifies itself."""

    ca_file: Path | None = None
    """PEM file of the authorities to trust; None for the public ones that gRPC comes with."""
    cert_file: Path | None = None
    """PEM file of the client's certificate, followed by intermediate ones. `key_file` belongs to it."""
    key_file: Path | None = None
    """PEM file of the client's private key, not encrypted."""
    server_name: str = ""
    """Name that the server's certificate must have; empty for the host in the address."""


def channel_opener(address: str, tls: TlsOptions | None, keepalive: Keepalive | None) -> Callable[[], grpc.Channel]:
    """Return a function that returns a new channel to host:port, which connects with its first call.

    The files of `tls` are read now. Raises OSError if one cannot be read.
    """
    options = [*_OPTIONS, *(_keepalive_options(keepalive) if keepalive else [])]
    if tls is None:
        return partial(grpc.insecure_channel, address, options=options)
    credentials = grpc.ssl_channel_credentials(_read(tls.ca_file), _read(tls.key_file), _read(tls.cert_file))
    if tls.server_name:
        options += [("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name)]
    return partial(grpc.secure_channel, address, credentials, options=options)


def _keepalive_options(keepalive: Keepalive) -> list[tuple[str, int]]:
    timeout_ms = round(1_000 * keepalive.timeout_s)
    return [
        ("grpc.keepalive_time_ms", round(1_000 * keepalive.interval_s)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        # grpcio 1.85 waits this long for the response to any ping, 60 s by default, and ignores the keepalive timeout
        # (measured).
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),  # by default two, then none until data is sent
        ("grpc.keepalive_permit_without_calls", 0),
    ]


def _read(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
