"""Films episodes of a few tasks after each number of gradient steps, as a `Recording`."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from PIL import Image

from maml_rl.config import RLEvaluation, RLMeta
from maml_rl.envs.batched import BatchedTaskEnv
from maml_rl.envs.mujoco.tracking import load_triton
from maml_rl.evaluation import SeededTasks, task_returns
from maml_rl.experiments.media.recording import RECORDED_TASKS, Kind, Recording, picture_times
from maml_rl.experiments.media.sheets import to_sheet
from maml_rl.experiments.media.task_display import task_names, task_quantity
from maml_rl.experiments.runs.progress import with_progress
from maml_rl.learner import Validation
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.observations import Part, observation_parts
from maml_rl.reinforcement import RLLearner, make_envs, step_sizes
from maml_rl.rollouts import collect
from maml_rl.run import Run
from maml_rl.seeding import Draw, Phase
from maml_rl.task_parts import plain, plain_text
from maml_rl.tasks import Task, TaskVectorEnv, episode_limit, evaluation_tasks, make
from maml_rl.types import Params, State

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


def film_held_out(
    run: Run,
    config: RLEvaluation,
    count: int = RECORDED_TASKS,
    machine: Machine = THIS_MACHINE,
    validation: Validation | None = None,
    tasks: Sequence[Task] | None = None,
) -> Recording:
    """Records a few of the tasks of an evaluation, each as the evaluation adapts to it; see `film`.

    Args:
        run: The run.
        config: Settings of the evaluation.
        count: How many of its tasks; as many as there are, if there are fewer different ones.
        machine: What may be used of the machine. None of it changes the result.
        validation: How the evaluation chose its step size, where training had none.
        tasks: All tasks of the evaluation; those that the settings draw if None.
    """
    episodes = config.episodes * (count if run.rl_config.meta.inner_steps else config.validation_tasks)
    with run.open_rl(machine, episodes) as learner:
        if tasks is None:
            tasks = evaluation_tasks(learner.task_space, max(config.tasks, count), config.seed)
        indices = spread(tasks, count)
        return film(learner, run.state, [tasks[m] for m in indices], config, indices, validation)


def film(
    learner: RLLearner,
    state: State,
    tasks: Sequence[Task],
    config: RLEvaluation,
    indices: Sequence[int] | None = None,
    validation: Validation | None = None,
) -> Recording:
    """Adapts to tasks, as an evaluation does, and records an episode of each after each gradient step.

    Args:
        learner: The learner of a run.
        state: What its training has reached.
        tasks: M tasks.
        config: Gradient steps, episodes and seed.
        indices: Index of each task in an evaluation, which seeds its episodes; 0, 1, ... if None.
        validation: How a step size was chosen, if that was done before and training had none.

    Raises:
        NonFiniteError: If the adaptation diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    meta, _ = learner.with_step_size(state, config, validation=validation)
    path = learner.adaptation(state, tasks, config, meta, indices)
    steps = with_progress(path, "recording", "step", config.gradient_steps + 1)
    stages = (Stage(params, task_returns(sampled)) for params, sampled in steps)
    return filmed(learner, state, SeededTasks(tasks, indices), stages, config, meta)


def filmed(
    learner: RLLearner,
    state: State,
    task_set: SeededTasks,
    stages: Iterable[Stage],
    config: RLEvaluation,
    meta: RLMeta,
    of_bodies: bool = False,
) -> Recording:
    """Records an episode of each task with each of the policies of `stages`.

    Args:
        learner: See `film`, also for arguments and errors that are not listed here.
        task_set: M tasks, with what seeds their episodes.
        stages: Policies after 0, 1, ... gradient steps, which may be computed while they are recorded.
        meta: Settings of the inner update that they were adapted by.
        of_bodies: Whether to record MuJoCo's bodies (`WorkerEnv.body_poses`), not pictures, where there is no batch.
    """
    tasks, indices, _ = task_set
    draw, envs = Draw(config.seed, Phase.RECORDING), _watched(learner, len(tasks), of_bodies)
    arrays, pictures = [], []
    with closing(envs):
        for params, returns in stages:
            sampled = collect(envs, learner.policy, params, tasks, 1, draw, indices)
            lengths, rewards = sampled.lengths[:, 0].cpu().numpy(), sampled.rewards[:, 0].cpu().numpy()
            arrays.append((envs.motion(lengths), rewards, lengths, returns))
            pictures.append(envs.sheets(lengths))
    motion, rewards, lengths, mean_returns = map(np.stack, zip(*arrays, strict=True))
    return Recording(
        kind=envs.kind,
        env_id=learner.config.env_id,
        tasks=[plain(task) for task in tasks],
        task_names=task_names(learner.envs, tasks),
        task_quantity=task_quantity(learner.envs),
        inner_lrs=step_sizes(meta, config),
        episodes=config.step_episodes,
        seed=config.seed,
        iteration=state.iteration,
        seconds_per_step=envs.seconds_per_step,
        motion=motion,
        rewards=rewards,
        lengths=lengths,
        mean_returns=mean_returns,
        pictures=pictures,
    )


