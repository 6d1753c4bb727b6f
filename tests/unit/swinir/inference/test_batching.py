"""Jobs that share a forward pass, and one of them that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swinir.checks import FIELDS
from swinir.errors import MissingWeightsError
from swinir.inference.batching import TileJob, run_jobs
from swinir.inference.engine import EngineError, InferenceCancelledError, NotFiniteError, Restored
from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import UnknownVariantError
from testing.networks import draw_tiles


class Recorder:
    """An engine that adds 1 to every pixel, records its input, and fails if a tile starts with 66."""

    def __init__(self) -> None:
        self.passes: list[tuple[str, tuple[int, ...]]] = []

    def restore(self, tiles: Any, variant: str, is_cancelled: Any) -> Restored:
        self.passes.append((variant, tiles.shape))
        if is_cancelled():
            raise InferenceCancelledError("nobody waits")
        if variant == "nope":
            raise UnknownVariantError("nope")
        if variant == "missing":
            raise MissingWeightsError("no file")
        if (tiles[:, 0, 0, 0] == 66).any():
            raise NotFiniteError("a tile gave no number")
        if (tiles[:, 0, 0, 0] == 77).any():
            raise KeyError("a bug")
        return Restored(tiles + 1, np.zeros((len(tiles), len(FIELDS)), np.float32), np.full(len(tiles), 7))


def run(jobs: list[TileJob]) -> list[tuple[str, tuple[int, ...]]]:
    recorder = Recorder()
    run_jobs(recorder, jobs)  # type: ignore[arg-type]  # stands in for Engine
    return recorder.passes


def flat(value: int, count: int = 1, side: int = 8) -> Any:
    return np.full((count, side, side, 3), value, np.uint8)


def restored(job: TileJob) -> Any:
    assert job.error is None, job.error
    assert job.restored is not None
    return job.restored.tiles


def test_jobs_that_share_a_pass_get_their_own_tiles() -> None:
    jobs = [TileJob(flat(10 * n, count=n), {"a"}) for n in (1, 2, 3)]
    assert run(jobs) == [("a", (6, 8, 8, 3))]
    for n, job in enumerate(jobs, start=1):
        assert np.array_equal(restored(job), flat(10 * n + 1, count=n))
        assert job.restored is not None
        assert job.restored.checks.shape == (n, len(FIELDS))


def test_other_variants_and_shapes_run_in_separate_passes() -> None:
    jobs = [TileJob(flat(1), {"a"}), TileJob(flat(2), {"b"}), TileJob(flat(3, side=16), {"a"}), TileJob(flat(4), {"a"})]
    assert run(jobs) == [("a", (2, 8, 8, 3)), ("b", (1, 8, 8, 3)), ("a", (1, 16, 16, 3))]
    assert [int(restored(job)[0, 0, 0, 0]) for job in jobs] == [2, 3, 4, 5]


def test_job_that_spoils_a_shared_pass_fails_alone() -> None:
    jobs = [TileJob(flat(1), {"a"}), TileJob(flat(66), {"a"}), TileJob(flat(3), {"a"})]
    run(jobs)
    assert isinstance(jobs[1].error, NotFiniteError)
    assert jobs[1].restored is None
    assert [int(restored(job)[0, 0, 0, 0]) for job in (jobs[0], jobs[2])] == [2, 4]


def test_first_of_a_spoilt_pass_may_be_the_sound_one() -> None:
    jobs = [TileJob(flat(66), {"a"}), TileJob(flat(1), {"a"})]
    run(jobs)
    assert isinstance(jobs[0].error, NotFiniteError)
    assert int(restored(jobs[1])[0, 0, 0, 0]) == 2


def test_bug_in_one_job_does_not_fail_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = [
        TileJob(flat(1), {"a"}),
        TileJob(flat(77), {"a"}),
        TileJob(flat(3), {"a"}),
        TileJob(flat(4, side=16), {"a"}),
    ]

    run(jobs)

    assert [int(restored(job)[0, 0, 0, 0]) for job in (jobs[0], jobs[2], jobs[3])] == [2, 4, 5]
    assert jobs[1].restored is None
    assert isinstance(jobs[1].error, EngineError)
    assert str(jobs[1].error) == "a failed: KeyError: 'a bug'"
    assert "Traceback" in caplog.text, "a bug nobody can find"


@pytest.mark.parametrize(("variant", "kind"), [("nope", UnknownVariantError), ("missing", MissingWeightsError)])
def test_variant_error_fails_all_its_jobs_at_once(variant: str, kind: type[Exception]) -> None:
    jobs = [TileJob(flat(1), {variant}), TileJob(flat(2), {variant}), TileJob(flat(3), {"a"})]
    assert len(run(jobs)) == 2
    assert isinstance(jobs[0].error, kind)
    assert isinstance(jobs[1].error, kind)
    assert int(restored(jobs[2])[0, 0, 0, 0]) == 4


def test_invalid_request_never_reaches_the_engine() -> None:
    jobs = [TileJob(flat(1, count=2), {"a", "b"}), TileJob(flat(1, count=0), {"a"}), TileJob(flat(1), set())]
    assert run(jobs) == []
    assert "has 2 different names" in str(jobs[0].error)
    assert "no pixels" in str(jobs[1].error)
    assert "has 0 different names" in str(jobs[2].error)


def test_work_continues_while_one_client_still_waits() -> None:
    jobs = [TileJob(flat(1), {"a"}, lambda: True), TileJob(flat(2), {"a"}, lambda: False)]
    run(jobs)
    assert int(restored(jobs[1])[0, 0, 0, 0]) == 3


def test_work_without_clients_is_cancelled() -> None:
    jobs = [TileJob(flat(1), {"a"}, lambda: True), TileJob(flat(2), {"a"}, lambda: True)]
    run(jobs)
    assert [type(job.error) for job in jobs] == [InferenceCancelledError, InferenceCancelledError]


def test_batch_on_the_real_engine_equals_single_jobs(tmp_path: Path) -> None:
    engine = TorchEngine(tmp_path, "cpu", threads=1)
    jobs = [TileJob(draw_tiles(n, 16, 24, seed=n), {"compact_x4"}) for n in (1, 2)]
    run_jobs(engine, jobs)
    for job in jobs:
        alone = engine.restore(job.tiles, "compact_x4").tiles.astype(int)
        assert np.abs(restored(job) - alone).max() <= 1
