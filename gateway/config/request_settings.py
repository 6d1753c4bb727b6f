"""The first part of the settings table: serving requests, from the port to the results that are stored."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.addresses import listen_host
from gateway.config.fields import between, csp_sources, each_of, one_of, setting
from gateway.config.origins import origins, public_url
from gateway.config.webhook_checks import signing_keys, webhook_hosts
from preprocessing.decoder_limits import MAX_MEMORY_BYTES, MAX_SECONDS
from preprocessing.formats.container import INPUT_FORMAT_NAMES, SANDBOXED_FORMATS
from preprocessing.upload import MAX_DECODED_PIXELS
from swinir.auto import AUTO, NEAREST
from swinir.zoo import VARIANTS

# As the setting writes them.
EXTRA_FORMATS = tuple(INPUT_FORMAT_NAMES[name].lower() for name in SANDBOXED_FORMATS)


@dataclass(frozen=True)
class RequestSettings:
    """The fields that `gateway.config.settings_table.SettingsTable` begins with."""

    # Server

    host: str = setting("127.0.0.1", "Address to listen on. 0.0.0.0 or :: for all addresses.", check=listen_host)
    port: int = setting(
        8080, "Port to listen on. 0 takes a free port.", check=between(0, 65_535), fallback_variable="PORT"
    )
    threads: int = setting(64, "Number of worker threads. A queued request occupies one, too.", check=between(2, 1_024))
    trusted_hops: int = setting(
        0,
        "Exact number of proxies in front of the gateway. Only their X-Forwarded- headers are trusted.",
        check=between(0, 8),
    )
    public_url: str = setting(
        "",
        "Public URL of the gateway, such as https://superres.example or https://example.org/superres. "
        "Needed if proxies change the Host header.",
        check=public_url,
    )
    keepalive_s: int = setting(
        75,
        "Seconds for which an idle connection stays open. Proxies and load balancers must close theirs earlier.",
        check=between(1, 3_600),
    )
    frame_ancestors: str = setting(
        "'self'",
        "Sites that may show the page in an iframe, as in CSP: 'none', 'self', or origins separated by spaces.",
        check=csp_sources,
    )
    api_origins: str = setting(
        "",
        "Sites whose scripts may call the API from a browser (CORS): origins separated by commas, or *. Empty: none.",
        check=origins,
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
        12_500_000,
        "Maximum number of pixels (width x height) of an upload, for variants whose result stays within "
        "max_output_pixels. Decoding needs 24 bytes of max_job_memory_bytes per pixel, 40 for "
        "16 bits per channel.",
        check=between(1, MAX_DECODED_PIXELS),
    )
    max_images: int = setting(
        16,
        "Maximum number of images of one request to the API; several come back as a ZIP. All together have at most "
        "max_upload_bytes.",
        check=between(2, 100),
    )
    max_images_pixels: int = setting(
        50_000_000, "Maximum number of pixels of all images of one request.", check=between(1, 10**12)
    )
    max_side: int = setting(8_192, "Maximum width and height of an upload, in pixels.", check=between(1, 65_500))
    max_output_pixels: int = setting(
        67_108_864,
        "Maximum number of pixels that a variant makes of an upload: its pixels times the square of the scale. By "
        "default 4.2 megapixels may be uploaded for 4x and 12.5 for 2x and 1x. A smaller size that is requested does "
        "not count.",
        check=between(1, 1_000_000_000),
    )
    extra_formats: str = setting(
        "avif,heic,tiff,bmp,gif",
        "Formats that are read in addition to JPEG, PNG and WebP, separated by commas. A separate process with limits "
        "decodes each such image. Empty: none.",
        check=each_of(EXTRA_FORMATS),
    )
    max_decoder_memory_bytes: int = setting(
        MAX_MEMORY_BYTES,
        "Maximum memory (address space) of the process that decodes extra_formats and converts CMYK, in bytes. It "
        "never has more than 100 MB, 24 bytes per pixel and twice the upload. An image that needs more is rejected.",
        check=between(150_000_000, 10**12),
    )
    max_decoder_s: int = setting(
        MAX_SECONDS,
        "Maximum seconds of that process, of the processor and by the clock. An image that takes longer is rejected.",
        check=between(1, 600),
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

    provenance: str = setting(
        "on",
        "on: results say in XMP how they were made: IPTC's digital source type, variant and version. off: they do not.",
        check=one_of(("on", "off")),
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
    max_content_length_bytes: int = setting(
        0,
        "Longest response that is sent with a Content-Length; longer ones are sent in chunks, for platforms that "
        "refuse long responses otherwise (Cloud Run: 32 MiB). 0: every length.",
        check=between(0, 10**12),
    )

    drain_s: float = setting(
        3.0,
        "Maximum seconds for images in process and in the queue to finish when the server is stopped.",
        check=between(0, 3_600),
    )

    # Queue and concurrency

    max_concurrent_jobs: int = setting(
        4, "Maximum number of images processed at the same time. Each holds its result in memory.", check=between(1, 64)
    )
    small_jobs_per_slot: int = setting(
        4,
        "Number of images of up to 16,384 pixels, such as 128x128, that count as one of max_concurrent_jobs. They "
        "share batches of the backend.",
        check=between(1, 16),
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
        "Maximum memory for results that are stored for download, in bytes.",
        check=between(1, 64_000_000_000),
    )
    results_max_count: int = setting(256, "Maximum number of stored results.", check=between(1, 100_000))
    results_max_age_s: float = setting(
        900.0, "Seconds for which a stored result can be downloaded.", check=between(1, 86_400)
    )
    form_result_urls: str = setting(
        "auto",
        "Whether the form's events have the URL of the result instead of the file. auto: without redis_url, because a "
        "download may reach another gateway. always: there is one gateway, or clients stay with theirs.",
        check=one_of(("auto", "always")),
    )
    cache_max_bytes: int = setting(
        67_108_864,
        "Maximum memory for the cache of results, in bytes. 0 disables the cache.",
        check=between(0, 64_000_000_000),
    )
    cache_max_count: int = setting(256, "Maximum number of cached results.", check=between(1, 100_000))
    cache_max_age_s: float = setting(86_400.0, "Seconds for which a result is cached.", check=between(1, 31_536_000))

    jobs_max_count: int = setting(
        10_000,
        "Maximum number of asynchronous jobs that are known. The oldest finished ones are forgotten first.",
        check=between(1, 1_000_000),
    )
    jobs_max_per_client: int = setting(
        1_000, "Maximum number of asynchronous jobs of one client that are known.", check=between(1, 1_000_000)
    )
    jobs_max_age_s: float = setting(
        86_400.0, "Seconds for which an asynchronous job and an Idempotency-Key are known.", check=between(60, 604_800)
    )
    jobs_redis_max_bytes: int = setting(
        50_331_648,
        "Maximum memory in Redis for uploads and results of asynchronous jobs and for results of the API's events, in "
        "bytes. 0: jobs are in the memory of each gateway.",
        check=between(0, 64_000_000_000),
    )

    # Webhooks

    webhook_key: str = setting(
        "",
        "Ed25519 key that signs webhooks: whsk_ and 32 bytes in base64. During a rotation two, separated by a comma; "
        "both sign. Empty: a key in state_dir, made at the first use; with jobs in Redis, no webhooks are sent.",
        check=signing_keys,
        is_secret=True,
    )
    webhook_hosts: str = setting(
        "",
        "Hosts that webhooks may reach over HTTP and at private addresses, such as those of your own network: host or "
        "host:port, separated by commas. Empty: only HTTPS to public addresses.",
        check=webhook_hosts,
    )
