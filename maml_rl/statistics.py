"""Means with their uncertainty over tasks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mean(NamedTuple):
    """A mean with its uncertainty."""

    value: float
    standard_error: float  # standard deviation (n - 1) over sqrt(n)
    low: float  # 95 % bootstrap interval
    high: float


def mean_with_interval(values: NDArray[np.floating], generator: np.random.Generator, resamples: int = 10_000) -> Mean:
    """Mean of `values` `[n]` with its standard error and its 95 % percentile bootstrap interval.

    Args:
        values: One value per task, independent.
        generator: Source of the resamples.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(values)}")
    samples = values[generator.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return Mean(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), float(low), float(high))
