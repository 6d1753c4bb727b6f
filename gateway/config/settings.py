"""Every setting of the gateway: one table, from which defaults, environment, `superres settings` and docs follow.

The only module that reads the environment: SUPERRES_<NAME>, or for a secret SUPERRES_<NAME>_FILE, the path of a
file that holds it. An unknown SUPERRES_ variable, a value of the wrong kind and values that contradict each other are
refused in words, all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from gateway.config.fields import (
    PREFIX,
    Setting,
    SettingsError,
    Value,
    between,
    one_key_or_two,
    one_line,
    one_of,
    public_address,
    read_secret,
    redis_address,
    setting,
    split_list,
)
from gateway.config.rates import check_rates
from preprocessing.codec import MAX_DECODED_PIXELS
from swinir.custom_variants import find_offered, read_rows
from swinir.settings import MAX_WEIGHTS_BYTES
from swinir.zoo import DEFAULT_VARIANT, PHOTO_VARIANT, VARIANTS, Variant

__all__ = ["SETTINGS", "Setting", "Settings", "SettingsError", "SettingsRead", "Value", "read_settings"]

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """The table. Reading order: where we listen, limits of an upload, time, work, results, backend, doors, log."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 or :: for every one.")
    port: int = setting(8080, "Port to listen on; 0 takes a free one.", check=between(0, 65_535), also="PORT")
    threads: int = setting(
        64,
        "Requests served at once, those waiting in the queue included; the others wait to be accepted.",
        check=between(2, 1_024),
    )
    trusted_hops: int = setting(
        0,
        "Proxies in front of the gateway, exactly as many: what they say in X-Forwarded-For and -Proto counts.",
        check=between(0, 8),
    )
    public_url: str = setting(
        "",
        "The gateway's own address, as https://superres.example, where proxies change the header Host.",
        check=public_address,
    )
    frame_ancestors: str = setting(
        "'self'",
        "Who may show the page in an iframe, as in CSP: 'none', 'self', or origins with spaces.",
        check=one_line,
    )

    max_upload_bytes: int = setting(20_000_000, "Largest upload.", check=between(1_024, 1_000_000_000))
    max_upload_memory_bytes: int = setting(
        100_000_000, "Memory for uploads, all requests together; more wait unread.", check=between(1_024, 10**12)
    )
    max_pixels: int = setting(
        4_194_304, "Most pixels (width x height) of an upload.", check=between(1, MAX_DECODED_PIXELS)
    )
    max_side: int = setting(8_192, "Longest side of an upload, in pixels.", check=between(1, 65_500))
    max_output_pixels: int = setting(67_108_864, "Most pixels of a result.", check=between(1, 1_000_000_000))
    default_variant: str = setting(
        DEFAULT_VARIANT, "The variant when none is asked for.", check=one_of(tuple(VARIANTS))
    )

    form_variant: str = setting(
        PHOTO_VARIANT, "The variant that a fresh form has chosen; default_variant where it is not offered."
    )
    variants: str = setting(
        "", "Variants offered, separated by commas; empty for those that ship, or were fetched or imported here."
    )

    deadline_s: float = setting(
        300.0, "From the end of the upload to the answer: queue, boot of the backend and work.", check=between(1, 3_600)
    )
    body_timeout_s: float = setting(120.0, "For a whole request body to arrive.", check=between(0.1, 3_600))
    idle_timeout_s: float = setting(
        20.0, "Without a byte from or to a client; also for the request's headers to arrive.", check=between(0.1, 3_600)
    )

    max_concurrent_jobs: int = setting(
        4, "Images worked on at once; each holds its result in memory.", check=between(1, 64)
    )
    max_job_memory_bytes: int = setting(
        300_000_000,
        "Memory for pictures worked on at once; a result whose format takes more is refused.",
        check=between(1_048_576, 10**12),
    )
    queue_size: int = setting(
        24, "Images that may wait for their turn; the next is sent away.", check=between(0, 1_000)
    )
    queue_size_per_client: int = setting(12, "How many of them may be one visitor's.", check=between(1, 1_000))
    max_concurrent_requests: int = setting(
        16, "Requests of one visitor that are served at once, slow uploads included.", check=between(1, 1_024)
    )

    results_max_bytes: int = setting(
        268_435_456, "Memory for results of the form that wait for their download.", check=between(1, 64_000_000_000)
    )
    results_max_count: int = setting(64, "How many such results.", check=between(1, 100_000))
    results_max_age_s: float = setting(900.0, "How long such a result is kept.", check=between(1, 86_400))
    cache_max_bytes: int = setting(
        67_108_864, "Memory for results that are answered again at once; 0: none.", check=between(0, 64_000_000_000)
    )
    cache_max_count: int = setting(256, "How many such results.", check=between(1, 100_000))
    cache_max_age_s: float = setting(86_400.0, "How long it is answered again.", check=between(1, 31_536_000))
    monthly_gpu_budget_s: float = setting(
        0.0, "GPU seconds that may be spent in a calendar month (UTC); 0: no end.", check=between(0, 100_000_000)
    )

    backend_address: str = setting("", "host:port of Triton's gRPC; empty starts an embedded server on this machine.")
    model_key: str = setting(
        "",
        "Secret for Triton's inference; during a rotation two with a comma between, tried in that order.",
        check=one_key_or_two,
        is_secret=True,
    )
    api_key: str = setting("", "Secret for Triton's administration.", is_secret=True)
    scale_to_zero_after_s: float = setting(
        300.0,
        "Without work until the embedded server sleeps, or one elsewhere is taken for asleep; 0: never.",
        check=between(0, 86_400),
    )
    model_repository: str = setting("", "Triton's models, for the embedded server; empty for the project's own.")
    triton_grpc_port: int = setting(
        0, "Loopback port of the embedded server's gRPC; 0 takes a free one.", check=between(0, 65_535)
    )
    triton_http_port: int = setting(
        0, "Loopback port of the embedded server's HTTP; 0 takes a free one.", check=between(0, 65_535)
    )
    engine_threads: int = setting(
        0, "Threads of the embedded server's engine; 0 for one a core.", check=between(0, 1_024)
    )
    max_weights_bytes: int = setting(
        MAX_WEIGHTS_BYTES,
        "Memory of the embedded server for weights and what it keeps of them; the least recently used make room.",
        check=between(1, 10**12),
    )
    weights_dir: str = setting("", "Fetched weights, for the embedded server; empty for weights/ in state_dir.")

    state_dir: str = setting("", "Keys and logs; empty for superres/ in $XDG_STATE_HOME or ~/.local/state.")
    keys_file: str = setting("", "Hashes of the API's keys; empty for keys.json in state_dir.")
    blocks_file: str = setting("", "Networks that get nothing; empty for blocks.txt in state_dir.")
    redis_url: str = setting(
        "",
        "Redis in which several gateways count together (redis://...); empty counts in this one's memory.",
        check=redis_address,
        is_secret=True,
    )
    anonymous_requests: str = setting(
        "60 per minute", "Of an IPv4 address or IPv6 /64 without a key; empty for no limit.", check=check_rates
    )
    anonymous_megapixels: str = setting(
        "120 per hour; 600 per day", "Of the same, in megapixels of uploads.", check=check_rates
    )
    client_requests: str = setting(
        "120 per minute", "Of a client with a key that has no allowance of its own.", check=check_rates
    )
    client_megapixels: str = setting("1000 per hour", "Of the same, in megapixels of uploads.", check=check_rates)
    wake_rate: str = setting("10 per 10 minutes", "How often one visitor may wake the backend.", check=check_rates)
    ban_after: str = setting(
        "30 per 10 minutes",
        "Refusals by a limit after which a visitor gets nothing until the first of them is that old.",
        check=check_rates,
    )
    form_secret: str = setting(
        "", "Signs the form's tokens; the same in every replica. Empty makes one at each start.", is_secret=True
    )
    form_max_age_s: float = setting(7_200.0, "How long a form that was opened can be sent.", check=between(10, 604_800))

    metrics_host: str = setting("127.0.0.1", "Address of the metrics; not one that the public reaches.")
    metrics_port: int = setting(0, "Port of Prometheus' metrics; 0: none.", check=between(0, 65_535))
    log_file: str = setting("", "Where the log goes: a path, - for standard error; empty for gateway.log in state_dir.")
    log_level: str = setting("info", "Least serious line that is logged.", check=one_of(LOG_LEVELS))

    def __post_init__(self) -> None:
        wrong = [line for row in SETTINGS if (line := row.complain(getattr(self, row.name)))]
        wrong += [] if wrong else self._contradictions()
        if wrong:
            raise SettingsError("\n".join(wrong))

    def _contradictions(self) -> list[str]:
        wrong = []
        offered = self.offered()
        if unknown := [name for name in split_list(self.variants) if name not in offered]:
            there_are = ", ".join((*VARIANTS, *read_rows(self._local_weights())))
            wrong.append(
                f"variants is {self.variants!r}: it names {', '.join(unknown)}, and there are only: {there_are}."
            )
        needed = self.max_concurrent_jobs + self.queue_size + 2
        if self.threads < needed:
            wrong.append(
                f"threads is {self.threads}: it must be at least {needed}, one for each of max_concurrent_jobs "
                f"({self.max_concurrent_jobs}) and queue_size ({self.queue_size}) and 2 for pages and health."
            )
        if not unknown and self.default_variant not in offered:
            wrong.append(f"default_variant is {self.default_variant!r}: variants offers {', '.join(offered)}.")
        return wrong

    def variant_of_form(self) -> str:
        """Return the name of the variant that a fresh form has chosen."""
        return self.form_variant if self.form_variant in self.offered() else self.default_variant

    def offered(self) -> Mapping[str, Variant]:
        """Return the variants that may be asked for, by name: those named, else all that have their weights here."""
        return find_offered(split_list(self.variants), self._local_weights())

    def _local_weights(self) -> Path | None:
        """Where weights lie for a backend of our own; None where the backend is elsewhere or nothing is set."""
        return self.path_of_weights() if (self.weights_dir or self.state_dir) and not self.backend_address else None

    def model_keys(self) -> list[str]:
        """Return the values of MODEL_KEY in the order in which they are tried: one, or two during a rotation."""
        return split_list(self.model_key)

    def path_of_keys(self) -> Path:
        """Return where the keys' hashes lie."""
        return Path(self.keys_file) if self.keys_file else Path(self.state_dir) / "keys.json"

    def path_of_weights(self) -> Path:
        """Return where fetched and imported weights lie."""
        return Path(self.weights_dir) if self.weights_dir else Path(self.state_dir) / "weights"

    def path_of_blocks(self) -> Path:
        """Return where the blocked networks lie."""
        return Path(self.blocks_file) if self.blocks_file else Path(self.state_dir) / "blocks.txt"

    def path_of_boots(self) -> Path:
        """Return where the lengths of the backend's last boots are kept."""
        return Path(self.state_dir) / "boots.json"

    def path_of_meter(self) -> Path:
        """Return where the GPU seconds of each month are kept, unless a Redis keeps them."""
        return Path(self.state_dir) / "meter.json"

    def path_of_log(self) -> Path | None:
        """Return where the log goes; None for standard error."""
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
        also=row.metadata["also"],
    )
    for row in fields(Settings)
)


