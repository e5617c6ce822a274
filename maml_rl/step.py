"""The meta-step: from a meta-gradient to new meta-parameters (Finn, Abbeel, Levine 2017, line 10).

A trust region, Adam, plain gradient descent, or several steps of Adam on the same episodes (ProMP). A step keeps named
tensors for the next one in the `State`, so a checkpoint can store them, and an interrupted iteration never leaves them
half changed.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import SGD, Adam, ProMP, TrustRegion, needs_policy
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.optimizers import AdamConstants, Moments, adam, cosine
from maml_rl.trpo import LineSearch, backtracking, trust_region_step
from maml_rl.types import Params, State, detached, flatten, split, unflatten

_FIRST, _SECOND, _MEAN = "adam.first.", "adam.second.", "mean_gradient."
Rule = TrustRegion | Adam | SGD | ProMP


class Proximal(NamedTuple):
    """A loss on the same episodes at any meta-parameters `[P]`, which equals the meta-objective near the current
    ones."""

    gradient: Callable[[Tensor], Tensor]  # its gradient there, `[P]`
    metrics: Callable[[Tensor], dict[str, float]]  # what to log of it there


class MetaGradient(NamedTuple):
    """The meta-objective at the current meta-parameters, as functions of those that are learned."""

    gradient: Params  # of the mean loss, by name; frozen parameters have none
    loss: Tensor  # []
    metrics: Mapping[str, float] = MappingProxyType({})  # what else to log of it (docs/metrics.md)
    curvature: Callable[[Tensor], Tensor] | None = None  # v -> F v `[P]`, without damping, for a trust region
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None  # vector `[P]` -> loss, and KL from the start
    units: Params = {}  # noqa: RUF012  of the numbers of a meta-parameter, for the damping; 1 where there is none
    proximal: Proximal | None = None  # for several steps on the same episodes


MetaStep = Callable[[State, MetaGradient], tuple[State, dict[str, float]]]
"""A meta-step: the state after it, and what to log of it."""


def initial_optimizer(rule: Rule, learned: Params) -> Params:
    """What the first step starts from: Adam's moments of each parameter, all 0; otherwise nothing."""
    if isinstance(rule, TrustRegion) and rule.momentum:
        return {_MEAN + name: torch.zeros_like(value) for name, value in learned.items()}
    if not isinstance(rule, Adam | ProMP):
        return {}
    return {moment + name: torch.zeros_like(value) for moment in (_FIRST, _SECOND) for name, value in learned.items()}


def meta_step(rule: Rule, state: State, gradient: MetaGradient) -> tuple[State, dict[str, float]]:
    """The state after one meta-step, and what to log of it (docs/metrics.md).

    Args:
        rule: Which step, with its settings.
        state: The state after the previous iterations.
        gradient: The meta-objective at `state.meta`.

    Raises:
        NonFiniteError: If the meta-gradient, the loss or the step is not finite; names the quantity.
    """
    meta = detached(state.meta)
    learned = split(meta, gradient.gradient)[0]
    vector, flat = flatten(learned), flatten({name: gradient.gradient[name] for name in learned})
    require_finite("outer loss", gradient.loss)
    require_finite("meta-gradient", flat)
    optimizer = state.optimizer
    metrics = {**gradient.metrics, "meta/gradient_norm": float(flat.norm())}
    if isinstance(rule, TrustRegion):
        if rule.momentum:
            flat, optimizer = _averaged(rule, learned, flat, state)
        found = _trust_region(rule, learned, vector, flat, gradient)
        new = found.vector
        metrics |= {
            "meta/loss_after": float(found.loss),
            "meta/kl": float(found.kl),
            "meta/backtracks": float(found.backtracks),
            "meta/accepted": float(found.accepted),
        }
    else:
        proximal = _proximal(rule, gradient)
        new, optimizer = _descent(rule, learned, vector, flat, state, proximal)
        require_finite("meta-step", new)
        metrics |= proximal.metrics(new) if proximal else {}
    metrics["meta/step_norm"] = float((new - vector).norm())
    return State(meta | unflatten(new, learned), optimizer, state.iteration + 1), metrics


