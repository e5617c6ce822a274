"""Statistics with which a policy standardises observations. Does not import PyTorch, so environment checks stay
quick."""

import numpy as np
from numpy.typing import NDArray

_ROUNDINGS = 4  # a standard deviation of up to this many roundings of float32 counts as none


def observation_statistics(observations: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation `[obs]` of observations `[N, obs]`, in float64.

    A component whose variation float32 does not resolve keeps scale 1; see `unresolved`.
    """
    exact = np.asarray(observations, np.float64)
    return exact.mean(0), np.where(unresolved(exact), 1.0, _deviation(exact))


def unresolved(observations: NDArray[np.floating], roundings: float = _ROUNDINGS) -> NDArray[np.bool_]:
    """Components `[obs]` of observations `[N, obs]` whose standard deviation is at most so many roundings of float32.

    Constant components are among them. The measure is relative, so it does not depend on the unit of a component.
    """
    exact = np.asarray(observations, np.float64)
    rounding = float(np.finfo(np.float32).eps) * np.abs(exact).max(0)
    return np.asarray(_deviation(exact) <= roundings * rounding)


def _deviation(observations: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(observations.std(0, ddof=min(1, len(observations) - 1)))