@dataclass(frozen=True)
class SettingsRead:
    """Settings, and where each value came from: "default", the name of a variable, or of a command's option."""

    settings: Settings
    sources: Mapping[str, str]


def read_settings(
    environ: Mapping[str, str] | None = None, options: Mapping[str, Value | None] | None = None
) -> SettingsRead:
    """Read the settings from the environment; an option of the command line that is not None wins over it.

    Raises SettingsError with every complaint there is.
    """
    environ = os.environ if environ is None else environ
    wrong = _unknown_variables(environ)
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for row in SETTINGS:
        option = (options or {}).get(row.name)
        try:
            if option is not None:
                values[row.name], sources[row.name] = option, f"--{row.name.replace('_', '-')}"
            elif found := _find(row, environ):
                sources[row.name], text = found
                values[row.name] = row.parse(text)
        except SettingsError as error:
            wrong.append(str(error))
    if not values.get("state_dir"):
        values["state_dir"] = _default_state_dir(environ)
    try:
        settings = Settings(**values)  # type: ignore[arg-type]  # each parsed by the kind of its row
    except SettingsError as error:
        wrong.append(str(error))
    if wrong:
        raise SettingsError("\n".join(wrong))
    return SettingsRead(settings, {row.name: sources.get(row.name, "default") for row in SETTINGS})


