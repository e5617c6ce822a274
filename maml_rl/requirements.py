"""Requirements for meta-training an environment, shared by `maml_rl.checks` and training.

Nothing in this module imports PyTorch, because processes that run an environment import it.
"""

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from maml_rl.errors import InputError, one_line, reason
from maml_rl.observations import LEAST_SIDE, observation_parts, row_space

NO_TIME_LIMIT = "there is no time limit: register the environment with max_episode_steps=N, or set max_episode_steps"
_MANY_COMPONENTS = 1000  # of an observation, at which the baseline's fit takes most of an update
_PICTURE = 64  # numbers of a part of two or more axes, at which it is taken for a picture


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
    observations, actions = found.observation_space, found.action_space
    if found.is_batch and not isinstance(observations, spaces.Box):
        yield (
            f"observations of a batch have to be in a Box, but are in {one_line(observations)}: let observation return "
            "an array [n, ...] of numbers"
        )
    elif row_space(observations) is None:
        yield (
            "observations have to be numbers that Gymnasium can flatten, but are in "
            f"{one_line(observations)}: {_observation_advice(observations)}"
        )
    if not isinstance(actions, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        yield (
            f"actions have to be in a Box, Discrete, MultiDiscrete or MultiBinary, but are in {one_line(actions)}: "
            "turn one of these into them in a gymnasium.ActionWrapper"
        )


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


def picture_advice(space: spaces.Space[Any], *, convolved: bool = True) -> str | None:
    """Advice for observations that do not suit a perceptron; None for others, and for pictures that are convolved."""
    parts = [part for part in observation_parts(space) if not (convolved and part.is_picture)]
    size = sum(part.size for part in parts)
    largest = max(parts, key=lambda part: (len(part.shape) > 1, part.size), default=None)
    if largest is None or (size < _MANY_COMPONENTS and (len(largest.shape) < 2 or largest.size < _PICTURE)):
        return None
    what = f"a part {largest.name} of shape" if largest.name else "shape"
    remedy = "set network.filters, which convolve it"
    if not largest.is_picture:
        remedy = (
            "return pictures as bytes, a Box(0, 255, (height, width, channels), uint8) of at least "
            f"{LEAST_SIDE} x {LEAST_SIDE} pixels, or a few features instead"
        )
    return (
        f"observations have {what} {largest.shape}: the policy is a perceptron and sees them as a row of {size:,} "
        f"numbers, and the baseline fits {2 * size + 4:,} weights to the episodes of each task, which makes updates "
        f"slow and advantages poor: {remedy}"
    )


def _cannot_travel(space: spaces.Space[Any]) -> Iterator[str]:
    try:
        pickle.loads(pickle.dumps(space))
    except Exception as error:  # a custom Space may raise anything
        yield (
            f"task_space cannot be sent to the processes that run the environment ({reason(error)}): define its class "
            "at the top level of a module, without lambdas or open files in it"
        )


def _observation_advice(space: spaces.Space[Any]) -> str:
    unknown = list(_without_numbers(space, ""))
    if unknown == [""]:
        return "wrap the environment in a gymnasium.ObservationWrapper that converts them to an array"
    return (
        f"{', '.join(unknown)} cannot be flattened: remove it with gymnasium.wrappers.FilterObservation in "
        "additional_wrappers"
    )


def _without_numbers(space: spaces.Space[Any], name: str) -> Iterator[str]:
    """Parts of a space, by their place, that `gymnasium.spaces.flatten` does not turn into arrays."""
    parts: list[tuple[Any, spaces.Space[Any]]] = []
    if isinstance(space, spaces.Dict):
        parts = list(space.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space))
    for key, part in parts:
        yield from _without_numbers(part, f"{name}[{key!r}]" if name else repr(key))
    if not parts and row_space(space) is None:
        yield name
