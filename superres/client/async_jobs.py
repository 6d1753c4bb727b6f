"""Asynchronous jobs of the asynchronous client: with one image, and with several."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from superres.client.archives import BatchItem
from superres.client.async_transport import AwaitCall
from superres.client.batch import check_folder, read_batch_results, save_batch_archive
from superres.client.calls import ApiCalls
from superres.client.job_calls import UpscaleStatus, abandon_job, delete_job, read_job_result, read_status, wait_for_job
from superres.client.progress import OnProgress
from superres.client.result import UpscaleResult, make_file_sink, make_sink


class AsyncSubmittedJob:
    """An asynchronous job. As an async context manager it is deleted at the end of the block, finished or not."""

    def __init__(self, calls: ApiCalls, run: AwaitCall, job_id: str) -> None:
        self.id = job_id
        """Its id, to find it in another process."""
        self._calls = calls
        self._run = run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._run(abandon_job(self._calls, self.id))

    async def status(self) -> UpscaleStatus:
        """Return its state. Raises ClientError."""
        return await self._run(read_status(self._calls, self.id))

    async def wait(
        self, *, on_progress: OnProgress | None = None, poll_s: float = 1.0, timeout_s: float | None = None
    ) -> UpscaleStatus:
        """Wait for its end, however it ends. Raises WaitTimeoutError, after which it goes on, or ClientError."""
        return await self._run(wait_for_job(self._calls, self.id, poll_s, timeout_s), on_progress)

    async def delete(self) -> None:
        """Cancel it if it is not finished; otherwise forget it and its result. Raises ClientError."""
        await self._run(delete_job(self._calls, self.id))


class AsyncUpscaleJob(AsyncSubmittedJob):
    """An asynchronous job of one image, of `AsyncClient.submit` or `AsyncClient.job`."""

    def __init__(self, calls: ApiCalls, run: AwaitCall, job_id: str, stem: str) -> None:
        super().__init__(calls, run, job_id)
        self._stem = stem

    async def result(
        self,
        *,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        poll_s: float = 1.0,
        timeout_s: float | None = None,
    ) -> UpscaleResult:
        """Wait for its end and return the result, as `AsyncClient.upscale` does. `timeout_s` is that of the wait.

        Raises ProblemError if it failed or was lost, JobCancelledError, WaitTimeoutError or another ClientError.
        """
        sink = make_sink(to)
        steps = read_job_result(self._calls, self.id, self._stem, sink.open, poll_s, timeout_s)
        return sink.result(await self._run(steps, on_progress))


class AsyncBatchJob(AsyncSubmittedJob):
    """An asynchronous job of several images, of `AsyncClient.submit_batch` or `AsyncClient.batch_job`.

    A download that breaks goes on where it broke off. If it breaks too often, it raises DownloadFailedError: the
    service keeps the results for a while (setting `results_max_age_s`), so ask for them again.
    """

    async def results(
        self,
        *,
        to: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        poll_s: float = 1.0,
        timeout_s: float | None = None,
    ) -> list[BatchItem]:
        """Wait for its end and return what became of each image, as `AsyncClient.upscale_batch` does.

        `to` is the folder of the results; without it they are in memory. `timeout_s` is that of the wait. Raises
        ProblemError if no image succeeded or the job was lost, JobCancelledError, WaitTimeoutError or another
        ClientError; and OSError for the folder.
        """
        folder = check_folder(to)
        return await self._run(read_batch_results(self._calls, self.id, folder, poll_s, timeout_s), on_progress)

    async def archive(
        self,
        to: str | os.PathLike[str],
        *,
        on_progress: OnProgress | None = None,
        poll_s: float = 1.0,
        timeout_s: float | None = None,
    ) -> Path:
        """Wait for its end, save the ZIP of the results as the file, or in the folder, `to`, and return its path.

        It is written as it arrives and appears when it is complete; an existing file is replaced. Raises as `results`.
        """
        sink = make_file_sink(to)
        await self._run(save_batch_archive(self._calls, self.id, sink, poll_s, timeout_s), on_progress)
        return sink.written or Path(to)
