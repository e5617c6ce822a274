"""The package's policies as `LinearPolicy`, and losses of their distribution with derivatives written out.

A loss f(d(theta)) of the distribution's parameters d has the gradient D^T c and the Hessian
v -> D^T (M D v) + sum over the outputs of c_k (Hessian of d_k) v, with c and M the first two derivatives of f. PyTorch
records f, which is a function of few numbers; the network's part is in `maml_rl.mlp_products`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from maml_rl.derivatives import LinearGradient, RecordedGradient, recorded_gradient
from maml_rl.distributions import Distribution, PerParameter
from maml_rl.mlp_products import Layers, backward, curved_gradient, forward, gradient, tangent
from maml_rl.objectives import PolicyLoss
from maml_rl.policies import CompletedPolicy, MLPPolicy, Policy
from maml_rl.types import Batch, Params

_ROWS = 4000  # steps at a time, so that a layer's values stay in a core's cache


class Perceptron(NamedTuple):
    """A policy whose derivatives are written out, and its frozen parameters."""

    module: MLPPolicy
    frozen: Params


def perceptron(policy: Policy) -> Perceptron | None:
    """The perceptron behind a policy; None for any other, including subclasses, which may compute something else."""
    module, frozen = (policy.policy, policy.frozen) if isinstance(policy, CompletedPolicy) else (policy, Params())
    if not isinstance(module, MLPPolicy) or type(module) not in get_args(MLPPolicy):
        return None
    return Perceptron(module, frozen)


class PerceptronPoint:
    """A perceptron at given observations, near its parameters.

    Args:
        network: The perceptron.
        params: Its parameters that are not frozen.
        observations: `[N, obs]`.
    """

    def __init__(self, network: Perceptron, params: Params, observations: Tensor) -> None:
        module, every = network.module, network.frozen | params
        self.layers, self._names, self._direct = Layers(every, module.layers, module.activation), params, module.direct
        with torch.no_grad():
            inputs = module.standardised(observations).T
            parts = inputs.chunk(-(-inputs.shape[1] // _ROWS), 1)
            self.blocks = [forward(self.layers, part.contiguous()) for part in parts]
            output = _joined([block.output for block in self.blocks])
            direct = [every[name].expand_as(output) for name in self._direct]
            self.distribution: Distribution = module.distribution(output, *direct)

    def product(self, vector: Params) -> PerParameter:
        """D v, for v of some of the parameters."""
        with torch.no_grad():
            return self.tangents(vector, [tangent(block, vector).output for block in self.blocks])

    def transposed(self, cotangents: PerParameter) -> Params:
        """D^T u, of all parameters that are not frozen."""
        return self.gradient(cotangents, self._names)

    def gradient(self, cotangents: PerParameter, names: Collection[str]) -> Params:
        """The part of D^T u that belongs to these parameters."""
        with torch.no_grad():
            # Block by block, so that each is still in the cache.
            blocks = zip(self.blocks, self.parts(cotangents), strict=True)
            lowest = self.layers.lowest(names)
            sums = [gradient(block, backward(block, part, lowest), names) for block, part in blocks]
            return self.summed(sums, cotangents, names)

    def tangents(self, vector: Params, outputs: Sequence[Tensor | None]) -> PerParameter:
        """Change of the distribution's parameters, from that of the outputs of each block, or None for no change."""
        changes = [output for output in outputs if output is not None]
        like = self.distribution.parameters()[0]
        output = _joined(changes) if changes else torch.zeros_like(like)
        direct = (vector[name] if name in vector else torch.zeros_like(like[0]) for name in self._direct)
        return output, *(value.expand_as(like) for value in direct)

    def parts(self, cotangents: PerParameter) -> list[Tensor]:
        """Derivatives with respect to the outputs of each block, `[output, rows]`."""
        sizes = [block.output.shape[1] for block in self.blocks]
        return [part.T.contiguous() for part in torch.split(cotangents[0], sizes)]

    def summed(self, of_blocks: Sequence[Params], cotangents: PerParameter, names: Collection[str]) -> Params:
        """The gradient of these parameters: that of the network added over the blocks, and the distribution's own."""
        total = of_blocks[0]
        for part in of_blocks[1:]:
            total = {name: value.add_(part[name]) for name, value in total.items()}
        total |= {name: value.sum(0) for name, value in zip(self._direct, cotangents[1:], strict=True)}
        return {name: total[name] for name in names}


@dataclass(frozen=True)
class PerceptronLoss:
    """A loss of a perceptron's distribution on one batch, with its own derivatives."""

    network: Perceptron
    loss: PolicyLoss
    batch: Batch

    def __call__(self, params: Params) -> Tensor:
        """The loss, `[]`."""
        return self.loss(params, self.batch)

    def near(self, params: Params) -> "_LossPoint":
        """Its derivatives at `params`."""
        return _LossPoint(self, PerceptronPoint(self.network, params, self.batch.observations))


class _LossPoint(NamedTuple):
    loss: PerceptronLoss
    point: PerceptronPoint

    def by_distribution(self, twice: bool = False) -> RecordedGradient:
        """c, the derivative of the loss by the distribution's parameters; with M, if it is differentiated twice."""
        kind, loss, batch = self.loss.network.module.distribution, self.loss.loss, self.loss.batch
        parameters = self.point.distribution.parameters()
        return recorded_gradient(lambda *p: loss.of_distribution(kind(*p), batch), parameters, twice=twice)

    def gradient(self, names: Collection[str]) -> Params:
        """Gradient with respect to these parameters."""
        return self.point.gradient(tuple(self.by_distribution().parts), names)

    def linear_gradient(self, rows: Collection[str], columns: Collection[str]) -> LinearGradient:
        """Gradient with respect to the parameters `columns`, and the map v -> H v from `columns` to `rows`."""
        point, layers = self.point, self.point.layers
        found = self.by_distribution(twice=True)
        lowest = layers.lowest(columns)
        kept_from = max(lowest, layers.lowest(rows))
        with torch.no_grad():
            cotangents = tuple(value.detach() for value in found.parts)
            derivatives = [
                backward(*block, lowest) for block in zip(point.blocks, point.parts(cotangents), strict=True)
            ]
            sums = [gradient(*block, columns) for block in zip(point.blocks, derivatives, strict=True)]
            total = point.summed(sums, cotangents, columns)
        kept = [[value if i >= kept_from else None for i, value in enumerate(of_block)] for of_block in derivatives]

        def product(vector: Params) -> Params:
            vector = {name: vector[name] for name in columns}
            with torch.no_grad():
                moved = [tangent(block, vector) for block in point.blocks]
                changes = found.product(point.tangents(vector, [part.output for part in moved]))
                blocks = zip(point.blocks, moved, kept, point.parts(changes), strict=True)
                sums = [curved_gradient(*of_block, vector, rows) for of_block in blocks]
                return point.summed(sums, changes, rows)

        return LinearGradient(total, product)


def _joined(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs of all blocks, `[N, output]`."""
    return torch.cat([output.T for output in outputs])
