"""Algorithm 3 of Finn, Abbeel, Levine 2017: MAML for reinforcement learning.

With `inner_steps = 0` it is TRPO on all tasks at once, the paper's pretrained baseline.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.advantages import advantage_batch
from maml_rl.config import RLMeta
from maml_rl.derivatives import derivatives
from maml_rl.errors import NonFiniteEnvironmentError, NonFiniteError
from maml_rl.gradient_filter import with_measured
from maml_rl.initial import BuiltPolicy, parameters
from maml_rl.inner import inner_update
from maml_rl.linear_policy import distribution_at, task_loss
from maml_rl.meta_gradient import TaskData, meta_objective
from maml_rl.module_policy import ModulePolicy
from maml_rl.objectives import inner_loss
from maml_rl.parallel import TaskThreads, mean_over_tasks, one_torch_thread
from maml_rl.policies import Policy, policy_rates
from maml_rl.rates import InnerUpdate, begun, fixed_names, rate_metrics, theta
from maml_rl.rollouts import collect
from maml_rl.sampling_credit import episode_credits
from maml_rl.seeding import Draw, Phase
from maml_rl.step import MetaStep, initial_optimizer, meta_step
from maml_rl.tasks import Task, TaskVectorEnv, task_space, training_tasks
from maml_rl.types import Batch, Params, State, Trajectories, laid_out, repeat, select, split, stack


class Sampled(NamedTuple):
    """Episodes of this rank's tasks, with one parameter set each, and the quantities that the losses derive from
    them."""

    trajectories: Trajectories
    seconds: float  # spent on sampling
    batches: list[Batch]  # of each task
    measured: dict[str, Tensor]  # [M]   of returns and baseline, for the log


class Iteration(NamedTuple):
    """Result of one meta-iteration."""

    state: State
    metrics: dict[str, float]  # docs/metrics.md explains each
    by_task: dict[str, Tensor]  # [M]   of the metrics that are means over tasks, what each task contributes


def sample(
    envs: TaskVectorEnv,
    policy: Policy,
    params: Params,
    tasks: Sequence[Task],
    config: RLMeta,
    draw: Draw,
    threads: TaskThreads,
) -> Sampled:
    """Episodes D_i of each task of this rank under its own parameters, with their advantages."""
    started = time.perf_counter()
    trajectories = collect(envs, policy, params, tasks, config.episodes, draw, threads.share)
    seconds = time.perf_counter() - started
    return Sampled(trajectories, seconds, *advantage_batches(policy, trajectories, config, threads))


def advantage_batches(
    policy: Policy, trajectories: Trajectories, config: RLMeta, threads: TaskThreads
) -> tuple[list[Batch], dict[str, Tensor]]:
    """Each task's steps with advantages from a baseline fitted to them, and what to log of them, `[M]` each."""

    def of_task(m: int) -> tuple[Batch, dict[str, Tensor]]:
        episodes = Trajectories(*(field[m] for field in trajectories))
        seen = _of_baseline(policy, episodes.observations, config.baseline_observations == "raw")
        return advantage_batch(episodes, config.discount, config.gae_lambda, seen)

    batches, measured = zip(*threads.map(of_task, range(len(trajectories.mask))), strict=True)
    return list(batches), stack(measured)


def _of_baseline(policy: Policy, observations: Tensor, raw: bool) -> Tensor:
    """What the baseline sees of observations."""
    if isinstance(policy, ModulePolicy):
        return policy.of_baseline(observations, raw)
    return observations if raw else policy.standardised(observations)


def adapt_each(
    policy: Policy, params: Params, batches: Sequence[Batch], config: RLMeta, update: InnerUpdate, threads: TaskThreads
) -> Params:
    """theta_i' = theta_i - a grad L(f_theta_i) + b of each task, values only; `params` and result have a leading M.

    Args:
        policy: The policy.
        params: Parameters of each task.
        batches: Steps of each task, sampled by them.
        config: Settings; its `inner_objective` is the loss.
        update: Step size of each parameter that changes, and shift, the same for all tasks.
        threads: Threads that share the tasks.
    """
    loss = inner_loss(policy, config)

    def of_task(m: int) -> Params:
        with torch.no_grad():
            return inner_update(task_loss(loss, batches[m]), select(params, m), update)

    return stack(threads.map(of_task, range(len(batches))))


