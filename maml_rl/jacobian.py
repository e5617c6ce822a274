"""The derivative of the inner updates, J = d theta' / d meta-parameters, as products with vectors.

With step sizes a, one inner update is theta' = theta - a * g(theta) + b, g the gradient of the task's loss and H its
Hessian. So J v = v - a * (H v), J^T v = v - H (a * v), the block of the step sizes is u -> -u * g, and that of the
shift b the identity. Where a Wiener filter multiplies learned step sizes, g is the filtered gradient in their block.
Where the gradient is divided by its length, g is the unit vector and H its derivative, no longer symmetric. A parameter
without a step size stays as it is, so its row of H is not needed.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.derivatives import Product, TaskLoss, derivatives
from maml_rl.inner import direction, inverse_length, moved, squared_length
from maml_rl.rates import InnerRates, InnerUpdate, Rates, theta
from maml_rl.types import Params


class InnerHessian(NamedTuple):
    """The two blocks of the inner loss's Hessian that J needs."""

    rows: Callable[[], Product]  # v of all parameters -> H v of those with a step size; built when first asked for
    columns: Product  # v of those with a step size -> H^T v of all parameters


class StepJacobian(NamedTuple):
    """The derivative of one inner update."""

    rates: Rates
    gradient: Params  # g of the parameters with a step size
    filtered: Params  # the same, times the filter's gain
    hessian: InnerHessian | None  # None where the gradient counts as a constant, as in first-order MAML

    def product(self, vector: Params) -> Params:
        """J v = v - a * (H v)."""
        if self.hessian is None:
            return vector
        curved = self.hessian.rows()(vector)
        return vector | {name: vector[name] - rate * curved[name] for name, rate in self.rates.items()}

    def transposed_product(self, vector: Params) -> Params:
        """J^T v = v - H^T (a * v)."""
        if self.hessian is None:
            return vector
        factor, rates = _factored(self.rates)
        curved = self.hessian.columns({name: rate * vector[name] for name, rate in rates.items()})
        return {name: value - factor * curved[name] for name, value in vector.items()}


def _factored(rates: Rates) -> tuple[float, Rates]:
    """Step sizes as a number times the rest.

    A single number commutes with H. With it taken out, J^T rounds as J does, and both are symmetric to the last bit.
    """
    numbers = {rate for rate in rates.values() if not isinstance(rate, Tensor)}
    if len(numbers) == 1 and not any(isinstance(rate, Tensor) for rate in rates.values()):
        return numbers.pop(), dict.fromkeys(rates, 1.0)
    return 1.0, rates


class AdaptationJacobian(NamedTuple):
    """J of successive inner updates: the product of their factors, with the blocks of learned quantities."""

    steps: Sequence[StepJacobian]  # none where J is the identity
    rates: InnerRates

    def with_gradients_of(self, other: "AdaptationJacobian") -> "AdaptationJacobian":
        """The same Hessians, with the gradients of `other`, for example of more data."""
        steps = [
            s._replace(gradient=o.gradient, filtered=o.filtered) for s, o in zip(self.steps, other.steps, strict=True)
        ]
        return self._replace(steps=steps)

    def product(self, vector: Params) -> Params:
        """J v, the change of theta' that follows from a change v of theta and of learned step sizes and shift."""
        change = theta(vector)
        for k, step in enumerate(self.steps):
            change = step.product(change)
            if self.rates.has_learned_lr:
                of_step = self.rates.learned_lr(vector, k)
                change = change | {name: change[name] - of_step[name] * g for name, g in step.filtered.items()}
            if k == 0:
                change = change | {name: change[name] + b for name, b in self.rates.learned_shift(vector).items()}
        return change

    def squared_gradients(self) -> Params:
        """Squared size of the gradient that each learned step size multiplies.

        If one step size serves a tensor, this is the sum over the tensor; if each number has its own, the mean over
        them.
        """
        sizes: Params = {}
        for k, step in enumerate(self.steps if self.rates.has_learned_lr else []):
            of_step = self.rates.transposed_lr({name: g.square() for name, g in step.filtered.items()}, k)
            sizes = {name: value + sizes.get(name, 0.0) for name, value in of_step.items()}
        is_each = self.rates.learned == "parameter"
        return {name: value.mean().expand_as(value) if is_each else value for name, value in sizes.items()}

    def transposed_product(self, vector: Params, along: Sequence[Params] = ()) -> Params:
        """J^T v, for v of the adapted parameters: the same factors, from the last step to the first.

        Args:
            vector: v.
            along: Gradients with respect to the parameters before each step, of terms that depend on those and not on
                the adapted ones. Each is added when the product reaches its step, and passes on through the earlier
                steps.
        """
        of_rates: Params = {}
        of_shift: Params = {}
        for k in reversed(range(max(len(self.steps), len(along)))):
            for step in self.steps[k : k + 1]:  # none where J is the identity
                if self.rates.has_learned_lr:
                    of_step = {name: -vector[name] * g for name, g in step.filtered.items()}
                    of_lr = self.rates.transposed_lr(of_step, k)
                    of_rates = {name: value + of_rates.get(name, 0.0) for name, value in of_lr.items()}
                if k == 0:
                    of_shift = self.rates.transposed_shift(vector)
                vector = step.transposed_product(vector)
            for of_start in along[k : k + 1]:
                vector = {name: value + of_start[name] for name, value in vector.items()}
        return vector | of_shift | of_rates


