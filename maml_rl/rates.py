"""Step sizes of the inner update: which parameters it changes, and by what step (Finn, Abbeel, Levine 2017, line 6).

One for all (the paper), of the last layer alone (Raghu et al. 2020, ANIL), or learned together with theta: one for each
number (Li et al. 2017, Meta-SGD), or one for each tensor and gradient step (Antoniou et al. 2019, MAML++). Learned ones
are meta-parameters, under `inner_lr.` and the name of the parameter that they belong to.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import LearnedLr, MetaConfig
from maml_rl.types import Params

Rates = Mapping[str, float | Tensor]
"""Step size of each parameter that an inner update changes, by its name: a number, or one for each of its elements."""

_PREFIX = "inner_lr."


class InnerRates(NamedTuple):
    """Step sizes of all gradient steps."""

    names: tuple[str, ...]  # parameters that the inner update changes
    inner_lr: float
    learned: LearnedLr
    steps: int  # gradient steps that the step sizes are learned for

    def initial(self, theta: Params) -> Params:
        """Learned step sizes before the first iteration, all `inner_lr`; none where they are not learned."""
        if self.learned == "parameter":
            return {_PREFIX + name: torch.full_like(theta[name], self.inner_lr) for name in self.names}
        if self.learned == "tensor-and-step":
            return {_PREFIX + name: theta[name].new_full((self._steps,), self.inner_lr) for name in self.names}
        return {}

    @property
    def are_learned(self) -> bool:
        """Whether they are meta-parameters."""
        return self.learned != "no"

    def at(self, meta: Params, step: int, factor: float = 1.0) -> Rates:
        """Step sizes of a gradient step (from 0), times `factor`.

        Those of each tensor and step stay what they are at the last step that was trained.
        """
        if self.learned == "parameter":
            rates = {name: meta[_PREFIX + name] for name in self.names}
        elif self.learned == "tensor-and-step":
            rates = {name: meta[_PREFIX + name][self._trained(step)] for name in self.names}
        else:
            return dict.fromkeys(self.names, self.inner_lr * factor)
        return rates if factor == 1.0 else {name: rate * factor for name, rate in rates.items()}

    def transposed(self, vector: Params, step: int) -> Params:
        """The transpose of `at`, which is linear where step sizes are learned.

        Args:
            vector: A number for each element of the parameters that the gradient step changes.
            step: The gradient step, from 0.

        Returns:
            A number for each element of the learned step sizes: the sum over what it is the step size of.
        """
        if self.learned == "parameter":
            return {_PREFIX + name: vector[name] for name in self.names}
        chosen = torch.arange(self._steps) == self._trained(step)
        return {_PREFIX + name: vector[name].sum() * chosen.to(vector[name]) for name in self.names}

    @property
    def _steps(self) -> int:
        return max(self.steps, 1)

    def _trained(self, step: int) -> int:
        return min(step, self._steps - 1)


def inner_rates(config: MetaConfig, names: Collection[str]) -> InnerRates:
    """Step sizes as settings have them, of the parameters that the inner update changes."""
    return InnerRates(tuple(names), config.inner_lr, config.learned_lr, config.inner_steps)


def rate_metrics(meta: Params) -> dict[str, float]:
    """What to log of learned step sizes: their mean, the lowest, and the share below 0; nothing where none is learned.

    A negative one is no error (Li et al. 2017 allow it): there the inner update ascends the loss.
    """
    learned = [value.detach().reshape(-1) for name, value in meta.items() if name.startswith(_PREFIX)]
    if not learned:
        return {}
    rates = torch.cat(learned)
    shown = {"mean": rates.mean(), "lowest": rates.min(), "negative": (rates < 0).float().mean()}
    return {f"inner/lr_{name}": float(value) for name, value in shown.items()}


def theta(meta: Params) -> Params:
    """The meta-parameters without learned step sizes: what the network is applied with."""
    return {name: value for name, value in meta.items() if not name.startswith(_PREFIX)}
