"""Means and interquartile means with their uncertainty: numbers by hand, SciPy, and coverage."""

import numpy as np
import pytest
from scipy.stats import bootstrap, sem, trim_mean

from maml_rl.statistics import bootstrap_interval, interquartile_mean, mean, mean_with_interval, strata_of


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


# Interquartile mean, seeds and tasks


def test_the_interquartile_mean_by_hand():
    # Of 8 values the lowest two and the highest two are left out: (3 + 4 + 5 + 6) / 4.
    assert interquartile_mean(np.array([4.0, -100.0, 3.0, 8.0, 6.0, 5.0, 1.0, 1000.0])) == 4.5
    # Of 3 values 3 // 4 = 0 are left out.
    assert interquartile_mean(np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("size", [2, 7, 40, 200])
def test_the_interquartile_mean_is_scipys_trimmed_mean(size):
    values = generator(13).normal(size=(3, size))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=1), rtol=1e-12)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_of_one_seed_the_interval_is_scipys_bootstrap_over_tasks(statistic):
    values = generator(14).exponential(size=40) * 13 - 40
    ours = bootstrap_interval(values[None], statistic, generator(3), resamples=40_000)
    theirs = bootstrap(
        (values,), lambda x, axis: statistic(np.moveaxis(x, axis, -1)), method="percentile", n_resamples=40_000,
        rng=generator(4),
    )  # fmt: skip
    assert ours.value == statistic(values)
    tolerance = 0.08 * theirs.standard_error
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=tolerance)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_of_seeds_that_differ_and_tasks_that_do_not_the_interval_is_scipys_bootstrap_over_seeds(statistic):
    values = generator(15).normal(size=12)
    ours = bootstrap_interval(np.repeat(values[:, None], 8, axis=1), statistic, generator(3), resamples=40_000)
    theirs = bootstrap(
        (values,), lambda x, axis: statistic(np.moveaxis(x, axis, -1)), method="percentile", n_resamples=40_000,
        rng=generator(4),
    )  # fmt: skip
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.08 * theirs.standard_error)


def test_two_seeds_by_two_tasks_by_hand():
    # Returns a_i + b_j with a in {0, 2} and b in {0, 4}: a resample's mean is that of two a plus that of two b, which
    # is 0 + 0 with probability 1/16 > 2.5 %, and 2 + 4 likewise.
    returns = np.array([[0.0, 4.0], [2.0, 6.0]])
    assert bootstrap_interval(returns, mean, generator()) == (3.0, 0.0, 6.0)


def test_seeds_and_tasks_contribute_as_in_the_sum_of_their_variances():
    # The mean of a_i + b_j over a resample is mean(a*) + mean(b*), of variances var(a) / N and var(b) / M.
    a, b = generator(16).normal(0, 3, 30), generator(17).normal(0, 2, 40)
    interval = bootstrap_interval(a[:, None] + b, mean, generator(18), resamples=40_000)
    deviation = (a.var() / 30 + b.var() / 40) ** 0.5
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.03)


def test_seeds_are_drawn_whole():
    # Tasks alike, seeds 0 and 1: a resample is of seeds 0 0, 0 1, 1 0 or 1 1. Drawn anew for each of 100 tasks, as if
    # there were 200 runs, all resamples would lie near 1/2.
    interval = bootstrap_interval(np.repeat([[0.0], [1.0]], 100, axis=1), mean, generator())
    assert interval == (0.5, 0.0, 1.0)


def test_each_stratum_stays_as_large_as_it_is():
    # Tasks 0 have return 0, tasks 1 return 10: with as many of each in every resample there is no uncertainty.
    tasks = [0, 1] * 20
    returns = np.array([[10.0 * task for task in tasks]])
    assert bootstrap_interval(returns, mean, generator(), strata=tasks) == (5.0, 5.0, 5.0)
    unstratified = bootstrap_interval(returns, mean, generator())
    assert unstratified.low < 4.0 < 6.0 < unstratified.high


def test_the_interval_is_narrower_with_more_seeds_and_more_tasks():
    def width(seeds: int, tasks: int) -> float:
        source = generator(19)
        returns = source.normal(size=(seeds, 1)) + source.normal(size=tasks) + source.normal(size=(seeds, tasks))
        interval = bootstrap_interval(returns, interquartile_mean, source, resamples=2000)
        return interval.high - interval.low

    assert width(20, 40) < width(5, 40)
    assert width(20, 200) < width(20, 10)


def test_the_interval_over_seeds_and_tasks_covers_the_mean():
    # Seeds, tasks and both together vary alike. With 10 seeds the percentile interval is narrow by z / t of 9 degrees
    # of freedom: it covers about 91 %.
    source, covered = generator(20), 0
    for _ in range(300):
        returns = 3.0 + source.normal(size=(10, 1)) + source.normal(size=40) + source.normal(size=(10, 40))
        interval = bootstrap_interval(returns, mean, source, resamples=500)
        covered += interval.low <= 3.0 <= interval.high
    assert 0.86 <= covered / 300 <= 0.97


def test_the_interval_is_a_function_of_the_generator_and_plain_numbers():
    returns = generator(21).normal(size=(3, 20)).astype(np.float32)
    interval = bootstrap_interval(returns, interquartile_mean, generator(22))
    assert interval == bootstrap_interval(returns, interquartile_mean, generator(22))
    assert all(type(number) is float for number in interval)


def test_an_interval_of_one_return_is_refused():
    with pytest.raises(ValueError, match="at least two values, got 1"):
        bootstrap_interval(np.array([[1.0]]), mean, generator())


def test_a_mean_over_strata_has_the_uncertainty_within_them():
    values, tasks = np.array([10.0, 12.0, -10.0, -12.0]), [1, 1, 0, 0]
    apart, together = (mean_with_interval(values, generator(), strata) for strata in (tasks, None))
    # each stratum: variance 2, so the variance of its mean is 1, and that of the mean of both (1 + 1) / 4
    assert apart.standard_error == pytest.approx(0.5**0.5)
    assert together.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert (apart.low, apart.high) == (-1.0, 1.0)
    assert together.low < -5


def test_tasks_are_strata_where_each_occurs_again():
    assert strata_of([1, 0, 1, 0]) == ["1", "0", "1", "0"]
    assert strata_of([1, 0, 1]) is None
    assert strata_of([[0.3], [0.7]]) is None
