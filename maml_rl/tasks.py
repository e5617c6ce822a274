"""Task distributions: a Gymnasium environment whose unwrapped form has `task_space` (p(T), a Space) and `task`."""

from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from maml_rl.errors import InputError
from maml_rl.seeding import Draw, Phase, Purpose

Task = Any
TaskVectorEnv = VectorEnv[Any, Any, Any]


def vectorize(env_id: str, num_envs: int, **settings: Any) -> TaskVectorEnv:
    """Sub-environments of a registered task-distributed environment, batched where it offers that.

    Args:
        env_id: Id as `gymnasium.make` takes it, for example `envs:finn2017/HalfCheetahDir-v0`.
        num_envs: Number of sub-environments.
        settings: Keyword arguments of the environment.

    Raises:
        InputError: If there is no such environment, or it has no `task_space`, no time limit, or spaces that a policy
            of this package cannot use.
    """
    try:
        envs: TaskVectorEnv = gymnasium.make_vec(env_id, num_envs, **settings)
    except (gymnasium.error.Error, ModuleNotFoundError, ValueError, TypeError) as error:
        module, colon, name = env_id.rpartition(":")
        near = [module + colon + found for found in get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)]
        hint = f"; the nearest ids are {', '.join(near)}" if near else ""
        raise InputError(f"environment {env_id!r} cannot be made ({str(error).splitlines()[0]}){hint}") from error
    try:
        task_space(envs)
        episode_limit(envs)
        if not isinstance(envs.single_observation_space, spaces.Box):
            raise InputError(f"observations must be in a Box, those of {env_id} are in {envs.single_observation_space}")
        if not isinstance(envs.single_action_space, (spaces.Box, spaces.Discrete)):
            raise InputError(
                f"actions must be in a Box or Discrete, those of {env_id} are in {envs.single_action_space}"
            )
    except InputError:
        envs.close()
        raise
    return envs


def task_space(envs: TaskVectorEnv) -> spaces.Space[Any]:
    """p(T) of the sub-environments.

    Raises:
        InputError: If they have no `task_space`.
    """
    base = envs.unwrapped
    try:
        space = base.get_attr("task_space")[0]  # type: ignore[attr-defined]
    except AttributeError:
        space = getattr(base, "task_space", None)
    if not isinstance(space, spaces.Space):
        name = envs.spec.id if envs.spec else repr(envs)
        raise InputError(
            f"{name} is not a task-distributed environment: its unwrapped form needs an attribute task_space, "
            "a gymnasium.Space of tasks, and an attribute task that takes effect at the next reset"
        )
    return space


def episode_limit(envs: TaskVectorEnv) -> int:
    """Time limit of an episode in steps, T.

    Raises:
        InputError: If the environment was registered without one.
    """
    spec = envs.spec
    limit: int | None = spec.kwargs.get("max_episode_steps", spec.max_episode_steps) if spec else None
    if limit is None:
        name = envs.spec.id if envs.spec else repr(envs)
        raise InputError(f"{name} has no time limit: register it with max_episode_steps")
    return limit


def observation_size(envs: TaskVectorEnv) -> int:
    """Number of components of one observation."""
    return int(np.prod(envs.single_observation_space.shape or ()))


def assign_tasks(envs: TaskVectorEnv, tasks: Sequence[Task]) -> None:
    """Gives each sub-environment the task that its next reset begins."""
    envs.unwrapped.set_attr("task", list(tasks))  # type: ignore[attr-defined]


def sample_tasks(space: spaces.Space[Any], count: int, seed: int) -> list[Task]:
    """Tasks T_i ~ p(T); the space given is not changed."""
    space = deepcopy(space)
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def training_tasks(space: spaces.Space[Any], count: int, draw: Draw) -> list[Task]:
    """Tasks of one meta-iteration."""
    return sample_tasks(space, count, draw.integers(Purpose.TASKS, 1)[0])


def evaluation_tasks(space: spaces.Space[Any], count: int, seed: int = 0) -> list[Task]:
    """Held-out tasks: a function of `seed` that no training draws from, whatever its seed.

    Of a Discrete space, whose tasks training meets all, each occurs equally often, give or take one: the same mean as
    by sampling, without the chance that one task is drawn more often.
    """
    if type(space) is spaces.Discrete:
        return [space.start + np.int64(i % space.n) for i in range(count)]
    return sample_tasks(space, count, Draw(seed, Phase.EVALUATION).integers(Purpose.TASKS, 1)[0])


def resets_itself(envs: TaskVectorEnv) -> bool:
    """Whether a finished sub-environment begins a new episode of its own accord."""
    return envs.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED


def groups(envs: TaskVectorEnv) -> Sequence[TaskVectorEnv]:
    """Environments to sample from side by side, one thread each: those the batch offers, or itself alone."""
    offered: Sequence[TaskVectorEnv] = getattr(envs.unwrapped, "groups", [envs])
    return offered
