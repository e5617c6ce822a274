"""Action distributions as plain records of tensors, with the derivatives that TRPO needs in closed form.

The fields are the parameters, with any leading shape `[...]`. Sampling is a function of noise that the caller draws, so
randomness is a function of the seed on every device.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PerParameter = tuple[Tensor, ...]
"""A change in each of a distribution's `parameters()`, or the derivative of a number with respect to each."""


class Distribution(Protocol):
    """Interface of a distribution over actions."""

    def __init__(self, *parameters: Tensor) -> None:
        """Makes the distribution from its `parameters()`."""
        ...

    @staticmethod
    def noise(generator: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
        """Noise for samples of leading shape `shape`, for a distribution over `size` dimensions or choices."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """Actions that the noise selects."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability (density) of actions, summed over action dimensions, `[...]`."""
        ...

    def entropy(self) -> Tensor:
        """Entropy in nats, `[...]`."""
        ...

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) in nats, `[...]`."""
        ...

    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors it is made of, which depend on the policy's parameters."""
        ...

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Product of the Fisher matrix with respect to `parameters()` and tangents of their shapes."""
        ...


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions of the action dimensions."""

    mean: Tensor  # [..., act]
    log_std: Tensor  # [..., act], or fewer numbers that broadcast to it where it is the same everywhere

    @staticmethod
    def noise(generator: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
        """Standard normal noise `[*shape, size]`."""
        return generator.standard_normal((*shape, size), dtype=np.float32)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions mean + std * noise, `[..., act]`."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density `[...]` of actions `[..., act]`: -1/2 sum(z^2 + 2 log std + log 2 pi), z = (a - mean) / std."""
        standardised = (actions - self.mean) * (-self.log_std).exp()
        return -0.5 * (standardised.square() + 2 * self.log_std + math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy `[...]`: sum(log std + 1/2 log(2 pi e))."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand(self.mean.shape[:-1])

    def kl(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self || other) `[...]`: sum(log s2 - log s1 + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2)."""
        precision = (-2 * other.log_std).exp()
        variance = (2 * self.log_std).exp()
        difference = (self.mean - other.mean).square()
        return (other.log_std - self.log_std + 0.5 * ((variance + difference) * precision - 1)).sum(-1)

    def parameters(self) -> tuple[Tensor, ...]:
        """Mean and log standard deviation, `[..., act]` both."""
        return self.mean, self.log_std.expand_as(self.mean)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher matrix is diagonal: 1 / std^2 for the mean, 2 for the log standard deviation."""
        mean, log_std = tangents
        return mean * (-2 * self.log_std).exp(), 2 * log_std


class Categorical(NamedTuple):
    """A distribution over a finite number of choices."""

    logits: Tensor  # [..., choices], normalised or not

    @staticmethod
    def noise(generator: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
        """Gumbel noise `[*shape, size]`, with which the largest of logits + noise is a sample."""
        return _gumbel(generator, (*shape, size))

    def sample(self, noise: Tensor) -> Tensor:
        """Choices `[...]`, int64."""
        return (self.logits + noise).argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability `[...]` of choices `[...]`."""
        return self.logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]

    def entropy(self) -> Tensor:
        """Entropy `[...]`."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self || other) `[...]`: sum p1 (log p1 - log p2)."""
        log_probs = self.logits.log_softmax(-1)
        return (log_probs.exp() * (log_probs - other.logits.log_softmax(-1))).sum(-1)

    def parameters(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.logits,)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """With respect to the logits the Fisher matrix is diag(p) - p p^T."""
        (logits,) = tangents
        probs = torch.softmax(self.logits, -1)
        return (probs * (logits - (probs * logits).sum(-1, keepdim=True)),)


def _gumbel(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return generator.gumbel(size=shape).astype(np.float32)


class _Logits(NamedTuple):
    logits: Tensor  # [..., sum of sizes]   of each choice in turn


class MultiCategorical(_Logits):
    """Independent choices, each among its own number of alternatives: a product of categorical distributions.

    `multi_categorical` makes the class for given numbers of alternatives.
    """

    __slots__ = ()
    sizes: ClassVar[tuple[int, ...]] = ()
    """Number of alternatives of each choice."""

    @staticmethod
    def noise(generator: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
        """Gumbel noise `[*shape, size]`, for all alternatives of all choices."""
        return _gumbel(generator, (*shape, size))

    def choices(self) -> list[Categorical]:
        """The distribution of each choice."""
        return [Categorical(part) for part in torch.split(self.logits, list(self.sizes), -1)]

    def sample(self, noise: Tensor) -> Tensor:
        """Choices `[..., D]`, int64."""
        parts = torch.split(noise, list(self.sizes), -1)
        return torch.stack([choice.sample(part) for choice, part in zip(self.choices(), parts, strict=True)], -1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability `[...]` of choices `[..., D]`: the sum over the choices."""
        chosen = actions.unbind(-1)
        return _sum([choice.log_prob(action) for choice, action in zip(self.choices(), chosen, strict=True)])

    def entropy(self) -> Tensor:
        """Entropy `[...]`: the sum over the choices."""
        return _sum([choice.entropy() for choice in self.choices()])

    def kl(self, other: "MultiCategorical") -> Tensor:
        """KL(self || other) `[...]`: the sum over the choices."""
        return _sum([own.kl(others) for own, others in zip(self.choices(), other.choices(), strict=True)])

    def parameters(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.logits,)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher matrix has a block for each choice, that of its categorical distribution."""
        parts = torch.split(tangents[0], list(self.sizes), -1)
        products = [choice.fisher_product((part,))[0] for choice, part in zip(self.choices(), parts, strict=True)]
        return (torch.cat(products, -1),)


@cache
def multi_categorical(sizes: tuple[int, ...]) -> type[MultiCategorical]:
    """The distribution of choices among `sizes` alternatives each."""
    return type("MultiCategorical", (MultiCategorical,), {"__slots__": (), "sizes": sizes})


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum(0)


class Bernoulli(NamedTuple):
    """Independent switches, each on (1) with the probability 1 / (1 + exp(-logit))."""

    logits: Tensor  # [..., D]

    @staticmethod
    def noise(generator: np.random.Generator, shape: tuple[int, ...], size: int) -> NDArray[np.float32]:
        """Logistic noise `[*shape, size]`: where logit + noise is above 0, a switch is on."""
        return generator.logistic(size=(*shape, size)).astype(np.float32)

    def sample(self, noise: Tensor) -> Tensor:
        """Switches `[..., D]`, 0 or 1, int64."""
        return (self.logits + noise > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-probability `[...]` of switches `[..., D]`: the sum over them of a l - log(1 + exp l)."""
        return (actions * self.logits - _softplus(self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy `[...]`: the sum over the switches of log(1 + exp l) - p l."""
        return (_softplus(self.logits) - _probability(self.logits) * self.logits).sum(-1)

    def kl(self, other: "Bernoulli") -> Tensor:
        """KL(self || other) `[...]`: the sum over the switches of p (l - m) - log(1 + exp l) + log(1 + exp m)."""
        difference = _probability(self.logits) * (self.logits - other.logits)
        return (difference - _softplus(self.logits) + _softplus(other.logits)).sum(-1)

    def parameters(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.logits,)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """With respect to the logits the Fisher matrix is diagonal: p (1 - p)."""
        (logits,) = tangents
        probs = _probability(self.logits)
        return (probs * (1 - probs) * logits,)


def _probability(logits: Tensor) -> Tensor:
    """1 / (1 + exp -l). PyTorch's sigmoid rounds the last few numbers of an array differently from the others."""
    return torch.exp(-_softplus(-logits))


def _softplus(logits: Tensor) -> Tensor:
    """log(1 + exp l), smooth everywhere: PyTorch's own is l from 20 on."""
    return -torch.nn.functional.logsigmoid(-logits)
