"""The default network for observations with pictures: convolutions of each picture, then a perceptron.

Every convolution has 3 x 3 filters and stride 2, so that it halves both sides of a picture, rounded up.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.config import Activation
from maml_rl.module_policy import Seen
from maml_rl.observations import Parts
from maml_rl.rates import CONTEXT
from maml_rl.supervised.patches import patches

_STRIDE = 2
_FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh}


def convolution(pictures: Tensor, filters: Tensor) -> Tensor:
    """Pictures `[N, height / 2, width / 2, out]` of `[N, height, width, channels]`, by filters `[9 channels, out]`."""
    return patches(pictures, _STRIDE) @ filters


class PictureNetwork(nn.Module):
    """Features of the parts of an observation, with Glorot-uniform weights and zero biases.

    Each picture goes through its own convolutions. Their output is joined with the numbers of the other parts and the
    context numbers, if there are any. The hidden layers follow.

    Args:
        parts: Parts of an observation.
        filters: Number of filters of each convolution.
        hidden_sizes: Number of units in each hidden layer.
        activation: Activation of convolutions and hidden layers.
        generator: Source of the initial weights.
        context_size: Number of context numbers.
    """

    rounds_alike = True
    """Matrix products, relu and tanh round alike for any number of tasks, so the network is mapped on a CPU too."""

    def __init__(
        self,
        parts: Parts,
        filters: Sequence[int],
        hidden_sizes: Sequence[int],
        activation: Activation,
        generator: np.random.Generator,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        self.parts, self.convolutions, self.hidden = parts, len(filters), len(hidden_sizes)
        self.activation = activation
        size = context_size
        for index, part in enumerate(parts):
            if not part.is_picture:
                size += part.size
                continue
            channels, *sides = part.seen
            for i, (fan_in, fan_out) in enumerate(pairwise([channels, *filters])):
                self._add(f"filters_{index}_{i}", (9 * fan_in, fan_out), 9 * (fan_in + fan_out), generator)
                self.register_parameter(f"filter_biases_{index}_{i}", nn.Parameter(torch.zeros(fan_out)))
                sides = [-(-side // _STRIDE) for side in sides]
            size += sides[0] * sides[1] * filters[-1]
        for i, (fan_in, fan_out) in enumerate(pairwise([size, *hidden_sizes])):
            self._add(f"weight_{i}", (fan_out, fan_in), fan_in + fan_out, generator)
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(fan_out)))
        if context_size:
            self.register_parameter(CONTEXT, nn.Parameter(torch.zeros(context_size)))
        self.features = [size, *hidden_sizes][-1]

    def _add(self, name: str, shape: tuple[int, int], fan: int, generator: np.random.Generator) -> None:
        bound = (6 / fan) ** 0.5
        weight = generator.uniform(-bound, bound, shape).astype(np.float32)
        self.register_parameter(name, nn.Parameter(torch.from_numpy(weight)))

    def forward(self, seen: Seen) -> Tensor:
        """Features `[N, features]`."""
        found = [seen] if isinstance(seen, Tensor) else [seen[part.name] for part in self.parts]
        for index, part in enumerate(self.parts):
            if part.is_picture:
                found[index] = self.convolved(index, found[index].movedim(1, -1))
        joined = torch.cat([part.flatten(1) for part in found], 1)
        if hasattr(self, CONTEXT):
            context: Tensor = getattr(self, CONTEXT)
            joined = torch.cat([joined, context.expand(len(joined), -1)], 1)
        for i in range(self.hidden):
            joined = nn.functional.linear(joined, getattr(self, f"weight_{i}"), getattr(self, f"bias_{i}"))
            joined = _FUNCTIONS[self.activation](joined)
        return joined

    def convolved(self, index: int, pictures: Tensor) -> Tensor:
        """Output of the convolutions for one part's pictures, both `[N, height, width, channels]`."""
        for i in range(self.convolutions):
            filters, bias = getattr(self, f"filters_{index}_{i}"), getattr(self, f"filter_biases_{index}_{i}")
            pictures = _FUNCTIONS[self.activation](convolution(pictures, filters) + bias)
        return pictures