def adaptation_jacobian(
    losses: Sequence[TaskLoss], path: Sequence[Params], rates: InnerRates, meta: Params, first_order: bool = False
) -> AdaptationJacobian:
    """Jacobian of the inner updates on `losses`, the k-th of which started from `path[k]`.

    Args:
        losses: The task's loss at each step.
        path: Parameters that each step started from; more are ignored.
        rates: Which parameters change, and by what step sizes.
        meta: Meta-parameters, with learned step sizes.
        first_order: Whether the gradients count as constants.
    """
    if first_order and not rates.has_learned:
        return AdaptationJacobian([], rates)
    gain = rates.gains(meta)
    points = enumerate(zip(losses, path, strict=False))
    steps = [_step_jacobian(loss, params, rates.at(meta, k), gain, first_order) for k, (loss, params) in points]
    return AdaptationJacobian(steps, rates)


def linear_adaptation(
    losses: Sequence[TaskLoss], rates: InnerRates, meta: Params, first_order: bool = False
) -> tuple[list[Params], AdaptationJacobian]:
    """Inner updates from any meta-parameters: theta and the parameters after each, and their Jacobian.

    The Jacobian is that of `adaptation_jacobian`; its gradients also make the updates.
    """
    gain = rates.gains(meta)
    path, steps = [theta(meta)], list[StepJacobian]()
    for k, loss in enumerate(losses):
        update = rates.at(meta, k)
        step = _step_jacobian(loss, path[-1], update, gain, first_order)
        steps.append(step)
        path.append(moved(path[-1], step.gradient, update))
    return path, AdaptationJacobian(steps, rates)


def _step_jacobian(
    loss: TaskLoss, params: Params, update: InnerUpdate, gain: Params, first_order: bool
) -> StepJacobian:
    rates = update.rates
    gradient, hessian = _linear_step(loss, params, rates, first_order)
    if update.normalised:
        gradient, hessian = _normalised(gradient, hessian)
    filtered = gradient | {name: factor * gradient[name] for name, factor in gain.items()}
    return StepJacobian(rates, gradient, filtered, hessian)


def _linear_step(loss: TaskLoss, params: Params, rates: Rates, first_order: bool) -> tuple[Params, InnerHessian | None]:
    at = derivatives(loss, params)
    if first_order:
        return at.gradient(rates), None
    gradient, columns = at.linear_gradient(rows=params, columns=rates)
    if len(rates) == len(params):  # H is square and symmetric: one graph serves rows and columns
        return gradient, InnerHessian(lambda: columns, columns)
    rows = cache(lambda: at.linear_gradient(rows=rates, columns=params).hessian)
    return gradient, InnerHessian(rows, columns)


def _normalised(gradient: Params, hessian: InnerHessian | None) -> tuple[Params, InnerHessian | None]:
    """The direction d = g / |g|, and the blocks of its derivative.

    d changes by P H v / |g|, P u = u - d (d . u), where g changes by H v; the transpose takes u to H P u / |g|.
    """
    unit, inverse = direction(gradient, normalised=True), inverse_length(gradient)

    def across(vector: Params) -> Params:
        along = torch.stack([(unit[name] * value).sum() for name, value in vector.items()]).sum()
        return {name: inverse * (value - along * unit[name]) for name, value in vector.items()}

    if hessian is None:
        return unit, None
    raw = hessian

    def rows() -> Product:
        of_gradient = raw.rows()

        def product(vector: Params) -> Params:
            changed = of_gradient(vector)
            return across({name: changed[name] for name in unit})

        return product

    return unit, InnerHessian(rows, lambda vector: raw.columns(across(vector)))


def largest_curvature(jacobian: AdaptationJacobian, start: Params, iterations: int = 5) -> Tensor:
    """Largest absolute eigenvalue of a * H at the first inner step, from below, by power iteration from `start`.

    It is that of the symmetric diag(sqrt a) H diag(sqrt a), and bounded by it where some step sizes are negative. Well
    below 1, the adapted policy depends smoothly on theta; far above 1, it is hypersensitive and the trust region then
    allows no meta-step.

    Args:
        jacobian: Not of first order.
        start: Vector of at least the parameters with a step size.
        iterations: Products with the Hessian.
    """
    rates, _, _, hessian = jacobian.steps[0]
    assert hessian is not None
    factor, rates = _factored(rates)
    roots = {name: _root(rate) for name, rate in rates.items()}
    vector = {name: start[name] for name in roots}
    norm = _norm(vector)
    for _ in range(iterations):
        if norm == 0:
            break
        curved = hessian.columns({name: roots[name] * (value / norm) for name, value in vector.items()})
        vector = {name: root * curved[name] for name, root in roots.items()}
        norm = _norm(vector)
    return factor * norm


def _root(rate: float | Tensor) -> float | Tensor:
    return rate.abs().sqrt() if isinstance(rate, Tensor) else math.sqrt(abs(rate))


def _norm(vector: Params) -> Tensor:
    return squared_length(vector).sqrt()
