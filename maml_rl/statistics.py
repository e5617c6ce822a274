"""Means and interquartile means with their uncertainty over seeds and tasks."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Statistic = Callable[[Floats], Floats]
"""What is estimated: of values `[..., n]`, `[...]`."""


class Mean(NamedTuple):
    """A mean with its uncertainty."""

    value: float
    standard_error: float  # standard deviation (n - 1) over sqrt(n), within strata
    low: float  # 95 % bootstrap interval
    high: float


class Interval(NamedTuple):
    """A statistic with its 95 % bootstrap interval."""

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


def bootstrap_interval(
    returns: Floats,
    statistic: Statistic,
    generator: np.random.Generator,
    strata: Sequence[Any] | None = None,
    resamples: int = 10_000,
) -> Interval:
    """A statistic of all returns, with its 95 % percentile interval by a stratified bootstrap over seeds and tasks.

    A resample draws N seeds and M tasks with replacement, tasks within their stratum, and takes the returns where they
    cross. Agarwal et al. 2021 draw the seeds anew for each task, as theirs have training runs of their own. Here one
    run meets all tasks, so its returns are high or low together: drawing them apart would treat N runs as N x M, and
    the interval would be too narrow (Owen 2007, "The pigeonhole bootstrap"). With one seed the interval is that over
    tasks alone, and tells nothing of what another seed would give.

    Args:
        returns: One value for each seed and task, `[N, M]`.
        statistic: `mean` or `interquartile_mean`, which sees the returns of all seeds and tasks as one axis.
        generator: Source of the resamples.
        strata: Stratum of each task, `[M]`, where the tasks were chosen with so many of each; one for all if None.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If there are fewer than two returns.
    """
    if returns.size < 2:
        raise ValueError(f"an interval needs at least two values, got {returns.size}")
    seeds, tasks = returns.shape
    rows = generator.integers(seeds, size=(resamples, seeds, 1))
    drawn = []
    for members in _members(strata, tasks):
        drawn.append(members[generator.integers(len(members), size=(resamples, len(members)))])
    columns = np.concatenate(drawn, axis=1)[:, None, :]
    samples = statistic(returns[rows, columns].reshape(resamples, -1))
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(float(statistic(returns.reshape(-1))), float(low), float(high))


def mean_with_interval(
    values: Floats, generator: np.random.Generator, strata: Sequence[Any] | None = None, resamples: int = 10_000
) -> Mean:
    """Mean of `values` `[n]` with its standard error and its 95 % percentile bootstrap interval.

    Args:
        values: One value per task, independent.
        generator: Source of the resamples.
        strata: Stratum of each task, `[n]`; see `bootstrap_interval`.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If there are fewer than two values.
    """
    value, low, high = bootstrap_interval(values[None], mean, generator, strata, resamples)
    variance = 0.0  # of the mean: the strata's, each by the square of its share
    for members in _members(strata, len(values)):
        variance += len(members) * float(values[members].var(ddof=1)) / len(values) ** 2
    return Mean(value, variance**0.5, low, high)


def strata_of(tasks: Sequence[Any]) -> list[str] | None:
    """Stratum of each task, given as JSON values, where there are finitely many, of which each was given its share;
    else None, one for all."""
    names = [json.dumps(task) for task in tasks]
    return names if min(Counter(names).values()) > 1 else None


def _members(strata: Sequence[Any] | None, count: int) -> list[NDArray[np.intp]]:
    """Indices of each stratum's tasks."""
    labels = np.zeros(count, np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    return [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
