"""The meta-gradient of Algorithm 3: the loss and the KL of the adapted policies, as functions of the meta-parameters.

Meta-parameters are theta and, where they are learned, the inner step sizes. At the old ones the KL's gradient is 0, so
the Hessian of its mean over tasks is exactly the mean of J_i^T F_i J_i, with J_i the derivative of theta_i' and F_i the
Fisher matrix at theta_i': Hessian products of the inner loss and one Fisher product, no third derivative.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import ProMP, RLMeta, TrustRegion
from maml_rl.derivatives import Product, TaskLoss, gradient_and_value, recorded_gradient
from maml_rl.distributions import Distribution
from maml_rl.inner import inner_path
from maml_rl.jacobian import AdaptationJacobian, adaptation_jacobian, largest_curvature
from maml_rl.linear_policy import distribution_at, fisher_product, linear_policy, task_loss
from maml_rl.objectives import Loss, inner_loss, likelihood_ratio, surrogate_and_kl
from maml_rl.parallel import TaskThreads, mean_over_tasks
from maml_rl.policies import CompletedPolicy, Policy, policy_rates
from maml_rl.promp import ProximalTask
from maml_rl.rates import InnerRates, fixed_names, theta
from maml_rl.sampling_credit import credit_losses
from maml_rl.step import MetaGradient, Proximal
from maml_rl.types import Batch, Params, detached, flatten, frozen_names, split, stack, unflatten

_CURVATURE_TASKS = 4  # tasks whose inner curvature is measured, for the log


class TaskData(NamedTuple):
    """What one task contributes to the meta-gradient."""

    support: Sequence[Batch]  # steps sampled before each inner update
    path: Sequence[Params]  # parameters that sampled them, and last the adapted ones
    query: Batch  # steps sampled by the adapted parameters
    credit: Sequence[Tensor] = ()  # [K] of the episodes of each support batch (`sampling_credit`); none without it


def meta_objective(
    policy: Policy, meta: Params, tasks: Sequence[TaskData], config: RLMeta, threads: TaskThreads
) -> MetaGradient:
    """The mean over tasks of L(f_theta_i') (line 10), with all that a meta-step needs of it.

    Parameters of the policy that are frozen with `requires_grad_(False)` take no part in it, as in the inner update. A
    context that each task starts at 0 takes part in the adaptation but has no gradient.

    Args:
        policy: The policy.
        meta: Meta-parameters.
        tasks: What was sampled for each task.
        config: Settings.
        threads: Threads that share the tasks.

    Raises:
        InputError: If all parameters are frozen, or those that the inner update should change.
    """
    objective = _objective(policy, meta, tasks, config, threads)
    measured = range(_CURVATURE_TASKS if config.inner_steps and not config.first_order else 0)
    indices = threads.share.indices if threads.share else range(len(tasks))
    linear = threads.map(lambda m, data: _linearise(objective, data, m in measured), indices, objective.tasks)
    gradient = threads.mean(objective.vector(task.gradient) for task in linear)
    loss = threads.mean(task.loss for task in linear)
    metrics = {"meta/loss_before": float(loss)}
    if measured:
        curvatures = threads.gathered(task.inner_curvature for task in linear)
        metrics["inner/curvature"] = float(mean_over_tasks(curvatures[: len(measured)]))
    regions = [task.region for task in linear if task.region is not None]
    return MetaGradient(
        gradient=unflatten(gradient, objective.learned),
        loss=loss,
        metrics=metrics,
        curvature=partial(_curvature, objective, regions) if regions else None,
        evaluate=partial(_evaluate, objective, regions) if regions else None,
        proximal=_proximal(objective, config.step) if isinstance(config.step, ProMP) else None,
        units=_units([region.jacobian for region in regions], threads),
    )


class _Objective(NamedTuple):
    """The meta-objective, with everything that stays the same during a meta-step."""

    policy: Policy  # a function of parameters that are not frozen, as all parameters here
    loss: Loss
    rates: InnerRates
    learned: Params  # the old meta-parameters
    fixed: Params  # those that are not frozen, yet no meta-step changes: a context, and what is measured
    tasks: Sequence[TaskData]
    config: RLMeta
    threads: TaskThreads

    def vector(self, meta: Params) -> Tensor:
        """Meta-parameters, or a gradient with respect to them, as a vector `[P]`."""
        return flatten({name: meta[name] for name in self.learned})

    def credit_losses(self, data: TaskData) -> list[TaskLoss]:
        """What credits theta for each batch of support, as losses of the parameters that sampled it."""
        return credit_losses(self.policy, data.support, data.credit)

    def jacobian(self, data: TaskData, fraction: float) -> AdaptationJacobian:
        """J of a task, with Hessians on a share of its steps."""
        losses = inner_losses(self.loss, [thin(batch, fraction) for batch in data.support])
        meta = self.fixed | self.learned
        return adaptation_jacobian(losses, data.path, self.rates, meta, self.config.first_order)


def inner_losses(loss: Loss, support: Sequence[Batch]) -> list[TaskLoss]:
    """The loss of each inner update, as a function of parameters."""
    return [task_loss(loss, batch) for batch in support]


def _objective(
    policy: Policy, meta: Params, tasks: Sequence[TaskData], config: RLMeta, threads: TaskThreads
) -> _Objective:
    names = frozen_names(policy)
    frozen, rest = split(detached(meta), names)
    fixed, learned = split(rest, fixed_names(policy, meta, config.adapted))
    completed = CompletedPolicy(policy, frozen)
    return _Objective(
        policy=completed,
        loss=inner_loss(completed, config),
        rates=policy_rates(policy, theta(meta), config),
        learned=learned,
        fixed=fixed,
        tasks=[data._replace(path=[split(detached(params), names)[1] for params in data.path]) for data in tasks],
        config=config,
        threads=threads,
    )


class _Region(NamedTuple):
    """What a trust region needs of one task at the old meta-parameters."""

    jacobian: AdaptationJacobian
    fisher: Product
    old: Distribution  # of the adapted policy in all query steps


class _Linear(NamedTuple):
    """One task at the old meta-parameters."""

    gradient: Params  # of the outer loss with respect to the meta-parameters
    loss: Tensor
    inner_curvature: Tensor  # of the first inner update; 0 if it is not measured
    region: _Region | None


def _linearise(objective: _Objective, data: TaskData, measured: bool) -> _Linear:
    policy, adapted, region = objective.policy, data.path[-1], objective.config.step
    full = jacobian = objective.jacobian(data, 1.0)
    near = linear_policy(policy, adapted, data.query.observations)
    surrogate = recorded_gradient(
        lambda *p: likelihood_ratio(policy.distribution(*p), data.query), near.distribution.parameters()
    )
    credited = [
        gradient_and_value(loss, start) for loss, start in zip(objective.credit_losses(data), data.path, strict=False)
    ]
    along = [of_start for of_start, _ in credited]
    gradient = full.transposed_product(near.transposed(tuple(surrogate.parts)), along)
    value = sum((credit for _, credit in credited), start=surrogate.value)
    of_region = None
    if isinstance(region, TrustRegion):
        if region.hessian_fraction != 1:
            jacobian = objective.jacobian(data, region.hessian_fraction).with_gradients_of(full)
        fraction = region.curvature_fraction
        few = near if fraction == 1 else linear_policy(policy, adapted, thin(data.query, fraction).observations)
        of_region = _Region(jacobian, fisher_product(few), near.distribution)
    curvature = largest_curvature(jacobian, gradient) if measured else torch.zeros_like(value)
    return _Linear(gradient, value, curvature, of_region)


def _units(jacobians: Sequence[AdaptationJacobian], threads: TaskThreads) -> Params:
    """A unit for each learned step size: 1 over the size of the gradients that it multiplies.

    A change of theta by 1 changes theta' by about 1. A change of a step size by 1 changes theta' only by the gradient.
    For a single number that is two orders of magnitude less, and damping would all but prevent it.
    """
    squares = [jacobian.squared_gradients() for jacobian in jacobians]
    means = {name: threads.mean(of_task[name] for of_task in squares) for name in (squares[0] if squares else {})}
    return {name: mean.clamp(min=torch.finfo(mean.dtype).tiny).rsqrt() for name, mean in means.items()}


def _curvature(objective: _Objective, regions: Sequence[_Region], vector: Tensor) -> Tensor:
    """The mean of J^T F J v."""
    still = {name: torch.zeros_like(value) for name, value in objective.fixed.items()}
    change = still | unflatten(vector, objective.learned)

    def of_task(region: _Region) -> Tensor:
        return objective.vector(curvature_product(region.jacobian, region.fisher, change))

    return objective.threads.mean(objective.threads.map(of_task, regions))


def _evaluate(objective: _Objective, regions: Sequence[_Region], vector: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and KL of the policies adapted from other meta-parameters; the KL is from the old adapted policies."""
    candidate = objective.fixed | unflatten(vector, objective.learned)
    updates = [objective.rates.at(candidate, step) for step in range(objective.config.inner_steps)]

    def of_task(data: TaskData, region: _Region) -> Tensor:
        with torch.no_grad():
            path = inner_path(inner_losses(objective.loss, data.support), theta(candidate), updates)
            new = distribution_at(objective.policy, path[-1], data.query.observations)
            loss, kl = surrogate_and_kl(new, data.query, region.old)
            credited = zip(objective.credit_losses(data), path, strict=False)
            return torch.stack([sum((credit(start) for credit, start in credited), start=loss), kl])

    loss, kl = objective.threads.mean(objective.threads.map(of_task, objective.tasks, regions))
    return loss, kl


def _proximal(objective: _Objective, rule: ProMP) -> Proximal:
    """The loss of proximal meta-policy search, as a mean over tasks."""

    def of_task(data: TaskData) -> ProximalTask:
        batches = [*data.support, data.query]
        points = zip(data.path, batches, strict=True)
        old = [distribution_at(objective.policy, params, batch.observations) for params, batch in points]
        losses, first_order = inner_losses(objective.loss, data.support), objective.config.first_order
        policy, rates, credited = objective.policy, objective.rates, objective.credit_losses(data)
        return ProximalTask(policy, rule, losses, rates, first_order, data.support, data.query, old, credited)

    tasks = objective.threads.map(of_task, objective.tasks)

    def gradient(vector: Tensor) -> Tensor:
        meta = objective.fixed | unflatten(vector, objective.learned)
        return objective.threads.mean(objective.threads.map(lambda task: objective.vector(task.gradient(meta)), tasks))

    def metrics(vector: Tensor) -> dict[str, float]:
        meta = objective.fixed | unflatten(vector, objective.learned)
        measured = stack(objective.threads.map(lambda task: task.metrics(meta), tasks))
        return {name: float(objective.threads.mean(values)) for name, values in measured.items()}

    return Proximal(gradient, metrics)


def curvature_product(jacobian: AdaptationJacobian, fisher: Product, vector: Params) -> Params:
    """J^T F J v of one task."""
    return jacobian.transposed_product(fisher(jacobian.product(vector)))


def thin(batch: Batch, fraction: float) -> Batch:
    """Evenly spaced steps of a batch, `fraction` of them, at least one."""
    if fraction == 1:
        return batch
    count = len(batch.observations)
    chosen = torch.linspace(0, count - 1, max(1, round(fraction * count)), device=batch.observations.device).long()
    return Batch(*(field[chosen] for field in batch))
