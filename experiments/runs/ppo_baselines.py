"""PPO of Stable-Baselines3 on our tasks: what an ordinary learner makes of the same environments.

*From scratch*, it learns one task alone: how many env steps does it need for what one gradient step reaches? As
*oracle*, it learns all tasks at once and observes which it is, like the oracle of Finn, Abbeel,
Levine 2017, section 5.3.

Settings are those of Schulman et al. 2017 (PPO), table 3, for MuJoCo, which are Stable-Baselines3's defaults: 2048 env
steps for each update, network of 64 and 64 tanh units. Observations and rewards are normalised by running statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from maml_rl.errors import InputError
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.rollouts import collect
from maml_rl.sb3 import from_ppo, sb3_vec_env
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import Task, evaluation_tasks, task_space, vectorize
from maml_rl.types import repeat

_NUM_ENVS = 8
_ENV_STEPS_PER_UPDATE = 2048


class Point(NamedTuple):
    """A learner's returns after some training."""

    env_steps: int  # of the training
    returns: NDArray[np.float64]  # [M, K]   of K episodes of each task


class PPOTraining(NamedTuple):
    """How long PPO trains, and how it is evaluated meanwhile."""

    env_steps: int  # of the training, which ends with the update in which it reaches them
    every: int  # env steps from one evaluation to the next, at least those of one update, 2048
    episodes: int = 20  # of each task in an evaluation, by the policy that samples its actions, as for MAML
    seed: int = 0  # of everything random
    max_episode_steps: int | None = None  # time limit; the one that the environment is registered with if None


def from_scratch(env_id: str, task: Task, training: PPOTraining, machine: Machine = THIS_MACHINE) -> Iterator[Point]:
    """PPO that learns one task alone: its return on that task, before the training and after each part of it.

    Args:
        env_id: Environment, as `gymnasium.make` takes it.
        task: Element of its `task_space`.
        training: How long it trains, and how it is evaluated.
        machine: Processes of an environment that is not batched.

    Raises:
        InputError: If the environment or a setting cannot be used.
    """
    return _learn(env_id, [task], False, training, machine)


def oracle(env_id: str, tasks: int, training: PPOTraining, machine: Machine = THIS_MACHINE) -> Iterator[Point]:
    """PPO that learns all tasks and observes which it is: its return on held-out tasks, in the form of `from_scratch`.

    Every episode of the training has a new task. The tasks of the evaluation are those of `maml-rl evaluate`.

    Args:
        env_id: Environment, as `gymnasium.make` takes it.
        tasks: Number of held-out tasks.
        training: See `from_scratch`.
        machine: See `from_scratch`.

    Raises:
        InputError: If the environment or a setting cannot be used.
    """
    with closing(vectorize(env_id, 1, max_episode_steps=training.max_episode_steps)) as envs:
        held_out = evaluation_tasks(task_space(envs), tasks)
    return _learn(env_id, held_out, True, training, machine)


def _learn(
    env_id: str, tasks: Sequence[Task], is_oracle: bool, training: PPOTraining, machine: Machine
) -> Iterator[Point]:
    """Trains on new tasks that it observes, or on the only one; evaluates on `tasks`."""
    env_steps, every, episodes, seed, limit = training
    if min(env_steps, every) < 1 or episodes < 1:
        raise InputError(f"env_steps, every and episodes must be at least 1, got {env_steps}, {every}, {episodes}")
    given, count = (machine.env_processes(), is_oracle, limit), min(800, len(tasks) * episodes)
    with (
        closing(vectorize(env_id, _NUM_ENVS, *given)) as training_envs,
        closing(vectorize(env_id, count, *given)) as test_envs,
    ):
        envs = sb3_vec_env(training_envs, new_tasks=is_oracle)
        if not is_oracle:
            envs.set_attr("task", tasks[0])
        n_steps = _ENV_STEPS_PER_UPDATE // envs.num_envs
        model = PPO("MlpPolicy", VecNormalize(envs), n_steps=n_steps, seed=seed, device="cpu")
        while True:
            policy, params = from_ppo(model)
            draw = Draw(seed, Phase.EVALUATION)
            sampled = collect(test_envs, policy, repeat(params, len(tasks)), tasks, episodes, draw)
            yield Point(model.num_timesteps, sampled.returns.double().numpy())
            if model.num_timesteps >= env_steps:
                return
            model.learn(min(every, env_steps - model.num_timesteps), reset_num_timesteps=False)


def env_steps_to_reach(points: Sequence[Point], target: float) -> int | None:
    """Env steps of the first evaluation with at least this mean return; None if there is none."""
    return next((point.env_steps for point in points if point.returns.mean() >= target), None)
