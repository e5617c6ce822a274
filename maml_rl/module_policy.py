"""Policies whose network is any `nn.Module`: from the parts of an observation to features.

The policy standardises the numbers of an observation, scales its pictures to [0, 1], and gives its parts to the module.
A linear layer, the head, turns the features into a distribution over actions. Parameters stay a mapping of names: those
of the module under `network.`, and of the head. Derivatives are recorded (`maml_rl.linear_policy`).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.actions import ActionKind
from maml_rl.distributions import DiagonalGaussian, Distribution
from maml_rl.observations import Part, Parts
from maml_rl.policies import LOG_STD, Standardisation
from maml_rl.supervised.networks import Network
from maml_rl.types import Params, repeat, select

Seen = Tensor | Mapping[str, Tensor]
"""What a module gets: the only part of an observation, or each part by its name; `[N, *part.seen]`."""
PICTURE_RANGE = 255.0
"""Largest value of a picture, by which it is divided."""
_NETWORK = "network."
_CELLS = 4  # of a picture in each direction, whose means the baseline sees


class ModulePolicy(nn.Module):
    """Distribution over actions from the features of a module.

    Args:
        network: Takes `Seen` and returns features `[N, features]`, each row from its own observation alone.
        parts: Parts of an observation.
        features: Number of features.
        actions: Kind of the actions.
        generator: Source of the head's initial weights, uniform within Glorot's bound.
        initial_std: Standard deviation of each action dimension at the start, of a normal distribution.
        standardisation: Shift, scale and bound of the numbers of an observation; None of them by default. Those of
            pictures should be 0 and 255.

    Attributes:
        is_mapped: Whether `torch.func.vmap` maps the module over tasks, each with its own parameters. Where that works,
            it is done on an accelerator, and on a CPU if the module has a true attribute `rounds_alike`. Otherwise
            tasks run one after the other. On a CPU, the rounding of functions such as softplus depends on the number of
            tasks that they are mapped over, so the number of sub-environments would change a run.
    """

    def __init__(
        self,
        network: nn.Module,
        parts: Parts,
        features: int,
        actions: ActionKind,
        generator: np.random.Generator,
        initial_std: float = 1.0,
        standardisation: Standardisation | None = None,
    ) -> None:
        super().__init__()
        self.network, self.parts = network, parts
        self.actions, self.distribution, self.noise_size = actions, actions.distribution, actions.size
        bound = (6 / (features + actions.size)) ** 0.5
        weight = generator.uniform(-bound, bound, (actions.size, features)).astype(np.float32)
        self.head_weight = nn.Parameter(torch.from_numpy(weight))
        self.head_bias = nn.Parameter(torch.zeros(actions.size))
        if self.distribution is DiagonalGaussian:
            self.log_std = nn.Parameter(torch.full((actions.size,), float(np.log(initial_std))))
        mean, std, self.clip = standardisation or plain_standardisation(parts)
        size = sum(part.size for part in parts)
        self.observation_mean: Tensor
        self.observation_std: Tensor
        self.register_buffer("observation_mean", torch.zeros(size) if mean is None else mean)
        self.register_buffer("observation_std", torch.ones(size) if std is None else std)
        self._prepare()

    def _apply(self, *arguments: Any, **settings: Any) -> Self:
        """Also moves the module that is applied: `to` and `cpu` call this."""
        moved: Self = super()._apply(*arguments, **settings)  # type: ignore[no-untyped-call]
        self._prepare()
        return moved

    def _prepare(self) -> None:
        self._function = Network(self.network)
        rounds_alike = getattr(self.network, "rounds_alike", False) is True
        fits = rounds_alike or self.observation_mean.device.type != "cpu"
        self.is_mapped = fits and self._can_be_mapped()

    def last_layer(self) -> tuple[str, ...]:
        """Names of weight and bias of the head, and of the logarithm of the standard deviation, if there is one."""
        return ("head_weight", "head_bias", *([LOG_STD] if self.distribution is DiagonalGaussian else []))

    def standardised(self, observations: Tensor) -> Tensor:
        """Observations `[..., obs]` as the module sees them: (x - mean) / std, within +-clip."""
        return Standardisation(self.observation_mean, self.observation_std, self.clip).of(observations)

    def forward(self, params: Params, observations: Tensor) -> Distribution:
        """Distribution of actions in observations `[..., obs]`, or `[M, ..., obs]` for M stacks of parameters."""
        return self.distribution(*self.at(params)(observations).parameters())

    def at(self, params: Params) -> Callable[[Tensor], Distribution]:
        """The same as a function of observations, to be called many times; `log_std` broadcasts to the mean."""
        own, weight, bias = _own(params), params["head_weight"], params["head_bias"]
        each: list[Params] = []
        if weight.dim() == 3 and not self.is_mapped:
            each = [select(own, m) for m in range(len(weight))]

        def acting(observations: Tensor) -> Distribution:
            shape = observations.shape[:-1]
            seen = self.standardised(observations)
            if weight.dim() == 2:
                rows = self._features(own, seen.reshape(-1, seen.shape[-1]))
                output = nn.functional.linear(rows, weight, bias)
            else:
                seen = seen.reshape(len(weight), -1, seen.shape[-1])
                if self.is_mapped:
                    rows = torch.func.vmap(self._features)(own, seen)
                else:
                    rows = torch.stack([self._features(*one) for one in zip(each, seen, strict=True)])
                output = torch.baddbmm(bias[:, None], rows, weight.mT)
            return self._distribution(params, output.reshape(*shape, -1))

        return acting

    def features(self, params: Params, observations: Tensor) -> Tensor:
        """Features `[..., features]` of the module in observations `[..., obs]`; of one parameter set."""
        seen = self.standardised(observations)
        return self._features(_own(params), seen.reshape(-1, seen.shape[-1])).reshape(*observations.shape[:-1], -1)

    def from_features(self, params: Params, features: Tensor) -> Distribution:
        """Distribution of actions, from the module's features `[..., features]`; of one parameter set."""
        output = nn.functional.linear(features, params["head_weight"], params["head_bias"])
        return self.distribution(*self._distribution(params, output).parameters())

    def of_baseline(self, observations: Tensor, raw: bool) -> Tensor:
        """What the baseline sees `[..., of_baseline_size]` of observations `[..., obs]`.

        For a picture, these are its means over a grid of 4 x 4 cells, in [0, 1]: a linear baseline on every pixel would
        have more weights than a task has steps. Other parts stay as they are.

        Args:
            observations: Observations.
            raw: Whether these are raw rather than standardised.
        """
        standardised = self.standardised(observations)
        found = []
        for part, own, scaled in zip(self.parts, self._split(observations), self._split(standardised), strict=True):
            if part.is_picture:
                cells = _cells(_picture(part, scaled.reshape(-1, part.size)))
                found.append(cells.reshape(*scaled.shape[:-1], -1))
            else:
                found.append(own if raw else scaled)
        return torch.cat(found, -1)

    @property
    def of_baseline_size(self) -> int:
        """Numbers that the baseline sees of an observation."""
        return len(self.of_baseline(torch.zeros_like(self.observation_mean), raw=True))

    def _distribution(self, params: Params, output: Tensor) -> Distribution:
        if self.distribution is not DiagonalGaussian:
            return self.distribution(output)
        log_std = params[LOG_STD]
        if log_std.dim() == 2:
            log_std = log_std.reshape(len(log_std), *[1] * (output.dim() - 2), -1)
        return DiagonalGaussian(output, log_std)

    def _features(self, own: Params, seen: Tensor) -> Tensor:
        """Features `[N, features]` of rows `[N, obs]` of standardised observations."""
        given = dict(zip((part.name for part in self.parts), self._inputs(seen), strict=True))
        return self._function(own, given.get("", given))  # type: ignore[arg-type]

    def _inputs(self, seen: Tensor) -> Iterator[Tensor]:
        for part, rows in zip(self.parts, self._split(seen), strict=True):
            yield _picture(part, rows) if part.is_picture else rows.reshape(-1, *part.shape)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, [part.size for part in self.parts], -1)

    def _can_be_mapped(self) -> bool:
        """Whether the module gives the same for two tasks under `vmap` as for each of them separately."""
        own = {name: value.detach() for name, value in self.network.named_parameters()}
        rows = torch.linspace(0, 1, 6 * len(self.observation_mean)).reshape(2, 3, -1).to(self.observation_mean)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")  # vmap warns of what it maps in a slow loop
            try:
                mapped = torch.func.vmap(self._features)(repeat(own, 2), rows)
            except Exception:  # the user's module may raise anything
                return False
            return torch.allclose(mapped, torch.stack([self._features(own, of_task) for of_task in rows]), atol=1e-5)


def plain_standardisation(parts: Parts, clip: float | None = None) -> Standardisation:
    """The standardisation that leaves numbers as they are, and scales pictures to [0, 1]."""
    std = torch.cat([torch.full((part.size,), PICTURE_RANGE if part.is_picture else 1.0) for part in parts])
    return Standardisation(torch.zeros_like(std), std, clip)


def _own(params: Params) -> Params:
    return {name.removeprefix(_NETWORK): value for name, value in params.items() if name.startswith(_NETWORK)}


def _picture(part: Part, rows: Tensor) -> Tensor:
    """Pictures `[N, channels, height, width]` from rows `[N, numbers]`."""
    pictures = rows.reshape(-1, *part.shape)
    if pictures.dim() == 3:
        return pictures[:, None]
    return pictures.movedim(-1, 1) if part.channels_last else pictures


def _cells(pictures: Tensor) -> Tensor:
    """Means of pictures `[N, channels, height, width]` over the cells of a grid."""
    return nn.functional.adaptive_avg_pool2d(pictures, _CELLS)
