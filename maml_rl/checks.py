"""Checks that an environment can be a task distribution, and reports findings for its author as sentences."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from copy import deepcopy
from itertools import count, islice
from numbers import Real
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from maml_rl.errors import InputError, one_line, place, reason
from maml_rl.observations import observation_parts, row
from maml_rl.requirements import interface, picture_advice, time_limit, unmet, unusable
from maml_rl.standardisation import unresolved
from maml_rl.task_parts import parts, plain_text, varied
from maml_rl.tasks import Task, TaskVectorEnv, assign_tasks, episode_limit, sample_tasks, vectorize

AnyEnv = gymnasium.Env[Any, Any]
_TASKS = 10  # tasks whose episodes are compared
_STEPS = 50  # of the episodes that are compared
_WHOLE_STEPS = 2000  # of all whole episodes together; there are at least three
_LONGEST = 1000  # steps of an episode of each task, where the first ones were alike
_PARTS = 24  # parts of a task, each of which is varied alone
_SHORT_ROUNDS, _WHOLE_ROUNDS = 4, 2  # episodes in which each part is varied: short ones, and whole ones
_PART_STEPS = 5000  # after which no more rounds begin
_ROWS = 3  # of a batch, compared with single environments
_LEAK = 0.99  # share of a task's variance, explained on held-out tasks, at which it counts as revealed
_LARGE = 100.0  # observations so large that a policy diverges unless they are standardised
_RESOLVED = 100  # roundings of float32 in a standard deviation; fewer are noise
_HARDLY = 1e-3  # of the size of a component, and of the others' standard deviation


class Finding(NamedTuple):
    """An error, a warning or a note for the author of an environment."""

    level: Literal[
        "error", "warning", "note"
    ]  # an error makes training fail or its results meaningless; a note needs no action
    text: str  # what was found, and what to do


class Episode(NamedTuple):
    """Everything that an environment returned, unchanged."""

    observations: list[Any]  # one more than rewards
    rewards: list[Any]
    flags: list[tuple[Any, Any]]  # terminated, truncated
    infos: list[Any]  # one more than rewards


class _FatalError(Exception):
    """Ends the check: because of this finding, or the last one, nothing else can be checked."""

    def __init__(self, finding: Finding | None = None) -> None:
        self.finding = finding


def check_task_env(env: AnyEnv, seed: int = 0) -> list[Finding]:
    """Checks that an environment can be meta-trained. An error prevents it; a warning is a probable mistake.

    The environment runs with random actions: a few thousand steps and some hundred resets, and up to twenty thousand
    steps if the task, or parts of it, change nothing at first. An environment that is registered with a batched form is
    compared with it.

    Args:
        env: The environment from `gymnasium.make`, preferably with `disable_env_checker=True`, because Gymnasium's
            checker reports some of the same problems in other words.
        seed: Seed of everything random in the check.

    Returns:
        Findings, each once; an empty list if there are none.
    """
    findings: list[Finding] = []
    try:
        for check in (
            _requirements,
            _convention,
            _doubts,
            _interface,
            _values,
            _task_effect,
            _whole_episodes,
            _leak,
            _batch,
        ):
            for finding in check(env, seed):
                findings.append(finding)
            if check is _values and any(finding.level == "error" for finding in findings):
                break  # the others compute with these values
    except _FatalError as stop:
        findings += [stop.finding] if stop.finding else []
    return list(dict.fromkeys(findings))


def _error(text: str) -> Finding:
    return Finding("error", text)


def _warning(text: str) -> Finding:
    return Finding("warning", text)


def _called(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Result of the environment's own code; what it raises ends the check."""
    try:
        return function(*args, **kwargs)
    except InputError as error:  # of this package, which training raises too
        raise _FatalError(_error(str(error))) from error
    except Exception as error:
        raise _FatalError(_error(f"{name} raised {reason(error)} ({place(error)}): fix that first")) from error


def _requirements(env: AnyEnv, _: int) -> Iterator[Finding]:
    """Everything that training needs is there. What is missing is reported in the words of training's own errors."""
    found = interface(env)
    yield from map(_error, unmet(found))
    if any(unusable(found)):
        raise _FatalError


