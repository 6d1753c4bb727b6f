"""The error responses of asynchronous jobs. They are part of the tree in `gateway.problems`.

Problem                       status  an error response
  NotFound                       404  no page at this address
    UnknownJob                   404  the job has expired, was deleted, or never existed
  BackendUnavailable             503  the backend cannot be reached
    JobsUnavailable              503  the store of jobs cannot be reached
  JobNotFinished                 409  the job has no result yet, or has none
  JobLost                        410  the gateway that had the job has ended
  ResultExpired                  410  the result of the job is no longer stored
  IdempotencyKeyReused           422  another request had the same Idempotency-Key
"""

from __future__ import annotations

from gateway.problems import BackendUnavailable, NotFound, Problem


class UnknownJob(NotFound):
    """No job of this client has this id: it has expired, was deleted, or never existed."""

    slug, title = "unknown-job", "Job not found"


class JobsUnavailable(BackendUnavailable):
    """The Redis that stores asynchronous jobs cannot be used. Retry-After says when to try again."""

    slug, title = "jobs-unavailable", "Asynchronous jobs unavailable"


class JobNotFinished(Problem):
    """The job has no result yet, or it has failed or was cancelled. Its status says which."""

    status, slug, title = 409, "job-not-finished", "Job without a result"


class JobLost(Problem):
    """The gateway that had the job has ended, and no other one can finish it. Send the image again."""

    status, slug, title = 410, "job-lost", "Job lost"


class ResultExpired(Problem):
    """The job has finished, and its result is no longer stored."""

    status, slug, title = 410, "result-expired", "Result of the job expired"


class IdempotencyKeyReused(Problem):
    """The client has sent another request with the same Idempotency-Key."""

    status, slug, title = 422, "idempotency-key-reused", "Idempotency-Key used for another request"
