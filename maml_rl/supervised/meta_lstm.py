"""The meta-learner LSTM (Ravi, Larochelle 2017): a learned inner update, by a recurrent network for each number.

Gradient descent theta_t = theta_(t-1) - alpha g has the form of an LSTM's cell c_t = f c_(t-1) + i c~ with c = theta,
f = 1, i = alpha and c~ = -g. Both gates are therefore learned, as functions of gradient, loss, theta and their own
previous values. theta_0, with which every task starts, is the first cell state and is learned as well. All numbers of
the network share the LSTM's weights, and each has its own state.

What is learned of the LSTM is part of the meta-parameters, under the prefix `LSTM` of `maml_rl.rates`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maml_rl.inner import InnerStep, LossWith
from maml_rl.rates import LSTM, theta
from maml_rl.supervised.settings import LSTMConfig
from maml_rl.types import Params, flatten, split, unflatten

_SIGNALS = 4  # inputs of the first layer: two numbers of the loss, two of the gradient
_OWN = 2  # what a gate sees in addition to the first layer: theta, and its own previous value
_BOUND = 0.01  # of the weights at the start, all uniform


class Cells(NamedTuple):
    """State of the LSTM of each of P numbers; layer 1 has U units."""

    hidden: Tensor  # [P, U]   of layer 1
    memory: Tensor  # [P, U]   of layer 1
    forget: Tensor  # [P]   forget gate, before its sigmoid
    input: Tensor  # [P]   input gate, before its sigmoid
    theta: Tensor  # [P]   cell state of layer 2: the numbers themselves


def initial_lstm(config: LSTMConfig, generator: np.random.Generator) -> Params:
    """Weights before the first iteration, all uniform within 0.01 but for the biases of layer 2 (published code).

    Args:
        config: Number of units, and the bounds of these two biases.
        generator: Source of the random weights.

    Returns:
        Under `LSTM`: of layer 1 `input_weight` [4, 4 U], `hidden_weight` [U, 4 U] and `bias` [4 U], with input gate,
        forget gate, output gate and candidate in this order; of each gate of layer 2 a weight [U + 2] and a bias [].
    """
    units = config.units
    shapes = {"input_weight": (_SIGNALS, 4 * units), "hidden_weight": (units, 4 * units), "bias": (4 * units,)}
    shapes |= {"forget_gate_weight": (units + _OWN,), "input_gate_weight": (units + _OWN,)}
    values = {name: generator.uniform(-_BOUND, _BOUND, shape) for name, shape in shapes.items()}
    values["forget_gate_bias"] = np.asarray(generator.uniform(*config.forget_bias))
    values["input_gate_bias"] = np.asarray(generator.uniform(*config.input_bias))
    return {LSTM + name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def preprocessed(values: Tensor, p: float) -> Tensor:
    """Two numbers of moderate size, `[..., 2]`, of each value: its size and its sign (Andrychowicz et al. 2016, A).

    `(log |x| / p, sign x)` where `|x|` is at least e^-p, else (-1, e^p x): gradients differ by orders of magnitude.
    """
    size = values.abs()
    is_large = size >= math.exp(-p)
    logarithm = torch.where(is_large, size, 1.0).log() / p  # only of sizes from e^-p on, so that it is finite
    first = torch.where(is_large, logarithm, -1.0)
    return torch.stack([first, torch.where(is_large, values.sign(), math.exp(p) * values)], -1)


def beginning(vector: Tensor, units: int) -> Cells:
    """The state before the first step: theta_0 `[P]` itself, and zeros."""
    zeros = torch.zeros_like(vector)
    of_units = zeros.unsqueeze(-1).expand(-1, units)
    return Cells(of_units, of_units, zeros, zeros, vector)


def next_cells(weights: Params, p: float, cells: Cells, gradient: Tensor, loss: Tensor) -> Cells:
    """The state after one step (Ravi, Larochelle 2017, section 3.1).

    With h the output of layer 1, an LSTM of the preprocessed gradient and loss:

        f~_t = W_F [h; theta_(t-1); f~_(t-1)] + b_F,   i~_t = W_I [h; theta_(t-1); i~_(t-1)] + b_I
        theta_t = sigmoid(f~_t) theta_(t-1) - sigmoid(i~_t) g_t

    The published code carries the gates before their sigmoid, as here; the equations of the paper have them after it.

    Args:
        weights: As `initial_lstm` names them, without the prefix.
        p: Of the preprocessing.
        cells: The state before.
        gradient: Gradient g_t of each number, `[P]`.
        loss: The loss that it is the gradient of, `[]`.
    """
    units = cells.hidden.shape[-1]
    of_loss, of_gradient = weights["input_weight"].chunk(2)
    bias = preprocessed(loss, p) @ of_loss + weights["bias"]
    seen = torch.cat([preprocessed(gradient, p), cells.hidden], -1)  # [P, 2 + U]
    weight_of_seen = torch.cat([of_gradient, weights["hidden_weight"]])
    # tanh x = 2 sigmoid(2 x) - 1, so one sigmoid serves all four parts. On a CPU, tanh takes six times as long, and is
    # more exact near 0: this has an absolute error of 1e-7 in single precision.
    scale = torch.cat([bias.new_ones(3 * units), bias.new_full((units,), 2.0)])
    entry, keep, output, half = torch.sigmoid(torch.addmm(bias * scale, seen, weight_of_seen * scale)).chunk(4, -1)
    memory = keep * cells.memory + entry * (2 * half - 1)
    hidden = output * (2 * torch.sigmoid(2 * memory) - 1)

    def gate(name: str, before: Tensor) -> Tensor:
        weight = weights[f"{name}_gate_weight"]
        own = weight[units] * cells.theta + weight[units + 1] * before
        return hidden @ weight[:units] + own + weights[f"{name}_gate_bias"]

    forget, entered = gate("forget", cells.forget), gate("input", cells.input)
    moved = torch.sigmoid(forget) * cells.theta - torch.sigmoid(entered) * gradient
    return Cells(hidden, memory, forget, entered, moved)


def lstm_steps(
    loss: LossWith, meta: Params, names: Sequence[str], config: LSTMConfig, steps: int, examples: int
) -> list[InnerStep]:
    """Inner updates of one task by the LSTM, one entry for each step.

    Loss and gradient count as constants, as in the paper (section 3.3): the meta-gradient goes through the LSTM and the
    sum of the steps, and not through the derivative of a gradient.

    Args:
        loss: The task's loss, a mean over its support examples, with an auxiliary output.
        meta: Meta-parameters.
        names: Parameters that the LSTM changes.
        config: Its settings.
        steps: Number of steps.
        examples: Number of support examples.
    """
    params, taken = theta(meta), list[InnerStep]()
    weights = {name.removeprefix(LSTM): value for name, value in meta.items() if name.startswith(LSTM)}
    changed = split(params, names)[0]
    cells = beginning(flatten(changed), config.units)
    for _ in range(steps):
        adapted, others = split(params, names)
        with torch.no_grad():
            differentiate = torch.func.grad_and_value(lambda p, o=others: loss(o | p), has_aux=True)
            gradients, (value, auxiliary) = differentiate(adapted)
        gradient = flatten(gradients) / (examples if config.divided_gradient else 1)
        cells = next_cells(weights, config.preprocessing, cells, gradient, value)
        params = params | unflatten(cells.theta, changed)
        taken.append(InnerStep(params, value, auxiliary))
    return taken


def gate_metrics(meta: Params) -> dict[str, float]:
    """Metrics of the LSTM: both gates, after the sigmoid, with all inputs but their bias 0; empty without an LSTM."""
    biases = {name: meta.get(f"{LSTM}{name}_gate_bias") for name in ("forget", "input")}
    return {f"inner/{name}_gate": float(b.sigmoid()) for name, b in biases.items() if b is not None}