def _convention(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """`task_space` draws tasks, and `task` keeps what is assigned."""
    base: Any = env.unwrapped
    space = base.task_space
    if not space.contains(base.task):
        yield _error(f"task is {one_line(base.task)}, which task_space does not contain: start with an element of it")
    tasks, again = _tasks(env, _TASKS, seed), _tasks(env, _TASKS, seed)
    try:
        json.dumps(_called("task_space.to_jsonable", space.to_jsonable, tasks))
    except TypeError as error:
        yield _warning(
            f"tasks cannot be written as JSON ({error}): give task_space a to_jsonable and a from_jsonable, so "
            "that a task can be written down and assigned again"
        )
    written = [_written(space, task) for task in tasks]
    if written != [_written(space, task) for task in again]:
        yield _error("task_space draws different tasks from the same seed: its sample has to use only self.np_random")
    if len(set(written)) == 1:
        yield _warning(f"task_space drew the same task {len(tasks)} times: there is nothing to adapt to")
    for task in tasks[:2]:
        _called("assigning a task", setattr, base, "task", task)
        if not _same(base.task, task):
            yield _error(
                f"after task = {one_line(task)}, task is {one_line(base.task)}: it has to keep the assigned value"
            )


def _doubts(env: AnyEnv, _: int) -> Iterator[Finding]:
    """Observations and actions suit an untrained policy in size and kind."""
    advice = picture_advice(env.observation_space)
    if advice:
        yield _warning(advice)
    actions = env.action_space
    if not isinstance(actions, spaces.Box):
        return
    if not np.issubdtype(actions.dtype, np.floating):
        yield _warning(
            f"actions are in {one_line(actions)}: a policy draws real numbers, whose fraction is cut off; use a "
            "floating type and round inside the environment, or make the actions Discrete"
        )
    if actions.is_bounded():
        half = (actions.high - actions.low) / 2
        if half.min() < 0.5 or half.max() > 5:
            yield _warning(
                f"actions range over {one_line(actions)}, while a policy starts with a standard deviation of 1: "
                "let them range over [-1, 1] and scale them inside the environment, or set network.initial_std"
            )


def _interface(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """`reset` and `step` are Gymnasium's."""
    old = "; an environment with Gym's old interface can be wrapped in maml_rl.envs.adapters.SampledTaskEnv"
    result = _called("reset(seed=..., options=...)", env.unwrapped.reset, seed=seed, options=None)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise _FatalError(_error(f"reset has to return (observation, info), got {type(result).__name__}{old}"))
    result = _called("step", env.unwrapped.step, _actions(env.unwrapped, 1, seed)[0])
    if not (isinstance(result, tuple) and len(result) == 5):
        got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise _FatalError(
            _error(f"step has to return (observation, reward, terminated, truncated, info), got {got}{old}")
        )
    return iter(())


def _values(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Observations, rewards and flags are what the spaces and Gymnasium's interface promise."""
    tasks = _tasks(env, 3, seed)
    episodes = [_run(env, task, seed + i, _actions(env, _STEPS, seed + i)) for i, task in enumerate(tasks)]
    if isinstance(env.action_space, spaces.Box) and env.action_space.is_bounded():
        extremes = [(env.action_space.low, env.action_space.high)[i % 2].copy() for i in range(_STEPS)]
        episodes.append(_run(env, tasks[0], seed, extremes))
    for episode in episodes:
        for observation in episode.observations:
            yield from _observation_faults(env.observation_space, observation)
        for reward in episode.rewards:
            if not isinstance(reward, Real):
                yield _error(f"rewards have to be numbers, got {type(reward).__name__}: return float(reward)")
            elif not np.isfinite(float(reward)):
                yield _error(f"a reward is {float(reward)}: rewards must be finite")
        if any(not isinstance(flag, (bool, np.bool_)) for flags in episode.flags for flag in flags):
            yield _error("terminated and truncated have to be True or False: return bool(...)")
        if any(not isinstance(info, dict) for info in episode.infos):
            yield _error("info has to be a dict")


def _observation_faults(space: spaces.Space[Any], observation: Any) -> Iterator[Finding]:
    """What is wrong with an observation; for a Dict with the right keys, what is wrong with each part."""
    if isinstance(space, spaces.Dict) and isinstance(observation, dict) and observation.keys() == space.keys():
        for key, part in space.items():
            for finding in _observation_faults(part, observation[key]):
                yield finding._replace(text=f"in the part {key!r}, {finding.text}")
    elif isinstance(space, spaces.Box):
        yield from _array_faults(space, observation)
    elif not space.contains(observation):
        found = one_line(observation)[:80]
        yield _error(f"an observation is {found}, which its space, {one_line(space)}, does not contain")


def _array_faults(space: spaces.Box, observation: Any) -> Iterator[Finding]:
    if not isinstance(observation, (np.ndarray, np.generic)):
        yield _error(f"observations have to be arrays, got {type(observation).__name__}")
    elif observation.shape != space.shape:
        yield _error(f"an observation has shape {observation.shape}, observation_space has {space.shape}")
    elif not np.isfinite(observation).all():
        yield _error("an observation is not finite: look for a division by zero or an unstable simulation")
    elif observation.dtype != space.dtype:
        yield _warning(f"observations are {observation.dtype}, observation_space says {space.dtype}: use the same type")
    elif not space.contains(observation):
        yield _warning("an observation is outside the bounds of observation_space: widen them")


def _task_effect(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """The task takes effect only at the next reset, and an episode depends only on the task and the seed."""
    base: Any = env.unwrapped
    unique = list({_written(base.task_space, task): task for task in _tasks(env, _TASKS, seed)}.values())
    task, *others = unique
    actions = _actions(env, _STEPS, seed)
    _run(env, task, seed, actions)
    episode = _run(env, task, seed, actions)
    if not _same(base.task, task):
        yield _error("reset changes task: it has to start the assigned task and must not draw one")
    if not _same(episode, _run(env, task, seed, actions)):
        yield _error(
            "the same seed, task and actions gave two different episodes: draw random numbers only from "
            "self.np_random, and let reset(seed=...) call super().reset(seed=seed) and restore the whole state"
        )
        return
    differs = False
    for other in others:
        first = _run(env, other, seed, actions)
        if not _same(first, _run(env, other, seed, actions)):
            yield _error(
                "the first episode after a change of task differs from the second: the task has to take effect at the "
                "next reset, and reset has to undo whatever the last task changed"
            )
            return
        differs |= not _same(first, episode)
    if others and not differs:
        yield from _no_effect(env, unique, seed)
    elif others:
        yield from _parts_without_effect(env, unique, seed)
    if others and not _same(episode, _run(env, task, seed, actions, later=others[0])):
        yield _warning(
            "a task assigned in the middle of an episode changes that episode: copy task at reset, and use the copy"
        )


def _no_effect(env: AnyEnv, tasks: Sequence[Task], seed: int) -> Iterator[Finding]:
    """Whether tasks have no effect in long episodes. A reward that never varies may just be rarely earned."""
    actions = _actions(env, min(time_limit(env) or _LONGEST, _LONGEST), seed)
    episodes = [_run(env, task, seed, actions) for task in tasks]
    if not all(_same(episode, episodes[0]) for episode in episodes):
        return
    same = f"{len(tasks)} tasks gave the same observations, rewards and ends in {len(episodes[0].rewards)} random steps"
    if len({float(reward) for reward in episodes[0].rewards}) == 1:
        yield _warning(
            f"{same}, and every reward was {float(episodes[0].rewards[0]):g}: if the reward is sparse, random actions "
            "do not reach it, and neither will an untrained policy, so let it show how near the goal is; "
            "otherwise let the task change the reward or the dynamics (is it read at reset?)"
        )
    else:
        yield _error(f"{same}: let the task change the reward or the dynamics (is it read at reset?)")


def _parts_without_effect(env: AnyEnv, tasks: Sequence[Task], seed: int) -> Iterator[Finding]:
    """Parts of a task that have no effect when they are varied separately, in otherwise equal episodes.

    Whole episodes with several tasks find a part that takes effect late, or only with some tasks.
    """
    space = env.unwrapped.task_space  # type: ignore[attr-defined]
    named = dict(parts(space, tasks[0]))
    idle = dict(islice(named.items(), _PARTS))
    if len(named) == 1:
        return
    if len(named) > _PARTS:
        yield Finding("note", f"a task has {len(named)} parts: only {_PARTS} of them are checked for an effect")
    # Each round varies every part that has shown no effect yet: first in short episodes, which find most effects, then
    # in whole ones. Rounds continue until `_PART_STEPS`, to find sparse effects.
    whole = min(time_limit(env) or _LONGEST, _LONGEST)
    tried, rewards, steps = set[str](), set[float](), 0
    for round_ in count():
        if not idle or (round_ >= _SHORT_ROUNDS + _WHOLE_ROUNDS and steps >= _PART_STEPS):
            break
        is_whole = round_ >= _SHORT_ROUNDS
        task, other = tasks[round_ % len(tasks)], tasks[(round_ + 1) % len(tasks)]
        actions = _actions(env, whole if is_whole else min(_STEPS, whole), seed + round_)
        expected = _run(env, task, seed + round_, actions)
        rewards |= {float(reward) for reward in expected.rewards}
        changed = {name: varied(space, task, other, [path]) for name, path in idle.items()}
        changed = {name: one for name, one in changed.items() if one is not None and not _same(one, task)}
        tried |= changed.keys()
        if not tried & idle.keys() and round_ > len(tasks):
            break  # what is left never varies
        steps += len(actions) * (1 + len(changed))
        together = varied(space, task, other, [idle[name] for name in changed])
        if is_whole and together is not None and _gives(env, together, seed + round_, actions, expected):
            continue  # none of them changes anything: two episodes instead of one for each
        for name, one in changed.items():
            if not _gives(env, one, seed + round_, actions, expected):
                del idle[name]
    found = [name for name in idle if name in tried]
    if found:
        yield _idle_finding(found, round_, rewards)


def _gives(env: AnyEnv, task: Task, seed: int, actions: Sequence[Any], expected: Episode) -> bool:
    """Whether a task gives this episode. The run may fail: task_space contains the task, but may never draw it."""
    try:
        return _same(_run(env, task, seed, actions), expected)
    except _FatalError:
        return False


def _idle_finding(names: Sequence[str], episodes: int, rewards: set[float]) -> Finding:
    several = len(names) > 1
    text = (
        f"{', '.join(names)} {'have' if several else 'has'} no effect: {episodes} random episodes had the same "
        "observations, rewards and ends for all values; "
    )
    if len(rewards) == 1:
        return _warning(
            f"{text}every reward was {rewards.pop():g}, so if the reward is sparse, let it show how near the goal is; "
            "otherwise read the whole task at reset, or remove the rest from task_space"
        )
    return _warning(f"{text}read the whole task at reset, or remove parts without effect from task_space")


def _whole_episodes(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Whole episodes end by truncation, and their observations are numbers that a policy can use."""
    limit = min(time_limit(env) or _WHOLE_STEPS, _WHOLE_STEPS // 2)
    tasks = _tasks(env, int(np.clip(_WHOLE_STEPS // limit, 3, 6)), seed)
    episodes = [_run(env, task, seed + i, _actions(env, limit, seed + i)) for i, task in enumerate(tasks)]
    lengths = {len(episode.rewards) for episode in episodes}
    if len(lengths) == 1 and lengths != {1} and all(episode.flags[-1][0] for episode in episodes):
        yield _warning(
            f"every episode terminated after exactly {lengths.pop()} steps: if that is a time limit, return it as "
            "truncated, or leave it to max_episode_steps"
        )
    observations = [observation for episode in episodes for observation in episode.observations]
    parts = observation_parts(env.observation_space)
    size = max(sum(part.size for part in parts), 1)
    rows = np.linspace(0, len(observations) - 1, min(len(observations), max(50, 2_000_000 // size))).astype(int)
    numbers = np.concatenate([np.full(part.size, not part.is_picture) for part in parts])
    # Pictures are scaled by their range, and a 0 that never changes is not a fault.
    yield from _scales(np.stack([np.where(numbers, _row(env, observations[index]), 0.0) for index in rows]))


def _row(env: AnyEnv, observation: Any) -> NDArray[np.float64]:
    """An observation as a row of numbers, in float64."""
    return np.asarray(row(env.observation_space, observation), np.float64).reshape(-1)


def _scales(observations: NDArray[np.float64]) -> Iterator[Finding]:
    """Observations `[n, obs]` are of the order of 1, vary, and are resolved by float32, in which policies compute."""
    if not observations.size:
        return
    largest, deviation = np.abs(observations).max(0), observations.std(0)
    if largest.max() > _LARGE:
        yield _warning(
            f"observations reach {largest.max():.3g} in {_components([int(largest.argmax())])}: a policy that does not "
            "standardise them diverges; set network.standardise, or scale them inside the environment"
        )
    varies = np.ptp(observations, axis=0) > 0
    coarse = varies & unresolved(observations, _RESOLVED)
    if coarse.any():
        first = int(coarse.argmax())
        step = np.spacing(np.float32(largest[first]))
        yield _warning(
            f"{_components(np.flatnonzero(coarse))} varies by {deviation[first]:.2g} around "
            f"{observations[:, first].mean():.6g}, where float32, which policies use, has steps of "
            f"{step:.2g}: subtract the constant part in the environment"
        )
    if not varies.any():
        return
    smallest = _HARDLY * np.maximum(largest, np.median(deviation[varies]))
    hardly = varies & ~coarse & (deviation < np.minimum(smallest, _HARDLY))
    if hardly.any():
        first = int(hardly.argmax())
        yield _warning(
            f"{_components(np.flatnonzero(hardly))} hardly varies under random actions (standard deviation "
            f"{deviation[first]:.2g}), and standardising divides by that: noise becomes as large as the other "
            "components, and a real change far larger; remove the component, or round off its noise"
        )


def _components(indices: Sequence[int] | NDArray[np.int64]) -> str:
    """Components of an observation by index, the first few of many."""
    named = ", ".join(str(index) for index in indices[:5])
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"component{'' if len(indices) == 1 else 's'} {named}{more}"


def _leak(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """The observation does not reveal the task: a linear map, fitted on half of the tasks, fails on the others."""
    space = env.unwrapped.task_space  # type: ignore[attr-defined]
    size = sum(part.size for part in observation_parts(env.observation_space))
    tasks = _tasks(env, int(np.clip(4 * (size + 1), 60, 300)), seed)
    try:
        targets = np.stack([np.asarray(_vector(space, task), np.float64).reshape(-1) for task in tasks])
    except (TypeError, ValueError):  # tasks that are not numbers
        return
    episodes = [_run(env, task, seed + i, _actions(env, 2, seed + i)) for i, task in enumerate(tasks)]
    for index, when in ((0, "the first observation"), (-1, "an observation after a few random steps")):
        inputs = np.stack([_row(env, e.observations[index]) for e in episodes])
        single = [j for j in range(size) if _reveals(inputs[:, [j]], targets)]
        if single:
            yield _warning(f"{when} contains the task, in component {single[0]}: there is nothing left to adapt to")
        elif _reveals(inputs, targets):
            yield _warning(f"{when} reveals the task, as a linear function: there is nothing left to adapt to")
        else:
            continue
        return


def _batch(env: AnyEnv, seed: int) -> Iterator[Finding]:
    """Each row of the batched form, used in training, equals the single environment with its task, seed and actions."""
    if env.spec is None or env.spec.vector_entry_point is None:
        return
    with closing(_called("gymnasium.make_vec", vectorize, env.spec, _ROWS)) as batch:
        single = (env.observation_space, env.action_space, time_limit(env))
        batched = (batch.single_observation_space, batch.single_action_space, episode_limit(batch))
        for name, alone, in_batch in zip(
            ("observation_space", "action_space", "time limit"), single, batched, strict=True
        ):
            if alone != in_batch:
                raise _FatalError(
                    _error(f"the batched form has {name} {one_line(in_batch)}, the single one {one_line(alone)}")
                )
        yield from islice(_batch_faults(env, batch, seed), 1)


def _batch_faults(env: AnyEnv, batch: TaskVectorEnv, seed: int) -> Iterator[Finding]:
    """All differences between a batch of `_ROWS` and single environments, the earliest first."""
    tasks = _tasks(env, _ROWS, seed)
    actions = [_actions(env, _STEPS, seed + i) for i in range(_ROWS)]
    episodes = [_run(env, task, seed + i, actions[i]) for i, task in enumerate(tasks)]
    _called("set_attr of the batch", assign_tasks, batch, tasks)
    observations, _ = _called("reset of the batch", batch.reset, seed=[seed + i for i in range(_ROWS)])
    for i, episode in enumerate(episodes):
        if not _close(observations[i], episode.observations[0]):
            yield _batch_fault("first observation", i)
    for t in range(_STEPS):
        together = np.stack([np.asarray(of_row[t]) for of_row in actions])
        observations, rewards, terminated, truncated, _ = _called("step of the batch", batch.step, together)
        for i, episode in enumerate(episodes):
            if t >= len(episode.rewards):
                continue  # it has ended
            if not _close(observations[i], episode.observations[t + 1]):
                yield _batch_fault(f"observation of step {t + 1}", i)
            if not _close(rewards[i], episode.rewards[t]):
                yield _batch_fault(f"reward of step {t + 1}", i)
            if not _close((terminated[i], truncated[i]), episode.flags[t]):
                yield _batch_fault(f"end of step {t + 1}", i)


def _batch_fault(what: str, row: int) -> Finding:
    return _error(
        f"in a batch of {_ROWS}, the {what} of row {row} differs from the single environment's with the same task, "
        "seed and actions: a row must not depend on the others (look for sums or means without axis=1)"
    )


def _close(a: Any, b: Any) -> bool:
    """Whether two numbers or arrays are equal but for rounding."""
    return np.shape(a) == np.shape(b) and bool(np.allclose(a, b, rtol=1e-4, atol=1e-6))


def _written(space: spaces.Space[Any], task: Task) -> str:
    """A task as text, by which tasks of any kind are compared."""
    try:
        return json.dumps(space.to_jsonable([task]))
    except TypeError:
        return plain_text(task)


def _vector(space: spaces.Space[Any], task: Task) -> Any:
    try:
        return spaces.flatten(space, task)
    except NotImplementedError:  # a custom Space, whose elements may be arrays
        return task


def _reveals(inputs: NDArray[np.float64], targets: NDArray[np.float64]) -> bool:
    """Whether a linear map from inputs `[n, obs]`, fitted on half the rows, gives a component of the rest `[n, D]`."""
    scale = np.maximum(inputs.std(0), 1e-12)
    columns = np.column_stack([(inputs - inputs.mean(0)) / scale, np.ones(len(inputs))])
    half = len(inputs) // 2
    if columns.shape[1] >= half:
        return False  # any target can be fitted
    weights = np.linalg.lstsq(columns[:half], targets[:half], rcond=None)[0]
    rest = targets[half:]
    missed = ((rest - columns[half:] @ weights) ** 2).mean(0)
    return bool((missed < (1 - _LEAK) * rest.var(0)).any())


def _tasks(env: AnyEnv, count: int, seed: int) -> list[Task]:
    tasks: list[Task] = _called("task_space.sample", sample_tasks, env.unwrapped.task_space, count, seed)  # type: ignore[attr-defined]
    return tasks


def _actions(env: AnyEnv, count: int, seed: int) -> list[Any]:
    space = deepcopy(env.action_space)
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def _run(env: AnyEnv, task: Task, seed: int, actions: Sequence[Any], later: Task | None = None) -> Episode:
    """An episode until its end or the last action; `later` is assigned before the first action."""
    _called("assigning a task", setattr, env.unwrapped, "task", task)
    observation, info = _called("reset", env.reset, seed=seed)
    episode = Episode([deepcopy(observation)], [], [], [info])
    if later is not None:
        _called("assigning a task", setattr, env.unwrapped, "task", later)
    for action in actions:
        observation, reward, terminated, truncated, info = _called("step", env.step, action)
        episode.observations.append(deepcopy(observation))
        episode.rewards.append(deepcopy(reward))
        episode.flags.append((terminated, truncated))
        episode.infos.append(info)
        if terminated or truncated:
            break
    return episode


def _same(a: Any, b: Any) -> bool:
    """Whether two tasks, or what two episodes returned, are equal."""
    if isinstance(a, Episode) and isinstance(b, Episode):
        return all(_same(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b))
