"""Adapts a trained run to one task, from sampled or logged episodes."""

import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO

from maml_rl.config import RLConfig, RLEvaluation, RLMeta
from maml_rl.episode_log import load_minari, load_steps
from maml_rl.evaluation import SeededTasks, task_returns
from maml_rl.experiments.media.filming import Stage, filmed
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.task_display import task_names
from maml_rl.experiments.runs.evaluations import stored_validation
from maml_rl.experiments.runs.exporting import SB3, use_of
from maml_rl.experiments.runs.progress import ProgressBar, with_progress
from maml_rl.experiments.runs.task_input import chosen_task
from maml_rl.experiments.runs.text import text_table
from maml_rl.initial import BuiltPolicy
from maml_rl.logged import LoggedAdaptation, adapt, numpy_policy
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.numpy_policy import NumpyPolicy
from maml_rl.observations import in_rows
from maml_rl.reinforcement import RLLearner, step_sizes
from maml_rl.run import Run, load_run, overridden
from maml_rl.sb3 import CRITIC_STEPS, check_exportable, check_spaces, fit_critic, to_ppo
from maml_rl.task_observation import TaskObservation
from maml_rl.task_parts import plain
from maml_rl.tasks import Task, make
from maml_rl.types import Params, Trajectories, select
from maml_rl.unrolled import check_perceptron

Extra = Literal["sb3", "recording"]
"""What an adaptation makes in addition to the policy: a model for Stable-Baselines3, a recording of episodes."""
_SB3_ALONE: tuple[Extra, ...] = ("sb3",)
MINARI = "minari:"
"""Prefix of the id of a Minari data set, given in place of a file of logged episodes."""


class AdaptedPolicy(NamedTuple):
    """A policy adapted to one task."""

    run: Run
    task: Task
    task_name: str  # for people
    task_json: Any  # the same as `task_space.to_jsonable([task])`
    inner_lrs: list[float]  # step size of each gradient step; empty where they are learned
    seed: int
    params: Params  # after the last gradient step, on the CPU
    policy: NumpyPolicy  # the same, in NumPy alone
    observations: gymnasium.Space[Any]  # of the environment (`make_task_env`)
    returns: NDArray[np.float64]  # [gradient steps + 1, K]   of each episode, after each number of gradient steps
    env_steps: list[int]  # sampled for 0, 1, ... gradient steps
    model: PPO | None  # the same policy for Stable-Baselines3, with a critic fitted to the last episodes, if asked for
    recording: Recording | None = None  # an episode after each number of gradient steps

    @property
    def mean_return(self) -> list[float]:
        """Mean return over episodes, by gradient step."""
        means: list[float] = self.returns.mean(1).tolist()
        return means

    @property
    def standard_deviation(self) -> list[float | None]:
        """Standard deviation (n - 1) of the return over episodes, by gradient step; None of a single episode."""
        if self.returns.shape[1] == 1:
            return [None] * len(self.returns)
        deviations: list[float | None] = self.returns.std(1, ddof=1).tolist()
        return deviations

    def to_json(self) -> dict[str, Any]:
        """The adaptation as JSON values."""
        return {
            "env_id": self.run.rl_config.env_id,
            "task": plain(self.task),
            "gradient_steps": list(range(len(self.returns))),
            "env_steps": self.env_steps,
            "mean_return": self.mean_return,
            "standard_deviation": self.standard_deviation,
            "episodes": self.returns.shape[1],
            "inner_lr": self.inner_lrs,
            "seed": self.seed,
            "training_seed": self.run.config.seed,
            "iteration": self.run.state.iteration,
        }

    def table(self) -> str:
        """Mean return by gradient step, with its spread over episodes."""
        rows = [["gradient steps", "env steps", "mean return", "standard deviation"]]
        columns = zip(self.env_steps, self.mean_return, self.standard_deviation, strict=True)
        for step, (env_steps, mean, deviation) in enumerate(columns):
            spread = "-" if deviation is None else f"{deviation:.1f}"
            rows.append([str(step), str(env_steps), f"{mean:.1f}", spread])
        return text_table(rows)


