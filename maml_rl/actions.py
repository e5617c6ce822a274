"""How a policy represents actions: a distribution for each kind of action space, and the environment's own form.

A Box has a normal distribution, Discrete a categorical one, MultiDiscrete a product of categorical ones, and
MultiBinary independent switches.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from maml_rl.distributions import Bernoulli, Categorical, DiagonalGaussian, Distribution, multi_categorical


class ActionKind(NamedTuple):
    """Distribution over the actions of a space."""

    distribution: type[Distribution]
    size: int  # of the network's output, and of the noise that selects an action
    shape: tuple[int, ...]  # of one action as it is sampled
    sizes: tuple[int, ...] = ()  # alternatives of each choice, where there are several choices

    @property
    def dtype(self) -> torch.dtype:
        """Type of an action as it is sampled."""
        return torch.float32 if self.distribution is DiagonalGaussian else torch.int64


def action_kind(space: spaces.Space[Any]) -> ActionKind:
    """Kind of distribution for an action space that training supports (`maml_rl.requirements`)."""
    count = int(np.prod(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return ActionKind(Categorical, int(space.n), ())
    if isinstance(space, spaces.MultiDiscrete):
        sizes = tuple(int(size) for size in space.nvec.ravel())
        return ActionKind(multi_categorical(sizes), sum(sizes), (count,), sizes)
    if isinstance(space, spaces.MultiBinary):
        return ActionKind(Bernoulli, count, (count,))
    assert isinstance(space, spaces.Box)
    return ActionKind(DiagonalGaussian, count, (count,))


def within(space: spaces.Space[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Sampled actions in the environment's form: clipped to a Box, or choices counted from the start of the space.

    Args:
        space: Space of the actions.
        actions: `[..., *space.shape]`.
    """
    if isinstance(space, spaces.Box):
        return np.asarray(np.clip(actions, space.low, space.high))
    return np.asarray(actions + getattr(space, "start", 0))
