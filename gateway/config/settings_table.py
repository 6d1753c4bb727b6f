"""Every setting of the gateway, in one table: its default, its help text and the check of its value."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.addresses import backend_address, listen_host, tls_name
from gateway.config.fields import (
    ascii_secret,
    between,
    header_secret,
    http_url,
    one_of,
    one_or_two_keys,
    redis_connection_url,
    setting,
)
from gateway.config.rates import check_rates
from gateway.config.request_settings import RequestSettings
from swinir.settings import ENGINES, MAX_WEIGHTS_BYTES, PRECISIONS

_LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class SettingsTable(RequestSettings):
    """One field per setting, in the order of docs/reference/settings.md. `Settings` checks them."""

    # Triton backend

    monthly_gpu_budget_s: float = setting(
        0.0, "Maximum GPU seconds per calendar month (UTC). 0: unlimited.", check=between(0, 100_000_000)
    )
    backend_address: str = setting(
        "",
        "host:port of Triton's gRPC endpoint, or grpcs://host:port for TLS. Empty starts an embedded server on this "
        "machine.",
        check=backend_address,
    )
    backend_ca_file: str = setting(
        "", "PEM file of the authorities that may sign the certificate of a TLS backend. Empty: the public ones."
    )
    backend_cert_file: str = setting("", "PEM file of the gateway's client certificate for a TLS backend. Empty: none.")
    backend_key_file: str = setting(
        "", "PEM file of the private key that belongs to backend_cert_file, without a passphrase."
    )
    backend_server_name: str = setting(
        "", "Name in the certificate of a TLS backend. Empty: the host in backend_address.", check=tls_name
    )
    model_key: str = setting(
        "",
        "Secret for inference on Triton. During a rotation two, separated by a comma and tried in this order.",
        check=one_or_two_keys,
        is_secret=True,
    )
    api_key: str = setting("", "Secret for the administration of Triton.", check=header_secret, is_secret=True)
    scale_to_zero_after_s: float = setting(
        300.0,
        "Idle seconds before the embedded server stops, or before a remote one is presumed asleep. 0: never.",
        check=between(0, 86_400),
    )

    hang_after_s: float = setting(
        30.0,
        "Seconds without progress, while images wait, after which the backend counts as hung. An embedded server is "
        "replaced then. Choose less than half of deadline_s, so that its images can be sent again. 0: never.",
        check=between(0, 3_600),
    )

    boot_limit_s: float = setting(
        120.0,
        "Seconds after which a boot of a backend elsewhere counts as failed. Raise it where a boot may wait for a new "
        "machine. The embedded server has 120 s.",
        check=between(10, 3_600),
    )

    # Embedded Triton server

    model_repository: str = setting("", "Triton model repository of the embedded server. Empty: the project's own.")
    triton_grpc_port: int = setting(
        0,
        "Loopback port for gRPC clients of the embedded server; open while it sleeps. 0: none.",
        check=between(0, 65_535),
    )
    triton_http_port: int = setting(
        0,
        "Loopback port for HTTP clients of the embedded server; open while it sleeps. 0: none.",
        check=between(0, 65_535),
    )
    engine_threads: int = setting(
        0, "Inference threads of the embedded server. 0: one per CPU core.", check=between(0, 1_024)
    )
    engine: str = setting(
        "auto",
        "Engine of the embedded server. auto: on a CPU compiled C code, which starts without PyTorch, if it agrees "
        "with its reference; PyTorch for GPUs and everything else. torch: always PyTorch.",
        check=one_of(ENGINES),
    )
    precision: str = setting(
        "auto",
        "Precision of the network. float32; bfloat16; or auto: bfloat16 on a GPU; on CPUs with AMX products of float32 "
        "as three products in bfloat16; on CPUs that are quicker with bfloat16 (AVX512-BF16) bfloat16 for each network "
        "whose output stays within 86 dB of float32.",
        check=one_of(PRECISIONS),
    )
    max_weights_bytes: int = setting(
        MAX_WEIGHTS_BYTES,
        "Maximum memory of the embedded server for loaded networks, in bytes. The least recently used are evicted.",
        check=between(1, 10**12),
    )
    weights_dir: str = setting(
        "",
        "Folder of fetched and imported weights. Empty: weights/ in state_dir. With a remote backend: the folder that "
        "both mount, if any.",
    )

    # State

    state_dir: str = setting(
        "", "Folder for API keys, blocklist, usage and log. Empty: superres/ in $XDG_STATE_HOME or ~/.local/state."
    )
    keys_file: str = setting("", "File of API key hashes. Empty: keys.json in state_dir.")
    blocks_file: str = setting("", "IP blocklist file. Empty: blocks.txt in state_dir.")
    redis_url: str = setting(
        "",
        "Redis that several gateways share for rate limits, usage, jobs and the state of the backend: redis://, "
        "redis+sentinel:// or redis+cluster://. Empty: each counts by itself.",
        check=redis_connection_url,
        is_secret=True,
    )
    # Rate limits

    anonymous_requests: str = setting(
        "60 per minute",
        "Request rate limit for anonymous clients: per IPv4 address or IPv6 /64. none: unlimited.",
        check=check_rates,
    )
    anonymous_megapixels: str = setting(
        "120 per hour; 600 per day", "Megapixel rate limit for anonymous clients. none: unlimited.", check=check_rates
    )
    client_requests: str = setting(
        "120 per minute",
        "Request rate limit for clients with an API key that has no rate of its own. none: unlimited.",
        check=check_rates,
    )
    client_megapixels: str = setting(
        "1000 per hour",
        "Megapixel rate limit for clients with an API key that has no rate of its own. none: unlimited.",
        check=check_rates,
    )
    wake_rate: str = setting(
        "10 per 10 minutes",
        "Rate limit per client for calls that start a boot of the backend. none: unlimited.",
        check=check_rates,
    )
    poll_rate: str = setting(
        "600 per minute",
        "Rate limit per client for requests about asynchronous jobs. none: unlimited.",
        check=check_rates,
    )
    ban_after: str = setting(
        "30 per 10 minutes",
        "A client rejected this often by rate limits is banned until the oldest rejection expires. none: no bans.",
        check=check_rates,
    )
    # Form

    form_secret: str = setting(
        "",
        "Secret that signs the form's CSRF tokens, the same in every replica. Empty: a random one at each start.",
        check=ascii_secret,
        is_secret=True,
    )
    form_max_age_s: float = setting(
        7_200.0, "Seconds for which an open form can be submitted.", check=between(10, 604_800)
    )

    # Metrics and log

    metrics_host: str = setting(
        "127.0.0.1", "Address of the metrics endpoint. Choose one that is not public.", check=listen_host
    )
    metrics_port: int = setting(0, "Port of the Prometheus metrics endpoint. 0: none.", check=between(0, 65_535))
    otlp_endpoint: str = setting(
        "",
        "URL of an OpenTelemetry collector that takes traces (OTLP over HTTP), such as http://127.0.0.1:4318. "
        "Needs the extra `tracing`. Empty: no traces.",
        check=http_url,
    )
    log_file: str = setting("", "Path of the log file. - for standard error. Empty: gateway.log in state_dir.")
    log_max_bytes: int = setting(
        5_000_000,
        "Size in bytes at which the log file is rotated; one older file is kept. 0: another program rotates it.",
        check=between(0, 10**12),
    )
    log_level: str = setting("info", "Minimum log level.", check=one_of(_LOG_LEVELS))
