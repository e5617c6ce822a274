"""Task distributions: a Gymnasium environment whose unwrapped form has `task_space` (p(T), a Space) and `task`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from maml_rl.errors import InputError, WorkerError, one_line, place, reason
from maml_rl.observations import in_rows
from maml_rl.processes import Processes, ProcessVectorEnv, available_cores
from maml_rl.requirements import (
    NO_TIME_LIMIT,
    batch_interface,
    no_task_space,
    trainable,
    unmet,
    vector_task_space,
    vector_time_limit,
)
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.task_observation import TaskObservation, VectorTaskObservation
from maml_rl.task_parts import without_bounds
from maml_rl.waiting import reporting_waits

Task = Any
TaskVectorEnv = VectorEnv[Any, Any, Any]


def registration(env_id: str) -> EnvSpec:
    """An environment's registration; its module is imported first if the id names one, as in `module:Id-v0`.

    Raises:
        InputError: If there is no such module or environment; names the nearest ids.
    """
    module, colon, name = env_id.rpartition(":")
    try:
        if colon:
            import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            hint = "; is it installed, or in the current directory?"
        elif near := get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5):
            hint = f"; the nearest ids are {', '.join(module + colon + found for found in near)}"
        if not colon:
            hint += f"; if your own module registers it, name that module in front: my_module:{name}"
        raise InputError(f"there is no environment {env_id!r} ({_first_line(error)}){hint}") from error
    except Exception as error:  # the author's code may raise anything
        raise InputError(
            f"the module of {env_id!r} cannot be imported ({_first_line(error)}; {place(error)})"
        ) from error


@contextmanager
def _making(env_id: str) -> Iterator[None]:
    """Adds the environment's name to whatever making it raises."""
    try:
        yield
    except WorkerError:
        raise
    except InputError as error:
        raise InputError(f"{env_id}: {error}") from error
    except (gymnasium.error.Error, ImportError, ValueError, TypeError) as error:
        raise InputError(f"environment {env_id!r} cannot be made ({_first_line(error)})") from error
    except Exception as error:  # the author's code may raise anything
        raise InputError(f"environment {env_id!r} cannot be made ({reason(error)}; {place(error)})") from error


def make(env_id: str, max_episode_steps: int | None = None, **settings: Any) -> gymnasium.Env[Any, Any]:
    """One environment by its id, without Gymnasium's own checker.

    Args:
        env_id: Id as `gymnasium.make` takes it.
        max_episode_steps: Time limit; the registered one if None.
        settings: Keyword arguments of the environment.

    Raises:
        InputError: If there is no such environment, or it cannot be made.
    """
    spec = registration(env_id)
    _check_limit(max_episode_steps)
    with _making(env_id), reporting_waits(f"{env_id} has not been made"):
        return gymnasium.make(spec, max_episode_steps, disable_env_checker=True, **settings)


def vectorize(
    env_id: str | EnvSpec,
    num_envs: int,
    processes: Processes | None = None,
    observe_task: bool = False,
    max_episode_steps: int | None = None,
    **settings: Any,
) -> TaskVectorEnv:
    """Sub-environments of a registered task-distributed environment, batched where it supports that.

    Observations that are not in a Box are flattened (`maml_rl.observations.Rows`).

    Args:
        env_id: Id as `gymnasium.make` takes it, for example `my_module:My-v0`, or its registration.
        num_envs: Number of sub-environments.
        processes: Processes for an environment without a batched form, one sub-environment in each and at most
            `num_envs`. If None, this process steps all of them one after the other.
        observe_task: Whether an observation ends with the task, as the paper's oracle has it (`TaskObservation`).
        max_episode_steps: Time limit; the registered one if None.
        settings: Keyword arguments of the environment.

    Raises:
        InputError: If there is no such environment, or something keeps it from being meta-trained
            (`maml_rl.requirements.unmet`), or tasks cannot be observed although they should be.
        WorkerError: If a process cannot make the environment.
    """
    spec = registration(env_id) if isinstance(env_id, str) else env_id
    _check_limit(max_episode_steps)
    if max_episode_steps is not None:
        settings["max_episode_steps"] = max_episode_steps
    with _making(spec.id if spec is env_id else str(env_id)):
        if spec.vector_entry_point is not None:
            return _batched(spec, num_envs, observe_task, settings)
        wrappers: list[Any] = [trainable, in_rows, *([TaskObservation] if observe_task else [])]
        if processes is None:
            return gymnasium.make_vec(spec, num_envs, wrappers=wrappers, disable_env_checker=True, **settings)
        count = min((processes.count or available_cores()) * processes.envs_each, num_envs)
        return ProcessVectorEnv(spec, count, processes, wrappers, **settings)


def _check_limit(max_episode_steps: int | None) -> None:
    if max_episode_steps is not None and max_episode_steps < 1:  # Gymnasium takes -1 for no limit
        raise InputError(f"max_episode_steps must be at least 1, got {max_episode_steps}")


def _batched(spec: EnvSpec, num_envs: int, observe_task: bool, settings: dict[str, Any]) -> TaskVectorEnv:
    envs: TaskVectorEnv = gymnasium.make_vec(spec, num_envs, **settings)
    for sentence in unmet(batch_interface(envs)):
        envs.close()
        raise InputError(sentence)
    return VectorTaskObservation(envs) if observe_task else envs


