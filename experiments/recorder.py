"""Making recordings (`experiments.recording`): a few tasks' episodes after each number of gradient steps."""

import io
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from envs.batched import BatchedTaskEnv, TaskEnv
from experiments.evaluate import plain
from experiments.recording import Kind, Recording, picture_times
from experiments.run import Run, RunConfig
from maml_rl.config import MetaConfig
from maml_rl.evaluation import EvaluationConfig, adaptation, task_returns
from maml_rl.parallel import TaskThreads
from maml_rl.policies import Policy
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import Task, TaskVectorEnv, make, vectorize
from maml_rl.types import Params, Trajectories

_PICTURE_SIZE = 240  # pixels; the longer side of a recorded picture


class Recorder:
    """Records the episodes of some tasks, one number of gradient steps after the other.

    Args:
        config: The run.
        tasks: M tasks.
        seed: Seed of the recorded episodes.
    """

    def __init__(self, config: RunConfig, tasks: Sequence[Task], seed: int) -> None:
        self._config, self._tasks, self._seed = config, tasks, seed
        settings: dict[str, Any] = {}
        with closing(make(config.env_id)) as env:
            self._names = [_task_name(env.unwrapped, task, index) for index, task in enumerate(tasks)]
            if not isinstance(env.unwrapped, TaskEnv) and "rgb_array" in env.metadata.get("render_modes", []):
                settings = {"render_mode": "rgb_array"}
        envs = vectorize(config.env_id, len(tasks), observe_task=config.observe_task, **settings)
        self._envs = _Watched(envs, bool(settings))
        self._stages: list[_Stage] = []

    def add(self, policy: Policy, params: Params, trajectories: Trajectories) -> None:
        """Records one episode of each task, after one gradient step more than before.

        Args:
            policy: The policy.
            params: Each task's parameters, `[M, ...]`.
            trajectories: The episodes `[M, K, T]` that were sampled with them.
        """
        sampled = collect(self._envs, policy, params, self._tasks, 1, Draw(self._seed, Phase.RECORDING))
        lengths = sampled.mask[:, 0].sum(-1).cpu().numpy().astype(np.int64)
        rewards = sampled.rewards[:, 0].cpu().numpy()
        motion, pictures = self._envs.seen(lengths, rewards.shape[1])
        self._stages.append(_Stage(motion, pictures, rewards, lengths, task_returns(trajectories)))

    def recording(self, inner_lrs: Sequence[float], iteration: int) -> Recording:
        """All that was recorded."""
        stages = self._stages
        return Recording(
            self._envs.kind,
            self._config.env_id,
            [plain(task) for task in self._tasks],
            self._names,
            list(inner_lrs),
            self._seed,
            iteration,
            self._envs.seconds_per_step,
            np.stack([stage.motion for stage in stages]),
            np.stack([stage.rewards for stage in stages]),
            np.stack([stage.lengths for stage in stages]),
            np.stack([stage.mean_returns for stage in stages]),
            [stage.pictures for stage in stages],
        )

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()


def _task_name(env: gymnasium.Env[Any, Any], task: Task, index: int) -> str:
    """A task for people: as its environment names it, else its numbers if they are few, else its place."""
    name: str | None = env.mdp.task_name(task) if isinstance(env, TaskEnv) else None
    if name is not None:
        return name
    if isinstance(task, (dict, tuple)) or np.size(task) > 3:
        return f"task {index + 1}"
    return "task " + ", ".join(f"{number:.3g}" for number in np.ravel(task))


class _Stage(NamedTuple):
    """What is recorded after one number of gradient steps."""

    motion: NDArray[np.float32]  # [M, T + 1, P]
    pictures: list[bytes]
    rewards: NDArray[np.float32]
    lengths: NDArray[np.int64]
    mean_returns: NDArray[np.float64]


