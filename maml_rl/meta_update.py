"""The meta-update of Algorithm 3: a TRPO step on the loss and the KL of the adapted policies, as functions of theta.

At the old theta the KL's gradient is 0, so the Hessian of its mean over tasks is exactly the mean of J_i^T F_i J_i,
with J_i = d theta_i' / d theta and F_i the Fisher matrix at theta_i': Hessian products of the inner loss and one
Fisher product, no third derivative.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config import MetaConfig
from maml_rl.distributions import Distribution
from maml_rl.errors import NonFiniteError
from maml_rl.maml import AdaptationJacobian, Product, TaskLoss, adapt, adaptation_jacobian, largest_curvature
from maml_rl.objectives import inner_loss, likelihood_ratio_loss, surrogate_and_kl
from maml_rl.parallel import TaskThreads, mean_over_tasks
from maml_rl.policies import Policy
from maml_rl.trpo import backtracking, trust_region_step
from maml_rl.types import Batch, Params, detached, flatten, frozen_names, split, unflatten

_CURVATURE_TASKS = 4  # tasks whose inner curvature is measured, for the log


class TaskData(NamedTuple):
    """What one task contributes to the meta-update."""

    support: Sequence[Batch]  # steps sampled before each inner update
    path: Sequence[Params]  # parameters that sampled them, and last the adapted ones
    query: Batch  # steps sampled by the adapted parameters


class MetaUpdate(NamedTuple):
    """Result of one meta-update."""

    theta: Params
    metrics: dict[str, float]


def fisher_product(policy: Policy, params: Params, observations: Tensor) -> Product:
    """The map v -> F v, F the mean Fisher matrix of the policy in `observations` `[N, obs]`.

    F = 1/N sum of D^T M D, D the derivative of the distribution's parameters and M their Fisher matrix. D v comes from
    the reverse-mode product D^T u, which is linear in u, by differentiating it once more (forward mode is not safe in
    threads).
    """

    def outputs(params: Params) -> tuple[Tensor, ...]:
        return policy(params, observations).parameters()

    primals, transposed = torch.func.vjp(outputs, params)  # type: ignore[misc]  # two values without has_aux
    zeros = tuple(torch.zeros_like(primal) for primal in primals)
    forward = torch.func.vjp(lambda *cotangents: transposed(cotangents)[0], *zeros)[1]
    distribution = policy.distribution(*(primal.detach() for primal in primals))

    def product(vector: Params) -> Params:
        with torch.no_grad():
            tangents = distribution.fisher_product(forward(vector))
            result: Params = transposed(tuple(t / len(observations) for t in tangents))[0]
        return result

    return product


def curvature_product(jacobian: AdaptationJacobian, fisher: Product, vector: Params) -> Params:
    """J^T F J v of one task."""
    return jacobian.transposed_product(fisher(jacobian.product(vector)))


def meta_update(
    policy: Policy, theta: Params, tasks: Sequence[TaskData], config: MetaConfig, threads: TaskThreads
) -> MetaUpdate:
    """theta <- theta - beta grad sum of L(f_theta_i') (line 10), with TRPO's step in place of beta.

    Parameters of the policy that are frozen with `requires_grad_(False)` take no part in it, as in the inner update.

    Args:
        policy: The policy.
        theta: Meta-parameters.
        tasks: What was sampled of each task.
        config: Settings.
        threads: Threads that share the tasks.

    Raises:
        InputError: If all parameters are frozen.
        NonFiniteError: If the meta-gradient, the step or the outer loss is not finite.
    """
    start, names = detached(theta), frozen_names(policy)
    frozen, theta = split(start, names)
    policy = _Completed(policy, frozen)
    tasks = [data._replace(path=[split(detached(params), names)[1] for params in data.path]) for data in tasks]
    region = config.trust_region
    loss = inner_loss(policy, config.inner_objective)

    def inner_losses(data: TaskData, fraction: float) -> list[TaskLoss]:
        batches = [thin(batch, fraction) for batch in data.support]
        return [lambda params, batch=batch: loss(params, batch) for batch in batches]  # type: ignore[misc]

    def jacobian(data: TaskData, fraction: float) -> AdaptationJacobian:
        losses = [] if config.first_order else inner_losses(data, fraction)
        return adaptation_jacobian(losses, data.path, config.inner_lr)

    def linearise(data: TaskData) -> "_Linearised":
        full = jacobian(data, 1.0)
        adapted = data.path[-1]
        gradient, value = torch.func.grad_and_value(likelihood_ratio_loss, argnums=1)(policy, adapted, data.query)
        thinned = full if region.curvature_fraction == 1 else jacobian(data, region.curvature_fraction)
        with torch.no_grad():
            old = policy(adapted, data.query.observations)
        return _Linearised(
            gradient=full.transposed_product(gradient),
            loss=value,
            jacobian=thinned,
            fisher=fisher_product(policy, adapted, thin(data.query, region.curvature_fraction).observations),
            old=old,
        )

    linearised = threads.map(linearise, tasks)
    gradient = mean_over_tasks([flatten(task.gradient) for task in linearised])
    _require_finite(gradient, "meta-gradient")

    def curvature(vector: Tensor) -> Tensor:
        params = unflatten(vector, theta)
        products = threads.map(lambda task: flatten(curvature_product(task.jacobian, task.fisher, params)), linearised)
        return mean_over_tasks(products) + region.cg_damping * vector

    step = trust_region_step(gradient, curvature, region.max_kl, region.cg_iterations)
    _require_finite(step, "meta-step")

    def evaluate(vector: Tensor) -> tuple[Tensor, Tensor]:
        candidate = unflatten(vector, theta)

        def of_task(data: TaskData, task: "_Linearised") -> Tensor:
            with torch.no_grad():
                adapted = adapt(inner_losses(data, 1.0), candidate, config.inner_lr)
                return torch.stack(surrogate_and_kl(policy, adapted, data.query, task.old))

        loss, kl = mean_over_tasks(threads.map(of_task, tasks, linearised))
        return loss, kl

    start_loss = mean_over_tasks([task.loss for task in linearised])
    _require_finite(start_loss, "outer loss")
    found = backtracking(
        evaluate, flatten(theta), start_loss, step, region.max_kl, region.backtrack_ratio, region.max_backtracks
    )
    metrics = {
        "meta/loss_before": float(start_loss),
        "meta/loss_after": float(found.loss),
        "meta/kl": float(found.kl),
        "meta/gradient_norm": float(gradient.norm()),
        "meta/step_norm": float((found.vector - flatten(theta)).norm()),
        "meta/backtracks": float(found.backtracks),
        "meta/accepted": float(found.accepted),
    }
    if config.inner_steps and not config.first_order:
        some = linearised[:_CURVATURE_TASKS]
        curvatures = threads.map(lambda task: largest_curvature(task.jacobian, task.gradient), some)
        metrics["inner/curvature"] = float(mean_over_tasks(curvatures))
    return MetaUpdate(start | unflatten(found.vector, theta), metrics)


def thin(batch: Batch, fraction: float) -> Batch:
    """Evenly spaced steps of a batch, `fraction` of them, at least one."""
    if fraction == 1:
        return batch
    count = len(batch.observations)
    chosen = torch.linspace(0, count - 1, max(1, round(fraction * count)), device=batch.observations.device).long()
    return Batch(*(field[chosen] for field in batch))


class _Completed(NamedTuple):
    """A policy as a function of its parameters that are not frozen."""

    policy: Policy
    frozen: Params

    @property
    def distribution(self) -> type[Distribution]:
        return self.policy.distribution

    @property
    def noise_size(self) -> int:
        return self.policy.noise_size

    def __call__(self, params: Params, observations: Tensor) -> Distribution:
        return self.policy(self.frozen | params, observations)

    def standardised(self, observations: Tensor) -> Tensor:
        return self.policy.standardised(observations)


class _Linearised(NamedTuple):
    """One task at the old theta."""

    gradient: Params  # of the outer loss with respect to theta
    loss: Tensor
    jacobian: AdaptationJacobian
    fisher: Product
    old: Distribution  # of the adapted policy in all query steps


def _require_finite(value: Tensor, name: str) -> None:
    if not value.isfinite().all():
        raise NonFiniteError(f"{name} is not finite")
