"""The inner update's step sizes and shift: theta' = theta - a * g + b (Finn, Abbeel, Levine 2017, line 6).

The step sizes a are one number for all parameters (the paper), for those of the last layer (Raghu et al. 2020, ANIL) or
for a context alone (Zintgraf et al. 2019, CAVIA). Or they are learned together with theta: one for each number (Li et
al. 2017, Meta-SGD), or one for each tensor and gradient step (Antoniou et al. 2019, MAML++). A Wiener filter may
multiply them (`maml_rl.gradient_filter`). The shift b of the logarithm of the standard deviation is learned too, or
absent.

Learned or measured quantities are part of the meta-parameters, under a prefix and the name of their parameter.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import Adapted, LearnedLr, MetaConfig
from maml_rl.errors import InputError
from maml_rl.gradient_filter import filter_metrics, gains, initial_statistics, is_statistic
from maml_rl.types import Params, frozen_names

Rates = Mapping[str, float | Tensor]
"""Step size of each parameter that an inner update changes, by its name: a number, or one for each of its elements."""

_LR, _SHIFT = "inner_lr.", "inner_shift."
LSTM = "inner_lstm."
"""Prefix of what is learned of an inner update by an LSTM (`maml_rl.supervised.meta_lstm`)."""
CONTEXT = "context"
"""Name of a parameter of context numbers, in a network or in a part of one."""


class InnerUpdate(NamedTuple):
    """How one inner update uses a gradient."""

    rates: Rates
    shift: Params = {}  # noqa: RUF012  what it also adds; never changed in place
    normalised: bool = False  # whether the gradient is divided by its length first


class InnerRates(NamedTuple):
    """Step sizes and shift of all gradient steps."""

    names: tuple[str, ...]  # parameters that the inner update changes
    inner_lr: float
    learned: LearnedLr
    steps: int  # gradient steps that the step sizes are learned for
    filtered: bool = False  # whether the gradient's Wiener filter multiplies the step sizes
    normalised: bool = False  # whether the gradient is divided by its length
    shift: Mapping[str, float] = {}  # parameters that the first inner update also shifts, and by how much at the start

    def initial(self, theta: Params) -> Params:
        """What is learned or measured, before the first iteration: step sizes of `inner_lr`, and the shift."""
        found = {_SHIFT + name: torch.full_like(theta[name], value) for name, value in self.shift.items()}
        if self.learned == "parameter":
            found |= {_LR + name: torch.full_like(theta[name], self.inner_lr) for name in self.names}
        if self.learned == "tensor-and-step":
            found |= {_LR + name: theta[name].new_full((self._steps,), self.inner_lr) for name in self.names}
        return found | (initial_statistics({name: theta[name] for name in self.names}) if self.filtered else {})

    @property
    def has_learned_lr(self) -> bool:
        """Whether step sizes are meta-parameters."""
        return self.learned != "no"

    @property
    def has_learned(self) -> bool:
        """Whether step sizes or the shift are meta-parameters."""
        return self.has_learned_lr or bool(self.shift)

    def at(self, meta: Params, step: int, factor: float = 1.0) -> InnerUpdate:
        """The inner update of a gradient step (from 0), its step sizes times `factor`.

        After the last step of training, step sizes of each tensor and step stay what they are there. The shift is that
        of the adapted policy, so only the first step adds it.
        """
        gain = self.gains(meta)
        fixed = dict.fromkeys(self.names, self.inner_lr)
        rates = self.learned_lr(meta, step) if self.has_learned_lr else fixed
        rates = {name: rate if factor == 1.0 else rate * factor for name, rate in rates.items()}
        rates |= {name: rates[name] * value for name, value in gain.items()}
        return InnerUpdate(rates, self.learned_shift(meta) if step == 0 else {}, self.normalised)

    def gains(self, meta: Params) -> Params:
        """Factor of the Wiener filter on each step size; none without it."""
        return gains(meta, self.names) if self.filtered else {}

    def learned_lr(self, meta: Params, step: int) -> Rates:
        """Learned step sizes of a gradient step, without the filter; linear in `meta`."""
        if self.learned == "parameter":
            return {name: meta[_LR + name] for name in self.names}
        return {name: meta[_LR + name][self._trained(step)] for name in self.names}

    def learned_shift(self, meta: Params) -> Params:
        """The learned shift of the first gradient step; linear in `meta`."""
        return {name: meta[_SHIFT + name] for name in self.shift}

    def transposed_lr(self, vector: Params, step: int) -> Params:
        """The transpose of `learned_lr`.

        Args:
            vector: A number for each element of the parameters that the gradient step changes.
            step: The gradient step, from 0.

        Returns:
            A number for each element of the learned step sizes: the sum over the numbers that share it.
        """
        if self.learned == "parameter":
            return {_LR + name: vector[name] for name in self.names}
        chosen = torch.arange(self._steps) == self._trained(step)
        return {_LR + name: vector[name].sum() * chosen.to(vector[name]) for name in self.names}

    def transposed_shift(self, vector: Params) -> Params:
        """The transpose of `learned_shift`."""
        return {_SHIFT + name: vector[name] for name in self.shift}

    @property
    def _steps(self) -> int:
        return max(self.steps, 1)

    def _trained(self, step: int) -> int:
        return min(step, self._steps - 1)


def inner_rates(config: MetaConfig, names: Collection[str]) -> InnerRates:
    """Step sizes from the settings, for the parameters that the inner update changes."""
    return InnerRates(tuple(names), config.inner_lr, config.learned_lr, config.inner_steps)


def context_names(names: Collection[str]) -> list[str]:
    """Those of the network's own parameters that are a context (Zintgraf et al. 2019, CAVIA)."""
    return [name for name in _own(names) if name.rpartition(".")[2] == CONTEXT]


