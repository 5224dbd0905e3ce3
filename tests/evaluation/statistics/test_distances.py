"""Distances between sets of features: golden values of both protocols, closed forms, and general properties."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation.statistics.distances import _BLOCK_ROWS, frechet_distance, kernel_distance
from tests.golden_files import golden_path

FAD_SCALE = 10_000  # of the golden values
_NAMES = ("real_video", "fake_video", "real_audio", "fake_audio")
BOTH = pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])


@pytest.fixture(scope="module")
def golden():
    features = np.load(golden_path("media/distances.npz"))
    cases = json.loads(golden_path("media/distances.json").read_text())["cases"]
    return [(case, {name: features[f"case{case['case']}.{name}"] for name in _NAMES}) for case in cases]


def normal(num_rows, width, *, seed=0, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(num_rows, width))


def exactly(mean, deviations, *, num_rows, seed):
    """Return rows with exactly these means and unbiased standard deviations, and uncorrelated columns."""
    rows = normal(num_rows, len(mean), seed=seed)
    orthogonal, _ = np.linalg.qr(rows - rows.mean(axis=0))
    return np.asarray(mean) + orthogonal * np.sqrt(num_rows - 1) * np.asarray(deviations)


def test_golden_frechet(golden):
    for case, features in golden:
        for protocol, fvd, fad in (
            ("correct", case["float64"]["fvd"], case["float64"]["fad_x10000"]),
            ("javisbench", case["fvd_release"], case["fad_release_x10000"]),
        ):
            video = frechet_distance(features["real_video"], features["fake_video"], protocol)
            audio = frechet_distance(features["real_audio"], features["fake_audio"], protocol)
            assert video == pytest.approx(fvd, rel=1e-4)
            assert audio * FAD_SCALE == pytest.approx(fad, rel=1e-4)


def test_golden_kernel(golden):
    for case, features in golden:
        real, fake = features["real_video"], features["fake_video"]
        assert kernel_distance(real, fake) == pytest.approx(case["float64"]["kvd_uncentred"], rel=1e-4)
        released = kernel_distance(real, fake, "javisbench")
        assert released == pytest.approx(case["kvd_release_on_centred_features"], abs=1e-5)


def test_golden_of_subsets_with_fewer_rows_than_columns(golden):
    for case, features in golden:
        expected = case["subset_every_third"]
        real, fake, real_audio, fake_audio = (features[name][::3] for name in _NAMES)
        assert frechet_distance(real, fake, "javisbench") == pytest.approx(expected["fvd"], rel=1e-4)
        assert kernel_distance(real, fake, "javisbench") == pytest.approx(expected["kvd"], abs=1e-5)
        audio = frechet_distance(real_audio, fake_audio, "javisbench")
        assert audio * FAD_SCALE == pytest.approx(expected["fad"], rel=1e-4)


@pytest.mark.parametrize("protocol", ["correct", "javisbench"])
@pytest.mark.parametrize("num_rows", [200, 12])
def test_frechet_of_a_set_with_itself_is_zero_and_it_is_symmetric(num_rows, protocol):
    real, other = normal(num_rows, 30), normal(num_rows, 30, seed=1, scale=1.5)
    assert frechet_distance(real, real, protocol) == pytest.approx(0.0, abs=1e-8)
    there, back = frechet_distance(real, other, protocol), frechet_distance(other, real, protocol)
    assert there == pytest.approx(back, rel=1e-9)
    assert there > 1


def test_frechet_of_gaussians_has_its_closed_form():
    deviations, others = [0.5, 1.0, 2.0, 0.1], [1.0, 1.0, 0.5, 3.0]
    real = exactly([0, 0, 0, 0], deviations, num_rows=50, seed=0)
    fake = exactly([1, -2, 0, 3], others, num_rows=80, seed=1)
    by_hand = 1 + 4 + 9 + sum((a - b) ** 2 for a, b in zip(deviations, others, strict=True))
    assert frechet_distance(real, fake) == pytest.approx(by_hand, rel=1e-10)
    turn, _ = np.linalg.qr(normal(4, 4, seed=2))  # correlated columns: the distance does not depend on the axes
    assert frechet_distance(real @ turn, fake @ turn) == pytest.approx(by_hand, rel=1e-10)


def test_frechet_counts_directions_that_a_set_lacks():
    """Two sets in orthogonal planes have only their mean in common."""
    real = exactly([0, 0, 0, 0], [1, 2, 0, 0], num_rows=9, seed=0)
    fake = exactly([0, 0, 0, 0], [0, 0, 3, 1], num_rows=9, seed=1)
    assert frechet_distance(real, fake) == pytest.approx(1 + 4 + 9 + 1, rel=1e-10)


@BOTH
def test_more_noise_and_a_larger_shift_are_further_away(distance):
    real, fake, noise = normal(300, 20), normal(300, 20, seed=1), normal(300, 20, seed=2)
    noisy = [distance(real, fake + level * noise) for level in (0, 0.5, 1, 2)]
    shifted = [distance(real, fake + level) for level in (0, 0.5, 1, 2)]
    assert noisy == sorted(noisy)
    assert shifted == sorted(shifted)
    assert noisy[0] < 0.1 * noisy[-1]


def test_kernel_distance_is_the_definition():
    """Computed row by row, with more rows than a block and sets of different lengths."""
    real, fake = normal(_BLOCK_ROWS + 70, 3), normal(40, 3, seed=1, shift=0.3)

    def mean(first, second, same):
        kernel = (first @ second.T / 3 + 1) ** 3
        return kernel[~np.eye(len(first), dtype=bool)].mean() if same else kernel.mean()

    expected = mean(real, real, True) + mean(fake, fake, True) - 2 * mean(real, fake, False)
    assert kernel_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(fake, real) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_sees_a_shift_of_the_mean_and_the_release_does_not():
    """The release's figures in docs/upstream/metrics.md, section 2, show the same."""
    real, fake = normal(80, 400), normal(80, 400, seed=1)
    correct = [kernel_distance(real, fake + shift) for shift in (0, 5, 50)]
    released = [kernel_distance(real, fake + shift, "javisbench") for shift in (0, 5, 50)]
    assert abs(correct[0]) < 0.1
    assert correct[1] > 1e4
    assert correct[2] > 1e10
    assert released == pytest.approx([released[0]] * 3, abs=1e-6)