def initial_state(policy: BuiltPolicy, config: RLMeta) -> State:
    """The state before the first iteration: the policy's own parameters, and step sizes of `config.inner_lr`.

    Raises:
        InputError: If there is nothing to learn, or nothing that the inner update could change.
    """
    params = begun(parameters(policy), config.adapted)
    meta = params | policy_rates(policy, params, config).initial(params)
    learned = split(meta, fixed_names(policy, meta, config.adapted))[1]
    return State(meta, initial_optimizer(config.step, learned), 0)


@one_torch_thread()
def meta_iteration(
    policy: Policy,
    state: State,
    envs: TaskVectorEnv,
    config: RLMeta,
    seed: int,
    threads: TaskThreads,
    step: MetaStep | None = None,
) -> Iteration:
    """One pass through the loop of Algorithm 3.

    Args:
        policy: The policy.
        state: The state after the previous iterations; its `iteration` and `seed` decide everything that is random.
        envs: Task-distributed sub-environments, any number of them.
        config: Settings.
        seed: Seed of the run.
        threads: Threads that share the tasks of the update; their `share` says which tasks belong to this rank.
        step: The meta-step; `config.step` if None.

    Raises:
        InputError: If all parameters are frozen, or the inner loss cannot be used.
        NonFiniteError: If a sampled or computed quantity is not finite; names iteration and quantity.
        RankError: If another rank has ended or does not answer.
    """
    started = time.perf_counter()
    state = State(laid_out(state.meta), laid_out(state.optimizer), state.iteration)
    place, path, sampled = f"iteration {state.iteration + 1}", list[Params](), list[Sampled]()
    try:
        for params, episodes in _sampled_steps(policy, state, envs, config, seed, threads):  # lines 3 to 8
            path.append(params)
            sampled.append(episodes)
        data = _tasks_data(path, sampled, config, threads)
        take = step or partial(meta_step, config.step)
        new, of_step = take(state, meta_objective(policy, state.meta, data, config, threads))  # line 10
    except NonFiniteEnvironmentError as error:
        raise NonFiniteEnvironmentError(f"{place}: {error}") from error
    except NonFiniteError as error:
        raise NonFiniteError(f"{place}: {error}{_inputs(policy, sampled)}") from error
    new = _measured(policy, new, data, config, threads)
    by_task = _by_task(policy, sampled, data, threads)
    metrics = {name: float(mean_over_tasks(list(values))) for name, values in by_task.items()}
    metrics |= of_step | rate_metrics(new.meta) | _work(sampled, started, threads)
    return Iteration(new, metrics, by_task)


def _work(sampled: Sequence[Sampled], started: float, threads: TaskThreads) -> dict[str, float]:
    """Env steps of an iteration, and where its time went on this rank since `started`."""
    sampling = sum(s.seconds for s in sampled)
    steps = [s.trajectories.lengths.sum(1) for s in sampled]  # [M] each
    return {
        "sampling/env_steps": float(sum(threads.gathered(sum(steps, start=torch.zeros_like(steps[0]))))),
        "time/sampling_seconds": sampling,
        "time/update_seconds": time.perf_counter() - started - sampling,
    }


def _sampled_steps(
    policy: Policy, state: State, envs: TaskVectorEnv, config: RLMeta, seed: int, threads: TaskThreads
) -> Iterator[tuple[Params, Sampled]]:
    """Each task's parameters after 0, 1, ..., `inner_steps` inner updates, with a leading M, and its episodes."""
    draw, share = Draw(seed, Phase.TRAINING, state.iteration), threads.share
    tasks: Sequence[Task] = training_tasks(task_space(envs), config.meta_batch_size, draw)  # line 3: T_i ~ p(T)
    rates = policy_rates(policy, theta(state.meta), config)
    tasks = share.of(tasks) if share else tasks
    params = share.repeated(theta(state.meta)) if share else repeat(theta(state.meta), len(tasks))
    for step in range(config.inner_steps + 1):
        sampled = sample(envs, policy, params, tasks, config, draw._replace(step=step), threads)  # lines 5 and 8
        yield params, sampled
        if step < config.inner_steps:  # line 7: theta_i'
            params = adapt_each(policy, params, sampled.batches, config, rates.at(state.meta, step), threads)
            params = share.placed(params) if share else params