def begun(params: Params, adapted: Adapted) -> Params:
    """Parameters of a network as every task starts with them: a context is 0 if it alone is adapted."""
    if adapted != "context":
        return params
    return params | {name: torch.zeros_like(params[name]) for name in context_names(params)}


def fixed_names(module: object, meta: Collection[str], adapted: Adapted) -> frozenset[str]:
    """Names of the meta-parameters that no meta-step changes.

    They are frozen, or measured, or a context that alone is adapted and that each task starts at 0.

    Args:
        module: The network.
        meta: Names of the meta-parameters.
        adapted: Which parameters the inner update changes.

    Raises:
        InputError: If none of the network's parameters is left to learn.
    """
    fixed = frozen_names(module)
    if adapted == "context":
        fixed = fixed.union(context_names(meta))
        if fixed.issuperset(_own(meta)):
            raise InputError("only the context is not frozen, and each task starts it at 0: there is nothing to learn")
    return fixed.union(filter(is_statistic, meta))


def rate_metrics(meta: Params) -> dict[str, float]:
    """Metrics of learned step sizes: their mean, the lowest, and the share below 0; and the mean learned shift.

    Metrics of the filter are included (`filter_metrics`), and there are none for what is not learned. A negative step
    size is not an error (Li et al. 2017 allow it): there, the inner update ascends the loss.
    """
    metrics: dict[str, float] = {}
    if learned := [value.detach().reshape(-1) for name, value in meta.items() if name.startswith(_LR)]:
        rates = torch.cat(learned)
        shown = {"mean": rates.mean(), "lowest": rates.min(), "negative": (rates < 0).float().mean()}
        metrics |= {f"inner/lr_{name}": float(value) for name, value in shown.items()}
    for name, value in meta.items():
        if name.startswith(_SHIFT):
            metrics[f"inner/shift_{name.removeprefix(_SHIFT)}"] = float(value.mean())
    return metrics | filter_metrics(meta)


def theta(meta: Params) -> Params:
    """The meta-parameters that the network is applied with: without what belongs to the inner update."""
    return {name: meta[name] for name in _own(meta)}


def _own(meta: Collection[str]) -> list[str]:
    """Names of the network's own parameters among the meta-parameters."""
    return [name for name in meta if not name.startswith((_LR, _SHIFT, LSTM)) and not is_statistic(name)]
