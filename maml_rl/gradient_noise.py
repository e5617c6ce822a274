"""Signal and noise of the meta-gradient at fixed meta-parameters, from independent draws of tasks and episodes.

A draw is the meta-gradient g = s + e of one iteration: s its expectation, the signal, and e noise of mean 0,
independent from draw to draw. Then `E[g . g'] = |s|^2` for two draws, while `|g|^2` includes the noise: if the noise is
large, the length of a mean of draws does not reveal the signal.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.errors import InputError
from maml_rl.rates import theta
from maml_rl.reinforcement import RLLearner
from maml_rl.step import MetaGradient
from maml_rl.types import Params, State, flatten


class GradientNoise(NamedTuple):
    """Estimates of the meta-gradient's signal s and noise e from draws."""

    signal_squared: float  # `|s|^2`, without bias: the mean of g . g' over all pairs of draws, which may be negative
    noise_squared: float  # `E |e|^2` of one draw, without bias: the variances of all numbers, summed
    cosine: float  # mean over all pairs of draws of the cosine of the angle between them
    draws: int

    @property
    def signal(self) -> float:
        """`|s|`; 0 where the draws show none."""
        return math.sqrt(max(self.signal_squared, 0.0))

    @property
    def noise(self) -> float:
        """Root mean square length of e."""
        return math.sqrt(self.noise_squared)

    @property
    def relative_deviation(self) -> float:
        """Noise / signal; its square is the number of draws to average. Infinite where the draws show no signal."""
        return self.noise / self.signal if self.signal else math.inf


def gradient_noise(learner: RLLearner, state: State, draws: int = 10) -> GradientNoise:
    """Signal and noise of the meta-gradient at `state`, which is not changed.

    The draws are those of the next `draws` iterations, so training up to `state` has seen none of them. Only the
    gradient with respect to theta counts: learned step sizes have units of their own.

    Args:
        learner: The learner, whose settings say what is sampled and how the gradient is estimated.
        state: The state that training has reached.
        draws: Number of draws, at least 2.

    Raises:
        InputError: If there are fewer than two draws.
    """
    return noise_of(torch.stack([flatten(theta(gradient)) for gradient in meta_gradients(learner, state, draws)]))


def meta_gradients(learner: RLLearner, state: State, draws: int) -> list[Params]:
    """The meta-gradient of each of the next `draws` iterations, all at the parameters of `state`."""
    gradients = list[Params]()

    def keep(state: State, gradient: MetaGradient) -> tuple[State, dict[str, float]]:
        gradients.append(gradient.gradient)
        return state, {}

    step, learner.step = learner.step, keep
    try:
        for draw in range(draws):
            learner.iterate(state._replace(iteration=state.iteration + draw))
    finally:
        learner.step = step
    return gradients


def noise_of(gradients: Tensor) -> GradientNoise:
    """Signal and noise of gradients `[draws, P]`.

    With G the sum of n draws, the products of all pairs sum to `|G|^2 - sum |g|^2`. Divided by n (n - 1), this is
    `|s|^2`.

    Raises:
        InputError: If there are fewer than two draws.
    """
    draws = len(gradients)
    if draws < 2:
        raise InputError(f"draws must be at least 2, got {draws}: the noise is estimated from their differences")
    gradients = gradients.double()
    products = gradients @ gradients.mT
    lengths = products.diagonal().sqrt()
    cosines = products / (lengths[:, None] * lengths)
    pairs = torch.triu_indices(draws, draws, offset=1)
    return GradientNoise(
        signal_squared=float(products[pairs[0], pairs[1]].mean()),
        noise_squared=float(gradients.var(0).sum()),
        cosine=float(cosines[pairs[0], pairs[1]].nan_to_num().mean()),
        draws=draws,
    )
