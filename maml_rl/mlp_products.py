"""Derivatives of a multilayer perceptron, written out: D v, D^T u and the product with a Hessian (Pearlmutter 1994).

D is the derivative of the outputs with respect to the parameters. Activations are computed once and stored; each
product computes their slopes from them. Tensors have features as rows, `[features, N]`: the few outputs then fill the
vector registers of a processor, which rows of steps `[N, features]` would leave half empty.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import Activation
from maml_rl.matmul import affine, plus_times, times
from maml_rl.rates import CONTEXT
from maml_rl.types import Params


class Layers(NamedTuple):
    """Weights and biases of a perceptron, and the activation between its layers."""

    params: Params  # weight_0, bias_0, weight_1, ..., and context, if the last inputs are that; others are ignored
    depth: int
    activation: Activation

    def lowest(self, names: Collection[str]) -> int:
        """The first layer with one of these parameters; `depth` if there is none."""
        if CONTEXT in names:
            return 0
        return next((i for i in range(self.depth) if f"weight_{i}" in names or f"bias_{i}" in names), self.depth)

    @property
    def of_context(self) -> Tensor:
        """Columns of the first weight that multiply the context, `[features, context]`."""
        return self.params["weight_0"][:, -len(self.params[CONTEXT]) :]


class Forward(NamedTuple):
    """A perceptron's values at one point."""

    layers: Layers
    inputs: Sequence[Tensor]  # [features, N] of each layer
    output: Tensor  # [output, N]

    def times_slope(self, i: int, values: Tensor) -> Tensor:
        """Values `[features, N]`, in place, times the derivative of the activation that follows layer i."""
        after = self.inputs[i + 1]
        if self.layers.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(values, after, 0, grad_input=values)
        else:
            torch.ops.aten.tanh_backward.grad_input(values, after, grad_input=values)
        return values


class Tangent(NamedTuple):
    """How the values change in one direction; None where they do not."""

    inputs: Sequence[Tensor | None]  # of each layer
    sums: Sequence[Tensor | None]  # of each layer but the last, before the activation; None for relu (no curvature)
    output: Tensor | None


def forward(layers: Layers, inputs: Tensor) -> Forward:
    """Values at inputs `[features, N]`, without the context."""
    if CONTEXT in layers.params:
        inputs = torch.cat([inputs, layers.params[CONTEXT][:, None].expand(-1, inputs.shape[1])])
    values = [inputs]
    for i in range(layers.depth):
        sums = affine(layers.params[f"weight_{i}"], values[-1], layers.params[f"bias_{i}"])
        if i < layers.depth - 1:
            values.append(sums.relu_() if layers.activation == "relu" else sums.tanh_())
    return Forward(layers, values, sums)


def tangent(at: Forward, vector: Params) -> Tangent:
    """D v and the changes that lead to it, for v of some of the parameters."""
    inputs: list[Tensor | None] = [None]
    sums: list[Tensor | None] = []
    for i in range(at.layers.depth):
        change = _changed(at, i, vector, inputs[-1])
        if i == at.layers.depth - 1:
            break
        sums.append(change.clone() if change is not None and at.layers.activation == "tanh" else None)
        inputs.append(None if change is None else at.times_slope(i, change))
    return Tangent(inputs, sums, change)


def _changed(at: Forward, i: int, vector: Params, inputs: Tensor | None) -> Tensor | None:
    """Change of what layer i computes before its activation."""
    weight, bias = vector.get(f"weight_{i}"), vector.get(f"bias_{i}")
    change = None
    if weight is not None and bias is not None:
        change = affine(weight, at.inputs[i], bias)
    elif weight is not None:
        change = times(weight, at.inputs[i])
    elif bias is not None:
        change = bias[:, None].expand(-1, at.output.shape[1]).clone()
    if i == 0 and CONTEXT in vector:
        everywhere = (at.layers.of_context @ vector[CONTEXT])[:, None]
        change = everywhere.expand(-1, at.output.shape[1]).clone() if change is None else change.add_(everywhere)
    if inputs is None:
        return change
    own = at.layers.params[f"weight_{i}"]
    return times(own, inputs) if change is None else plus_times(change, own, inputs)


