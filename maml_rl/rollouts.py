"""Sampling: M tasks x K episodes, one parameter set per task, one policy evaluation per time step for all of them."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.actions import action_kind, within
from maml_rl.distributions import Distribution
from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError
from maml_rl.module_policy import ModulePolicy
from maml_rl.parallel import one_torch_thread
from maml_rl.perceptron import perceptron
from maml_rl.policies import Policy
from maml_rl.ranks import Share
from maml_rl.seeding import Draw, Purpose
from maml_rl.task_parts import plain_text
from maml_rl.tasks import Task, TaskVectorEnv, assign_tasks, episode_limit, groups, observation_size, resets_itself
from maml_rl.types import Params, Trajectories, aligned


@one_torch_thread()
def collect(
    envs: TaskVectorEnv,
    policy: Policy,
    params: Params,
    tasks: Sequence[Task],
    episodes: int,
    draw: Draw,
    indices: Sequence[int] | Share | None = None,
) -> Trajectories:
    """Exactly `episodes` whole episodes of each task, whatever their length, on the device of `params`.

    Episodes run in as many waves as the number of sub-environments requires. Waves run side by side where the
    environment offers groups of sub-environments for that: the policy of one then overlaps the physics of the other.
    What an episode draws depends on `draw`, its task's index and its own, not on where it runs.

    Args:
        envs: Sub-environments, any number of them.
        policy: The policy that acts.
        params: Its parameters, with a leading M.
        tasks: M tasks.
        episodes: K.
        draw: Place in the run, which seeds resets and actions.
        indices: Each task's own index, which seeds them as well; 0 to M - 1 if None. With a share of more tasks, the
            episodes are those of all of them, bit for bit.

    Raises:
        InputError: If there are more or fewer indices than tasks.
        NonFiniteError: If an action is not finite.
        NonFiniteEnvironmentError: If an observation or reward is not finite; names the task.
    """
    share = indices if isinstance(indices, Share) else None
    own = indices.indices if isinstance(indices, Share) else range(len(tasks)) if indices is None else indices
    if len(own) != len(tasks):
        raise InputError(f"indices must have one for each of the {len(tasks)} tasks, got {len(own)}")
    horizon = episode_limit(envs)
    shape, kind = (episodes, horizon), policy.distribution
    noise = np.stack([kind.noise(draw.generator(Purpose.ACTIONS, i), shape, policy.noise_size) for i in own])
    seeds = [seed for i in own for seed in draw.integers(Purpose.RESETS, episodes, i)]
    request = _among_others(_Request(policy, params, tasks, seeds, noise, draw.step, range(len(seeds))), share)
    buffers = _buffers(envs, (len(request.tasks), episodes, horizon))
    _run_waves(envs, request, buffers)
    device, first = next(iter(params.values())).device, share.lead if share else 0
    return Trajectories(*(torch.from_numpy(array).to(device)[first : first + len(tasks)] for array in buffers))


class _Request(NamedTuple):
    """What to sample, and with which policy."""

    policy: Policy
    params: Params  # with a leading M
    tasks: Sequence[Task]  # M
    seeds: Sequence[int]  # of the reset of each episode, m K + k
    noise: NDArray[np.float32]  # [M, K, T, ...]   that selects the actions
    step: int  # gradient steps before it, for messages
    wanted: range  # the episodes m K + k that are run


def _among_others(request: _Request, share: Share | None) -> _Request:
    """The same episodes, with others around them that are not run, so that they round as they do among all tasks."""
    if share is None:
        return request
    tasks, before, episodes = list(request.tasks), share.lead, request.noise.shape[1]
    count = len(tasks)
    after = share.places - before - count
    return request._replace(
        params={name: share.filled(value) for name, value in request.params.items()},
        tasks=[*tasks[:1] * before, *tasks, *tasks[:1] * after],
        seeds=[*[0] * (before * episodes), *request.seeds, *[0] * (after * episodes)],
        noise=np.pad(request.noise, [(before, after), *[(0, 0)] * (request.noise.ndim - 1)]),
        wanted=range(before * episodes, (before + count) * episodes),
    )


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> NDArray[Any]:
    """Zeros in memory from PyTorch, so that as tensors they are `aligned`; NumPy's may start at any 16 bytes."""
    zeros: NDArray[Any] = torch.zeros(shape, dtype=dtype).numpy()
    return zeros


