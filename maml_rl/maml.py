"""Algorithm 1 of Finn, Abbeel, Levine 2017: the inner update, and its derivative with respect to what it started from.

Everything here is of one task and of any loss, so that reinforcement and supervised learning share it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.types import Params

TaskLoss = Callable[[Params], Tensor]
Product = Callable[[Params], Params]


def inner_update(loss: TaskLoss, params: Params, inner_lr: float) -> Params:
    """theta' = theta - inner_lr grad loss(theta) (line 6), differentiable inside `torch.func` transforms."""
    gradients = torch.func.grad(loss)(params)
    return {name: value - inner_lr * gradients[name] for name, value in params.items()}


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
