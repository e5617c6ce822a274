"""Statistics of observations, of any size and unit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.standardisation import observation_statistics, unresolved

NORMAL = np.random.default_rng(0).normal(size=(1000, 1))


def test_mean_and_standard_deviation_by_hand():
    # 1, 2, 6: mean 3, deviations -2, -1, 3: (4 + 1 + 9) / 2 = 7.
    mean, std = observation_statistics(np.array([[1.0], [2.0], [6.0]], np.float32))
    assert (mean.item(), std.item()) == (3.0, 7**0.5)
    assert mean.dtype == std.dtype == np.float64


@pytest.mark.parametrize("components", [1, 2, 7])
@pytest.mark.parametrize("value", [0.0, 123.456, -5e6, 1e-30, 3e38])
def test_a_constant_keeps_scale_one_however_many_components_there_are(value, components):
    mean, std = observation_statistics(np.full((999, components), value, np.float32))
    assert np.array_equal(mean, np.full(components, np.float32(value), np.float64))
    assert np.array_equal(std, np.ones(components))


def test_a_single_observation_has_scale_one():
    mean, std = observation_statistics(np.array([[1.0, -2.0]]))
    assert mean.tolist() == [1.0, -2.0]
    assert std.tolist() == [1.0, 1.0]


def test_large_observations_keep_what_float32_holds_of_them():
    # At 5e6 float32 has steps of 0.5. A deviation of 100 is resolved; in float32 arithmetic its mean would be off by 1.
    observations = (5e6 + 100 * NORMAL).astype(np.float32)
    mean, std = observation_statistics(observations)
    assert mean.item() == pytest.approx(observations.astype(np.float64).mean(), abs=1e-6)
    assert std.item() == pytest.approx(observations.astype(np.float64).std(ddof=1), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(-60, 60), st.floats(-100, 100))
def test_the_unit_of_an_observation_changes_nothing(exponent, offset):
    observations = (offset + NORMAL).astype(np.float32)
    unit = 2.0**exponent
    mean, std = observation_statistics(observations)
    scaled_mean, scaled_std = observation_statistics((observations * unit).astype(np.float32))
    assert np.array_equal(scaled_mean, mean * unit)
    assert np.array_equal(scaled_std, std * unit)
    assert not unresolved(observations).any()


@pytest.mark.parametrize(("deviation", "lost"), [(100.0, False), (3.0, False), (1.0, True), (1e-3, True), (0.0, True)])
def test_variation_below_the_rounding_of_float32_is_unresolved(deviation, lost):
    assert unresolved(5e6 + deviation * NORMAL).tolist() == [lost]
    assert observation_statistics(5e6 + deviation * NORMAL)[1].item() == pytest.approx(
        1 if lost else deviation, rel=0.1
    )


def test_a_little_noise_about_zero_is_variation():
    assert unresolved(1e-5 * NORMAL).tolist() == [False]
