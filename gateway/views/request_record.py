"""The record of a request: what its log line and its trace say. docs/reference/logs.md lists the fields.

Views add to the record what they learn; it is written once the response has been sent.
"""

from __future__ import annotations

import time
from typing import Any, cast

from flask import g

from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Job
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.phases import round_phases
from gateway.problems import Problem
from gateway.tracing.spans import AttributeValue, RequestTrace, TimedSpan, Tracing


class RequestRecord:
    """What is known of one request. A job's thread may add to it."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.client = ""
        """Name of the client's API key, or `(anonymous)`."""
        self._problem = ""
        self._upscale_request: UpscaleRequest | None = None
        self._upload_s = 0.0
        self._cache = ""
        self._async_job = ""
        self._images: int | None = None
        self._job: Job | None = None
        self._trace: RequestTrace | None = None

    def start_trace(self, tracing: Tracing, traceparent: str) -> None:
        """Start a trace of the request, as part of its client's trace if `traceparent` is valid."""
        self._trace = tracing.start(traceparent)

    @property
    def traceparent(self) -> str:
        """The header that puts calls of this request into its trace; empty without a trace."""
        return self._trace.traceparent if self._trace else ""

    def end_trace(self, request_id: str, method: str, route: str, status: int) -> None:
        """End the trace, if there is one. Its attributes have the names of OpenTelemetry, or those of the log line."""
        if self._trace is None:
            return
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "superres.request_id": request_id,
        }
        for name, value in self.fields().items():
            if name != "trace_id" and not name.endswith("_s"):
                attributes[f"superres.{name}"] = value
        self._trace.end(f"{method} {route}", attributes, self._spans(), is_error=status >= 500)

    def note_problem(self, problem: Problem) -> None:
        """Add the problem that ends the request, also after its event stream has begun."""
        self._problem = problem.slug

    def note_upload(self, upscale_request: UpscaleRequest, *, in_cache: bool) -> None:
        """Add a valid upload with its options, and whether the result cache has its result."""
        self._upscale_request = upscale_request
        self._upload_s = time.monotonic() - self.started_at
        self._cache = "hit" if in_cache else "miss"

    def note_images(self, count: int) -> None:
        """Add the number of images of a request with several."""
        self._images = count

    def note_job(self, job: Job) -> None:
        """Add the job, which is read when the record is written."""
        self._job = job

    def note_async(self, job_id: str) -> None:
        """Add the id of the asynchronous job that the request has started."""
        self._async_job = job_id

    def forget_upload(self) -> None:
        """Drop the upload and its job at the end: the response that holds this record lives longer."""
        self._upscale_request = self._job = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the log line that apply to this request."""
        fields: dict[str, Any] = {"problem": self._problem, "client": self.client, "async_job": self._async_job}
        fields["images"] = self._images
        if self._upscale_request is not None:
            fields |= self._upload_fields(self._job.request if self._job else self._upscale_request)
        if self._job is not None:
            fields |= round_phases(self._job.phases.seconds())
            fields["bands"] = self._job.bands_done or None
        if self._trace is not None:
            fields["trace_id"] = self._trace.trace_id
        return {name: value for name, value in fields.items() if value not in ("", None)}

    def _spans(self) -> list[TimedSpan]:
        """Return the upload and the phases of the job as spans."""
        spans = [TimedSpan("upload", 0.0, self._upload_s, {})] if self._upscale_request else []
        phases = self._job.phases if self._job else None
        for phase, spent in phases.times().items() if phases else ():
            bands = phases.band_times() if phases and phase == "work" else []
            spans.append(
                TimedSpan(
                    phase,
                    spent.first - self.started_at,
                    spent.last - self.started_at,
                    {"superres.seconds": round(spent.seconds, 6)},  # work and encode alternate
                    [("band", at - self.started_at) for at in bands],
                )
            )
        return spans

    def _upload_fields(self, upscale_request: UpscaleRequest) -> dict[str, Any]:
        options, pixels = upscale_request.options, upscale_request.pixels
        choice = describe_choice(options)
        return {
            "variant": options.variant_name,
            "choice": choice.kind if choice else "",
            "format": options.format,
            "input_pixels": pixels,
            "output_pixels": None if options.must_choose else upscale_request.width * upscale_request.height,
            "cache": self._cache,
            "upload_s": round(self._upload_s, 3),
        }


def request_record() -> RequestRecord:
    """Return the record of the request being served."""
    if "request_record" not in g:
        g.request_record = RequestRecord()
    return cast("RequestRecord", g.request_record)
