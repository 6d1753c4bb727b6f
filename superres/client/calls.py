"""The calls of the API, as generators of effects: upscale with events, quote, variants, and what they share."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import random as random_number
from typing import Any, Never

from superres.client.download import download_result
from superres.client.effects import Pause, Report, ResponseHead, Send, Steps, T, read_body, read_chunk
from superres.client.errors import (
    ClientError,
    ConnectionFailedError,
    DownloadFailedError,
    InvalidKeyError,
    ProblemError,
    TlsError,
    UnexpectedResponseError,
    error_from_response,
    problem_from,
)
from superres.client.events import EventParser, InlineFile, check_not_ended
from superres.client.images import ImageFile
from superres.client.progress import UpscaleProgress, progress_from_event
from superres.client.result import ByteSink, OpenSink, ResultFacts, read_facts
from superres.client.retries import Retries, RetryLimits
from superres.client.service_url import ServiceUrl

# Maximum bytes of a JSON response, and of an error.
_MAX_JSON_BYTES = 4 << 20
_MAX_PROBLEM_BYTES = 65_536
_RESULT_PATH = re.compile(r"/api/v1/results/[A-Za-z0-9_-]{1,200}")


class ApiCalls:
    """The calls of one client. Each sends its request again as the limits say."""

    def __init__(
        self,
        url: ServiceUrl,
        key: str,
        limits: RetryLimits,
        *,
        random: Callable[[], float] = random_number,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidKeyError."""
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidKeyError("The API key must be one line of printable ASCII without spaces.")
        self.url = url
        self.limits = limits
        self.random = random
        self.clock = clock
        self._key = {"X-API-Key": key} if key else {}
        self._wants_inline = False  # with several replicas a download may reach one that does not have the result

    def describe_service(self) -> Steps[dict[str, Any]]:
        """Return the variants, formats and limits of the service: the response of GET /api/v1/variants."""
        return (yield from self.retrying(lambda: self.read_json(Send("GET", "/api/v1/variants"), 200)))

    def quote(self, image: ImageFile, query: Mapping[str, str]) -> Steps[dict[str, Any]]:
        """Return what an upscale would cost. Nothing is upscaled."""
        request = Send("POST", "/api/v1/upscale", {**query, "dry_run": "1"}, self.upload_headers(), image.data)
        return (yield from self.retrying(lambda: self.read_json(request, 200)))

    def upscale(self, image: ImageFile, query: Mapping[str, str], open_sink: OpenSink) -> Steps[ResultFacts]:
        """Upscale an image by the event stream and write the result to what `open_sink` opens."""
        return (yield from self.retrying(lambda: self._upscale_once(image, query, open_sink)))

    def retrying(self, attempt: Callable[[], Steps[T]]) -> Steps[T]:
        """Return what an attempt returns that succeeds. Raises the error after which there is no other attempt."""
        retries = Retries(self.limits, self.random)
        while True:
            try:
                return (yield from attempt())
            except ClientError as error:
                pause_s, reason = retries.choose_pause_s(error), str(error)
            yield Report(UpscaleProgress("waiting", reason=reason, pause_s=pause_s))
            yield Pause(pause_s)

    def read_json(self, request: Send, status: int) -> Steps[dict[str, Any]]:
        """Return the JSON object of a response with this status. Raises an error for another response."""
        head: ResponseHead = yield request
        if head.status != status:
            yield from self.fail(head)
        body = yield from read_body(_MAX_JSON_BYTES)
        try:
            members = json.loads(body)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            raise UnexpectedResponseError(f"{self.url} is not a gateway of Serverless SuperRes.")
        return members

    def with_key(self, request: Send) -> Send:
        """Return the request with the API key."""
        return replace(request, headers={**request.headers, **self._key})

    def upload_headers(self) -> dict[str, str]:
        """Return the headers of a request whose body is an image, with the API key."""
        return {"Content-Type": "application/octet-stream", **self._key}

    def fail(self, head: ResponseHead) -> Steps[Never]:
        """Raise the error for a response that is not a success."""
        body = bytearray()
        while len(body) < _MAX_PROBLEM_BYTES and (data := (yield from read_chunk())):
            body += data
        raise error_from_response(str(self.url), head.status, head.reason, head.headers, bytes(body))

    def _upscale_once(self, image: ImageFile, query: Mapping[str, str], open_sink: OpenSink) -> Steps[ResultFacts]:
        inline = {"inline": "1"} if self._wants_inline else {}
        headers = {**self.upload_headers(), "Accept": "text/event-stream"}
        yield Report(UpscaleProgress("uploading"))
        head: ResponseHead = yield Send("POST", "/api/v1/upscale", {**query, **inline}, headers, image.data)
        if head.status != 200:
            yield from self.fail(head)
        if head.media_type != "text/event-stream":
            raise UnexpectedResponseError(f"{self.url} is not a gateway of Serverless SuperRes: it sent no events.")
        parser = EventParser()
        members = yield from self._follow_events(parser)
        facts = read_facts(members, image.stem, head.headers.get("x-request-id", ""))
        if parser.has_file:
            with open_sink(facts) as sink:
                yield from _save_inline(parser.rest, facts.size_bytes, sink)
            return facts
        path = self._result_path(members)
        with open_sink(facts) as sink:
            yield from self._download(path, facts.size_bytes, sink)
        yield from self._forget(path)
        return facts

    def _follow_events(self, parser: EventParser) -> Steps[dict[str, Any]]:
        """Return the members of the event `result`. Raises ProblemError for the event `problem`."""
        while True:
            for name, members in parser.feed((yield from read_chunk())):
                if name == "result":
                    return members
                if name == "problem":
                    raise problem_from(members)
                if progress := progress_from_event(name, members):
                    yield Report(progress)

    def _result_path(self, members: Mapping[str, Any]) -> str:
        """Return the path of a result below the address of the service. Raises UnexpectedResponseError for others."""
        path = str(members.get("url")).removeprefix(self.url.prefix)
        if not _RESULT_PATH.fullmatch(path):
            raise UnexpectedResponseError(f"The service sent an invalid address of a result: {path[:200]!r}.")
        return path

    def _download(self, path: str, size_bytes: int, sink: ByteSink) -> Steps[None]:
        """Download a result. Every failure means that the image may be sent again."""
        try:
            yield from download_result(self, Send("GET", path), size_bytes, sink)
        except TlsError:
            raise
        except ClientError as error:
            if isinstance(error, ProblemError | UnexpectedResponseError) and error.status in (404, 410):
                self._wants_inline = True
                raise DownloadFailedError("The service no longer has the result.") from error
            raise DownloadFailedError(str(error)) from error

    def _forget(self, path: str) -> Steps[None]:
        """Let the service forget a result that was downloaded. It does so by itself later if this fails."""
        try:
            yield Send("DELETE", path)
        except ConnectionFailedError:
            return


def _save_inline(beginning: bytes, size_bytes: int, sink: ByteSink) -> Steps[None]:
    """Write the file of a `result` event, whose beginning was read already."""
    file = InlineFile(size_bytes)
    sink.write(file.feed(beginning))
    while not file.is_complete:
        sink.write(file.feed(check_not_ended((yield from read_chunk()))))
