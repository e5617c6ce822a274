"""The paper's networks for supervised tasks (5.1, 5.2, A.1). Any other `nn.Module` works as well (`networks.py`).

Initial weights come from a NumPy generator, so they are the same on every platform. Batch normalisation shifts and does
not scale, and takes the place of a layer's bias, which it would cancel.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from maml_rl.supervised.normalisation import TaskBatchNorm
from maml_rl.supervised.patches import patches

Generator = np.random.Generator


class MLP(nn.Module):
    """Multilayer perceptron with ReLU, 40-40 for the sinusoid (5.1), of inputs `[B, size]`.

    Context numbers, if there are any, are additional inputs, the same for all examples: a parameter that begins at 0
    (Zintgraf et al. 2019, CAVIA).

    Weights and biases are uniform within 1 / sqrt(fan in), as PyTorch's are; the paper's code has normal ones of
    standard deviation 0.01, with which one gradient step changes almost nothing at first.
    """

    def __init__(
        self, input_size: int, hidden_sizes: Sequence[int], outputs: int, generator: Generator, context_size: int = 0
    ) -> None:
        super().__init__()
        sizes = [input_size + context_size, *hidden_sizes, outputs]
        self.context = _zeros(context_size) if context_size else None
        self.layers = nn.ModuleList(_linear(a, b, generator, a**-0.5, a**-0.5) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[B, outputs]`."""
        if self.context is not None:
            x = torch.cat([x, self.context.expand(len(x), -1)], -1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class StridedConvNet(nn.Module):
    """The paper's network for Omniglot: 3 x 3 convolutions of stride 2, each normalised and rectified, mean, linear.

    28 x 28 images shrink to 14, 7, 4 and 2. Weights are Glorot-uniform, biases zero. A layer's weights are
    `[9 in, out]`, as `patches` takes them: row 9 is what `conv2d` calls `weight[:, channel, row, column]`, channels
    last.
    """

    def __init__(self, channels: int, outputs: int, generator: Generator, filters: int = 64, depth: int = 4) -> None:
        super().__init__()
        sizes = [channels] + [filters] * depth
        self.weights = nn.ParameterList(
            _uniform((9 * a, b), (6 / (9 * a + 9 * b)) ** 0.5, generator) for a, b in pairwise(sizes)
        )
        self.norms = nn.ModuleList(TaskBatchNorm(None, _zeros(filters)) for _ in range(depth))
        self.head = _glorot_linear(filters, outputs, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, outputs]` of images `[B, channels, height, width]`."""
        x = x.permute(0, 2, 3, 1)
        for i, (weight, norm) in enumerate(zip(self.weights, self.norms, strict=True)):
            columns = patches(x, stride=2)
            if i == 0:  # it has the most rows, and they have the fewest columns
                x = norm.rectified_product(columns, weight)  # type: ignore[operator]
            else:
                product = columns.flatten(0, 2) @ weight
                x = norm.rectified(product.view(*columns.shape[:3], -1))  # type: ignore[operator]
        return self.head(x.mean((1, 2)))  # type: ignore[no-any-return]


class PooledConvNet(nn.Module):
    """The paper's network for MiniImagenet: 3 x 3 convolutions, each normalised, rectified and max-pooled, linear.

    84 x 84 images shrink to 42, 21, 10 and 5, so with 32 filters the last layer has 800 inputs. Weights are
    Glorot-uniform, biases zero.
    """

    def __init__(
        self, shape: Sequence[int], outputs: int, generator: Generator, filters: int = 32, depth: int = 4
    ) -> None:
        super().__init__()
        channels, height, width = shape
        sizes = [channels] + [filters] * depth
        self.weights = nn.ParameterList(
            _uniform((b, a, 3, 3), (6 / (9 * a + 9 * b)) ** 0.5, generator) for a, b in pairwise(sizes)
        )
        self.norms = nn.ModuleList(TaskBatchNorm(None, _zeros(filters)) for _ in range(depth))
        self.head = _glorot_linear(filters * (height >> depth) * (width >> depth), outputs, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, outputs]` of images `[B, channels, height, width]`."""
        for i, (weight, norm) in enumerate(zip(self.weights, self.norms, strict=True)):
            if i == 0:
                # With a convolution here, a step of the whole network takes 1.4 times as long.
                columns = patches(x.permute(0, 2, 3, 1), stride=1)
                matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)
                y = norm.rectified_product(columns, matrix)  # type: ignore[operator]
            else:
                y = norm.rectified(functional.conv2d(x, weight, padding=1).permute(0, 2, 3, 1))  # type: ignore[operator]
            x = functional.max_pool2d(y.permute(0, 3, 1, 2), 2)
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class FullyConnectedNet(nn.Module):
    """The paper's kind of fully connected network for Omniglot: hidden layers normalised and rectified, then linear.

    Weights are normal with standard deviation 0.01, cut off at two of them, and biases zero, as in the paper's code.
    """

    def __init__(self, input_size: int, hidden_sizes: Sequence[int], outputs: int, generator: Generator) -> None:
        super().__init__()
        sizes = [input_size, *hidden_sizes]
        self.weights = nn.ParameterList(_truncated_normal((a, b), 0.01, generator) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(TaskBatchNorm(None, _zeros(size)) for size in hidden_sizes)
        self.head = nn.Linear(sizes[-1], outputs, device="meta")
        self.head.weight = _truncated_normal((outputs, sizes[-1]), 0.01, generator)
        self.head.bias = _zeros(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, outputs]` of inputs `[B, ...]`, flattened."""
        x = x.flatten(1)
        for weight, norm in zip(self.weights, self.norms, strict=True):
            x = norm.rectified(x @ weight)  # type: ignore[operator]
        return self.head(x)  # type: ignore[no-any-return]


def _zeros(size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size))


def _uniform(shape: Sequence[int], bound: float, generator: Generator) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(generator.uniform(-bound, bound, shape).astype(np.float32)))


def _truncated_normal(shape: Sequence[int], std: float, generator: Generator) -> nn.Parameter:
    """Normal numbers, those more than two standard deviations from 0 drawn again."""
    values = generator.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = generator.standard_normal(int(far.sum()))
    return nn.Parameter(torch.from_numpy((std * values).astype(np.float32)))


def _linear(inputs: int, outputs: int, generator: Generator, bound: float, bias_bound: float) -> nn.Linear:
    """A linear layer with weights and biases uniform within bounds."""
    layer = nn.Linear(inputs, outputs, device="meta")
    layer.weight = _uniform((outputs, inputs), bound, generator)
    layer.bias = _uniform((outputs,), bias_bound, generator)
    return layer


def _glorot_linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    return _linear(inputs, outputs, generator, (6 / (inputs + outputs)) ** 0.5, 0.0)
