"""Policies: multilayer perceptrons, applied as functions of any parameters.

`policy(params, observations)` accepts one parameter set for all observations, or a stack of M sets for observations
`[M, ..., obs]`. Policies standardise observations internally, with statistics that are part of the policy and never
change. Context numbers, if a policy has any, are a parameter that the network sees next to every observation.
"""

import math
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.actions import ActionKind
from maml_rl.config import Activation, Adapted, RLMeta
from maml_rl.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    multi_categorical,
)
from maml_rl.errors import InputError
from maml_rl.rates import CONTEXT, InnerRates, context_names, inner_rates
from maml_rl.types import Params, frozen_names, split

LOG_STD = "log_std"
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class Policy(Protocol):
    """Interface of a policy."""

    @property
    def distribution(self) -> type[Distribution]:
        """Kind of distribution over actions."""
        ...

    @property
    def noise_size(self) -> int:
        """Action dimensions, or choices: the size of the noise that selects one action."""
        ...

    def __call__(self, params: Params, observations: Tensor) -> Distribution:
        """Distribution over actions in `observations`, under `params`."""
        ...

    def standardised(self, observations: Tensor) -> Tensor:
        """Observations `[..., obs]` as the network sees them."""
        ...

    def last_layer(self) -> tuple[str, ...]:
        """Names of the parameters that ANIL adapts: those that turn the last features into a distribution."""
        ...


def policy_rates(policy: Policy, params: Params, config: RLMeta) -> InnerRates:
    """Step sizes and shift of the inner update of a policy with these parameters, none for those that are frozen.

    Raises:
        InputError: If the inner update has nothing to change.
    """
    frozen = frozen_names(policy)
    chosen = _adapted(policy, params, config.adapted)
    names = [name for name in params if name in chosen and name not in frozen]
    if not names:
        raise InputError(
            f"the inner update has nothing to change (adapted is {config.adapted}): the policy has none of those "
            "parameters, or they are frozen; call requires_grad_(True) on those to adapt, or set adapted to all"
        )
    rates = inner_rates(config, names)
    rates = rates._replace(filtered=config.filtered_lr, normalised=config.normalised_gradient)
    return rates._replace(shift=_shift(config, split(params, frozen)[1]))


def _shift(config: RLMeta, free: Collection[str]) -> dict[str, float]:
    if config.adapted_std_factor is None:
        return {}
    if LOG_STD not in free:
        raise InputError(
            "adapted_std_factor needs a standard deviation: actions must be a Box, and log_std not frozen; leave "
            "adapted_std_factor out"
        )
    return {LOG_STD: math.log(config.adapted_std_factor)}


def _adapted(policy: Policy, params: Params, adapted: Adapted) -> Collection[str]:
    if adapted == "context":
        return context_names(params)
    return policy.last_layer() if adapted == "last-layer" else params


class Standardisation(NamedTuple):
    """How a policy sees observations: (x - mean) / std, within +-clip."""

    mean: Tensor | None = None  # [obs]   0 if None
    std: Tensor | None = None  # [obs]   1 if None
    clip: float | None = None  # no bound if None

    def of(self, observations: Tensor) -> Tensor:
        """Observations `[..., obs]` as the network sees them."""
        shifted = observations if self.mean is None else observations - self.mean
        scaled = shifted if self.std is None else shifted / self.std
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)


_RAW = Standardisation()