@BOTH
def test_all_rows_count_and_under_javisbench_those_of_the_shorter_set(distance):
    real, fake = normal(90, 8), normal(60, 8, seed=1, scale=1.3)
    assert distance(real, fake) != pytest.approx(distance(real[:60], fake), rel=1e-3)
    assert distance(real, fake, "javisbench") == distance(real[:60], fake, "javisbench")
    assert distance(fake, real, "javisbench") == distance(fake, real[:60], "javisbench")


def test_javisbench_leaves_small_roots_out():
    """For features whose variances multiply to less than 1e-10, the release finds almost no overlap."""
    real = normal(50, 6, scale=1e-3)
    spread = 2 * real.var(axis=0, ddof=1).sum()
    assert frechet_distance(real, real) == pytest.approx(0.0, abs=1e-15)
    assert frechet_distance(real, real, "javisbench") == pytest.approx(spread, rel=1e-4)


@BOTH
def test_float32_features_are_computed_in_float64_and_left_alone(distance):
    real = normal(64, 16, shift=100.0).astype(np.float32)
    fake = normal(64, 16, seed=1, shift=100.0).astype(np.float32)
    before = real.copy(), fake.copy()
    for protocol in ("correct", "javisbench"):
        assert distance(real, fake, protocol) == distance(real.astype(np.float64), fake.astype(np.float64), protocol)
    np.testing.assert_array_equal((real, fake), before)


@BOTH
@pytest.mark.parametrize("protocol", ["correct", "javisbench"])
def test_sets_that_have_no_distance_are_named(distance, protocol):
    good, broken = normal(10, 4), normal(10, 4)
    broken[[2, 5, 6, 9], 1] = [np.nan, np.inf, -np.inf, np.nan]
    with pytest.raises(ValueError, match=r"4 of 10 rows of generated features are not finite \(row 2, 5, 6, \.\.\."):
        distance(good, broken, protocol)
    with pytest.raises(ValueError, match=r"1 of 7 rows of real features are not finite \(row 2,"):
        distance(np.delete(broken, [5, 6, 9], axis=0), good, protocol)
    with pytest.raises(ValueError, match="Real features have 4 columns and generated ones 3"):
        distance(good, good[:, :3], protocol)
    with pytest.raises(ValueError, match="There are 1 rows of generated features"):
        distance(good, good[:1], protocol)
    with pytest.raises(ValueError, match="There are 0 rows of real features"):
        distance(good[:0], good, protocol)
    with pytest.raises(ValueError, match="generated features have shape"):
        distance(good, good[0], protocol)


@BOTH
def test_an_unknown_protocol_is_refused(distance):
    with pytest.raises(ValueError, match="choose one of correct, javisbench"):
        distance(normal(4, 2), normal(4, 2), "javis")