def task_space(envs: TaskVectorEnv) -> spaces.Space[Any]:
    """p(T) of the sub-environments.

    Raises:
        InputError: If they have no `task_space`.
    """
    space = vector_task_space(envs)
    if not isinstance(space, spaces.Space):
        raise InputError(no_task_space(space))
    return space


def episode_limit(envs: TaskVectorEnv) -> int:
    """Time limit of an episode in steps, T.

    Raises:
        InputError: If there is none.
    """
    limit = vector_time_limit(envs)
    if limit is None:
        raise InputError(NO_TIME_LIMIT)
    return limit


def observation_size(envs: TaskVectorEnv) -> int:
    """Number of components of one observation."""
    return int(np.prod(envs.single_observation_space.shape or ()))


def assign_tasks(envs: TaskVectorEnv, tasks: Sequence[Task]) -> None:
    """Gives each sub-environment the task that its next reset begins."""
    envs.unwrapped.set_attr("task", list(tasks))  # type: ignore[attr-defined]


def admit_beyond(envs: TaskVectorEnv) -> None:
    """Lets a batch that refuses tasks outside p(T) take those whose real numbers are outside its bounds.

    Sub-environments of any other kind accept what their author lets them accept.
    """
    for batch in (envs, *groups(envs)):
        if hasattr(batch.unwrapped, "admitted"):
            batch.unwrapped.admitted = without_bounds(task_space(envs))


def sample_tasks(space: spaces.Space[Any], count: int, seed: int) -> list[Task]:
    """Tasks T_i ~ p(T); the space given is not changed.

    Raises:
        InputError: If the space cannot draw, or draws what it does not contain.
    """
    space = deepcopy(space)
    space.seed(seed)
    try:
        tasks = [space.sample() for _ in range(count)]
    except Exception as error:  # the author's code may raise anything
        raise InputError(
            f"task_space, {one_line(space)}, cannot draw a task ({reason(error)}; {place(error)})"
        ) from error
    for task in tasks:
        if not space.contains(task):
            raise InputError(
                f"task_space drew {one_line(task)}, which it does not contain: its sample and its contains have to "
                f"agree (task_space is {one_line(space)})"
            )
    return tasks


def training_tasks(space: spaces.Space[Any], count: int, draw: Draw) -> list[Task]:
    """Tasks of one meta-iteration."""
    return sample_tasks(space, count, draw.integers(Purpose.TASKS, 1)[0])


def source_tasks(space: spaces.Space[Any], count: int, draw: Draw) -> list[Task]:
    """Tasks of a training that has the same ones in every iteration, all different if the space is finite.

    Raises:
        InputError: If a finite space has fewer.
    """
    if not _is_enumerated(space):
        return training_tasks(space, count, draw)
    if count > space.n:
        raise InputError(
            f"each task has one expert, and {one_line(space)} has {space.n} tasks, not {count}: set "
            f"meta.meta_batch_size to at most {space.n}"
        )
    order = np.arange(space.n) if count == space.n else draw.generator(Purpose.TASKS).permutation(space.n)
    return [space.start + np.int64(i) for i in order[:count]]


def evaluation_tasks(
    space: spaces.Space[Any], count: int, seed: int = 0, phase: Phase = Phase.EVALUATION
) -> list[Task]:
    """Held-out tasks: a function of `seed` and `phase` that no training draws from, whatever its seed.

    The tasks of `Phase.VALIDATION`, by which settings are chosen, differ from those of the evaluation itself.

    Training meets all tasks of a Discrete space that draws as Gymnasium's does. So each occurs equally often here, give
    or take one: the mean is the same as by sampling, without the chance. Where the space has more than `count` tasks,
    the seed chooses. Validation tasks come from the other end of the same order, so they differ if there are enough.
    """
    if _is_enumerated(space):
        order = np.arange(space.n)
        if count < space.n:
            order = Draw(seed, Phase.EVALUATION).generator(Purpose.TASKS).permutation(order)
            order = order[::-1] if phase is Phase.VALIDATION else order
        return [space.start + np.int64(order[i % space.n]) for i in range(count)]
    return sample_tasks(space, count, Draw(seed, phase).integers(Purpose.TASKS, 1)[0])


def _is_enumerated(space: spaces.Space[Any]) -> TypeGuard[spaces.Discrete]:
    """Whether tasks are integers, each drawn equally often: a Discrete without a custom `sample`."""
    return isinstance(space, spaces.Discrete) and type(space).sample is spaces.Discrete.sample


def strata(space: spaces.Space[Any], tasks: Sequence[Task]) -> list[int] | None:
    """Stratum of each task where they cover a finite space, each with its share; otherwise None.

    How often each task of a `Discrete` space occurs is then not random (see `evaluation_tasks`), so only returns of the
    same task vary. Tasks of any other space are drawn at random, however few it has. Those of a `Discrete` space are a
    random choice where it has more than were requested.

    Args:
        space: p(T).
        tasks: Tasks of an evaluation.
    """
    if not _is_enumerated(space):
        return None
    numbers = [int(task) for task in tasks]
    return numbers if len(set(numbers)) == space.n else None


def resets_itself(envs: TaskVectorEnv) -> bool:
    """Whether a finished sub-environment begins a new episode without being asked."""
    return envs.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED


def groups(envs: TaskVectorEnv) -> Sequence[TaskVectorEnv]:
    """Environments to sample from at the same time, one thread each: those the batch offers, or only itself."""
    offered: Sequence[TaskVectorEnv] = getattr(envs, "groups", [envs])
    return offered


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
