"""The checked settings of the gateway. Defaults, environment variables, `superres settings` and docs follow the table.

`gateway.config.environment` reads the values. docs/reference/settings.md has the same help texts, held by a test.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from gateway.config.addresses import TLS_SCHEME
from gateway.config.fields import Setting, SettingsError, Value, split_list
from gateway.config.paths import FILES, FOLDERS, STANDARD_ERROR, find_path_errors
from gateway.config.settings_table import SettingsTable
from gateway.config.tls_files import find_tls_file_errors
from swinir.auto import AUTO, NEAREST, offer
from swinir.custom_variants import find_known
from swinir.zoo import Variant

_LOOPBACK = "127.0.0.1"
_ALL_ADDRESSES = {"0.0.0.0", "::"}  # noqa: S104 - not bound here


@dataclass(frozen=True)
class Settings(SettingsTable):
    """The settings. Raises SettingsError for invalid values and for values that contradict each other."""

    def __post_init__(self) -> None:
        errors = [error for row in SETTINGS if (error := row.find_error(getattr(self, row.name)))]
        errors += [] if errors else self._find_contradictions()
        if errors:
            raise SettingsError("\n".join(errors))

    def _find_contradictions(self) -> list[str]:
        paths = {name: getattr(self, name) for name in (*FOLDERS, *FILES)}
        if errors := find_path_errors(paths):  # the other checks read these files
            return errors
        return [*self._find_variant_errors(), *self._find_port_errors(), *self._find_tls_errors()]

    def _find_port_errors(self) -> list[str]:
        """Two ports of this process that are equal on one address. 0 takes a free port each time."""
        is_embedded = not self.backend_address
        ports = [
            ("port", self.port, self.host),
            ("metrics_port", self.metrics_port, self.metrics_host),
            ("triton_grpc_port", self.triton_grpc_port if is_embedded else 0, _LOOPBACK),
            ("triton_http_port", self.triton_http_port if is_embedded else 0, _LOOPBACK),
        ]
        return [
            f"Invalid {second} {number}: {first} has the same number on the same address. Choose another one."
            for (first, same, host), (second, number, other) in itertools.combinations(ports, 2)
            if number and same == number and (host == other or {host, other} & _ALL_ADDRESSES)
        ]

    def _find_tls_errors(self) -> list[str]:
        names = ("backend_ca_file", "backend_cert_file", "backend_key_file", "backend_server_name")
        used = [name for name in names if getattr(self, name)]
        if used and not self.backend_address.startswith(TLS_SCHEME):
            return [f"{used[0]} is set, but backend_address does not use TLS. Write it as grpcs://host:port."]
        return find_tls_file_errors(self.backend_ca_file, self.backend_cert_file, self.backend_key_file)

    def _find_variant_errors(self) -> list[str]:
        errors = []
        known = (*find_known(self.local_weights()), NEAREST.name)
        names = split_list(self.variants)
        if unknown := [name for name in names if name not in known]:
            errors.append(
                f"Invalid variants {self.variants!r}: unknown: {', '.join(unknown)}. Available: {', '.join(known)}."
            )
        jobs, minimum = self.max_concurrent_jobs * self.small_jobs_per_slot, self.min_threads()
        if self.threads < minimum:
            errors.append(
                f"Invalid threads {self.threads}: must be at least {minimum}, the sum of max_concurrent_jobs x "
                f"small_jobs_per_slot ({jobs}), queue_size ({self.queue_size}) and 2 for pages and health checks."
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

    def min_threads(self) -> int:
        """Return the threads for images in process and in the queue, and 2 for pages and health checks."""
        return self.max_concurrent_jobs * self.small_jobs_per_slot + self.queue_size + 2

    def keys_path(self) -> Path:
        """Return the path of the API key file."""
        return Path(self.keys_file) if self.keys_file else Path(self.state_dir) / "keys.json"

    def weights_path(self) -> Path:
        """Return the folder of fetched and imported weights."""
        return Path(self.weights_dir) if self.weights_dir else Path(self.state_dir) / "weights"

    def blocklist_path(self) -> Path:
        """Return the path of the IP blocklist."""
        return Path(self.blocks_file) if self.blocks_file else Path(self.state_dir) / "blocks.txt"

    def webhook_key_path(self) -> Path:
        """Return the path of the key that signs webhooks, which is used without the setting `webhook_key`."""
        return Path(self.state_dir) / "webhook_key"

    def boots_path(self) -> Path:
        """Return the path of the file with the durations of the backend's last boots."""
        return Path(self.state_dir) / "boots.json"

    def usage_path(self) -> Path:
        """Return the path of the file with the GPU seconds of each month, which is used without Redis."""
        return Path(self.state_dir) / "meter.json"

    def log_path(self) -> Path | None:
        """Return the path of the log file, or None for standard error."""
        if self.log_file == STANDARD_ERROR:
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
