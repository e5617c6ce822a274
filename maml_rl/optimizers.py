"""Adam (Kingma, Ba 2015) as a function of a vector, and the schedule of its step size.

What it keeps is a value, so a checkpoint holds it and an interrupted iteration leaves none half changed.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # the paper's, and the defaults everywhere
_LAST_FRACTION = 0.01


class Moments(NamedTuple):
    """Adam's running means of the gradient and of its square, `[P]`."""

    first: Tensor
    second: Tensor


def adam(vector: Tensor, gradient: Tensor, moments: Moments, lr: float, count: int) -> tuple[Tensor, Moments]:
    """The vector after one step of Adam, and the new moments.

    Args:
        vector: Parameters `[P]`.
        gradient: Gradient of the loss at them, `[P]`.
        moments: From the steps before.
        lr: Step size.
        count: Which step this is, from 1.
    """
    first = moments.first.lerp(gradient, 1 - _BETA_1)
    second = torch.addcmul(moments.second * _BETA_2, gradient, gradient, value=1 - _BETA_2)
    scale = (second.sqrt() / math.sqrt(1 - _BETA_2**count)).add_(_EPSILON)
    return torch.addcdiv(vector, first, scale, value=-lr / (1 - _BETA_1**count)), Moments(first, second)


def cosine(lr: float, iterations: int | None, iteration: int) -> float:
    """Step size at an iteration: falls along a half cosine to a hundredth over `iterations`, again and again.

    Each period starts again at `lr` (warm restarts, Loshchilov & Hutter 2017); constant if `iterations` is None.
    """
    if iterations is None:
        return lr
    share = (1 + math.cos(math.pi * (iteration % iterations) / iterations)) / 2
    return lr * (_LAST_FRACTION + (1 - _LAST_FRACTION) * share)