def backward(at: Forward, cotangent: Tensor, lowest: int) -> list[Tensor | None]:
    """Derivatives of a loss with respect to what each layer computes before its activation, `[features, N]`.

    Args:
        at: Values at the point.
        cotangent: Derivative of the loss with respect to the outputs, `[output, N]`.
        lowest: The last layer to go down to; None below it.
    """
    depth = at.layers.depth
    result: list[Tensor | None] = [None] * depth
    change = cotangent
    for i in range(depth - 1, lowest - 1, -1):
        if i < depth - 1:
            change = at.times_slope(i, times(at.layers.params[f"weight_{i + 1}"].T, change))
        result[i] = change
    return result


def gradient(at: Forward, derivatives: Sequence[Tensor | None], names: Collection[str]) -> Params:
    """The gradient of these parameters, from `backward` down to the lowest of their layers."""
    result = {}
    for i, change in enumerate(derivatives):
        if f"weight_{i}" in names:
            result[f"weight_{i}"] = times(_present(change), at.inputs[i].T)
        if f"bias_{i}" in names:
            result[f"bias_{i}"] = _present(change).sum(1)
    if CONTEXT in names:
        result[CONTEXT] = at.layers.of_context.T @ _present(derivatives[0]).sum(1)
    return result


def curved_gradient(
    at: Forward,
    moved: Tangent,
    derivatives: Sequence[Tensor | None],
    cotangent: Tensor,
    vector: Params,
    names: Collection[str],
) -> Params:
    """Change of the gradient of these parameters in the direction `vector`: rows of H v.

    Args:
        at: Values at the point.
        moved: Their change in the direction.
        derivatives: `backward` of the loss, down to the lowest layer that both `vector` and `names` take part in.
        cotangent: Change of the loss's derivative with respect to the outputs, `[output, N]`.
        vector: The direction v, of some of the parameters.
        names: Parameters whose rows are wanted.
    """
    result, change, lowest = {}, cotangent, at.layers.lowest(names)
    for i in range(at.layers.depth - 1, lowest - 1, -1):
        weight, inputs = f"weight_{i}", moved.inputs[i]
        if weight in names:
            result[weight] = times(change, at.inputs[i].T)
            if inputs is not None:
                result[weight] = plus_times(result[weight], _present(derivatives[i]), inputs.T)
        if f"bias_{i}" in names:
            result[f"bias_{i}"] = change.sum(1)
        if i > lowest:
            change = times(at.layers.params[weight].T, change)
            if weight in vector:
                change = plus_times(change, vector[weight].T, _present(derivatives[i]))
            change = _through_activation(at, moved, derivatives, i - 1, change)
    if lowest == 0:
        _add_context(result, at, derivatives[0], change, vector, names)
    return result


def _add_context(
    result: Params, at: Forward, derivative: Tensor | None, change: Tensor, vector: Params, names: Collection[str]
) -> None:
    """Adds the context's part to the rows of H v: in every step, the last columns C of the first weight multiply it.

    Its gradient is C^T d. Here d is the derivative with respect to what the first layer computes, summed over the
    steps.
    """
    if CONTEXT in names:
        result[CONTEXT] = at.layers.of_context.T @ change.sum(1)
        if "weight_0" in vector:
            result[CONTEXT] += vector["weight_0"][:, -len(result[CONTEXT]) :].T @ _present(derivative).sum(1)
    if CONTEXT in vector and "weight_0" in names:
        moved = vector[CONTEXT]
        result["weight_0"][:, -len(moved) :] += torch.outer(_present(derivative).sum(1), moved)


def _through_activation(
    at: Forward, moved: Tangent, derivatives: Sequence[Tensor | None], i: int, change: Tensor
) -> Tensor:
    """Change of the derivative with respect to what layer i computes before its activation, from that after it.

    With the derivative before it d = s f'(z), it is (change of s) f' + s f'' (change of z). tanh'' is -2 tanh tanh', so
    the second term is -2 tanh d (change of z); relu has none.
    """
    at.times_slope(i, change)
    sums = moved.sums[i]
    if sums is not None:
        change.addcmul_(_present(derivatives[i]) * at.inputs[i + 1], sums, value=-2)
    return change


def _present(value: Tensor | None) -> Tensor:
    assert value is not None  # whoever asks has gone down to this layer
    return value
