"""Downloads a result, and continues after a lost connection where it broke off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Never, Protocol

from superres.client.effects import Pause, Report, ResponseHead, Send, Steps, read_chunk
from superres.client.errors import ClientError, ConnectionFailedError, DownloadFailedError
from superres.client.progress import UpscaleProgress
from superres.client.result import ByteSink
from superres.client.retries import Retries, RetryLimits

# Attempts in all: a connection that breaks after each byte would never end.
_MAX_ATTEMPTS = 100
_OTHER_FILE = "The service has another file than the one whose download broke off."


class Calls(Protocol):
    """What a download needs of the calls of the API."""

    limits: RetryLimits
    random: Callable[[], float]

    def fail(self, head: ResponseHead) -> Steps[Never]:
        """Raise the error for a response that is not a success."""
        ...


def download_result(calls: Calls, request: Send, size_bytes: int, sink: ByteSink) -> Steps[None]:
    """Write the response to `request`, of so many bytes, to `sink`.

    Raises ProblemError or UnexpectedResponseError for another response, and DownloadFailedError or
    ConnectionFailedError if the connection breaks too often.
    """
    done, etag = 0, ""
    retries = Retries(calls.limits, calls.random)
    for _ in range(_MAX_ATTEMPTS):
        headers = dict(request.headers)
        if done:
            headers |= {"Range": f"bytes={done}-", "If-Range": etag}
        try:
            head: ResponseHead = yield Send(request.method, request.path, request.params, headers)
            if head.status not in (200, 206):
                yield from calls.fail(head)
            if head.status != (206 if done else 200):
                raise DownloadFailedError(_OTHER_FILE)  # noqa: TRY301 - not retried below
            etag = head.headers.get("etag", "")
            while done < size_bytes and (data := (yield from read_chunk())):
                data = data[: size_bytes - done]
                sink.write(data)
                done += len(data)
                retries.note_progress()
                yield Report(UpscaleProgress("downloading", done, size_bytes))
            if done == size_bytes:
                return
            raise ConnectionFailedError(
                f"The connection was closed after {done:,} of {size_bytes:,} bytes of the result."
            )
        except DownloadFailedError:
            raise
        except ClientError as error:
            if done and not etag:
                raise DownloadFailedError(str(error)) from error
            pause_s = retries.choose_pause_s(error)
        yield Pause(pause_s)
    raise DownloadFailedError(f"The download of the result broke off {_MAX_ATTEMPTS} times.")
