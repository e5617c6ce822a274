"""The inner update (Finn, Abbeel, Levine 2017, Algorithms 1 to 3): a gradient step on the loss of one task.

Of one task and of any loss, so that reinforcement and supervised learning share it. Its derivative with respect to what
it started from is in `maml_rl.jacobian`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.rates import Rates
from maml_rl.types import Params

TaskLoss = Callable[[Params], Tensor]
LossWith = Callable[[Params], tuple[Tensor, Tensor]]
"""A loss with an auxiliary output that is not differentiated, such as an accuracy."""


class InnerStep(NamedTuple):
    """Result of one inner update."""

    params: Params
    loss: Tensor  # before the update
    value: Tensor  # auxiliary output of the loss, before the update


def inner_step(loss: LossWith, params: Params, rates: Rates, first_order: bool = False) -> InnerStep:
    """theta' = theta - a grad loss(theta) (line 6), differentiable inside `torch.func` transforms.

    Args:
        loss: The task's loss, with an auxiliary output.
        params: theta.
        rates: Step size a of each parameter that changes: a number, or one for each of its elements. Parameters without
            a step size stay as they are, and their gradient is not computed.
        first_order: Whether the gradient counts as a constant, so that d theta' / d theta is the identity.
    """
    adapted = {name: params[name] for name in rates}
    with torch.no_grad() if first_order else nullcontext():
        differentiate = torch.func.grad_and_value(lambda p: loss(params | p), has_aux=True)
        gradients, (value, auxiliary) = differentiate(adapted)
    return InnerStep(params | {n: p - rates[n] * gradients[n] for n, p in adapted.items()}, value, auxiliary)


def inner_update(loss: TaskLoss, params: Params, rates: Rates, first_order: bool = False) -> Params:
    """`inner_step` of a loss without an auxiliary output: the parameters after it."""
    return inner_step(lambda p: (loss(p), torch.zeros(())), params, rates, first_order).params


def inner_updates(losses: Sequence[TaskLoss], params: Params, rates: Sequence[Rates]) -> Params:
    """Parameters after one inner update on each loss in turn, with the step sizes of each."""
    for loss, rates_of_step in zip(losses, rates, strict=True):
        params = inner_update(loss, params, rates_of_step)
    return params