def adapt_run(
    directory: Path,
    task: Task | str | None = None,
    gradient_steps: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    machine: Machine = THIS_MACHINE,
    extras: Collection[Extra] = _SB3_ALONE,
) -> AdaptedPolicy:
    """Adapts a run to one task, as its evaluation does.

    Args:
        directory: The run.
        task: An element of the environment's `task_space`, or its text as `read_task` takes it; drawn from the space
            if None.
        gradient_steps: Gradient steps, with fresh episodes for each; those of the run's evaluation if None.
        episodes: Episodes for each gradient step; those of the run's evaluation if None.
        seed: Seed of the task, if none is given, of everything random in the adaptation, and of the model.
        machine: What may be used of the machine. None of it changes the result.
        extras: What is made in addition to the policy; a recording has an episode after each number of gradient steps.

    Raises:
        InputError: If the run, the task or a setting cannot be used, or Stable-Baselines3 cannot represent the policy
            although it should.
        NonFiniteError: If the adaptation diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    run = load_run(directory)
    own, meta = run.rl_config.evaluation, run.rl_config.meta
    config = overridden(own, gradient_steps=gradient_steps, episodes=episodes, seed=seed)
    at_once = config.episodes * (1 if meta.inner_steps else own.validation_tasks)
    with closing(make_task_env(run.rl_config)) as env, run.open_rl(machine, at_once) as learner:
        if "sb3" in extras:
            check_exportable(learner.policy, env)
        else:
            check_perceptron(learner.policy)
        task = chosen_task(learner.task_space, task, seed)
        if config.gradient_steps:
            for line in learner.few_episodes(config.episodes):
                print(f"warning: {line}", file=sys.stderr)
            # As the evaluation has it, whatever the seed of this adaptation.
            meta, _ = learner.with_step_size(run.state, own, validation=stored_validation(directory, run))
        return _adapted_policy(run, learner, env, task, config, meta, extras)


def _adapted_policy(
    run: Run,
    learner: RLLearner,
    env: gymnasium.Env[Any, Any],
    task: Task,
    config: RLEvaluation,
    meta: RLMeta,
    extras: Collection[Extra],
) -> AdaptedPolicy:
    path, total = learner.adaptation(run.state, [task], config, meta), config.gradient_steps + 1
    steps = list(with_progress(path, "adapting", "step", total))
    params, episodes = select(steps[-1][0], 0), Trajectories(*(field[0].cpu() for field in steps[-1][1]))
    model = _sb3_model(learner.policy, params, env, meta, episodes, config.seed) if "sb3" in extras else None
    stages = [Stage(params, task_returns(sampled)) for params, sampled in steps]
    sizes = [int(sampled.lengths.sum()) for _, sampled in steps]
    recording = None
    if "recording" in extras:
        recording = filmed(learner, run.state, SeededTasks([task]), stages, config, meta)
    return AdaptedPolicy(
        run=run,
        task=task,
        task_name=task_names(learner.envs, [task])[0],
        task_json=learner.task_space.to_jsonable([task]),
        inner_lrs=step_sizes(meta, config),
        seed=config.seed,
        params={name: value.cpu() for name, value in params.items()},
        policy=numpy_policy(learner.policy, params, learner.envs.single_action_space),
        observations=env.observation_space,
        returns=torch.stack([sampled.returns[0] for _, sampled in steps]).double().cpu().numpy(),
        env_steps=[sum(sizes[:step]) for step in range(total)],
        model=model,
        recording=recording,
    )


def _sb3_model(
    policy: BuiltPolicy, params: Params, env: gymnasium.Env[Any, Any], meta: RLMeta, episodes: Trajectories, seed: int
) -> PPO:
    """A model with these parameters, and a critic fitted to episodes of one task."""
    model = to_ppo(policy, params, env, gamma=meta.discount, gae_lambda=meta.gae_lambda, seed=seed)
    with ProgressBar("fitting the critic", "step", CRITIC_STEPS) as bar:
        fit_critic(model, episodes, CRITIC_STEPS, seed, bar.update)
    model.env = None  # which its caller closes
    return model


class AdaptedToLogs(NamedTuple):
    """A policy adapted to logged episodes."""

    run: Run
    adaptation: LoggedAdaptation
    policy: NumpyPolicy
    observations: gymnasium.Space[Any]  # of the environment (`make_task_env`)
    model: PPO | None  # the same policy for Stable-Baselines3, if asked for

    def to_json(self) -> dict[str, Any]:
        """The adaptation as JSON values."""
        logs = self.adaptation.logs
        return {
            "env_id": self.run.rl_config.env_id,
            "gradient_steps": list(range(len(logs))),
            "env_steps": [len(log.rewards) for log in logs],
            "mean_return": [float(log.returns.mean()) for log in logs],
            "episodes": [len(log.episodes) for log in logs],
            "excess_likelihood": self.adaptation.likelihood,
            "inner_lr": self.adaptation.inner_lrs,
            "warnings": self.adaptation.warnings,
            "training_seed": self.run.config.seed,
            "iteration": self.run.state.iteration,
        }

    def table(self) -> str:
        """What each log is, by the gradient steps of the policy that collected it."""
        rows = [["gradient steps", "episodes", "env steps", "mean return", "excess likelihood"]]
        for step, (log, likelihood) in enumerate(zip(self.adaptation.logs, self.adaptation.likelihood, strict=True)):
            figures = (f"{log.returns.mean():.1f}", f"{likelihood:+.2f} nats a step")
            rows.append([str(step), str(len(log.episodes)), str(len(log.rewards)), *figures])
        return text_table(rows)


def adapt_to_logs(
    directory: Path, logs: Sequence[str], machine: Machine = THIS_MACHINE, for_sb3: bool = True
) -> AdaptedToLogs:
    """Adapts a run to logged episodes of one task, with one gradient step per log.

    Args:
        directory: The run.
        logs: Files of `LoggedSteps`, or `minari:` and the id of a local Minari data set.
        machine: What may be used of the machine. None of it changes the result.
        for_sb3: Whether the result includes a model for Stable-Baselines3.

    Raises:
        InputError: If the run or a log cannot be used, or Stable-Baselines3 cannot represent the policy although it
            should.
    """
    run = load_run(directory)
    steps = [load_minari(log.removeprefix(MINARI)) if log.startswith(MINARI) else load_steps(log) for log in logs]
    with closing(make_task_env(run.rl_config)) as env:
        if for_sb3:
            check_spaces(env.observation_space, env.action_space)
        found = adapt(run, steps, machine, stored_validation(directory, run))
        model, seed = None, run.config.seed
        if for_sb3:
            model = _sb3_model(found.policy, found.params, env, run.rl_config.meta, found.episodes, seed)
        return AdaptedToLogs(run, found, found.to_numpy(), env.observation_space, model)


def make_task_env(config: RLConfig) -> gymnasium.Env[Any, Any]:
    """One environment of a run, with the observations that its policy has."""
    env = make(config.env_id, config.max_episode_steps)
    return TaskObservation(in_rows(env)) if config.observe_task else env


def next_steps(adapted: AdaptedPolicy, path: Path) -> str:
    """Code that continues to train the saved model on its task, or acts with a policy of another kind."""
    if path.suffix != SB3:
        return use_of(path, adapted.observations)
    config = adapted.run.rl_config
    limit = f", max_episode_steps={config.max_episode_steps}" if config.max_episode_steps else ""
    imports, made = "", f"gymnasium.make({config.env_id!r}{limit})"
    if config.observe_task:
        names = (("observations", "in_rows"), ("task_observation", "TaskObservation"))
        imports = "".join(f"from maml_rl.{module} import {name}\n" for module, name in names)
        made = f"TaskObservation(in_rows({made}))"
    return f"""\
import gymnasium
{imports}from stable_baselines3 import PPO
env = {made}
env.unwrapped.task = env.unwrapped.task_space.from_jsonable({adapted.task_json!r})[0]
PPO.load({str(path)!r}, env).learn(100_000)"""
