"""Every setting of the gateway, in one table. Defaults, environment variables, `superres settings` and docs follow it.

`gateway.config.environment` reads the values. docs/reference/settings.md has the same help texts, held by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from gateway.config.fields import (
    Setting,
    SettingsError,
    Value,
    between,
    csp_sources,
    one_of,
    one_or_two_keys,
    origin_url,
    redis_connection_url,
    setting,
    split_list,
)
from gateway.config.rates import check_rates
from preprocessing.upload import MAX_DECODED_PIXELS
from swinir.auto import AUTO, NEAREST, offer
from swinir.custom_variants import find_known
from swinir.settings import MAX_WEIGHTS_BYTES
from swinir.zoo import VARIANTS, Variant

_LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """The settings table. Raises SettingsError for invalid values and for values that contradict each other."""

    # Server

    host: str = setting("127.0.0.1", "Address to listen on. 0.0.0.0 or :: for all addresses.")
    port: int = setting(
        8080, "Port to listen on. 0 takes a free port.", check=between(0, 65_535), fallback_variable="PORT"
    )
    threads: int = setting(64, "Number of worker threads. A queued request occupies one, too.", check=between(2, 1_024))
    trusted_hops: int = setting(
        0,
        "Exact number of proxies in front of the gateway. Only their X-Forwarded-For and -Proto are trusted.",
        check=between(0, 8),
    )
    public_url: str = setting(
        "",
        "Public origin of the gateway, such as https://superres.example. Needed if proxies change the Host header.",
        check=origin_url,
    )
    frame_ancestors: str = setting(
        "'self'",
        "Sites that may show the page in an iframe, as in CSP: 'none', 'self', or origins separated by spaces.",
        check=csp_sources,
    )

    # Uploads and results

    max_upload_bytes: int = setting(
        20_000_000, "Maximum size of an upload, in bytes.", check=between(1_024, 1_000_000_000)
    )
    max_upload_memory_bytes: int = setting(
        100_000_000,
        "Maximum memory for all uploads together, in bytes. Further requests wait before their body is read.",
        check=between(1_024, 10**12),
    )
    max_pixels: int = setting(
        4_194_304, "Maximum number of pixels (width x height) of an upload.", check=between(1, MAX_DECODED_PIXELS)
    )
    max_side: int = setting(8_192, "Maximum width and height of an upload, in pixels.", check=between(1, 65_500))
    max_output_pixels: int = setting(
        67_108_864, "Maximum number of pixels of a result.", check=between(1, 1_000_000_000)
    )
    default_variant: str = setting(
        AUTO,
        "Variant of a request that does not name one. auto: chosen for each image by what it shows.",
        check=one_of((AUTO, NEAREST.name, *VARIANTS)),
    )
    form_variant: str = setting(
        "", "Variant preselected in the form. Empty, or if it is not offered: that of default_variant."
    )
    variants: str = setting(
        "",
        "Variants offered if their weights are present, separated by commas. Empty: all whose weights are bundled, "
        "fetched or imported.",
    )

    # Timeouts

    deadline_s: float = setting(
        300.0,
        "Maximum seconds from the end of the upload to the result: queue, backend boot and inference.",
        check=between(1, 3_600),
    )
    body_timeout_s: float = setting(120.0, "Maximum seconds to receive a request body.", check=between(0.1, 3_600))
    idle_timeout_s: float = setting(
        20.0,
        "Maximum seconds without a byte from or to a client. The request headers must arrive within it, too.",
        check=between(0.1, 3_600),
    )

    # Queue and concurrency

    max_concurrent_jobs: int = setting(
        4, "Maximum number of images processed at the same time. Each holds its result in memory.", check=between(1, 64)
    )
    max_job_memory_bytes: int = setting(
        300_000_000,
        "Maximum memory for images in process, in bytes. A result that needs more by itself is rejected.",
        check=between(1_048_576, 10**12),
    )
    queue_size: int = setting(
        24, "Maximum number of queued images. Further images are rejected.", check=between(0, 1_000)
    )
    queue_size_per_client: int = setting(12, "Maximum number of queued images of one client.", check=between(1, 1_000))
    max_concurrent_requests: int = setting(
        16, "Maximum number of concurrent requests of one client, slow uploads included.", check=between(1, 1_024)
    )

    # Stored results and cache

    results_max_bytes: int = setting(
        268_435_456,
        "Maximum memory for results that the form offers for download, in bytes.",
        check=between(1, 64_000_000_000),
    )
    results_max_count: int = setting(64, "Maximum number of stored results.", check=between(1, 100_000))
    results_max_age_s: float = setting(
        900.0, "Seconds for which a stored result can be downloaded.", check=between(1, 86_400)
    )
    cache_max_bytes: int = setting(
        67_108_864,
        "Maximum memory for the cache of results, in bytes. 0 disables the cache.",
        check=between(0, 64_000_000_000),
    )
    cache_max_count: int = setting(256, "Maximum number of cached results.", check=between(1, 100_000))
    cache_max_age_s: float = setting(86_400.0, "Seconds for which a result is cached.", check=between(1, 31_536_000))

    # Triton backend

    monthly_gpu_budget_s: float = setting(
        0.0, "Maximum GPU seconds per calendar month (UTC). 0: unlimited.", check=between(0, 100_000_000)
    )
    backend_address: str = setting(
        "", "host:port of Triton's gRPC endpoint. Empty starts an embedded server on this machine."
    )
    model_key: str = setting(
        "",
        "Secret for inference on Triton. During a rotation two, separated by a comma and tried in this order.",
        check=one_or_two_keys,
        is_secret=True,
    )
    api_key: str = setting("", "Secret for the administration of Triton.", is_secret=True)
    scale_to_zero_after_s: float = setting(
        300.0,
        "Idle seconds before the embedded server stops, or before a remote one is presumed asleep. 0: never.",
        check=between(0, 86_400),
    )

    # Embedded Triton server

    model_repository: str = setting("", "Triton model repository of the embedded server. Empty: the project's own.")
    triton_grpc_port: int = setting(
        0, "Loopback port of the embedded server's gRPC endpoint. 0 takes a free port.", check=between(0, 65_535)
    )
    triton_http_port: int = setting(
        0, "Loopback port of the embedded server's HTTP endpoint. 0 takes a free port.", check=between(0, 65_535)
    )
    engine_threads: int = setting(
        0, "Inference threads of the embedded server. 0: one per CPU core.", check=between(0, 1_024)
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
        "Redis that several gateways share for rate limits and usage (redis://...). Empty: each counts by itself.",
        check=redis_connection_url,
        is_secret=True,
    )
    # Rate limits

    anonymous_requests: str = setting(
        "60 per minute",
        "Request rate limit for anonymous clients: per IPv4 address or IPv6 /64. Empty: unlimited.",
        check=check_rates,
    )
    anonymous_megapixels: str = setting(
        "120 per hour; 600 per day", "Megapixel rate limit for anonymous clients. Empty: unlimited.", check=check_rates
    )
    client_requests: str = setting(
        "120 per minute",
        "Request rate limit for clients with an API key that has no rate of its own. Empty: unlimited.",
        check=check_rates,
    )
    client_megapixels: str = setting(
        "1000 per hour",
        "Megapixel rate limit for clients with an API key that has no rate of its own. Empty: unlimited.",
        check=check_rates,
    )
    wake_rate: str = setting(
        "10 per 10 minutes",
        "Rate limit per client for calls that start a boot of the backend. Empty: unlimited.",
        check=check_rates,
    )
    ban_after: str = setting(
        "30 per 10 minutes",
        "A client rejected this often by rate limits is banned until the oldest rejection expires. Empty: no bans.",
        check=check_rates,
    )
    # Form

    form_secret: str = setting(
        "",
        "Secret that signs the form's CSRF tokens, the same in every replica. Empty: a random one at each start.",
        is_secret=True,
    )
    form_max_age_s: float = setting(
        7_200.0, "Seconds for which an open form can be submitted.", check=between(10, 604_800)
    )

    # Metrics and log

    metrics_host: str = setting("127.0.0.1", "Address of the metrics endpoint. Choose one that is not public.")
    metrics_port: int = setting(0, "Port of the Prometheus metrics endpoint. 0: none.", check=between(0, 65_535))
    log_file: str = setting("", "Path of the log file. - for standard error. Empty: gateway.log in state_dir.")
    log_level: str = setting("info", "Minimum log level.", check=one_of(_LOG_LEVELS))

    def __post_init__(self) -> None:
        errors = [error for row in SETTINGS if (error := row.find_error(getattr(self, row.name)))]
        errors += [] if errors else self._find_contradictions()
        if errors:
            raise SettingsError("\n".join(errors))

    def _find_contradictions(self) -> list[str]:
        errors = []
        known = (*find_known(self.local_weights()), NEAREST.name)
        names = split_list(self.variants)
        if unknown := [name for name in names if name not in known]:
            errors.append(
                f"Invalid variants {self.variants!r}: unknown: {', '.join(unknown)}. Available: {', '.join(known)}."
            )
        minimum = self.max_concurrent_jobs + self.queue_size + 2
        if self.threads < minimum:
            errors.append(
                f"Invalid threads {self.threads}: must be at least {minimum}, the sum of max_concurrent_jobs "
                f"({self.max_concurrent_jobs}), queue_size ({self.queue_size}) and 2 for pages and health checks."
            )
        # The weights of the default may still be fetched, if this machine has a folder for them.
        allowed = names or ([] if self.local_weights() else list(self.offered()))
        if not unknown and allowed and self.default_variant not in (AUTO, *allowed):
            errors.append(
                f"Invalid default_variant {self.default_variant!r}: the setting variants offers {', '.join(allowed)}."
            )
        return errors

    def preselected_variant(self) -> str:
        """Return the name of the variant that the form preselects, or `auto`."""
        offered = self.offered()
        preferred = (self.form_variant, self.default_variant, *offered)
        return next((name for name in preferred if name in (AUTO, *offered)), self.default_variant)

    def offered(self) -> Mapping[str, Variant]:
        """Return the variants that clients can request now, by name: those in `variants`, or all, that have weights.

        Looks at the weights folder each time, which costs one `stat` per file: new weights are offered at once.
        """
        return offer(split_list(self.variants), self.local_weights())

    def local_weights(self) -> Path | None:
        """Return the weights folder if this machine has the backend's; None if only a remote backend knows its weights.

        With a remote backend it is known if `weights_dir` names it: a volume that both mount.
        """
        is_known = self.weights_dir or (self.state_dir and not self.backend_address)
        return self.weights_path() if is_known else None

    def model_keys(self) -> list[str]:
        """Return the values of MODEL_KEY in the order in which to try them: one, or two during a rotation."""
        return split_list(self.model_key)

    def keys_path(self) -> Path:
        """Return the path of the API key file."""
        return Path(self.keys_file) if self.keys_file else Path(self.state_dir) / "keys.json"

    def weights_path(self) -> Path:
        """Return the folder of fetched and imported weights."""
        return Path(self.weights_dir) if self.weights_dir else Path(self.state_dir) / "weights"

    def blocklist_path(self) -> Path:
        """Return the path of the IP blocklist."""
        return Path(self.blocks_file) if self.blocks_file else Path(self.state_dir) / "blocks.txt"

    def boots_path(self) -> Path:
        """Return the path of the file with the durations of the backend's last boots."""
        return Path(self.state_dir) / "boots.json"

    def usage_path(self) -> Path:
        """Return the path of the file with the GPU seconds of each month, which is used without Redis."""
        return Path(self.state_dir) / "meter.json"

    def log_path(self) -> Path | None:
        """Return the path of the log file, or None for standard error."""
        if self.log_file == "-":
            return None
        return Path(self.log_file) if self.log_file else Path(self.state_dir) / "gateway.log"


_KINDS: dict[str, type[str] | type[int] | type[float]] = {"str": str, "int": int, "float": float}

SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        name=row.name,
        kind=_KINDS[str(row.type)],
        default=cast("Value", row.default),
        help=row.metadata["help"],
        check=row.metadata["check"],
        is_secret=row.metadata["is_secret"],
        fallback_variable=row.metadata["fallback_variable"],
    )
    for row in fields(Settings)
)
