"""Adaptation to episodes that were logged, for example on a robot, in place of sampled ones.

The inner update (Finn, Abbeel, Levine 2017, Algorithm 3, lines 5 to 7) does not depend on where episodes come from, but
the policy that it changes must have sampled them: `explorer` is that policy. This module checks whatever the episodes
reveal about it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from maml_rl.actions import action_kind
from maml_rl.config import RLEvaluation, RLMeta
from maml_rl.episode_log import LoggedSteps
from maml_rl.errors import InputError, one_line
from maml_rl.initial import BuiltPolicy
from maml_rl.learner import Validation
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.meta_rl import adapt_each, advantage_batches
from maml_rl.numpy_policy import NumpyPolicy
from maml_rl.policies import BernoulliMLP, GaussianMLP, policy_rates
from maml_rl.rates import theta
from maml_rl.reinforcement import RLLearner, step_sizes
from maml_rl.run import Run
from maml_rl.tasks import episode_limit
from maml_rl.types import Params, State, Trajectories, laid_out, repeat, select
from maml_rl.unrolled import as_perceptron

_FAR = 0.5  # nats a step by which actions may be less likely than the policy's own without a warning
_CLIPPED = 0.02  # share of actions exactly at a bound, with none beyond, that gives no warning yet
_OUTSIDE = 10.0  # standard deviations of the training's observations, root mean square, without a warning


class LoggedAdaptation(NamedTuple):
    """A policy adapted to logged episodes, with one gradient step per log."""

    policy: BuiltPolicy
    params: Params  # after the last gradient step, on the CPU
    action_space: spaces.Space[Any]
    inner_lrs: list[float]  # step size of each gradient step; empty where they are learned
    logs: Sequence[LoggedSteps]
    likelihood: list[float]  # see `excess_likelihood`, of each log
    warnings: list[str]  # about the logs, a line each
    episodes: Trajectories  # of the last log, fields without the leading M

    def to_numpy(self) -> NumpyPolicy:
        """The adapted policy in NumPy alone."""
        return numpy_policy(self.policy, self.params, self.action_space)


def explorer(run: Run) -> NumpyPolicy:
    """The policy that collects the episodes of a run's first gradient step: theta, in NumPy alone.

    Args:
        run: A run of reinforcement learning.

    Raises:
        InputError: If its environment cannot be used.
    """
    with run.open_rl(Machine(threads=1, processes=1), 1) as learner:
        params = theta(run.state.meta)
        return numpy_policy(learner.policy, params, learner.envs.single_action_space)


def numpy_policy(policy: BuiltPolicy, params: Params, actions: spaces.Space[Any]) -> NumpyPolicy:
    """A policy in NumPy alone.

    Args:
        policy: The policy.
        params: Its parameters, without a leading M. Context numbers become part of the first layer's bias.
        actions: Space of actions.

    Raises:
        InputError: If the policy cannot be a perceptron (`maml_rl.unrolled.check_perceptron`).
    """
    mlp, params = as_perceptron(policy, params)
    weights, biases = zip(*(mlp.layer(params, i) for i in range(mlp.layers)), strict=True)
    if isinstance(mlp, BernoulliMLP):  # a switch is a choice of two, with the logits 0 and its own
        weights, biases = (*weights[:-1], _with_zeros(weights[-1])), (*biases[:-1], _with_zeros(biases[-1]))
    low, high = _bounds(actions)
    return NumpyPolicy(
        weights=[_array(weight) for weight in weights],
        biases=[_array(bias) for bias in biases],
        activation=mlp.activation,
        mean=_array(mlp.observation_mean),
        std=_array(mlp.observation_std),
        clip=float("inf") if mlp.clip is None else mlp.clip,
        log_std=_array(params["log_std"]) if isinstance(mlp, GaussianMLP) else None,
        low=low,
        high=high,
    )


def _bounds(actions: spaces.Space[Any]) -> tuple[Any, Any]:
    """Bounds of an action, float32 of its shape; for choices, the first and the last."""
    if isinstance(actions, spaces.Box):
        low, high = actions.low, actions.high
    elif isinstance(actions, spaces.MultiBinary):
        low, high = np.zeros(actions.shape), np.ones(actions.shape)
    else:
        assert isinstance(actions, (spaces.Discrete, spaces.MultiDiscrete))
        count = actions.n if isinstance(actions, spaces.Discrete) else actions.nvec
        low, high = actions.start, actions.start + count - 1
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _with_zeros(rows: Tensor) -> Tensor:
    """Rows `[D, ...]` with one of zeros before each, `[2 D, ...]`."""
    return torch.stack([torch.zeros_like(rows), rows], 1).flatten(0, 1)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def adapt(
    run: Run,
    logs: Sequence[LoggedSteps],
    machine: Machine = THIS_MACHINE,
    validation: Validation | None = None,
) -> LoggedAdaptation:
    """Adapts a run's policy to logged episodes of one task: a gradient step for each log.

    The first log has to be collected by `explorer(run)`, the second by the policy adapted to the first, and so on.
    Actions are logged as they were sampled, before they were clipped to the action space.

    Args:
        run: A run of reinforcement learning.
        logs: Whole episodes of any lengths, for one gradient step after the other.
        machine: Machine resources to use.
        validation: How the step size was chosen, if it has to be: for a run that was trained without inner updates.

    Raises:
        InputError: If the run or its environment cannot be used, or a log does not fit its spaces.
    """
    own = run.rl_config.evaluation
    if not logs:
        raise InputError("adapting to logged episodes needs a log for each gradient step: give at least one")
    with run.open_rl(machine, own.episodes) as learner:
        meta, _ = learner.with_step_size(run.state, own, validation=validation)
        return _adapted(learner, run.state, logs, replace(own, gradient_steps=len(logs)), meta)


def _adapted(
    learner: RLLearner, state: State, logs: Sequence[LoggedSteps], evaluation: RLEvaluation, meta: RLMeta
) -> LoggedAdaptation:
    learned, policy = laid_out(state.to(learner.device).meta), learner.policy
    rates, params = policy_rates(policy, theta(learned), meta), repeat(theta(learned), 1)
    likelihood, warnings = list[float](), list[str]()
    for step, log in enumerate(logs):
        episodes = trajectories(log, learner, select(params, 0))
        likelihood.append(excess_likelihood(policy, select(params, 0), episodes))
        prefix = f"log {step + 1}: " if len(logs) > 1 else ""
        warnings += [prefix + line for line in log_warnings(log, learner, episodes, likelihood[-1])]
        batches, _ = advantage_batches(policy, episodes, meta, learner.threads)
        of_step = rates.at(learned, step, evaluation.factor(step, meta.inner_steps))
        params = adapt_each(policy, params, batches, meta, of_step, learner.threads)
    return LoggedAdaptation(
        policy=policy.cpu(),
        params={name: value.cpu() for name, value in select(params, 0).items()},
        action_space=learner.envs.single_action_space,
        inner_lrs=step_sizes(meta, evaluation),
        logs=logs,
        likelihood=likelihood,
        warnings=warnings,
        episodes=Trajectories(*(field[0].cpu() for field in episodes)),
    )


def trajectories(log: LoggedSteps, learner: RLLearner, params: Params) -> Trajectories:
    """Logged episodes of one task, with M = 1, as sampling returns them.

    Args:
        log: The episodes.
        learner: The learner whose policy acted.
        params: Parameters that it acted with, without a leading M; they give the log-probabilities of the actions.

    Raises:
        InputError: If observations or actions have another size than the learner's, or actions are outside its space.
    """
    space = learner.envs.single_action_space
    actions, kind = _logged_actions(log, space), action_kind(space)
    size = len(learner.policy.observation_mean)
    if log.observations.shape[1] != size:
        raise InputError(
            f"the logged observations have {log.observations.shape[1]} numbers, but those of "
            f"{learner.config.env_id} have {size}: log what the policy observes, on the same robot"
        )
    if actions.shape[1:] != kind.shape:
        raise InputError(
            f"the logged actions have {actions.shape[1]} numbers, but those of {learner.config.env_id} have "
            f"{kind.size}: log what the policy chose, on the same robot"
        )
    episodes = log.episodes
    longest = max(steps.stop - steps.start for steps in episodes)

    def padded(rows: Any) -> Tensor:
        array = np.zeros((1, len(episodes), longest, *rows.shape[1:]), rows.dtype)
        for k, steps in enumerate(episodes):
            array[0, k, : steps.stop - steps.start] = rows[steps]
        return torch.from_numpy(array).to(learner.device)

    observations, chosen = padded(log.observations), padded(actions)
    with torch.no_grad():
        log_probs = learner.policy(params, observations).log_prob(chosen)
    ends = np.array([log.terminated[steps.stop - 1] for steps in episodes])[None]
    return Trajectories(
        observations=observations,
        actions=chosen,
        log_probs=log_probs,
        rewards=padded(log.rewards),
        mask=padded(np.ones(len(log.rewards), np.float32)),
        terminated=torch.from_numpy(ends).to(learner.device),
    )


def _logged_actions(log: LoggedSteps, space: spaces.Space[Any]) -> Any:
    """Actions as the policy's distribution has them: `[N, act]`, or choices counted from 0 `[N]` or `[N, choices]`.

    Raises:
        InputError: If they are not actions of the space.
    """
    actions = log.actions.reshape(len(log.actions), -1)
    if isinstance(space, spaces.Box):
        return actions.astype(np.float32)
    low, high = (bound.reshape(-1).astype(np.int64) for bound in _bounds(space))
    if actions.shape[1] != len(low) or (actions != np.floor(actions)).any():
        raise InputError(f"the logged actions are not choices: expected whole numbers in {one_line(space)}")
    choices = actions.astype(np.int64)
    if (choices < low).any() or (choices > high).any():
        raise InputError(f"some of the logged actions are outside {one_line(space)}: log what the policy chose")
    counted = choices - low
    return counted[:, 0] if isinstance(space, spaces.Discrete) else counted


def excess_likelihood(policy: BuiltPolicy, params: Params, episodes: Trajectories) -> float:
    """Mean log-probability of the actions plus the policy's entropy, nats a step.

    It is 0, apart from noise, if the policy sampled the actions, and negative if another one did. It is positive if
    they have less noise than the policy's samples, as means and clipped actions do. For the means of a normal
    distribution, it is half the number of dimensions.
    """
    mask = episodes.mask.bool()
    with torch.no_grad():
        entropy = policy(params, episodes.observations).entropy()
        return float((episodes.log_probs + entropy)[mask].double().mean())


def log_warnings(log: LoggedSteps, learner: RLLearner, episodes: Trajectories, likelihood: float) -> list[str]:
    """What is probably a mistake in logged episodes, one line each.

    Args:
        log: The episodes.
        learner: Whose policy should have acted.
        episodes: The same, as `trajectories` has them.
        likelihood: Their `excess_likelihood`.
    """
    lines = [*_about_actions(log, learner, likelihood), *learner.few_episodes(len(log.episodes))]
    if (log.rewards == log.rewards[0]).all():
        lines.append(
            f"all rewards are {log.rewards[0]:g}, which reveals nothing about the task: log the reward of each step"
        )
    longest, limit = episodes.mask.shape[-1], episode_limit(learner.envs)
    if longest > limit:
        lines.append(f"the longest episode has {longest} steps and training had at most {limit}: end them there")
    if learner.config.network.standardise:
        policy = learner.policy
        seen = (episodes.observations - policy.observation_mean) / policy.observation_std
        distance = float(seen[episodes.mask.bool()].square().mean().sqrt())
        if distance > _OUTSIDE:
            lines.append(
                f"the observations are {distance:.0f} standard deviations from the mean of those in training (root "
                "mean square): check their units and their order"
            )
    return lines


def _about_actions(log: LoggedSteps, learner: RLLearner, likelihood: float) -> list[str]:
    space = learner.envs.single_action_space
    if isinstance(space, spaces.Box):
        actions = log.actions.reshape(len(log.actions), *space.shape)
        at_bound = float(((actions == space.low) | (actions == space.high)).mean())
        if at_bound > _CLIPPED and not ((actions < space.low) | (actions > space.high)).any():
            return [
                f"{at_bound:.0%} of the actions are exactly at a bound and none is beyond: they were clipped before "
                "they were logged, which biases the gradient; log what the policy sampled, and clip what the robot gets"
            ]
    half = 0.25 * learner.policy.noise_size if isinstance(space, spaces.Box) else _FAR
    if likelihood > half:
        return [
            f"the actions are {likelihood:.2g} nats a step more likely than the policy's own samples: they may be "
            "its means, without noise; collect with maml_rl.explorer(run).sample"
        ]
    if likelihood < -_FAR:
        return [
            f"the actions are {-likelihood:.2g} nats a step less likely than the policy's own samples: another policy "
            "collected them, so the gradient would be wrong; collect with maml_rl.explorer(run).sample"
        ]
    return []