class StandardisedMLP(nn.Module):
    """Multilayer perceptron on standardised inputs, with Glorot-uniform weights and zero biases.

    Context numbers (Zintgraf et al. 2019, CAVIA) are additional inputs, neither standardised nor clipped: a parameter
    that begins at 0, with weights that are the last columns of the first layer's.

    Args:
        input_size: Size of an observation.
        output_size: Size of the output.
        hidden_sizes: Number of units in each hidden layer.
        activation: Activation of the hidden layers.
        generator: Source of the initial weights.
        standardisation: Shift, scale and bound of observations; none of them by default.
        context_size: Number of context numbers.
    """

    distribution: type[Distribution]
    """Kind of distribution over actions, whose first parameter is the network's output."""
    direct: ClassVar[tuple[str, ...]] = ()
    """Parameters that are parameters of the distribution in every observation, after the network's output."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: Sequence[int],
        activation: Activation,
        generator: np.random.Generator,
        standardisation: Standardisation = _RAW,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        sizes = [input_size + context_size, *hidden_sizes, output_size]
        self.activation = activation
        self.layers = len(sizes) - 1
        mean, std, self.clip = standardisation
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = (6 / (fan_in + fan_out)) ** 0.5
            weight = generator.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32)
            self.register_parameter(f"weight_{i}", nn.Parameter(torch.from_numpy(weight)))
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(fan_out)))
        if context_size:
            self.register_parameter(CONTEXT, nn.Parameter(torch.zeros(context_size)))
        self.observation_mean: Tensor
        self.observation_std: Tensor
        self.register_buffer("observation_mean", torch.zeros(input_size) if mean is None else mean)
        self.register_buffer("observation_std", torch.ones(input_size) if std is None else std)

    def last_layer(self) -> tuple[str, ...]:
        """Names of weight and bias of the output layer."""
        return f"weight_{self.layers - 1}", f"bias_{self.layers - 1}"

    def standardised(self, observations: Tensor) -> Tensor:
        """Observations `[..., obs]` as the network sees them: (x - mean) / std, within +-clip."""
        return Standardisation(self.observation_mean, self.observation_std, self.clip).of(observations)

    def layer(self, params: Params, index: int) -> tuple[Tensor, Tensor]:
        """Weight `[out, in]` and bias `[out]` of a layer, or M of each; the first layer's are of the observation alone.

        The context c is the same in all observations, so W (x, c) + b = W_x x + (b + W_c c).
        """
        weight, bias = params[f"weight_{index}"], params[f"bias_{index}"]
        if index or CONTEXT not in params:
            return weight, bias
        size = len(self.observation_mean)
        of_context = weight[..., size:] @ params[CONTEXT][..., None]
        return weight[..., :size], bias + of_context[..., 0]

    def network(self, params: Params, depth: int | None = None) -> Callable[[Tensor], Tensor]:
        """Output of a layer as a function of observations: `[..., obs]`, or `[M, ..., obs]` for M stacks.

        Args:
            params: Parameters.
            depth: How many layers to apply; all if None, else hidden ones with their activations.
        """
        layers = [self.layer(params, i) for i in range(self.layers if depth is None else depth)]
        is_stack, activation = layers[0][0].dim() == 3, _ACTIVATIONS[self.activation]
        if is_stack:
            layers = [(weight.mT, bias[:, None]) for weight, bias in layers]

        def output(observations: Tensor) -> Tensor:
            hidden = self.standardised(observations)
            if is_stack:
                hidden = hidden.reshape(len(layers[0][0]), -1, hidden.shape[-1])
            for i, (weight, bias) in enumerate(layers, start=1):
                hidden = torch.baddbmm(bias, hidden, weight) if is_stack else nn.functional.linear(hidden, weight, bias)
                hidden = activation(hidden) if i < self.layers else hidden
            return hidden.reshape(*observations.shape[:-1], -1) if is_stack else hidden

        return output

    def output(self, params: Params, observations: Tensor) -> Tensor:
        """Output of the last layer `[..., output]` for observations `[..., obs]`, or `[M, ..., obs]` for M stacks."""
        return self.network(params)(observations)

    def features(self, params: Params, observations: Tensor) -> Tensor:
        """Last hidden features `[..., units]` for observations `[..., obs]`; these, standardised, if none is hidden."""
        if self.layers == 1:
            return self.standardised(observations)
        return self.network(params, self.layers - 1)(observations)

    def last_output(self, params: Params, features: Tensor) -> Tensor:
        """Output of the last layer `[..., output]` for its features `[..., units]`; of one parameter set."""
        return nn.functional.linear(features, *self.layer(params, self.layers - 1))

    def forward(self, params: Params, observations: Tensor) -> Distribution:
        """Distribution of actions in observations `[..., obs]`."""
        return self.at(params)(observations)

    def at(self, params: Params) -> Callable[[Tensor], Distribution]:
        """The same as a function of observations, to be called many times."""
        network = self.network(params)
        return lambda observations: self.distribution(network(observations))

    def from_features(self, params: Params, features: Tensor) -> Distribution:
        """Distribution of actions, from the last hidden features `[..., units]`; of one parameter set."""
        return self.distribution(self.last_output(params, features))


class GaussianMLP(StandardisedMLP):
    """Normal distribution with a mean from a network and a learned standard deviation, the same in all states.

    Args:
        input_size: Size of an observation.
        action_size: Number of action dimensions.
        initial_std: Standard deviation of each action dimension at the start.
        settings: See `StandardisedMLP`.
    """

    distribution = DiagonalGaussian
    direct = ("log_std",)

    def __init__(self, input_size: int, action_size: int, *, initial_std: float = 1.0, **settings: object) -> None:
        super().__init__(input_size, action_size, **settings)  # type: ignore[arg-type]
        self.noise_size = action_size
        self.log_std = nn.Parameter(torch.full((action_size,), float(np.log(initial_std))))

    def last_layer(self) -> tuple[str, ...]:
        """Names of weight and bias of the output layer, and of the logarithm of the standard deviation.

        Raghu et al. (2020, section 4) adapt the head alone and do not mention the standard deviation. It is a bias of
        the output, next to that of the mean, and depends on no feature.
        """
        return *super().last_layer(), LOG_STD

    def forward(self, params: Params, observations: Tensor) -> DiagonalGaussian:
        """Distribution of actions `[..., act]` in observations `[..., obs]`."""
        return DiagonalGaussian(*self.at(params)(observations).parameters())

    def at(self, params: Params) -> Callable[[Tensor], DiagonalGaussian]:
        """The same as a function of observations, to be called many times; `log_std` broadcasts to the mean."""
        network, log_std = self.network(params), params[LOG_STD]
        if log_std.dim() == 1:
            return lambda observations: DiagonalGaussian(network(observations), log_std)

        def acting(observations: Tensor) -> DiagonalGaussian:
            mean = network(observations)
            return DiagonalGaussian(mean, log_std.reshape(len(log_std), *[1] * (mean.dim() - 2), -1))

        return acting

    def from_features(self, params: Params, features: Tensor) -> DiagonalGaussian:
        """Distribution of actions `[..., act]`, from the last hidden features `[..., units]`; of one parameter set."""
        mean = self.last_output(params, features)
        return DiagonalGaussian(mean, params[LOG_STD].expand_as(mean))


class CategoricalMLP(StandardisedMLP):
    """Distribution over a finite number of actions with logits from a network.

    Args:
        input_size: Size of an observation.
        choices: Number of actions.
        settings: See `StandardisedMLP`.
    """

    distribution = Categorical

    def __init__(self, input_size: int, choices: int, **settings: object) -> None:
        super().__init__(input_size, choices, **settings)  # type: ignore[arg-type]
        self.noise_size = choices


class MultiCategoricalMLP(StandardisedMLP):
    """Independent choices with logits from a network.

    Args:
        input_size: Size of an observation.
        sizes: Number of alternatives of each choice.
        settings: See `StandardisedMLP`.
    """

    def __init__(self, input_size: int, sizes: Sequence[int], **settings: object) -> None:
        super().__init__(input_size, sum(sizes), **settings)  # type: ignore[arg-type]
        self.distribution = multi_categorical(tuple(sizes))
        self.noise_size = sum(sizes)


class BernoulliMLP(StandardisedMLP):
    """Independent switches with logits from a network.

    Args:
        input_size: Size of an observation.
        switches: Their number.
        settings: See `StandardisedMLP`.
    """

    distribution = Bernoulli

    def __init__(self, input_size: int, switches: int, **settings: object) -> None:
        super().__init__(input_size, switches, **settings)  # type: ignore[arg-type]
        self.noise_size = switches


MLPPolicy = GaussianMLP | CategoricalMLP | MultiCategoricalMLP | BernoulliMLP
"""The package's multilayer perceptrons."""


