"""A policy near its parameters, to first order: D v and D^T u, D the derivative of its distribution's parameters.

The Fisher matrix, the outer gradient and the Hessian of a loss of the distribution are built from them. For the
package's perceptrons they are written out (`maml_rl.perceptron`); otherwise PyTorch records them. Only this module
makes that choice.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from maml_rl.derivatives import Product, TaskLoss, vector_jacobian_product
from maml_rl.distributions import Distribution, PerParameter
from maml_rl.objectives import Loss, PolicyLoss
from maml_rl.perceptron import PerceptronLoss, PerceptronPoint, perceptron
from maml_rl.policies import Policy
from maml_rl.types import Batch, Params


class LinearPolicy(Protocol):
    """A policy in some observations, near its parameters."""

    @property
    def distribution(self) -> Distribution:
        """The policy's distribution `[N]` there, without a graph."""
        ...

    def product(self, vector: Params) -> PerParameter:
        """D v."""
        ...

    def transposed(self, cotangents: PerParameter) -> Params:
        """D^T u, of all parameters that are not frozen."""
        ...


def linear_policy(policy: Policy, params: Params, observations: Tensor) -> LinearPolicy:
    """The policy in observations `[N, obs]`, near `params`."""
    network = perceptron(policy)
    if network is None:
        return _recorded(policy, params, observations)
    return PerceptronPoint(network, params, observations)


def distribution_at(policy: Policy, params: Params, observations: Tensor) -> Distribution:
    """The policy's distribution in observations `[N, obs]`, without a graph."""
    network = perceptron(policy)
    if network is not None:
        return PerceptronPoint(network, params, observations).distribution
    with torch.no_grad():
        return policy(params, observations)


def fisher_product(linear: LinearPolicy) -> Product:
    """The map v -> F v, F the mean Fisher matrix of the policy in its observations.

    F = 1/N sum of D^T M D, M the Fisher matrix of the distribution's parameters.
    """

    def product(vector: Params) -> Params:
        tangents = linear.distribution.fisher_product(linear.product(vector))
        return linear.transposed(tuple(t / len(t) for t in tangents))

    return product


def task_loss(loss: Loss, batch: Batch) -> TaskLoss:
    """A loss of a batch as a function of parameters; with its own derivatives where they are written out."""
    if isinstance(loss, PolicyLoss):
        network = perceptron(loss.policy)
        if network is not None:
            return PerceptronLoss(network, loss, batch)
    return lambda params: loss(params, batch)


class _RecordedPolicy(NamedTuple):
    """Any policy."""

    distribution: Distribution
    product: Callable[[Params], PerParameter]
    transposed: Callable[[PerParameter], Params]


def _recorded(policy: Policy, params: Params, observations: Tensor) -> _RecordedPolicy:
    """D v is the derivative of D^T u, which is linear in u: forward mode is not safe in threads."""
    names = list(params)
    with torch.enable_grad():
        leaves = [params[name].detach().requires_grad_() for name in names]
        outputs = policy(dict(zip(names, leaves, strict=True)), observations).parameters()
        zeros = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        transposed = vector_jacobian_product(outputs, leaves, zeros, create_graph=True)

    def product(vector: Params) -> PerParameter:
        vectors = [vector[name] for name in names]
        return vector_jacobian_product(transposed, zeros, vectors)

    def transposed_product(cotangents: PerParameter) -> Params:
        return dict(zip(names, vector_jacobian_product(outputs, leaves, cotangents), strict=True))

    distribution = policy.distribution(*(output.detach() for output in outputs))
    return _RecordedPolicy(distribution, product, transposed_product)
