"""Requirements for meta-training an environment, shared by `maml_rl.checks` and training.

Nothing in this module imports PyTorch, because processes that run an environment import it.
"""

import pickle
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from maml_rl.errors import InputError, one_line, reason

NO_TIME_LIMIT = "there is no time limit: register the environment with max_episode_steps=N, or set max_episode_steps"
_FLATTENED = "additional_wrappers=(gymnasium.wrappers.FlattenObservation.wrapper_spec(),)"
_MANY_COMPONENTS = 1000  # of an observation, from which on the baseline's fit takes most of an update
_MANY_CHOICES = 1000  # of one action, from which on a policy hardly tries each of them
_PICTURE = 64  # components of an observation of two or more axes, from which on it is taken for a picture


class Interface(NamedTuple):
    """What training requires of an environment, single or batched."""

    task_space: Any  # p(T); anything if it is not a Space
    has_task: bool  # whether there is an attribute `task` to assign
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    max_episode_steps: int | None
    is_batch: bool  # whether there is a batched form, which needs no processes


def interface(env: gymnasium.Env[Any, Any]) -> Interface:
    """The interface of one environment."""
    base = env.unwrapped
    is_batch = env.spec is not None and env.spec.vector_entry_point is not None
    task_space, has_task = getattr(base, "task_space", None), hasattr(base, "task")
    return Interface(task_space, has_task, env.observation_space, env.action_space, time_limit(env), is_batch)


def batch_interface(envs: VectorEnv[Any, Any, Any]) -> Interface:
    """The interface of one row of an environment's batched form."""
    base: Any = envs.unwrapped
    has_task = hasattr(base, "task") or hasattr(base, "set_attr")
    observations, actions = envs.single_observation_space, envs.single_action_space
    return Interface(vector_task_space(envs), has_task, observations, actions, vector_time_limit(envs), is_batch=True)


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Steps after which an episode is truncated: the shortest limit of all wrappers, wherever they come from."""
    limits = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)


def vector_task_space(envs: VectorEnv[Any, Any, Any]) -> Any:
    """p(T) of sub-environments; None if they have none."""
    base: Any = envs.unwrapped
    if hasattr(base, "task_space"):
        return base.task_space
    try:
        return base.get_attr("task_space")[0]
    except AttributeError:
        return None


def vector_time_limit(envs: VectorEnv[Any, Any, Any]) -> int | None:
    """Steps after which the episodes of sub-environments are truncated."""
    base: Any = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        return time_limit(base.envs[0])
    spec = envs.spec
    registered: int | None = spec.kwargs.get("max_episode_steps", spec.max_episode_steps) if spec else None
    own: int | None = getattr(base, "max_episode_steps", None)
    return registered if own is None else own


def unmet(found: Interface) -> Iterator[str]:
    """What prevents an environment from being meta-trained, and what to do about it: one sentence each."""
    yield from unusable(found)
    if found.has_task and not found.is_batch and isinstance(found.task_space, spaces.Space):
        yield from _cannot_travel(found.task_space)
    if found.max_episode_steps is None:
        yield NO_TIME_LIMIT


def unusable(found: Interface) -> Iterator[str]:
    """The part of `unmet` that prevents running episodes or building a policy."""
    if not isinstance(found.task_space, spaces.Space):
        yield no_task_space(found.task_space)
    elif not found.has_task:
        yield "there is no attribute task: add one that may be assigned and takes effect at the next reset"
    if not isinstance(found.observation_space, spaces.Box):
        yield (
            f"observations have to be in a Box, but are in {one_line(found.observation_space)}: "
            f"{_observation_advice(found)}"
        )
    if not isinstance(found.action_space, (spaces.Box, spaces.Discrete)):
        advice = _action_advice(found.action_space)
        yield f"actions have to be in a Box or Discrete, but are in {one_line(found.action_space)}: {advice}"


def no_task_space(found: object) -> str:
    """Message for a `task_space` that is not a Space."""
    return (
        "there is no task_space: give the environment an attribute task_space, a gymnasium.Space of its tasks such as "
        "Box(0, 2, (1,)), and an attribute task, which may be assigned and takes effect at the next reset (task_space "
        f"is {one_line(found)})"
    )


def trainable(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment, if nothing prevents meta-training.

    Raises:
        InputError: With the first thing that prevents it; the environment is then closed.
    """
    for sentence in unmet(interface(env)):
        env.close()
        raise InputError(sentence)
    return env


def picture_advice(space: spaces.Space[Any]) -> str | None:
    """Advice for observations that do not suit a perceptron; None for others."""
    shape = space.shape or ()
    size = int(np.prod(shape))
    if size < _MANY_COMPONENTS and (len(shape) < 2 or size < _PICTURE):
        return None
    return (
        f"observations have shape {shape}: the policy is a perceptron and sees them as a row of {size:,} numbers, and "
        f"the baseline fits {2 * size + 4:,} weights to the episodes of each task, which makes updates slow and "
        "advantages poor: let the environment return a few features instead, or an image of a few pixels"
    )


def _cannot_travel(space: spaces.Space[Any]) -> Iterator[str]:
    try:
        pickle.loads(pickle.dumps(space))
    except Exception as error:  # a custom Space may raise anything
        yield (
            f"task_space cannot be sent to the processes that run the environment ({reason(error)}): define its class "
            "at the top level of a module, without lambdas or open files in it"
        )


def _observation_advice(found: Interface) -> str:
    if found.is_batch:
        return "let observation return an array [n, ...] of numbers"
    unknown = list(_without_numbers(found.observation_space, ""))
    if not unknown:
        return f"flatten them by registering the environment with {_FLATTENED}"
    if unknown == [""]:
        return "wrap the environment in a gymnasium.ObservationWrapper that converts them to an array"
    return (
        f"{', '.join(unknown)} cannot be flattened: remove it with gymnasium.wrappers.FilterObservation, and "
        "flatten the rest with gymnasium.wrappers.FlattenObservation, both in additional_wrappers"
    )


def _without_numbers(space: spaces.Space[Any], name: str) -> Iterator[str]:
    """Parts of a space, by name, that `gymnasium.spaces.flatten` does not turn into arrays."""
    parts: list[tuple[Any, spaces.Space[Any]]] = []
    if isinstance(space, spaces.Dict):
        parts = list(space.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space))
    for key, part in parts:
        yield from _without_numbers(part, f"{name}[{key!r}]" if name else repr(key))
    if not parts:
        try:
            flat: object = spaces.flatten_space(space)
        except NotImplementedError:  # a custom Space
            flat = None
        if not isinstance(flat, spaces.Box):
            yield name


def _action_advice(space: spaces.Space[Any]) -> str:
    recipe = "a gymnasium.ActionWrapper, as docs/own_environment.md shows"
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        choices = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
        count = prod(choices.ravel().tolist())
        if count <= _MANY_CHOICES:
            return f"number their combinations, as Discrete({count}), in {recipe}"
        return f"round a Box of {choices.size} numbers to them in {recipe}"
    return f"turn a Box or Discrete into them in {recipe}"
