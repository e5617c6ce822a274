"""Means with their uncertainty: numbers by hand, SciPy's bootstrap, and coverage."""

import numpy as np
import pytest
from scipy.stats import bootstrap, sem

from maml_rl.statistics import mean_with_interval


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_mean_and_standard_error_by_hand():
    # Mean of 1, 2, 3, 6 is 3; squared deviations 4 + 1 + 0 + 9 = 14, over n - 1 = 3, over n = 4: 14 / 12.
    mean = mean_with_interval(np.array([1.0, 2.0, 3.0, 6.0]), generator())
    assert mean.value == 3.0
    assert mean.standard_error == pytest.approx((14 / 12) ** 0.5, rel=1e-12)


def test_the_interval_of_two_values_by_hand():
    # Resamples of {0, 1} have mean 0, 1/2, 1 with probability 1/4, 1/2, 1/4, so both 2.5 % tails are at the ends.
    assert mean_with_interval(np.array([0.0, 1.0]), generator())[2:] == (0.0, 1.0)


def test_the_interval_of_ones_and_zeros_is_the_binomial_one():
    # 20 of 40 ones: a resample's mean is Binomial(40, 1/2) / 40, whose 2.5 % and 97.5 % quantiles are 14 and 26.
    mean = mean_with_interval(np.repeat([0.0, 1.0], 20), generator())
    assert (mean.low, mean.high) == pytest.approx((14 / 40, 26 / 40))


def test_equal_values_have_no_uncertainty():
    assert mean_with_interval(np.full(5, -2.5), generator()) == (-2.5, 0.0, -2.5, -2.5)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_the_standard_error_is_scipys(size):
    values = generator(1).normal(-40, 13, size)
    assert mean_with_interval(values, generator()).standard_error == pytest.approx(float(sem(values)), rel=1e-12)


@pytest.mark.parametrize("size", [10, 40])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_the_interval_is_that_of_scipys_bootstrap(size, kind):
    values = getattr(generator(2), kind)(size=size) * 13 - 40
    ours = mean_with_interval(values, generator(3), resamples=40_000)
    theirs = bootstrap(
        (values,), np.mean, method="percentile", confidence_level=0.95, n_resamples=40_000, rng=generator(4)
    ).confidence_interval
    # A 2.5 % quantile of 40 000 resamples has a standard deviation of about 0.013 standard errors.
    tolerance = 0.08 * ours.standard_error
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)


def test_the_interval_covers_the_mean_about_19_times_in_20():
    # The percentile interval of 40 normal values is narrow by z / t and sqrt(39 / 40): it covers about 94 %.
    samples = generator(5).normal(7.0, 3.0, (500, 40))
    resampling = generator(6)
    means = [mean_with_interval(values, resampling, resamples=1000) for values in samples]
    coverage = np.mean([mean.low <= 7.0 <= mean.high for mean in means])
    assert 0.91 <= coverage <= 0.97  # 0.94 +- 3 standard deviations of a share of 500


def test_the_interval_holds_the_mean_and_is_about_two_standard_errors_to_each_side():
    mean = mean_with_interval(generator(7).normal(size=200), generator())
    assert mean.high - mean.value == pytest.approx(1.96 * mean.standard_error, rel=0.05)
    assert mean.value - mean.low == pytest.approx(1.96 * mean.standard_error, rel=0.05)


def test_shift_and_scale_of_the_values_are_those_of_the_result():
    values = generator(8).normal(size=20)
    mean, scaled = (mean_with_interval(v, generator(9)) for v in (values, 10 * values + 3))
    assert scaled.standard_error == pytest.approx(10 * mean.standard_error)
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx([10 * x + 3 for x in (mean[0], mean[2], mean[3])])


def test_the_result_is_a_function_of_the_generator_and_plain_numbers():
    values = generator(10).normal(size=20).astype(np.float32)
    mean = mean_with_interval(values, generator(11))
    assert mean == mean_with_interval(values, generator(11))
    assert mean != mean_with_interval(values, generator(12))
    assert all(type(number) is float for number in mean)  # as json takes them


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_are_refused(values):
    with pytest.raises(ValueError, match=f"at least two values, got {len(values)}"):
        mean_with_interval(np.array(values), generator())
