"""A client for the HTTP API of Serverless SuperRes, synchronous and asynchronous.

It needs httpx and nothing of the server.

from superres.client import Client

with Client("https://superres.example", key) as client:
    client.upscale("photo.jpg", variant="compact_photo_x4", to="photo_x4.png")
"""

from superres.client.archives import BatchItem
from superres.client.async_client import AsyncClient
from superres.client.async_jobs import AsyncBatchJob, AsyncUpscaleJob
from superres.client.description import Quote, ServiceVariant
from superres.client.errors import (
    ClientError,
    ConnectionFailedError,
    DownloadFailedError,
    ImageFileError,
    InvalidKeyError,
    InvalidUrlError,
    JobCancelledError,
    ProblemError,
    TlsError,
    UnexpectedResponseError,
    WaitTimeoutError,
)
from superres.client.images import ImageSource
from superres.client.job_calls import UpscaleStatus
from superres.client.parameters import UpscaleParameters
from superres.client.progress import UpscaleProgress
from superres.client.result import ResultFacts, UpscaleResult
from superres.client.retries import RetryLimits
from superres.client.sync_client import Client
from superres.client.sync_jobs import BatchJob, UpscaleJob

__all__ = [
    "AsyncBatchJob",
    "AsyncClient",
    "AsyncUpscaleJob",
    "BatchItem",
    "BatchJob",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "DownloadFailedError",
    "ImageFileError",
    "ImageSource",
    "InvalidKeyError",
    "InvalidUrlError",
    "JobCancelledError",
    "ProblemError",
    "Quote",
    "ResultFacts",
    "RetryLimits",
    "ServiceVariant",
    "TlsError",
    "UnexpectedResponseError",
    "UpscaleJob",
    "UpscaleParameters",
    "UpscaleProgress",
    "UpscaleResult",
    "UpscaleStatus",
    "WaitTimeoutError",
]
