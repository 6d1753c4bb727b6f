"""The record of an asynchronous job: what the gateway knows of it and shows to its client."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

DeliveryState = Literal["pending", "delivered", "failed"]
DELIVERY_STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)

JobState = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
STATES: tuple[JobState, ...] = get_args(JobState)
UNFINISHED: tuple[JobState, ...] = ("queued", "running")

_RANDOM_BYTES = 16


@dataclass(frozen=True)
class Delivery:
    """How the delivery of a job's webhook stands. It begins with the end of the job."""

    state: DeliveryState = "pending"
    attempts: int = 0
    last_status: int | None = None
    """Of the last response; None without one."""
    last_error: str = ""
    """Why the last attempt failed, in words."""
    next_attempt_at: float | None = None
    """Time of the next attempt, in seconds since 1970; None before the first and after the last one."""

    def to_json(self) -> str:
        """Return the delivery as text for a store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Delivery:
        """Return the delivery in a text; members of a later version are ignored."""
        return cls(**{name: value for name, value in json.loads(text).items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class JobRecord:
    """One asynchronous job, without the bytes of its upload and result."""

    id: str
    client_id: str
    """The client that sent it, and the only one that may see it."""
    client_name: str
    """Name under which its usage is charged."""
    request_id: str
    created_at: float
    """Time of the request, in seconds since 1970."""
    parameters: dict[str, str]
    """The options as the client sent them."""
    stem: str
    """Name of the upload without its extension."""
    state: JobState = "queued"
    attempts: int = 1
    """How many gateways have worked on it; above 1 if one of them ended."""
    position: int = 0
    ahead: int = 0
    bands_done: int = 0
    bands: int = 0
    left_s: float | None = None
    """Estimated seconds left; None without an estimate."""
    gpu_s: float = 0.0
    """Seconds that the network worked."""
    finished_at: float | None = None
    problem: dict[str, Any] | None = None
    """Why it failed, as an RFC 9457 object."""
    result: dict[str, Any] | None = None
    """Facts of the result, as in the `result` event."""
    data_name: str = field(default="", repr=False)
    """Under which name the store keeps the bytes of the result; empty before."""
    charges: list[tuple[str, str, int, float]] = field(default_factory=list, repr=False)
    """What it was charged in Redis (`gateway.access.rate_limits.SharedHit`), for a gateway that takes it over."""
    cache_keys: list[str] = field(default_factory=list, repr=False)
    """Under which keys the result cache may have the results."""
    images: int = 0
    """Number of images of a request with several; 0 for a request with one."""
    images_done: int = 0
    webhook: str = field(default="", repr=False)
    """URL that gets the status once the job has ended; empty for none. It may hold a secret of the client."""
    base_path: str = ""
    """Path prefix under which a proxy published the gateway to the client; empty for none."""
    delivery: Delivery = field(default=Delivery(), compare=False)
    """How the delivery of the webhook stands. Stores keep it apart: it changes after the rest is final."""

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state not in UNFINISHED

    def to_json(self) -> str:
        """Return the record as text for a store, without the delivery."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "delivery"})

    @classmethod
    def from_json(cls, text: str | bytes) -> JobRecord:
        """Return the record in a text; members of a later version are ignored."""
        members = json.loads(text)
        return cls(**{name: value for name, value in members.items() if name in cls.__dataclass_fields__})

    def end(self, state: JobState, finished_at: float, **changes: Any) -> JobRecord:
        """Return the record in a final state."""
        return replace(self, state=state, finished_at=finished_at, position=0, ahead=0, left_s=None, **changes)


def new_run_id() -> str:
    """Return an id of one run of a gateway, which its job ids begin with."""
    return secrets.token_hex(4)


def new_job_id(run_id: str) -> str:
    """Return an unguessable id for a job."""
    return f"{run_id}-{secrets.token_urlsafe(_RANDOM_BYTES)}"


def run_of(job_id: str) -> str:
    """Return the id of the run that made a job id; empty if it has not the form of one."""
    run, _, rest = job_id.partition("-")
    is_ours = len(run) == 8 and all(digit in "0123456789abcdef" for digit in run) and len(rest) == 22
    return run if is_ours else ""
