"""The synchronous client."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from superres.client.archives import BatchItem
from superres.client.batch import check_folder, read_images, submit_batch, upscale_batch
from superres.client.calls import ApiCalls
from superres.client.description import Quote, ServiceVariant, read_quote, read_variants
from superres.client.images import UNNAMED, ImageSource, read_image
from superres.client.job_calls import check_job_id, submit_job
from superres.client.parameters import UpscaleParameters, to_query
from superres.client.progress import OnProgress
from superres.client.result import OpenSink, ResultFacts, UpscaleResult, make_sink
from superres.client.retries import RetryLimits
from superres.client.service_url import parse_service_url
from superres.client.sync_jobs import BatchJob, UpscaleJob
from superres.client.sync_transport import SyncTransport
from superres.client.transport import DEFAULT_TIMEOUT_S, LIMITS, open_http


class Client:
    """A service, called synchronously. Several threads may share it. A context manager that closes its connections."""

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: RetryLimits | None = None,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`url` is the address of the service's page. Raises InvalidUrlError, InvalidKeyError or TlsError.

        `http` is an httpx.Client with settings of your own, such as a proxy; `close` leaves it open. Without it, the
        proxies and SSL_CERT_FILE of the environment are used. Redirects are never followed: they could lead the key to
        another host.
        """
        self.url = parse_service_url(url)
        self._calls = ApiCalls(self.url, key, retries or RetryLimits())
        self._http = http or open_http(lambda: httpx.Client(timeout=timeout_s, limits=LIMITS))
        self._closes_http = http is None
        self._run = SyncTransport(self.url, self._http, timeout_s, sleep).run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._closes_http:
            self._http.close()

    def upscale(
        self,
        image: ImageSource,
        *,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        **parameters: Unpack[UpscaleParameters],
    ) -> UpscaleResult:
        """Upscale an image and return the result: in memory, or in the file or folder `to`.

        The file appears when it is complete, and replaces an existing one. Ending the call with an exception, such as
        Ctrl-C or one of `on_progress`, cancels the job. Raises ClientError, and OSError if `to` cannot be written.
        """
        file, sink = read_image(image), make_sink(to)
        facts = self._run(self._calls.upscale(file, to_query(parameters), sink.open), on_progress)
        return sink.result(facts)

    def upscale_into(
        self,
        image: ImageSource,
        open_sink: OpenSink,
        *,
        on_progress: OnProgress | None = None,
        **parameters: Unpack[UpscaleParameters],
    ) -> ResultFacts:
        """Upscale an image and write the result to what `open_sink` opens for its facts. Raises ClientError."""
        return self._run(self._calls.upscale(read_image(image), to_query(parameters), open_sink), on_progress)

    def upscale_batch(
        self,
        images: Iterable[ImageSource],
        *,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        **parameters: Unpack[UpscaleParameters],
    ) -> list[BatchItem]:
        """Upscale several images in one request and return what became of each, in this order.

        `to` is the folder of the results; without it they are in memory. An image that is rejected or fails has a
        problem and does not stop the others. Raises ProblemError if none succeeds or the service rejects the request,
        for example with more images than it takes in one; another ClientError; and OSError for the folder.
        """
        files, folder = read_images(images), check_folder(to)
        return self._run(upscale_batch(self._calls, files, to_query(parameters), folder), on_progress)

    def submit(
        self, image: ImageSource, *, webhook: str | None = None, **parameters: Unpack[UpscaleParameters]
    ) -> UpscaleJob:
        """Start an asynchronous job. The service sends a signed message to `webhook` at its end. Raises ClientError."""
        file = read_image(image)
        query = to_query({**parameters, "webhook": webhook})
        job_id = self._run(submit_job(self._calls, file, query, uuid.uuid4().hex))
        return UpscaleJob(self._calls, self._run, job_id, file.stem)

    def job(self, job_id: str, *, stem: str = UNNAMED) -> UpscaleJob:
        """Return a job that was submitted before. `stem` is what the file name of its result begins with."""
        return UpscaleJob(self._calls, self._run, check_job_id(job_id), stem)

    def submit_batch(
        self, images: Iterable[ImageSource], *, webhook: str | None = None, **parameters: Unpack[UpscaleParameters]
    ) -> BatchJob:
        """Start an asynchronous job of several images, whose result is a ZIP. Raises ClientError."""
        files = read_images(images)
        query = to_query({**parameters, "webhook": webhook})
        job_id = self._run(submit_batch(self._calls, files, query, uuid.uuid4().hex))
        return BatchJob(self._calls, self._run, job_id)

    def batch_job(self, job_id: str) -> BatchJob:
        """Return a job of several images that was submitted before."""
        return BatchJob(self._calls, self._run, check_job_id(job_id))

    def quote(self, image: ImageSource, **parameters: Unpack[UpscaleParameters]) -> Quote:
        """Return what an upscale would cost. Nothing is upscaled. Raises ClientError."""
        return read_quote(self._run(self._calls.quote(read_image(image), to_query(parameters))))

    def variants(self) -> list[ServiceVariant]:
        """Return the variants that the service offers. Raises ClientError."""
        return read_variants(self.describe())

    def describe(self) -> dict[str, Any]:
        """Return variants, formats and limits: the response of GET /api/v1/variants. Raises ClientError."""
        return self._run(self._calls.describe_service())