def _find(row: Setting, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (variable, text) of a setting that the environment sets; an empty variable sets nothing."""
    if row.is_secret:
        by_file = row.variable + "_FILE"
        if environ.get(by_file) and environ.get(row.variable):
            raise SettingsError(f"{row.variable} and {by_file} are both set: keep one of them.")
        if environ.get(by_file):
            return by_file, read_secret(by_file, Path(environ[by_file]))
    for variable in (row.variable, row.also):
        if text := environ.get(variable, "").strip():
            return variable, text
    return None


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = [row.variable for row in SETTINGS] + [f"{row.variable}_FILE" for row in SETTINGS if row.is_secret]
    wrong = []
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            close = get_close_matches(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1)
            if variable.removesuffix("_FILE") in known:
                hint = f"Only secrets are read from files: set {variable.removesuffix('_FILE')} itself."
            else:
                hint = f"Did you mean {PREFIX}{close[0]}?" if close else "`superres settings` lists those there are."
            wrong.append(f"There is no setting {variable}. {hint}")
    return wrong


def _default_state_dir(environ: Mapping[str, str]) -> str:
    # XDG Base Directory Specification: a relative path is ignored.
    base = environ.get("XDG_STATE_HOME", "")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return str((Path(base) if Path(base).is_absolute() else home / ".local" / "state") / "superres")
