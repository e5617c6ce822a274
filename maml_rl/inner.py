"""The inner update (Finn, Abbeel, Levine 2017, Algorithms 1 to 3): a gradient step on the loss of one task.

It works for one task and any loss, so reinforcement and supervised learning share it. Its derivative with respect to
its starting point is in `maml_rl.jacobian`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.derivatives import TaskLoss, derivatives
from maml_rl.rates import InnerUpdate
from maml_rl.types import Params

LossWith = Callable[[Params], tuple[Tensor, Tensor]]
"""A loss with an auxiliary output that is not differentiated, such as an accuracy."""


class InnerStep(NamedTuple):
    """Result of one inner update."""

    params: Params
    loss: Tensor  # before the update
    value: Tensor  # auxiliary output of the loss, before the update


def inner_step(loss: LossWith, params: Params, update: InnerUpdate, first_order: bool = False) -> InnerStep:
    """theta' = theta - a grad loss(theta) + b (line 6), differentiable inside `torch.func` transforms.

    Args:
        loss: The task's loss, with an auxiliary output.
        params: theta.
        update: Step size a of each parameter that changes, and its learned shift b, 0 in the paper. The gradient of
            parameters without a step size is not computed.
        first_order: Whether the gradient counts as a constant, so that d theta' / d theta is the identity.
    """
    adapted = {name: params[name] for name in update.rates}
    with torch.no_grad() if first_order else nullcontext():
        differentiate = torch.func.grad_and_value(lambda p: loss(params | p), has_aux=True)
        gradients, (value, auxiliary) = differentiate(adapted)
    return InnerStep(moved(params, direction(gradients, update.normalised), update), value, auxiliary)


def inner_update(loss: TaskLoss, params: Params, update: InnerUpdate, first_order: bool = False) -> Params:
    """`inner_step` of a loss without an auxiliary output: the parameters after it.

    Where nothing is differentiated, a loss that has its own derivatives computes the gradient.
    """
    if not torch.is_grad_enabled():
        gradient = derivatives(loss, params).gradient(update.rates)
        return moved(params, direction(gradient, update.normalised), update)
    return inner_step(lambda p: (loss(p), torch.zeros(())), params, update, first_order).params


def moved(params: Params, gradient: Params, update: InnerUpdate) -> Params:
    """theta - a g + b, g the `direction` of the parameters that have a step size."""
    result = params | {name: params[name] - rate * gradient[name] for name, rate in update.rates.items()}
    return result | {name: result[name] + b for name, b in update.shift.items()}


def direction(gradient: Params, normalised: bool) -> Params:
    """What the step sizes multiply: the gradient, or the gradient divided by its length; 0 where that is 0."""
    if not normalised:
        return gradient
    inverse = inverse_length(gradient)
    return {name: inverse * value for name, value in gradient.items()}


def squared_length(vector: Params) -> Tensor:
    """The sum of the squares of all numbers, `[]`."""
    return torch.stack([value.square().sum() for value in vector.values()]).sum()


def inverse_length(vector: Params) -> Tensor:
    """1 over the Euclidean norm of all numbers together, `[]`; 0 where that is 0."""
    squared = squared_length(vector)
    # The inner where keeps the derivative finite at 0.
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).rsqrt(), 0.0)


def inner_path(losses: Sequence[TaskLoss], params: Params, updates: Sequence[InnerUpdate]) -> list[Params]:
    """Parameters before and after each inner update, with one loss per update."""
    path = [params]
    for loss, update in zip(losses, updates, strict=True):
        path.append(inner_update(loss, path[-1], update))
    return path
