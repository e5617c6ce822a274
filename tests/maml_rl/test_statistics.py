"""Means and interquartile means with their uncertainty: numbers by hand, SciPy, and coverage."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import f_oneway, sem, t, trim_mean

from maml_rl.statistics import FEWEST_SEEDS, Statistic, interquartile_mean, interval, mean, mean_with_interval, one_way


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# One run: tasks


def test_mean_and_standard_error_by_hand():
    # Mean of 1, 2, 3, 6 is 3; squared deviations 4 + 1 + 0 + 9 = 14, over n - 1 = 3, over n = 4: 14 / 12.
    mean = mean_with_interval(np.array([1.0, 2.0, 3.0, 6.0]))
    assert mean.value == 3.0
    assert mean.standard_error == pytest.approx((14 / 12) ** 0.5, rel=1e-12)


def test_equal_values_have_no_uncertainty():
    assert mean_with_interval(np.full(5, -2.5)) == (-2.5, 0.0, -2.5, -2.5)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_the_standard_error_and_the_interval_of_one_run_are_scipys(size):
    values = generator(1).normal(-40, 13, size)
    mean = mean_with_interval(values)
    assert mean.standard_error == pytest.approx(float(sem(values)), rel=1e-12)
    expected = t.interval(0.95, size - 1, loc=values.mean(), scale=sem(values))
    assert (mean.low, mean.high) == pytest.approx(expected, rel=1e-12)


def test_shift_and_scale_of_the_values_are_those_of_the_result():
    values = generator(8).normal(size=20)
    mean, scaled = (mean_with_interval(v) for v in (values, 10 * values + 3))
    assert scaled.standard_error == pytest.approx(10 * mean.standard_error)
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx([10 * x + 3 for x in (mean[0], mean[2], mean[3])])


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_tasks_are_refused(values):
    with pytest.raises(ValueError, match=f"at least two tasks, got {len(values)}"):
        mean_with_interval(np.array(values))
    with pytest.raises(ValueError, match="at least two tasks, got 1"):
        interval(np.ones((5, 1)), mean)


# Interquartile mean


def test_the_interquartile_mean_by_hand():
    # Of 8 values the lowest two and the highest two are left out: (3 + 4 + 5 + 6) / 4.
    assert interquartile_mean(np.array([4.0, -100.0, 3.0, 8.0, 6.0, 5.0, 1.0, 1000.0])) == 4.5
    # Of 3 values 3 // 4 = 0 are left out.
    assert interquartile_mean(np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("size", [2, 7, 40, 200])
def test_the_interquartile_mean_is_scipys_trimmed_mean(size):
    values = generator(13).normal(size=(3, size))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=1), rtol=1e-12)


def test_an_outlier_does_not_widen_the_interval_of_the_interquartile_mean():
    values = generator(14).normal(size=(1, 40))
    outlier = values.copy()
    outlier[0, values.argmax()] = 1e6
    assert interval(outlier, interquartile_mean) == pytest.approx(interval(values, interquartile_mean))
    assert interval(outlier, mean).high > 1e4


# Seeds and tasks


def test_seeds_and_tasks_are_the_units_by_hand():
    # Returns a_i + b_j. Seeds' means vary as a: variance 1, so 1 / 3 of their mean; tasks' as b: variance 2, 2 / 2.
    # The quantiles of Student's distribution with 2 and 1 degrees of freedom are 4.3027 and 12.7062.
    a, b = np.array([-1.0, 0.0, 1.0]), np.array([4.0, 6.0])
    result = interval(a[:, None] + b, mean)
    half = (4.3027**2 / 3 + 12.7062**2 * 2 / 2) ** 0.5
    assert result == pytest.approx((5.0, 5.0 - half, 5.0 + half), abs=1e-3)


def test_with_one_or_two_seeds_the_interval_is_over_tasks_only():
    tasks = generator(15).normal(size=40)
    one = interval(tasks[None], mean)
    assert one[1:] == mean_with_interval(tasks)[2:]
    for seeds in range(1, 5):
        apart = tasks + np.linspace(-50, 50, seeds)[:, None] if seeds > 1 else tasks[None]
        result = interval(apart, mean)
        if seeds < FEWEST_SEEDS:
            assert result == pytest.approx(one)
        else:
            assert result.high - result.low > 10 * (one.high - one.low)


def test_each_stratum_keeps_its_size():
    # Tasks 0 have return 0, tasks 1 return 10: with as many of each in any evaluation there is no uncertainty.
    tasks = [0, 1] * 20
    returns = np.array([[10.0 * task for task in tasks]])
    assert interval(returns, mean, tasks) == (5.0, 5.0, 5.0)
    unstratified = interval(returns, mean)
    assert unstratified.low < 4.0 < 6.0 < unstratified.high


def test_a_mean_over_strata_has_the_uncertainty_within_them():
    values, tasks = np.array([10.0, 12.0, -10.0, -12.0]), [1, 1, 0, 0]
    apart, together = (mean_with_interval(values, strata) for strata in (tasks, None))
    # each stratum: variance 2, so the variance of its mean is 1, and that of the mean of both (1 + 1) / 4
    assert apart.standard_error == pytest.approx(0.5**0.5)
    assert apart.high == pytest.approx(t.ppf(0.975, 2) * 0.5**0.5)  # 4 values less 2 means
    assert together.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert together.low < -5


def test_strata_may_be_of_unequal_size():
    # Returns 40, -40, 41 of directions 1, 0, 1. Variance within direction 1: 1/2, and taken to be that within 0 too,
    # of which there is one value: (2 x 1/2 + 1 x 1/2) / 3² = 1/6. Without strata it would be 711 instead of 1/6.
    result = mean_with_interval(np.array([40.0, -40.0, 41.0]), [1, 0, 1])
    assert result.value == pytest.approx(41 / 3)
    assert result.standard_error == pytest.approx((1 / 6) ** 0.5)
    assert result.high - result.value == pytest.approx(t.ppf(0.975, 1) * (1 / 6) ** 0.5)
    # 18 and 22 of 40, as in the paper's half-cheetah direction.
    values = np.r_[np.tile([0.0, 2.0], 9), np.tile([100.0, 102.0], 11)]
    by_hand = (18 * (18 / 17) + 22 * (22 / 21)) / 40**2
    assert mean_with_interval(values, [0] * 18 + [1] * 22).standard_error == pytest.approx(by_hand**0.5)


def test_strata_of_one_task_each_say_nothing_about_the_spread_within_them():
    values = np.array([1.0, 5.0, 3.0])
    assert mean_with_interval(values, [0, 1, 2]) == mean_with_interval(values)


def test_the_interval_is_narrower_with_more_seeds_and_more_tasks():
    def width(seeds: int, tasks: int) -> float:
        source = generator(19)
        returns = source.normal(size=(seeds, 1)) + source.normal(size=tasks) + source.normal(size=(seeds, tasks))
        low, high = interval(returns, interquartile_mean)[1:]
        return high - low

    assert width(20, 40) < width(5, 40) < width(3, 40)
    assert width(20, 200) < width(20, 10)


def test_the_interval_is_of_plain_numbers():
    result = interval(generator(21).normal(size=(3, 20)).astype(np.float32), interquartile_mean)
    assert all(type(number) is float for number in result)  # as json takes them


# Coverage

Sampler = Callable[[np.random.Generator, int], np.ndarray]


def crossed(tasks: float, draw: str = "normal") -> Sampler:
    """Returns `[N, 40]` of mean 0: seeds of standard deviation 1, tasks of `tasks`, both together of half of it."""

    def sample(source: np.random.Generator, seeds: int) -> np.ndarray:
        by_task = source.normal(size=40) if draw == "normal" else source.exponential(size=40) - 1
        together = source.normal(size=(seeds, 40)) * tasks / 2
        return source.normal(size=(seeds, 1)) + by_task * tasks + together

    return sample


DIRECTIONS = [0, 1] * 20


def two_directions(source: np.random.Generator, seeds: int) -> np.ndarray:
    """Returns `[N, 40]` of mean 0 in two directions, to which each seed takes more or less."""
    by_direction = np.array([-5.0, 5.0]) + source.normal(size=(seeds, 2))
    return by_direction[:, DIRECTIONS] + source.normal(size=(seeds, 40))


def coverage(sample: Sampler, seeds: int, statistic: Statistic, strata: list[int] | None = None) -> float:
    source, repetitions, covered = generator(20), 1000, 0
    for _ in range(repetitions):
        _, low, high = interval(sample(source, seeds), statistic, strata)
        covered += low <= 0.0 <= high
    return covered / repetitions


@pytest.mark.parametrize(
    ("seeds", "statistic", "tasks"),
    [(3, mean, 1.0), (3, mean, 4.0), (5, mean, 1.0), (10, mean, 1.0), (3, interquartile_mean, 1.0)],
)
def test_the_interval_over_seeds_and_tasks_covers_the_mean(seeds, statistic, tasks):
    # 95 to 98 %, which a share of 1000 estimates with a standard deviation of 0.7 %. A bootstrap that draws seeds and
    # tasks has 79 % with 3 seeds, 87 % with 5 and 91 % with 10.
    assert 0.93 <= coverage(crossed(tasks), seeds, statistic) <= 0.995


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_the_interval_covers_the_mean_of_two_directions(statistic):
    assert 0.93 <= coverage(two_directions, 3, statistic, DIRECTIONS) <= 0.98


def test_the_interval_covers_the_mean_of_skewed_tasks():
    assert 0.93 <= coverage(crossed(2.0, "exponential"), 3, mean) <= 0.995


@pytest.mark.parametrize("tasks", [4, 40])
def test_the_interval_of_one_run_covers_its_own_mean_over_tasks(tasks):
    assert 0.93 <= coverage(lambda source, seeds: source.normal(size=(seeds, tasks)), 1, mean) <= 0.97


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_interval_of_one_seed_or_two_does_not_cover_the_mean_over_seeds(seeds):
    # That it is over tasks alone is said wherever it is shown: as an interval over seeds it would be wrong.
    assert coverage(crossed(1.0), seeds, mean) < 0.5


def test_an_analysis_of_variance_is_scipys():
    draws = generator()
    groups = [draws.normal(mean, 1.0, size) for mean, size in ((0.0, 7), (0.4, 9), (0.9, 5))]
    assert one_way(groups) == pytest.approx(f_oneway(*groups).pvalue, rel=1e-10)
    assert one_way([np.ones(3), np.ones(4)]) == 1.0
    assert one_way([np.zeros(3), np.ones(4)]) == 0.0
