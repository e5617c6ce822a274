"""Records a few tasks' episodes after each number of gradient steps (`Recording`)."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv
from maml_rl.evaluation import EvaluationConfig, adaptation, task_returns, with_step_size
from maml_rl.experiments.media.recording import Kind, Recording, picture_times
from maml_rl.experiments.media.sheets import to_sheet
from maml_rl.experiments.media.task_display import task_names, task_quantity
from maml_rl.experiments.runs.run import Run, make_envs
from maml_rl.parallel import TaskThreads
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.task_parts import plain, plain_text
from maml_rl.tasks import Task, TaskVectorEnv, episode_limit, make
from maml_rl.types import Params

_PICTURE_SIZE = 240  # pixels; the longer side of a recorded picture


class Stage(NamedTuple):
    """Adapted policies after one number of gradient steps."""

    params: Params  # of each task, [M, ...]
    mean_returns: NDArray[np.float64]  # [M]   of the episodes that were sampled with them


def spread(tasks: Sequence[Task], count: int) -> list[int]:
    """Indices of up to `count` different tasks; where a task is one number, from the lowest to the highest."""
    different = list({plain_text(task): index for index, task in reversed(list(enumerate(tasks)))}.values())
    values = [_one_number(task) for task in tasks]
    if None in values:
        return sorted(different)[:count]
    different.sort(key=lambda index: values[index])
    places = np.linspace(0, len(different) - 1, min(count, len(different))).round().astype(int)
    return [different[place] for place in places]


def record(
    run: Run,
    tasks: Sequence[Task],
    config: EvaluationConfig,
    threads: TaskThreads | None = None,
    processes: Processes = ALL_CORES,
    inner_lr: float | None = None,
) -> Recording:
    """Adapts a run to tasks, as its evaluation does, and records an episode of each after each gradient step.

    Args:
        run: The run; its parameters and its policy are on one device.
        tasks: M tasks.
        config: Gradient steps, episodes and seed.
        threads: Threads that share the tasks; one if None.
        processes: Processes of an environment that is not batched. They do not change the result.
        inner_lr: Step size of the first gradient step; as the evaluation has it (`with_step_size`) if None.

    Raises:
        NonFiniteError: If the adaptation diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    threads, total = threads or TaskThreads(1), config.gradient_steps + 1
    count = config.episodes * len(tasks)
    with closing(make_envs(run.config, count, processes)) as envs:
        if inner_lr is None:
            meta, _ = with_step_size(run.policy, run.theta, envs, run.config.meta, config, threads)
        else:
            meta = replace(run.config.meta, inner_lr=inner_lr)
        path = adaptation(run.policy, run.theta, envs, tasks, meta, config, threads)
        bar = tqdm(path, "recording", total, unit="step", disable=None, leave=False)
        stages = (Stage(params, task_returns(sampled)) for params, sampled in bar)
        return recorded(run, tasks, stages, config, meta.inner_lr, processes)


def recorded(
    run: Run,
    tasks: Sequence[Task],
    stages: Iterable[Stage],
    config: EvaluationConfig,
    inner_lr: float,
    processes: Processes = ALL_CORES,
) -> Recording:
    """Records an episode of each task with each of the policies of `stages`, after 0, 1, ... gradient steps.

    Args:
        run: The run.
        tasks: M tasks.
        stages: Policies after 0, 1, ... gradient steps, which may be computed while they are recorded.
        config: Gradient steps, episodes and seed.
        inner_lr: Step size of the first gradient step.
        processes: How processes start of an environment that is not batched; there is one for each task.

    Raises:
        WorkerError: If the environment fails in one of its processes.
    """
    env_id, draw = run.config.env_id, Draw(config.seed, Phase.RECORDING)
    with closing(make(env_id)) as env:
        names, quantity = task_names(env, tasks), task_quantity(env)
        drawn = not isinstance(env.unwrapped, TaskEnv) and "rgb_array" in env.metadata.get("render_modes", [])
    settings = {"render_mode": "rgb_array"} if drawn and _draws(env_id) else {}
    motion, pictures, rewards, lengths, mean_returns = [], [], [], [], []
    one_each = replace(processes, count=len(tasks))
    watched = make_envs(run.config, len(tasks), one_each, **settings)
    with closing(_Watched(watched, "pictures" if settings else "observations")) as envs:
        for stage in stages:
            sampled = collect(envs, run.policy, stage.params, tasks, 1, draw)
            lengths.append(sampled.mask[:, 0].sum(-1).cpu().numpy().astype(np.int64))
            rewards.append(sampled.rewards[:, 0].cpu().numpy())
            mean_returns.append(stage.mean_returns)
            motion.append(envs.motion(lengths[-1]))
            pictures.append(envs.sheets(lengths[-1]))
    return Recording(
        kind=envs.kind,
        env_id=env_id,
        tasks=[plain(task) for task in tasks],
        task_names=names,
        task_quantity=quantity,
        inner_lrs=config.step_sizes(inner_lr),
        episodes=config.episodes,
        seed=config.seed,
        iteration=run.progress.iteration,
        seconds_per_step=envs.seconds_per_step,
        motion=np.stack(motion),
        rewards=np.stack(rewards),
        lengths=np.stack(lengths),
        mean_returns=np.stack(mean_returns),
        pictures=pictures,
    )


