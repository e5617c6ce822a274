"""Algorithm 1 of Finn, Abbeel, Levine 2017: the inner update, and its derivative with respect to what it started from.

Everything here is of one task and of any loss, so that reinforcement and supervised learning share it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.types import Params

TaskLoss = Callable[[Params], Tensor]
LossWith = Callable[[Params], tuple[Tensor, Tensor]]
"""A loss with a further value that is not differentiated, such as an accuracy."""
Product = Callable[[Params], Params]
Rates = Mapping[str, float | Tensor]
"""Step size of each parameter that the inner update changes, by its name."""


def inner_update(loss: TaskLoss, params: Params, inner_lr: float | Rates, first_order: bool = False) -> Params:
    """theta' = theta - inner_lr grad loss(theta) (line 6), differentiable inside `torch.func` transforms.

    Args:
        loss: The task's loss.
        params: theta.
        inner_lr: Step size of all parameters, or of each by its name: a number, or one for each of its elements.
            Parameters without a step size stay as they are, and no gradient of theirs is computed.
        first_order: Whether the gradient counts as a constant, so that d theta' / d theta is the identity.
    """
    return inner_step(lambda p: (loss(p), torch.zeros(())), params, inner_lr, first_order).params


class InnerStep(NamedTuple):
    """Result of one inner update."""

    params: Params
    loss: Tensor  # before the update
    value: Tensor  # what the loss gave beside itself


def inner_step(loss: LossWith, params: Params, inner_lr: float | Rates, first_order: bool = False) -> InnerStep:
    """`inner_update` of a loss that gives a further value, with both as they were before the update."""
    rates = inner_lr if isinstance(inner_lr, Mapping) else dict.fromkeys(params, inner_lr)
    adapted = {name: params[name] for name in rates}
    with torch.no_grad() if first_order else nullcontext():
        differentiate = torch.func.grad_and_value(lambda p: loss(params | p), has_aux=True)
        gradients, (value, further) = differentiate(adapted)
    return InnerStep(params | {n: p - rates[n] * gradients[n] for n, p in adapted.items()}, value, further)


def adapt(losses: Sequence[TaskLoss], params: Params, inner_lr: float) -> Params:
    """Parameters after one inner update on each loss in turn."""
    for loss in losses:
        params = inner_update(loss, params, inner_lr)
    return params


def hessian_product(loss: TaskLoss, params: Params) -> Product:
    """The map v -> H v, H the Hessian of the loss at `params`.

    The graph of the gradient is built once and kept, so each product costs one backward pass; H is symmetric, so the
    gradient's vector-Jacobian product is H v.
    """
    vjp = torch.func.vjp(torch.func.grad(loss), params)[1]

    def product(vector: Params) -> Params:
        with torch.no_grad():
            result: Params = vjp(vector)[0]
        return result

    return product


class AdaptationJacobian(NamedTuple):
    """J = d theta' / d theta of inner updates in turn: the product of the I - inner_lr H_k, H_k taken at step k.

    First-order MAML is the same with no Hessian products: J = I.
    """

    hessian_products: Sequence[Product]
    inner_lr: float

    def product(self, vector: Params) -> Params:
        """J v."""
        for hessian in self.hessian_products:
            vector = self._step(hessian, vector)
        return vector

    def transposed_product(self, vector: Params) -> Params:
        """J^T v: the same factors, each symmetric, from the last step to the first."""
        for hessian in reversed(self.hessian_products):
            vector = self._step(hessian, vector)
        return vector

    def _step(self, hessian: Product, vector: Params) -> Params:
        curved = hessian(vector)
        return {name: value - self.inner_lr * curved[name] for name, value in vector.items()}


def adaptation_jacobian(losses: Sequence[TaskLoss], path: Sequence[Params], inner_lr: float) -> AdaptationJacobian:
    """Jacobian of the inner updates on `losses`, the k-th of which started from `path[k]`."""
    return AdaptationJacobian([hessian_product(loss, p) for loss, p in zip(losses, path, strict=False)], inner_lr)


def largest_curvature(jacobian: AdaptationJacobian, start: Params, iterations: int = 5) -> Tensor:
    """Largest absolute eigenvalue of inner_lr H at the first inner step, from below, by power iteration from `start`.

    Well below 1, the adapted policy depends smoothly on theta; far above 1, it is hypersensitive and the trust region
    then allows no meta-step.
    """
    vector, norm = start, _norm(start)
    for _ in range(iterations):
        if norm == 0:
            break
        vector = jacobian.hessian_products[0]({name: value / norm for name, value in vector.items()})
        norm = _norm(vector)
    return jacobian.inner_lr * norm


def _norm(vector: Params) -> Tensor:
    return torch.stack([value.square().sum() for value in vector.values()]).sum().sqrt()