def _watched(learner: RLLearner, count: int, of_bodies: bool) -> "_Watched":
    """Sub-environments of a learner's kind that keep poses, or else pictures, or else observations.

    Pictures are those that the environment draws, or else those that it observes.
    """
    machine, is_batched = replace(learner.machine, processes=count), isinstance(learner.envs.unwrapped, BatchedTaskEnv)
    if of_bodies:
        return _Watched(make_envs(learner.config, count, machine), "poses")
    offered = "rgb_array" in learner.envs.metadata.get("render_modes", [])
    if offered and not is_batched and _draws(learner.config.env_id):
        return _Watched(make_envs(learner.config, count, machine, render_mode="rgb_array"), "pictures")
    envs = make_envs(learner.config, count, machine)
    if observed := _observed_picture(envs):
        return _Watched(envs, "pictures", observed)
    return _Watched(envs, "poses" if is_batched else "observations")


class _ObservedPicture(NamedTuple):
    """The first picture of an observation."""

    part: Part
    start: int  # its first number in the row of an observation

    def frames(self, observations: Any) -> list[NDArray[np.uint8]]:
        """Pictures `[height, width, 3]` of a batch of observations, with pixels large enough to be seen."""
        rows = np.reshape(observations, (len(observations), -1))[:, self.start : self.start + self.part.size]
        pictures = rows.reshape(-1, *self.part.shape).astype(np.uint8)
        if pictures.ndim == 3:
            pictures = pictures[..., None]
        elif not self.part.channels_last:
            pictures = np.moveaxis(pictures, 1, -1)
        colours = pictures[..., :3] if pictures.shape[-1] >= 3 else pictures[..., :1].repeat(3, -1)
        times = max(1, _PICTURE_SIZE // max(colours.shape[1:3]))
        return list(colours.repeat(times, 1).repeat(times, 2))


def _observed_picture(envs: TaskVectorEnv) -> _ObservedPicture | None:
    start = 0
    for part in observation_parts(envs.single_observation_space):
        if part.is_picture:
            return _ObservedPicture(part, start)
        start += part.size
    return None


def _one_number(task: Task) -> float | None:
    """The number that a task is, or None if it is not a single number."""
    value = plain(task)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return float(value) if isinstance(value, (int, float)) else None


def _draws(env_id: str) -> bool:
    """Whether an environment can draw here: anything that it draws with may be missing, from a package to a screen."""
    load_triton()
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
    """Wrapper that stores poses, observations or rendered frames since the last reset."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], kind: Kind, observed: _ObservedPicture | None = None) -> None:
        super().__init__(envs)
        self._observed = observed
        self.seconds_per_step = 1.0 / float(envs.metadata.get("render_fps") or 30)
        self.groups: list[TaskVectorEnv] = [self]  # one alone, so that rows of all episodes are in their order
        self._horizon = episode_limit(envs)
        self._picture_times = set(picture_times(self._horizon, self._horizon).tolist())
        self._poses: list[Any] = []  # [time] [M, P]
        self._pictures: list[list[NDArray[np.uint8]]] = []  # [picture][M]
        self._time = 0
        self.kind = kind

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
                drawn = self._observed.frames(observations) if self._observed else base.render()
                self._pictures.append([_small(picture) for picture in drawn or ()])
        else:
            self._poses.append(np.array(self._seen(base, observations), np.float32))

    def _seen(self, base: Any, observations: Any) -> Any:
        if isinstance(base, BatchedTaskEnv):
            return base.poses()
        return base.call("body_poses") if self.kind == "poses" else np.reshape(observations, (self.num_envs, -1))

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
