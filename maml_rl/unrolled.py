"""A policy as a multilayer perceptron with the same outputs, for formats that can hold only that.

A convolution is linear, so on pictures of one size it is the product with a matrix: what each number of a picture adds
to each output. The policy of one picture is therefore a perceptron, exactly but for rounding. Its matrices are mostly
zeros, and small only for small pictures.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maml_rl.config import Activation
from maml_rl.errors import InputError
from maml_rl.initial import BuiltPolicy
from maml_rl.module_policy import ModulePolicy
from maml_rl.observations import Part, Parts
from maml_rl.picture_network import PictureNetwork, convolution
from maml_rl.policies import LOG_STD, MLPPolicy, Standardisation, perceptron_for
from maml_rl.rates import CONTEXT
from maml_rl.types import Params

_MOST_WEIGHTS = 20_000_000  # of all matrices together: 80 MB
_IN_PYTHON = "adapt and use it in Python instead (docs/own_network.md)"


def check_perceptron(policy: BuiltPolicy) -> None:
    """Checks that a policy can be a perceptron.

    Raises:
        InputError: If it has the user's own network, other observations next to a picture, or large pictures.
    """
    if not isinstance(policy, ModulePolicy):
        return
    network = policy.network
    if not isinstance(network, PictureNetwork):
        raise InputError(
            "files for Stable-Baselines3, NumPy and ONNX hold only the package's networks, and this policy has its "
            f"own, {type(network).__name__}: {_IN_PYTHON}"
        )
    filters = [len(getattr(network, f"filter_biases_0_{i}")) for i in range(network.convolutions)]
    check_parts(policy.parts, filters)


def check_parts(parts: Parts, filters: Sequence[int]) -> None:
    """Checks that the package's network for observations of these parts can be a perceptron.

    Args:
        parts: Parts of an observation.
        filters: Number of filters of each convolution of a picture.

    Raises:
        InputError: If there are other observations next to a picture, or large pictures.
    """
    if not any(part.is_picture for part in parts):
        return
    if len(parts) > 1:
        raise InputError(
            "files for Stable-Baselines3, NumPy and ONNX hold convolutions only where one picture is the whole "
            f"observation, and this policy observes {', '.join(part.name for part in parts)}: {_IN_PYTHON}"
        )
    count = sum(inputs * outputs for inputs, outputs in _sizes(parts[0], filters))
    if count > _MOST_WEIGHTS:
        raise InputError(
            "files for Stable-Baselines3, NumPy and ONNX hold a convolution as a matrix, and those of pictures of "
            f"shape {parts[0].shape} have {count:,} numbers, of at most {_MOST_WEIGHTS:,}: {_IN_PYTHON}"
        )


def _sizes(part: Part, filters: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of each convolution as a matrix."""
    channels, *sides = part.seen
    for outputs in filters:
        before = channels * sides[0] * sides[1]
        channels, sides = outputs, [-(-side // 2) for side in sides]
        yield before, channels * sides[0] * sides[1]


def convolutions_of(policy: BuiltPolicy) -> int:
    """The number of convolutions of a policy that can be a perceptron: as many of its first layers."""
    if not isinstance(policy, ModulePolicy):
        return 0
    assert isinstance(policy.network, PictureNetwork)
    return policy.network.convolutions


def effective_clip(policy: BuiltPolicy) -> float | None:
    """The bound on standardised observations, if it has an effect on a policy that can be a perceptron.

    A picture is within [0, 1], so only a bound below 1 has.
    """
    is_idle = isinstance(policy, ModulePolicy) and policy.clip is not None and policy.clip >= 1
    return None if is_idle else policy.clip


def activation_of(policy: BuiltPolicy) -> Activation:
    """The activation of the hidden layers of a policy that can be a perceptron."""
    if not isinstance(policy, ModulePolicy):
        return policy.activation
    assert isinstance(policy.network, PictureNetwork)
    return policy.network.activation


def as_perceptron(policy: BuiltPolicy, params: Params) -> tuple[MLPPolicy, Params]:
    """A perceptron with the distribution of a policy, to rounding, and its parameters: one set, without a leading M.

    Raises:
        InputError: If the policy cannot be one (`check_perceptron`).
    """
    check_perceptron(policy)
    if not isinstance(policy, ModulePolicy):
        return policy, params
    assert isinstance(policy.network, PictureNetwork)
    with torch.no_grad():
        layers = list(_convolutions(policy, policy.network, params))
        layers += _hidden(policy.network, params, len(layers[-1][1]))
    settings: dict[str, Any] = {
        "hidden_sizes": [len(bias) for _, bias in layers[:-1]],
        "activation": activation_of(policy),
        "generator": np.random.default_rng(0),  # weights are replaced
        "standardisation": Standardisation(
            policy.observation_mean.cpu(), policy.observation_std.cpu(), effective_clip(policy)
        ),
    }
    made = perceptron_for(policy.actions, len(policy.observation_mean), **settings).to(policy.observation_mean.device)
    found = {f"weight_{i}": weight for i, (weight, _) in enumerate(layers)}
    found |= {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}
    if LOG_STD in params:
        found[LOG_STD] = params[LOG_STD]
    return made, {name: found[name].detach().contiguous() for name, _ in made.named_parameters()}


def _convolutions(policy: ModulePolicy, network: PictureNetwork, params: Params) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight `[out, in]` and bias `[out]` of each convolution as a matrix.

    Numbers are in the order of the observation before the first one, and with channels last after it.
    """
    part, like = policy.parts[0], policy.observation_mean
    channels, height, width = part.seen
    unit = torch.eye(part.size).to(like)  # a row for each number that is 1 where all others are 0
    pictures = unit.reshape(-1, height, width, channels)
    if len(part.shape) == 3 and not part.channels_last:
        pictures = unit.reshape(-1, channels, height, width).movedim(1, -1)
    for i in range(network.convolutions):
        columns = convolution(pictures, params[f"network.filters_0_{i}"])
        _, height, width, channels = columns.shape
        yield columns.flatten(1).T, params[f"network.filter_biases_0_{i}"].repeat(height * width)
        pictures = torch.eye(height * width * channels).to(like).reshape(-1, height, width, channels)


def _hidden(network: PictureNetwork, params: Params, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias of each hidden layer and of the head; the first is of the picture alone.

    The context c is the same in all observations, so W (x, c) + b = W_x x + (b + W_c c).
    """
    names = [(f"network.weight_{i}", f"network.bias_{i}") for i in range(network.hidden)]
    context = params.get(f"network.{CONTEXT}")
    for i, (weight, bias) in enumerate([*names, ("head_weight", "head_bias")]):
        if i or context is None:
            yield params[weight], params[bias]
        else:
            yield params[weight][:, :size], params[bias] + params[weight][:, size:] @ context
