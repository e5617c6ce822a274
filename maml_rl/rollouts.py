"""Sampling: M tasks x K episodes, one parameter set per task, one policy evaluation per time step for all of them."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from maml_rl.errors import NonFiniteEnvironmentError, NonFiniteError
from maml_rl.parallel import one_torch_thread
from maml_rl.policies import Policy
from maml_rl.seeding import Draw, Purpose
from maml_rl.task_parts import plain_text
from maml_rl.tasks import Task, TaskVectorEnv, assign_tasks, episode_limit, groups, observation_size, resets_itself
from maml_rl.types import Params, Trajectories, aligned


@one_torch_thread()
def collect(
    envs: TaskVectorEnv, policy: Policy, params: Params, tasks: Sequence[Task], episodes: int, draw: Draw
) -> Trajectories:
    """Exactly `episodes` whole episodes of each task, whatever their length, on the device of `params`.

    Episodes run in as many waves as the number of sub-environments makes necessary, and waves run side by side where
    the environment offers groups of sub-environments for that: one's policy then overlaps the other's physics. What an
    episode draws depends on `draw`, its task's index and its own, not on where it runs.

    Args:
        envs: Sub-environments, any number of them.
        policy: The policy that acts.
        params: Its parameters, with a leading M.
        tasks: M tasks.
        episodes: K.
        draw: Place in the run, which seeds resets and actions.

    Raises:
        NonFiniteError: If an action is not finite.
        NonFiniteEnvironmentError: If an observation or reward is not finite; names the task.
    """
    horizon, action_space = episode_limit(envs), envs.single_action_space
    shape = (len(tasks), episodes, horizon)
    continuous = isinstance(action_space, Box)
    buffers = _Buffers(
        observations=_zeros(*shape, observation_size(envs)),
        actions=_zeros(*shape, policy.noise_size) if continuous else _zeros(*shape, dtype=torch.int64),
        log_probs=_zeros(*shape),
        rewards=_zeros(*shape),
        mask=_zeros(*shape),
        terminated=_zeros(*shape[:2], dtype=torch.bool),
    )
    seeds = [seed for m in range(len(tasks)) for seed in draw.integers(Purpose.RESETS, episodes, m)]
    noise = np.stack(
        [
            policy.distribution.noise(draw.generator(Purpose.ACTIONS, m), (episodes, horizon), policy.noise_size)
            for m in range(len(tasks))
        ]
    )
    _run_waves(envs, policy, params, tasks, seeds, noise, buffers, draw.step)
    device = next(iter(params.values())).device
    return Trajectories(*(torch.from_numpy(array).to(device) for array in buffers))


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> NDArray[Any]:
    """Zeros in memory of PyTorch's, so that as tensors they are `aligned`; NumPy's begin at any 16 bytes."""
    zeros: NDArray[Any] = torch.zeros(shape, dtype=dtype).numpy()
    return zeros


class _Buffers(NamedTuple):
    """`Trajectories` while they are filled."""

    observations: NDArray[np.float32]
    actions: NDArray[np.float32] | NDArray[np.int64]
    log_probs: NDArray[np.float32]
    rewards: NDArray[np.float32]
    mask: NDArray[np.float32]
    terminated: NDArray[np.bool_]


def _run_waves(
    envs: TaskVectorEnv,
    policy: Policy,
    params: Params,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    noise: NDArray[np.float32],
    buffers: _Buffers,
    step: int,
) -> None:
    """Runs all episodes; each group of sub-environments takes the next wave as soon as it has finished one."""
    parts = groups(envs)
    left = list(range(len(seeds)))[::-1]
    lock = Lock()

    def work(part: TaskVectorEnv) -> None:
        size = min(part.num_envs, -(-len(seeds) // len(parts)))
        while True:
            with lock:
                rows = [left.pop() for _ in range(min(size, len(left)))]
            if not rows:
                return
            try:
                _run_wave(part, policy, params, tasks, seeds, noise, np.array(rows), buffers, step)
            except BaseException:
                left.clear()  # the other groups begin no further wave
                raise

    if len(parts) == 1:
        work(parts[0])
    else:
        with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                list(pool.map(work, parts))
            except BaseException:  # Ctrl-C arrives here, in the thread that waits
                left.clear()
                raise


def _run_wave(
    envs: TaskVectorEnv,
    policy: Policy,
    params: Params,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    noise: NDArray[np.float32],
    rows: NDArray[np.int64],
    buffers: _Buffers,
    step: int,
) -> None:
    """Runs the episodes `rows` (index m K + k), one in each of the first sub-environments."""
    episodes, horizon = buffers.mask.shape[1:]
    # Which rows share a wave must not change their rounding. At least two tasks, if there are: a batched product of one
    # matrix is rounded otherwise. And from a task on whose rows begin at 64 bytes (16 numbers), however wide they are.
    stride = 16 // math.gcd(16, episodes)
    first_task = int(min(rows[0] // episodes, max(len(tasks) - 2, 0))) // stride * stride
    last_task = max(rows[-1] // episodes + 1, min(first_task + 2, len(tasks)))
    start = int(rows[0] - first_task * episodes)
    place = slice(start, start + len(rows))  # of these episodes in the grid [tasks of this wave, K]
    span = slice(int(rows[0]), int(rows[-1]) + 1)  # and among all episodes
    device = next(iter(params.values())).device
    params = {name: value[first_task:last_task] for name, value in params.items()}
    wave_noise = aligned(torch.from_numpy(noise[first_task:last_task])).to(device)
    grid = _zeros((last_task - first_task) * episodes, buffers.observations.shape[-1])
    flat = _Buffers(*(array.reshape(-1, *array.shape[2:]) for array in buffers))  # type: ignore[arg-type]
    count = len(rows)
    actions = np.zeros((envs.num_envs, *envs.single_action_space.shape), envs.single_action_space.dtype)  # type: ignore[misc]

    own_tasks = [tasks[row // episodes] for row in rows]
    observations = _reset(envs, own_tasks, [seeds[row] for row in rows])
    running = np.ones(count, np.bool_)
    for t in range(horizon):
        seen = grid[place]  # 0 where an episode has ended
        if running.all():
            seen[:] = observations[:count].reshape(count, -1)
        else:
            alive = np.flatnonzero(running)
            seen[alive] = observations[alive].reshape(len(alive), -1)
        _check_returned(seen, "an observation", own_tasks, t, step)
        with torch.no_grad():
            distribution = policy(params, torch.from_numpy(grid).to(device).reshape(-1, episodes, grid.shape[-1]))
            sampled = distribution.sample(wave_noise[:, :, t])
            log_probs = distribution.log_prob(sampled)
        chosen = sampled.cpu().numpy().reshape(len(grid), *flat.actions.shape[2:])[place]
        if not np.isfinite(chosen).all():
            raise NonFiniteError(f"actions sampled after {_steps(step)} are not finite")
        actions[:count] = _within(envs.single_action_space, chosen.reshape(count, *actions.shape[1:]))
        flat.observations[span, t] = seen
        flat.actions[span, t] = (chosen.T * running).T
        flat.log_probs[span, t] = log_probs.cpu().numpy().reshape(-1)[place] * running
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        flat.rewards[span, t] = rewards[:count] * running
        _check_returned(flat.rewards[span, t], "a reward", own_tasks, t + 1, step)
        flat.mask[span, t] = running
        flat.terminated[span] |= terminated[:count] & running
        ended = running & (terminated[:count] | truncated[:count])
        if ended.any():
            running = running & ~ended
            seen[ended] = 0.0
            if not running.any():
                break


def _check_returned(values: NDArray[Any], what: str, tasks: Sequence[Task], t: int, step: int) -> None:
    """Checks what the environment returned in step `t` of episodes of these tasks, one row of an array for each."""
    if not np.isfinite(values).all():
        row = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
        raise NonFiniteEnvironmentError(
            f"the environment returned {what} that is not finite (task {plain_text(tasks[row])}, step {t} of an "
            f"episode after {_steps(step)})"
        )


def _steps(count: int) -> str:
    return f"{count} gradient step{'' if count == 1 else 's'}"


def _within(space: Space[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Actions as the environment takes them: clipped to a Box, counted from a Discrete space's start."""
    if isinstance(space, Box):
        return np.asarray(np.clip(actions, space.low, space.high))
    return actions + getattr(space, "start", 0)


def _reset(envs: TaskVectorEnv, tasks: Sequence[Task], seeds: Sequence[int]) -> NDArray[np.float64]:
    """First observations; spare sub-environments stay idle where they can, else they repeat the last episode."""
    spare = envs.num_envs - len(tasks)
    assign_tasks(envs, [*tasks, *[tasks[-1]] * spare])
    options = None
    if spare and not resets_itself(envs):
        options = {"reset_mask": np.arange(envs.num_envs) < len(tasks)}
    observations, _ = envs.reset(seed=[*seeds, *[seeds[-1]] * spare], options=options)  # type: ignore[arg-type]
    return np.asarray(observations)
