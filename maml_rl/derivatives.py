"""First and second derivatives of a task's loss: recorded by PyTorch, or the loss's own.

Recording takes any loss. A loss that knows its derivatives (`OwnDerivatives`), as those of a multilayer perceptron do
(`maml_rl.linear_policy`), is asked for them instead.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from maml_rl.types import Params, split

TaskLoss = Callable[[Params], Tensor]
Product = Callable[[Params], Params]


class LinearGradient(NamedTuple):
    """The gradient of a loss near a point, to first order."""

    gradient: Params
    hessian: Product


class Derivatives(Protocol):
    """Derivatives of a loss at one point."""

    def gradient(self, names: Collection[str]) -> Params:
        """Gradient with respect to these parameters."""
        ...

    def linear_gradient(self, rows: Collection[str], columns: Collection[str]) -> LinearGradient:
        """Gradient with respect to the parameters `columns`, and the map v -> H v from `columns` to `rows`."""
        ...


@runtime_checkable
class OwnDerivatives(Protocol):
    """A loss that computes its derivatives itself, as values without a graph."""

    def __call__(self, params: Params) -> Tensor:
        """The loss, `[]`."""
        ...

    def near(self, params: Params) -> Derivatives:
        """Its derivatives at `params`."""
        ...


class _RecordedLoss(NamedTuple):
    """Derivatives of any loss."""

    loss: TaskLoss
    params: Params

    def gradient(self, names: Collection[str]) -> Params:
        chosen = split(self.params, names)[0]
        result: Params = torch.func.grad(lambda p: self.loss(self.params | p))(chosen)
        return result

    def linear_gradient(self, rows: Collection[str], columns: Collection[str]) -> LinearGradient:
        """The graph of the gradient is built once and kept, so each product costs one backward pass.

        H is symmetric, so the gradient's vector-Jacobian product is H v.
        """

        def gradient(of_rows: Params) -> Params:
            point = self.params | of_rows
            result: Params = torch.func.grad(lambda p: self.loss(point | p))(split(point, columns)[0])
            return result

        chosen = split(self.params, rows)[0]
        value, vjp = torch.func.vjp(gradient, chosen)  # type: ignore[misc]  # two values without has_aux

        def product(vector: Params) -> Params:
            with torch.no_grad():
                result: Params = vjp({name: vector[name] for name in value})[0]  # in the order of the gradient
            return result

        return LinearGradient({name: part.detach() for name, part in value.items()}, product)


def derivatives(loss: TaskLoss, params: Params) -> Derivatives:
    """Derivatives of a loss at `params`."""
    return loss.near(params) if isinstance(loss, OwnDerivatives) else _RecordedLoss(loss, params)