class _Buffers(NamedTuple):
    """`Trajectories` while they are being filled."""

    observations: NDArray[np.float32]
    actions: NDArray[np.float32] | NDArray[np.int64]
    log_probs: NDArray[np.float32]
    rewards: NDArray[np.float32]
    mask: NDArray[np.float32]
    terminated: NDArray[np.bool_]


def _buffers(envs: TaskVectorEnv, shape: tuple[int, int, int]) -> _Buffers:
    """Buffers of shape `[M, K, T]`, all 0."""
    kind = action_kind(envs.single_action_space)
    return _Buffers(
        observations=_zeros(*shape, observation_size(envs)),
        actions=_zeros(*shape, *kind.shape, dtype=kind.dtype),
        log_probs=_zeros(*shape),
        rewards=_zeros(*shape),
        mask=_zeros(*shape),
        terminated=_zeros(*shape[:2], dtype=torch.bool),
    )


def _run_waves(envs: TaskVectorEnv, request: _Request, buffers: _Buffers) -> None:
    """Runs the episodes; each group of sub-environments takes the next wave as soon as it has finished one."""
    parts = groups(envs)
    count, left = len(request.wanted), list(request.wanted)[::-1]
    lock = Lock()

    def work(part: TaskVectorEnv) -> None:
        size = min(part.num_envs, -(-count // len(parts)))
        while True:
            with lock:
                rows = [left.pop() for _ in range(min(size, len(left)))]
            if not rows:
                return
            try:
                _run_wave(part, request, buffers, _wave(rows[0], rows[-1] + 1, *buffers.mask.shape[:2]))
            except BaseException:
                left.clear()  # the other groups begin no more waves
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


class _Wave(NamedTuple):
    """Episodes that run side by side, one in each of the first sub-environments.

    Three arrays hold them: the buffers with all episodes, in the order m K + k; the grid `[tasks, K]`, which the policy
    is applied to as a whole; and the sub-environments. Neighbours in one are neighbours in the others.
    """

    among_all: slice  # rows of the buffers
    tasks: slice  # those of the grid
    in_grid: slice  # rows of the grid

    @property
    def episodes(self) -> range:
        """Their indices m K + k."""
        return range(self.among_all.start, self.among_all.stop)


def _wave(start: int, stop: int, tasks: int, episodes: int) -> _Wave:
    """The wave of the episodes from `start` to before `stop`, of M tasks with K episodes each.

    The grid has all K episodes of its tasks, with zeros for those that run in another wave. Which episodes share a wave
    must not change their rounding, and a product of matrices is rounded by its shape and its place in memory:

    - a batched product of one matrix rounds differently from one of several, so the grid has two tasks, if there are;
    - a task's rows have to start at the same distance from a 64-byte boundary in every wave. So the grid starts with a
      task whose rows start at such a boundary among all tasks: its index times K is divisible by 16 (numbers of 4
      bytes), however wide an observation is.
    """
    stride = 16 // math.gcd(16, episodes)
    first = min(start // episodes, max(tasks - 2, 0)) // stride * stride
    last = max((stop - 1) // episodes + 1, min(first + 2, tasks))
    return _Wave(slice(start, stop), slice(first, last), slice(start - first * episodes, stop - first * episodes))


class _Acting(NamedTuple):
    """The policy on the grid of a wave."""

    policy: Callable[[Tensor], Distribution]  # with the parameters of the grid's tasks
    noise: Tensor  # [tasks, K, T, ...]
    grid: NDArray[np.float32]  # [tasks K, obs]   observations; 0 of episodes that have ended, or run in another wave

    def act(self, t: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Actions `[tasks K, ...]` in time step t, and their log-probabilities `[tasks K]`."""
        count, episodes = self.noise.shape[:2]
        with torch.no_grad():
            seen = torch.from_numpy(self.grid).to(self.noise.device).reshape(count, episodes, -1)
            distribution = self.policy(seen)
            sampled = distribution.sample(self.noise[:, :, t])
            log_probs = distribution.log_prob(sampled)
        return sampled.cpu().numpy().reshape(len(self.grid), *sampled.shape[2:]), log_probs.cpu().numpy().reshape(-1)


def _acting(request: _Request, wave: _Wave, observation_size: int) -> _Acting:
    params = {name: value[wave.tasks] for name, value in request.params.items()}
    device = next(iter(params.values())).device
    noise = aligned(torch.from_numpy(request.noise[wave.tasks])).to(device)
    return _Acting(
        _with_params(request.policy, params), noise, _zeros(noise.shape[0] * noise.shape[1], observation_size)
    )


def _with_params(policy: Policy, params: Params) -> Callable[[Tensor], Distribution]:
    """A policy as a function of observations, to be called many times."""
    if network := perceptron(policy):
        return network.module.at(network.frozen | params)
    return policy.at(params) if isinstance(policy, ModulePolicy) else partial(policy, params)


def _run_wave(envs: TaskVectorEnv, request: _Request, buffers: _Buffers, wave: _Wave) -> None:
    """Runs the episodes of a wave to their ends, and writes them into the buffers."""
    _, episodes, horizon = buffers.mask.shape
    rows = _Buffers(*(array.reshape(-1, *array.shape[2:])[wave.among_all] for array in buffers))  # type: ignore[arg-type]
    acting = _acting(request, wave, rows.observations.shape[-1])
    tasks = [request.tasks[episode // episodes] for episode in wave.episodes]
    count, space = len(tasks), envs.single_action_space
    actions = np.zeros((envs.num_envs, *space.shape), space.dtype)  # type: ignore[misc]  # of idle ones as well

    observations = _reset(envs, tasks, [request.seeds[episode] for episode in wave.episodes])
    running = np.ones(count, np.bool_)
    seen = acting.grid[wave.in_grid]  # a view
    for t in range(horizon):
        if running.all():
            seen[:] = observations[:count].reshape(count, -1)
        else:
            alive = np.flatnonzero(running)
            seen[alive] = observations[alive].reshape(len(alive), -1)
        _check_returned(seen, "an observation", tasks, t, request.step)
        chosen, log_probs = (array[wave.in_grid] for array in acting.act(t))
        if not np.isfinite(chosen).all():
            raise NonFiniteError(f"actions sampled after {_steps(request.step)} are not finite")
        actions[:count] = within(space, chosen.reshape(count, *actions.shape[1:]))
        rows.observations[:, t] = seen
        rows.actions[:, t] = (chosen.T * running).T
        rows.log_probs[:, t] = log_probs * running
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        rows.rewards[:, t] = rewards[:count] * running
        _check_returned(rows.rewards[:, t], "a reward", tasks, t + 1, request.step)
        rows.mask[:, t] = running
        rows.terminated[:] |= terminated[:count] & running
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


def _reset(envs: TaskVectorEnv, tasks: Sequence[Task], seeds: Sequence[int]) -> NDArray[np.float64]:
    """First observations; spare sub-environments stay idle if they can, or else repeat the last episode."""
    spare = envs.num_envs - len(tasks)
    assign_tasks(envs, [*tasks, *[tasks[-1]] * spare])
    options = None
    if spare and not resets_itself(envs):
        options = {"reset_mask": np.arange(envs.num_envs) < len(tasks)}
    observations, _ = envs.reset(seed=[*seeds, *[seeds[-1]] * spare], options=options)  # type: ignore[arg-type]
    return np.asarray(observations)