def _measured(policy: Policy, state: State, tasks: Sequence[TaskData], config: RLMeta, threads: TaskThreads) -> State:
    """The state for the next iteration, whose filter of the inner gradient includes the gradients of this one."""
    if not config.filtered_lr:
        return state
    loss, params = inner_loss(policy, config), tasks[0].path[0]
    names = policy_rates(policy, params, config).names

    def gradient(batch: Batch) -> Params:
        return derivatives(task_loss(loss, batch), params).gradient(names)

    with torch.no_grad():
        return state._replace(meta=with_measured(state.meta, gradient, [task.support[0] for task in tasks], threads))


def _tasks_data(
    path: Sequence[Params], sampled: Sequence[Sampled], config: RLMeta, threads: TaskThreads
) -> list[TaskData]:
    credit = _credit(sampled, config.sampling_credit, threads) if config.sampling_credit else []
    data = []
    for m in range(len(sampled[0].batches)):
        *support, query = [s.batches[m] for s in sampled]
        data.append(TaskData(support, [select(params, m) for params in path], query, [each[m] for each in credit]))
    return data


def _credit(sampled: Sequence[Sampled], weight: float, threads: TaskThreads) -> list[Tensor]:
    """Credit of each support episode for what the adapted policies reached, `[M, K]` for each support sampling.

    Each task is compared with all others, including those of other ranks.
    """
    *support, query = sampled

    def of_all(values: Tensor) -> Tensor:
        return torch.stack(threads.gathered(values)) if threads.share else values

    returns = query.trajectories.returns
    units = query.measured["advantage/deviation"] * query.trajectories.lengths.float().mean(1)
    reached, units = of_all(returns.mean(1)), of_all(units)
    credit = (weight * episode_credits(reached, units, of_all(s.trajectories.returns)) for s in support)
    own = threads.share.indices if threads.share else range(len(returns))
    return [of_sampling.to(returns)[own.start : own.stop] for of_sampling in credit]


def _inputs(policy: Policy, sampled: Sequence[Sampled]) -> str:
    """How large the network's inputs were in what was sampled before something diverged, for the message."""
    if not sampled:
        return ""
    largest = max(float(policy.standardised(batch.observations).abs().max()) for s in sampled for batch in s.batches)
    return f", with observations of up to {largest:.3g} at the network's input"


def _by_task(
    policy: Policy, sampled: Sequence[Sampled], data: Sequence[TaskData], threads: TaskThreads
) -> dict[str, Tensor]:
    """Contribution of each task, on any rank, to the metrics that are means over tasks, `[M]`."""
    values: dict[str, Tensor] = {}
    for step, s in enumerate(sampled):
        values[f"return/after_{step}_steps"] = s.trajectories.returns.mean(1)
        values |= {f"{name}_{step}": of_tasks for name, of_tasks in s.measured.items()}
    if len(sampled) > 1:
        values["inner/kl"] = _adaptation_kl(policy, data, threads)
    values["policy/entropy"] = _entropy(policy, data, threads)
    if not threads.share:
        return values
    exact = torch.stack([value.double() for value in values.values()], 1)  # [tasks of this rank, quantities]
    everywhere = torch.stack(threads.gathered(exact), 1)
    return {name: row.to(own.dtype) for (name, own), row in zip(values.items(), everywhere, strict=True)}


def _adaptation_kl(policy: Policy, data: Sequence[TaskData], threads: TaskThreads) -> Tensor:
    """Mean KL(theta || theta_i') over the support steps, `[M]`: how far the inner updates move the policy, in nats."""

    def of_task(task: TaskData) -> Tensor:
        before, after = (distribution_at(policy, task.path[i], task.support[0].observations) for i in (0, -1))
        return before.kl(after).mean()

    return torch.stack(threads.map(of_task, data))


def _entropy(policy: Policy, data: Sequence[TaskData], threads: TaskThreads) -> Tensor:
    """Mean entropy of each adapted policy over its query steps, `[M]`, in nats."""

    def of_task(task: TaskData) -> Tensor:
        return distribution_at(policy, task.path[-1], task.query.observations).entropy().mean()

    return torch.stack(threads.map(of_task, data))
