"""Adam (Kingma, Ba 2015) as a function of a vector, and the schedule of its step size.

Its state is a value, so a checkpoint can store it, and an interrupted iteration never leaves it half changed.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LAST_FRACTION = 0.01


class Moments(NamedTuple):
    """Adam's running means of the gradient and of its square, `[P]`."""

    first: Tensor
    second: Tensor


class AdamConstants(NamedTuple):
    """Adam's constants; the defaults are the paper's."""

    mean_decay: float = 0.9  # beta_1
    square_decay: float = 0.999  # beta_2
    epsilon: float = 1e-8


_USUAL = AdamConstants()


def adam(
    vector: Tensor, gradient: Tensor, moments: Moments, lr: float, count: int, constants: AdamConstants = _USUAL
) -> tuple[Tensor, Moments]:
    """The vector after one step of Adam, and the new moments.

    Args:
        vector: Parameters `[P]`.
        gradient: Gradient of the loss at them, `[P]`.
        moments: From the previous steps.
        lr: Step size.
        count: Which step this is, from 1.
        constants: Decays of the moments, and epsilon.
    """
    beta_1, beta_2, epsilon = constants
    first = moments.first.lerp(gradient, 1 - beta_1)
    second = torch.addcmul(moments.second * beta_2, gradient, gradient, value=1 - beta_2)
    scale = (second.sqrt() / math.sqrt(1 - beta_2**count)).add_(epsilon)
    return torch.addcdiv(vector, first, scale, value=-lr / (1 - beta_1**count)), Moments(first, second)


def cosine(lr: float, iterations: int | None, iteration: int) -> float:
    """Step size at an iteration: falls along a half cosine to a hundredth over `iterations`, repeatedly.

    Each period starts again at `lr` (warm restarts, Loshchilov & Hutter 2017); constant if `iterations` is None.
    """
    if iterations is None:
        return lr
    share = (1 + math.cos(math.pi * (iteration % iterations) / iterations)) / 2
    return lr * (_LAST_FRACTION + (1 - _LAST_FRACTION) * share)