def _trust_region(
    rule: TrustRegion, learned: Params, vector: Tensor, flat: Tensor, gradient: MetaGradient
) -> LineSearch:
    """The step in units in which a change of 1 moves the adapted parameters alike, so that damping weighs all alike.

    With D the diagonal of the units and y = D^-1 s, it is that of the gradient D g and the curvature D F D + damping.
    """
    if gradient.curvature is None or gradient.evaluate is None:
        raise needs_policy(rule.rule)
    product = gradient.curvature
    units = flatten({name: gradient.units.get(name, torch.ones_like(value)) for name, value in learned.items()})

    def damped(change: Tensor) -> Tensor:
        return units * product(units * change) + rule.cg_damping * change

    step = units * trust_region_step(units * flat, damped, rule.max_kl, rule.cg_iterations)
    require_finite("meta-step", step)
    return backtracking(
        gradient.evaluate, vector, gradient.loss, step, rule.max_kl, rule.backtrack_ratio, rule.max_backtracks
    )


def _averaged(rule: TrustRegion, learned: Params, flat: Tensor, state: State) -> tuple[Tensor, Params]:
    before = _kept(state, _MEAN, learned)
    mean = rule.momentum * before + (1 - rule.momentum) * flat
    named = {_MEAN + name: value for name, value in unflatten(mean, learned).items()}
    return mean / (1 - rule.momentum ** (state.iteration + 1)), named


def _proximal(rule: Adam | SGD | ProMP, gradient: MetaGradient) -> Proximal | None:
    """The loss of the steps after the first, where there are any."""
    if not isinstance(rule, ProMP):
        return None
    if gradient.proximal is None:
        raise needs_policy(rule.rule)
    return gradient.proximal


def _descent(
    rule: Adam | SGD | ProMP, learned: Params, vector: Tensor, flat: Tensor, state: State, proximal: Proximal | None
) -> tuple[Tensor, Params]:
    """The vector after one step, or several of ProMP, and what the optimiser keeps."""
    lr = cosine(rule.lr, rule.cosine_iterations, state.iteration)
    if isinstance(rule, SGD):
        return vector - lr * _bounded(rule, flat), {}
    moments = Moments(*(_kept(state, moment, learned) for moment in (_FIRST, _SECOND)))
    constants = AdamConstants()
    if isinstance(rule, Adam):
        constants = AdamConstants(rule.mean_decay, rule.square_decay, rule.epsilon)
    epochs = rule.epochs if isinstance(rule, ProMP) else 1
    for epoch in range(epochs):
        if epoch and proximal:
            flat = proximal.gradient(vector)
            require_finite("meta-gradient", flat)
        count = state.iteration * epochs + epoch + 1
        vector, moments = adam(vector, _bounded(rule, flat), moments, lr, count, constants)
    named = zip((_FIRST, _SECOND), (unflatten(moment, learned) for moment in moments), strict=True)
    return vector, {moment + name: value for moment, values in named for name, value in values.items()}


def _kept(state: State, prefix: str, learned: Params) -> Tensor:
    """What earlier steps have kept for each learned parameter, `[P]`."""
    missing = [prefix + name for name in learned if prefix + name not in state.optimizer]
    if missing:
        raise InputError(f"the state has no {missing[0]}: start from `initial_optimizer` for this meta-step")
    return flatten({name: state.optimizer[prefix + name] for name in learned})


def _bounded(rule: Adam | SGD | ProMP, flat: Tensor) -> Tensor:
    bound = rule.gradient_clip
    flat = flat if bound is None else flat.clamp(-bound, bound)
    return flat if rule.norm_clip is None else flat * (rule.norm_clip / flat.norm()).clamp(max=1.0)


def require_finite(name: str, value: Tensor) -> None:
    """Checks a quantity.

    Raises:
        NonFiniteError: If it is not finite; names it.
    """
    if not value.isfinite().all():
        raise NonFiniteError(f"{name} is not finite")