class _Watched(VectorWrapper[Any, Any, Any, Any, Any]):
    """Environments of which is kept what a picture shows, from the last reset on."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], draws: bool) -> None:
        super().__init__(envs)
        self.kind: Kind = "pictures" if draws else "observations"
        if isinstance(envs.unwrapped, BatchedTaskEnv):
            self.kind = "poses"
        self.seconds_per_step = 1.0 / float(envs.metadata.get("render_fps") or 30)
        self.groups: list[TaskVectorEnv] = [self]  # one after the other, for sampling to keep the order of rows
        self._seen: list[Any] = []

    def reset(self, **kwargs: Any) -> Any:
        """Begins episodes."""
        result = self.env.reset(**kwargs)
        self._seen = []
        self._look(result[0])
        return result

    def step(self, actions: Any) -> Any:
        """Steps the environments."""
        result = self.env.step(actions)
        self._look(result[0])
        return result

    def _look(self, observations: Any) -> None:
        base = self.env.unwrapped
        if self.kind == "pictures":
            try:
                pictures = base.render()
            except Exception as error:  # what an environment draws with may lack anything, from a package to a screen
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                print(f"recording observations: the environment draws no picture ({reason})", file=sys.stderr)
                pictures = None
            if pictures is not None:
                self._seen.append([_small(picture) for picture in pictures])
                return
            self.kind = "observations"
        seen = base.poses() if isinstance(base, BatchedTaskEnv) else np.reshape(observations, (self.num_envs, -1))
        self._seen.append(seen.astype(np.float32))

    def seen(self, lengths: NDArray[np.int64], horizon: int) -> tuple[NDArray[np.float32], list[bytes]]:
        """Poses or observations `[M, T + 1, P]` since the last reset, the last one repeated, and animations."""
        if self.kind == "pictures":
            episodes = [[frame[m] for frame in self._seen[: n + 1]] for m, n in enumerate(lengths)]
            animations = [_animation(episode, self.seconds_per_step) for episode in episodes]
            return np.zeros((len(lengths), horizon + 1, 0), np.float32), animations
        steps = np.minimum(np.arange(horizon + 1), lengths[:, None])  # [M, T + 1]
        return np.stack(self._seen)[steps, np.arange(len(lengths))[:, None]], []


def _small(picture: Any) -> Image.Image:
    image = Image.fromarray(np.asarray(picture, np.uint8))
    image.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    return image


def _animation(episode: Sequence[Image.Image], seconds_per_step: float) -> bytes:
    """An animated WebP file."""
    times = picture_times(len(episode) - 1)
    first, *others = (episode[time] for time in times)
    milliseconds = max(1, round(1000 * seconds_per_step * (len(episode) - 1) / max(1, len(others))))
    content = io.BytesIO()
    # Equal pictures are merged unless every one is a key frame.
    first.save(content, "WEBP", save_all=True, append_images=others, duration=milliseconds, quality=75, kmax=0)
    return content.getvalue()


def record(
    run: Run,
    tasks: Sequence[Task],
    config: EvaluationConfig,
    meta: MetaConfig | None = None,
    threads: TaskThreads | None = None,
    processes: Processes = ALL_CORES,
) -> Recording:
    """Adapts a run to tasks, as its evaluation does, and records an episode of each after each gradient step.

    Args:
        run: The run.
        tasks: M tasks.
        config: Gradient steps, episodes and seed.
        meta: Settings of the inner update; those of the run if None.
        threads: Threads that share the tasks.
        processes: Processes of an environment that is not batched. They do not change the result.

    Raises:
        NonFiniteError: If the adaptation diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    meta = meta or run.config.meta
    env_id, count = run.config.env_id, len(tasks) * config.episodes
    with (
        closing(Recorder(run.config, tasks, config.seed)) as recorder,
        closing(vectorize(env_id, count, processes, run.config.observe_task)) as envs,
    ):
        path = adaptation(run.policy, run.theta, envs, tasks, meta, config, threads or TaskThreads(1))
        total = config.gradient_steps + 1
        for params, trajectories in tqdm(path, "recording", total, unit="step", disable=None, leave=False):
            recorder.add(run.policy, params, trajectories)
        inner_lrs = [config.inner_lr(meta.inner_lr, step) for step in range(config.gradient_steps)]
        return recorder.recording(inner_lrs, run.progress.iteration)
