"""Means and interquartile means of returns, with their uncertainty over seeds and tasks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Statistic = Callable[[Floats], Floats]
"""A statistic over the last axis: values `[..., n]` to `[...]`."""

FEWEST_SEEDS = 3
"""Fewest seeds for an interval over seeds and tasks; with fewer it is over tasks alone."""


class Mean(NamedTuple):
    """Mean return of one run over tasks, with its uncertainty over tasks; it says nothing about other seeds."""

    value: float
    standard_error: float  # over tasks, within strata
    low: float  # 95 % interval
    high: float


class Interval(NamedTuple):
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Floats) -> Floats:
    """Mean over the last axis: `[..., n]` to `[...]`."""
    means: Floats = values.mean(-1)
    return means


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half, over the last axis: `[..., n]` to `[...]`.

    Of n values the lowest and the highest n // 4 are left out, so that no outlier decides the result, while all of the
    middle still counts (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", section 4.3).
    """
    n = values.shape[-1]
    return mean(np.sort(values, axis=-1)[..., n // 4 : n - n // 4])


def interval(returns: Floats, statistic: Statistic, strata: Sequence[int] | None = None) -> Interval:
    """A statistic of all returns with its 95 % interval, over seeds and tasks from three seeds on.

    Of N seeds and M tasks in S strata it is

        value ± sqrt(t(N - 1)² s_seed² / N + t(M - S)² s_task² / M)

    where t(n) is the 97.5 % quantile of Student's distribution with n degrees of freedom, s_seed² the variance of the
    seeds' values and s_task² that of the tasks' values within strata; for a statistic that is not a mean, of its
    jackknife pseudo-values. One run meets all tasks, so its returns are high or low together: seeds and tasks are the
    units, and not the N x M returns (Owen 2007, "The pigeonhole bootstrap"). A bootstrap of so few seeds is far too
    narrow: with three, it covers the mean 81 times in 100, and this interval 95 to 98 times.

    With one seed or two, t(N - 1) is unknown or 12.7. The interval is then `± t(M - S) s_task / sqrt(M)`, over tasks
    alone: it covers these runs on other tasks, and says nothing about other seeds.

    Args:
        returns: One value for each seed and task, `[N, M]`.
        statistic: `mean` or `interquartile_mean`, which sees the returns of all seeds and tasks as one axis.
        strata: Stratum of each task, `[M]`, where the tasks were not drawn at random (`maml_rl.tasks.strata`); all
            tasks are one stratum if None.

    Raises:
        ValueError: If there are fewer than two tasks.
    """
    returns = np.asarray(returns, np.float64)
    seeds, tasks = returns.shape
    if tasks < 2:
        raise ValueError(f"an interval needs the returns of at least two tasks, got {tasks}")
    value = float(statistic(returns.reshape(-1)))
    variance, freedom = _variance_of_mean(_pseudo_values(returns.T, statistic), strata)
    square = _quantile(freedom) ** 2 * variance
    if seeds >= FEWEST_SEEDS:
        variance, freedom = _variance_of_mean(_pseudo_values(returns, statistic))
        square += _quantile(freedom) ** 2 * variance
    return Interval(value, value - square**0.5, value + square**0.5)


def mean_with_interval(values: Floats, strata: Sequence[int] | None = None) -> Mean:
    """Mean of the returns of one run, `[M]`, with its standard error and its 95 % interval over tasks; see `interval`.

    Raises:
        ValueError: If there are fewer than two tasks.
    """
    value, low, high = interval(values[None], mean, strata)
    return Mean(value, _variance_of_mean(values, strata)[0] ** 0.5, low, high)


def one_way(groups: Sequence[Floats]) -> float:
    """p-value of a one-way analysis of variance: the probability that group means differ as much or more by chance.

    F = (sum_g n_g (m_g - m)² / (G - 1)) / (sum_g sum_i (x_gi - m_g)² / (N - G)) has Fisher's distribution where all
    groups have one normal distribution.

    Args:
        groups: Values of G groups, at least two, with more values than groups.
    """
    values, means = np.concatenate(groups), [group.mean() for group in groups]
    between = sum(len(group) * (m - values.mean()) ** 2 for group, m in zip(groups, means, strict=True))
    within = sum(float(np.square(group - m).sum()) for group, m in zip(groups, means, strict=True))
    freedom = len(groups) - 1, len(values) - len(groups)
    if within == 0.0:
        return float(between == 0.0)
    from scipy.special import fdtrc  # as in _quantile

    return float(fdtrc(*freedom, (between / freedom[0]) / (within / freedom[1])))


def _pseudo_values(returns: Floats, statistic: Statistic) -> Floats:
    """What each row of `returns` `[n, m]` contributes to a statistic of all of them, up to a constant: `[n]`.

    They are jackknife pseudo-values, from the statistic without the row. For the mean, they are the rows' own means.
    """
    n = len(returns)
    others = np.nonzero(~np.eye(n, dtype=bool))[1].reshape(n, n - 1)  # row i: all indices but i
    change: Floats = statistic(returns[others].reshape(n, -1)) - statistic(returns.reshape(-1))
    return -(n - 1) * change


def _variance_of_mean(values: Floats, strata: Sequence[int] | None = None) -> tuple[float, int]:
    """Estimated variance of the mean of independent values `[n]`, drawn within strata, and its degrees of freedom.

    The variance within a stratum of one value is taken to be that within the others. Where all strata have only one
    value, it is unknown, and the values count as one stratum: the result is then too large.
    """
    labels = np.zeros(len(values), np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    counts = np.bincount(labels)
    freedom = len(values) - len(counts)
    if freedom == 0:
        return _variance_of_mean(values)
    means = np.bincount(labels, values) / counts
    squares = np.bincount(labels, (values - means[labels]) ** 2)
    variances = np.where(counts > 1, squares / np.maximum(counts - 1, 1), squares.sum() / freedom)
    # A stratum's mean has variance s² / n, and the share n / len(values) in the mean of all.
    return float((counts * variances).sum() / len(values) ** 2), freedom


def _quantile(freedom: int) -> float:
    """97.5 % quantile of Student's distribution."""
    from scipy.special import stdtrit  # takes a tenth of the start of a training, which has no intervals

    return float(stdtrit(freedom, 0.975))
