"""Jobs on a pool of workers that die, on real Ray."""

import pytest

from pipeline.workers import Pool, map_jobs
from tests.pipeline.fakes import CrashingActor


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("num_actors", "keys"), [(1, "aBcdefgh"), (2, "aBcDeFgh")])
def test_every_job_ends_though_each_worker_dies(num_actors: int, keys: str) -> None:
    """More jobs than a dead worker's queue holds: what it leaves must not wait for it."""
    pool = Pool(num_actors, num_cpus=1, num_gpus=0, batch_size=1, max_tries=1)
    results = {result["key"]: result for result in map_jobs([{"key": key} for key in keys], CrashingActor, {}, pool)}
    assert sorted(results) == sorted(keys)
    for key, result in results.items():
        assert ("died on it" in result.get("lost", "")) == key.isupper()
        assert result["tries"] == 1
