"""Jobs on a pool of workers that die, on real Ray."""

from __future__ import annotations

import pytest

from jobs import crew
from jobs.stops import WorkerStartError
from jobs.workers import Pool, map_jobs
from tests.pipeline.fakes import CrashingActor, DyingAtStartActor, RaisingActor, SleepyActor


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("sizes", "keys"), [((1, 1), "aBcdefgh"), ((2, 2), "aBcDeFgh"), ((1, 2), "abcDeFgh")])
def test_every_job_ends_though_each_worker_dies(sizes: tuple[int, int], keys: str) -> None:
    """More jobs than a dead worker's queue holds: what it leaves must not wait for it."""
    pool = Pool(*sizes, num_cpus=1, num_gpus=0, batch_size=1, max_tries=1)
    results = {result["key"]: result for result in map_jobs([{"key": key} for key in keys], CrashingActor, {}, pool)}
    assert sorted(results) == sorted(keys)
    for key, result in results.items():
        assert ("died on it" in result.get("lost", "")) == key.isupper()
        assert result["tries"] == 1


@pytest.mark.usefixtures("ray_session")
def test_a_pool_grows_while_its_workers_are_busy() -> None:
    pool = Pool(1, 2, num_cpus=1, num_gpus=0, batch_size=1, max_tries=1)
    results = [*map_jobs([{"key": str(number)} for number in range(20)], SleepyActor, {}, pool)]
    assert len(results) == 20
    assert len({result["process"] for result in results}) == 2


@pytest.mark.usefixtures("ray_session")
def test_every_worker_gets_jobs_and_a_slow_one_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew, "SILENCE_S", 0.1)
    pool = Pool(2, 2, num_cpus=1, num_gpus=0, batch_size=100, max_tries=1)
    results = [*map_jobs([{"key": key} for key in "abcdefghijklmnopqrst"], SleepyActor, {}, pool)]
    processes = {result["process"] for result in results}
    assert len(processes) == 2
    assert any(f"A worker (process {process} on " in caplog.text for process in processes)
    assert "has been at 'a' for 0 min" in caplog.text


@pytest.mark.usefixtures("ray_session")
def test_what_a_worker_raises_is_the_reason_of_the_job_alone() -> None:
    pool = Pool(1, 1, num_cpus=1, num_gpus=0, batch_size=3, max_tries=1)
    results = {result["key"]: result for result in map_jobs([{"key": key} for key in "abc"], RaisingActor, {}, pool)}
    assert "the driver of the GPU is gone" in results.pop("b")["lost"]
    assert results == {key: {"key": key, "tries": 1} for key in "ac"}


@pytest.mark.usefixtures("ray_session")
def test_workers_that_always_die_at_their_start_end_the_run_though_more_of_them_wait_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "MAX_PAUSE_S", 0.1)
    monkeypatch.setattr(crew, "MAX_FAILED_STARTS_OF_MANY", 3)
    pool = Pool(3, 3, num_cpus=2, num_gpus=0, batch_size=1, max_tries=1)  # the cluster has room for one
    with pytest.raises(WorkerStartError, match="DyingAtStartActor could not be set up in its worker"):
        list(map_jobs([{"key": key} for key in "abcd"], DyingAtStartActor, {}, pool))


@pytest.mark.usefixtures("ray_session")
def test_starts_may_fail_for_days_beside_a_worker_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(crew.time, "monotonic", lambda: now[0])
    with crew.Crew(SleepyActor, {}, Pool(1, 1, num_cpus=1, num_gpus=0, batch_size=1, max_tries=1)) as workers:
        workers.staff(1)
        while not workers.give([{"key": "a"}]):
            workers.wait()
        for _ in range(2000):
            workers._note_failed_start(RuntimeError("no room on the GPU"))
            now[0] += crew.MAX_PAUSE_S