def _one_number(task: Task) -> float | None:
    """The number that a task is, or None if it is no single number."""
    value = plain(task)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return float(value) if isinstance(value, (int, float)) else None


def _draws(env_id: str) -> bool:
    """Whether an environment can draw here: anything that it draws with may be missing, from a package to a screen."""
    try:
        with closing(make(env_id, render_mode="rgb_array")) as env:
            env.reset()
            env.render()
            return True
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        print(f"recording observations, since the environment cannot draw: {reason}", file=sys.stderr)
        return False


class _Watched(VectorWrapper[Any, Any, Any, Any, Any]):
    """Environments of which is kept what their pictures show, or their pictures, from the last reset on."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], kind: Kind) -> None:
        super().__init__(envs)
        self.seconds_per_step = 1.0 / float(envs.metadata.get("render_fps") or 30)
        self.groups: list[TaskVectorEnv] = [self]  # no others beside it, for sampling to keep the order of rows
        self._horizon = episode_limit(envs)
        self._picture_times = set(picture_times(self._horizon, self._horizon).tolist())
        self._poses: list[Any] = []  # [time] [M, P]
        self._pictures: list[list[NDArray[np.uint8]]] = []  # [picture][M]
        self._time = 0
        self.kind: Kind = "poses" if isinstance(envs.unwrapped, BatchedTaskEnv) else kind

    def reset(self, **kwargs: Any) -> Any:
        """Begins episodes."""
        observations, info = self.env.reset(**kwargs)
        self._time, self._poses, self._pictures = 0, [], []
        self._look(observations)
        return observations, info

    def step(self, actions: Any) -> Any:
        """Steps the environments."""
        observations, *others = self.env.step(actions)
        self._time += 1
        self._look(observations)
        return observations, *others

    def _look(self, observations: Any) -> None:
        base = self.env.unwrapped
        if self.kind == "pictures":
            if self._time in self._picture_times:
                self._pictures.append([_small(picture) for picture in base.render() or ()])
        else:
            seen = base.poses() if isinstance(base, BatchedTaskEnv) else np.reshape(observations, (self.num_envs, -1))
            self._poses.append(np.array(seen, np.float32))

    def motion(self, lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """Poses or observations `[M, T + 1, P]` since the last reset, the last of an episode repeated after its end."""
        if self.kind == "pictures":
            return np.zeros((len(lengths), self._horizon + 1, 0), np.float32)
        steps = np.minimum(np.arange(self._horizon + 1), lengths[:, None])  # [M, T + 1]
        kept: NDArray[np.float32] = np.stack(self._poses)[steps, np.arange(len(lengths))[:, None]]
        return kept

    def sheets(self, lengths: NDArray[np.int64]) -> list[bytes]:
        """A contact sheet of each episode's pictures since the last reset, if it draws."""
        if self.kind != "pictures":
            return []
        counts = [len(picture_times(length, self._horizon)) for length in lengths]
        return [to_sheet([row[m] for row in self._pictures[:count]]) for m, count in enumerate(counts)]


def _small(picture: Any) -> NDArray[np.uint8]:
    image = Image.fromarray(np.asarray(picture, np.uint8))
    image.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    return np.asarray(image)