def perceptron_for(kind: ActionKind, input_size: int, initial_std: float = 1.0, **settings: object) -> MLPPolicy:
    """The perceptron for a kind of actions.

    Args:
        kind: The kind.
        input_size: Size of an observation.
        initial_std: See `GaussianMLP`; the others have none.
        settings: See `StandardisedMLP`.
    """
    if kind.distribution is Categorical:
        return CategoricalMLP(input_size, kind.size, **settings)
    if kind.distribution is Bernoulli:
        return BernoulliMLP(input_size, kind.size, **settings)
    if kind.sizes:
        return MultiCategoricalMLP(input_size, kind.sizes, **settings)
    return GaussianMLP(input_size, kind.size, initial_std=initial_std, **settings)


class CompletedPolicy(NamedTuple):
    """A policy as a function of its parameters that are not frozen."""

    policy: Policy
    frozen: Params

    @property
    def distribution(self) -> type[Distribution]:
        """Kind of distribution over actions."""
        return self.policy.distribution

    @property
    def noise_size(self) -> int:
        """Size of the noise that selects one action."""
        return self.policy.noise_size

    def __call__(self, params: Params, observations: Tensor) -> Distribution:
        """Distribution over actions, under the frozen parameters and `params`."""
        return self.policy(self.frozen | params, observations)

    def standardised(self, observations: Tensor) -> Tensor:
        """Observations as the network sees them."""
        return self.policy.standardised(observations)

    def last_layer(self) -> tuple[str, ...]:
        """Names of the parameters that ANIL adapts."""
        return self.policy.last_layer()
