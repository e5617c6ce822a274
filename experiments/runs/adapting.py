"""Adaptation of a trained run to one task, to a policy that Stable-Baselines3 uses and trains further."""

import io
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from tqdm import tqdm

from maml_rl.checkpoint import write_atomically
from maml_rl.envs.drawn_tasks import DrawnTasks
from maml_rl.errors import InputError, one_line
from maml_rl.evaluation import adaptation, task_returns, with_step_size
from maml_rl.experiments.media.filming import Stage, recorded
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.task_display import task_names
from maml_rl.experiments.runs.evaluations import aligned, chosen_step_size
from maml_rl.experiments.runs.run import (
    Run,
    RunConfig,
    load_config,
    load_run,
    make_envs,
    overridden,
    warn_of_few_episodes,
)
from maml_rl.json_values import json_text, parse_json
from maml_rl.parallel import threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.sb3 import check_exportable, fit_critic, to_ppo
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.task_observation import TaskObservation
from maml_rl.task_parts import plain
from maml_rl.tasks import Task, make, sample_tasks, task_space
from maml_rl.types import Params, Trajectories, select


class Adapted(NamedTuple):
    """A policy adapted to one task."""

    run: Run
    task: Task
    task_name: str  # for people
    task_json: Any  # the same as `task_space.to_jsonable([task])`
    inner_lrs: list[float]  # step size of each gradient step
    seed: int
    params: Params  # after the last gradient step
    returns: NDArray[np.float64]  # [gradient steps + 1, K]   of each episode, after each number of gradient steps
    env_steps: list[int]  # sampled for 0, 1, ... gradient steps
    model: PPO  # the same policy, with a critic fitted to the last episodes
    recording: Recording | None = None  # an episode after each number of gradient steps

    @property
    def mean_return(self) -> list[float]:
        """Mean return over episodes, by gradient step."""
        means: list[float] = self.returns.mean(1).tolist()
        return means

    @property
    def standard_deviation(self) -> list[float | None]:
        """Standard deviation (n - 1) of the return over episodes, by gradient step; None of a single episode."""
        if self.returns.shape[1] == 1:
            return [None] * len(self.returns)
        deviations: list[float | None] = self.returns.std(1, ddof=1).tolist()
        return deviations

    def record(self) -> dict[str, Any]:
        """The adaptation as JSON values."""
        return {
            "env_id": self.run.config.env_id,
            "task": plain(self.task),
            "gradient_steps": list(range(len(self.returns))),
            "env_steps": self.env_steps,
            "mean_return": self.mean_return,
            "standard_deviation": self.standard_deviation,
            "episodes": self.returns.shape[1],
            "inner_lr": self.inner_lrs,
            "seed": self.seed,
            "training_seed": self.run.config.seed,
            "iteration": self.run.progress.iteration,
        }

    def table(self) -> str:
        """Mean return by gradient step, with its spread over episodes."""
        rows = [["gradient steps", "env steps", "mean return", "standard deviation"]]
        columns = zip(self.env_steps, self.mean_return, self.standard_deviation, strict=True)
        for step, (env_steps, mean, deviation) in enumerate(columns):
            spread = "-" if deviation is None else f"{deviation:.1f}"
            rows.append([str(step), str(env_steps), f"{mean:.1f}", spread])
        return aligned(rows)


def adapt(
    directory: Path,
    task: Task | str | None = None,
    gradient_steps: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    record: bool = False,
) -> Adapted:
    """Adapts a run to one task, as its evaluation does, and makes the result a model of Stable-Baselines3.

    Args:
        directory: The run.
        task: An element of the environment's `task_space`, or its text as `read_task` takes it; drawn from the space
            if None.
        gradient_steps: Gradient steps, with fresh episodes for each; those of the run's evaluation if None.
        episodes: Episodes for each gradient step; those of the run's evaluation if None.
        seed: Seed of the task, if none is given, of everything random in the adaptation, and of the model.
        device: Where the policy and its updates are computed.
        threads: Threads that the updates may use. They do not change the result.
        processes: Processes of an environment that is not batched. They do not change the result.
        record: Whether an episode is recorded after each number of gradient steps.

    Raises:
        InputError: If the run, the task or a setting cannot be used, or Stable-Baselines3 cannot represent the policy.
        NonFiniteError: If the adaptation diverges.
        WorkerError: If the environment fails in one of its processes.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    run_config, progress, _ = load_config(directory)
    config = overridden(run_config.evaluation, gradient_steps=gradient_steps, episodes=episodes, seed=seed)
    inner_lr = chosen_step_size(directory, run_config, progress)
    validated = run_config.meta.inner_steps == 0 and config.gradient_steps > 0 and inner_lr is None
    num_envs = config.episodes * (config.validation_tasks if validated else 1)
    with (
        closing(make_task_env(run_config)) as env,
        closing(make_envs(run_config, num_envs, processes)) as envs,
    ):
        run = load_run(directory, envs)
        check_exportable(run.policy, env)
        if config.gradient_steps:
            warn_of_few_episodes(envs, config.episodes)
        space = task_space(envs)
        task = chosen_task(space, task, seed)
        (name,) = task_names(envs, [task])
        policy = run.policy.to(torch_device)
        theta = {name: value.to(torch_device) for name, value in run.theta.items()}
        meta = run_config.meta
        if inner_lr is not None:
            meta = replace(meta, inner_lr=inner_lr)
        elif validated:  # as the evaluation does, whatever the seed of this adaptation
            meta, _ = with_step_size(policy, theta, envs, meta, run_config.evaluation, task_threads)
        path = adaptation(policy, theta, envs, [task], meta, config, task_threads)
        total = config.gradient_steps + 1
        stages = list(tqdm(path, "adapting", total, unit="step", disable=None, leave=False))
        inner_lrs = config.step_sizes(meta.inner_lr)
        recorded_stages = [Stage(params, task_returns(sampled)) for params, sampled in stages] if record else []
        recording = recorded(run, [task], recorded_stages, config, meta.inner_lr, processes) if record else None
        returns = torch.stack([sampled.returns[0] for _, sampled in stages]).double().cpu().numpy()
        sizes = [int(sampled.mask.sum()) for _, sampled in stages]
        env_steps = [sum(sizes[:step]) for step in range(total)]
        params, sampled = stages[-1]
        adapted = {name: value.cpu() for name, value in select(params, 0).items()}
        model = to_ppo(policy.cpu(), adapted, env, gamma=meta.discount, gae_lambda=meta.gae_lambda, seed=seed)
        fit_critic(model, Trajectories(*(field[0].cpu() for field in sampled)), seed=seed)
        model.env = None  # closed from here on
    task_json = space.to_jsonable([task])
    return Adapted(run, task, name, task_json, inner_lrs, seed, adapted, returns, env_steps, model, recording)


def make_task_env(config: RunConfig) -> gymnasium.Env[Any, Any]:
    """One environment of a run, with the observations that its policy has."""
    env = make(config.env_id, config.max_episode_steps)
    return TaskObservation(env) if config.observe_task else env


def chosen_task(space: spaces.Space[Any], task: Task | str | None, seed: int) -> Task:
    """A task as a user gives it: an element of the space, its text as `read_task` takes it, or None to draw one.

    Raises:
        InputError: If it cannot be read, or is not in the space.
    """
    if task is None:
        return sample_tasks(space, 1, Draw(seed, Phase.EVALUATION).integers(Purpose.TASKS, 1)[0])[0]
    if isinstance(task, str):
        return read_task(space, task)
    if not space.contains(task):
        raise InputError(f"task {one_line(task)} is not in the task space, {one_line(space)}")
    return task


def read_task(space: spaces.Space[Any], text: str) -> Task:
    """A task that a user typed: `1.5`, `0.3,-0.2`, `1`, or any JSON value, such as `{"mass": 2.0}` for a Dict.

    Args:
        space: p(T).
        text: Its JSON form; the brackets around numbers may be left out.

    Raises:
        InputError: If it cannot be read, or is not in the space.
    """
    example = json_text(plain(sample_tasks(space, 1, 0)[0]))
    values: list[Any] = []
    for form in (text, f"[{text}]"):
        with suppress(ValueError):
            values.append(parse_json(form))
    if isinstance(space, spaces.Text) and not (values and isinstance(values[0], str)):
        values = [text]  # the quotes of JSON may be left out too
    if not values:
        raise InputError(f"task {one_line(text)[:200]} cannot be read: give it as JSON, for example {example}")
    tasks = _elements(space, values[0])
    if not tasks:
        found = f"task {text} is not in the task space, {one_line(space)}{_wrong_part(space, values[0])}"
        raise InputError(f"{found}: give one such as {example}")
    return tasks[0]


def _elements(space: spaces.Space[Any], value: Any) -> list[Any]:
    """The element of a space that a JSON value is; empty if it is none."""
    elements = []
    with suppress(AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        elements.append(_element(space, value))
    return [element for element in elements if space.contains(element)]


def _wrong_part(space: spaces.Space[Any], value: Any) -> str:
    """What in the value of a Dict is not as it should be, for the message; nothing of another space."""
    if not isinstance(space, spaces.Dict) or not isinstance(value, dict):
        return ""
    missing = ", ".join(key for key in space if key not in value)
    unknown = ", ".join(key for key in value if key not in space.spaces)
    if missing or unknown:
        return "".join(f"; {names} {what}" for names, what in ((missing, "missing"), (unknown, "unknown")) if names)
    wrong = next((key for key, part in space.items() if not _elements(part, value[key])), None)
    if wrong is None:
        return ""
    inner = _wrong_part(space[wrong], value[wrong])
    return f"; {wrong} {json_text(value[wrong])} is not in {one_line(space[wrong])}{inner}"


def _element(space: spaces.Space[Any], value: Any) -> Any:
    """The element of a space of which `plain` makes this JSON value."""
    if isinstance(space, DrawnTasks):
        return space.read(value)
    if isinstance(space, spaces.Dict):
        if value.keys() != space.keys():
            raise ValueError(f"expected the keys {list(space.keys())}, got {value}")  # none is ignored
        return {name: _element(part, value[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_element(part, item) for part, item in zip(space, value, strict=True))
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        numbers = np.asarray(value)
        if numbers.dtype.kind not in ("iu" if np.issubdtype(space.dtype, np.integer) else "iuf"):
            raise ValueError(f"expected numbers of type {space.dtype}, got {value}")  # no fraction is cut off
        element: Any = numbers.astype(space.dtype).reshape(space.shape)
        return element[()] if isinstance(space, spaces.Discrete) else element
    if isinstance(space, spaces.OneOf):
        index, item = value
        return np.int64(index), _element(space.spaces[index], item)
    if isinstance(space, spaces.Graph):
        nodes, edges, links = value
        value = {"nodes": [nodes]} | ({"edges": [edges], "edge_links": links} if edges is not None else {})
    elif isinstance(space, spaces.Sequence) and not space.stack:
        return tuple(_element(space.feature_space, item) for item in value)
    return space.from_jsonable([value])[0]


def save(adapted: Adapted, path: Path) -> None:
    """Writes the model for `PPO.load`; the file is whole or not there.

    Raises:
        InputError: If the path cannot be used; see `check_new_file`.
    """
    check_new_file(path)
    content = io.BytesIO()
    adapted.model.save(content)
    write_atomically(path, content.getvalue())


def check_new_file(path: Path) -> None:
    """Checks that a model can be written to a file.

    Raises:
        InputError: If it exists already, its directory does not, or it is not named as Stable-Baselines3 expects.
    """
    if path.suffix != ".zip":
        raise InputError(f"{path} must end in .zip, as the models of Stable-Baselines3 do")
    if path.exists():
        raise InputError(f"{path} exists: move it away, or give another name")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent}: make it, or give another name")


def next_steps(adapted: Adapted, path: Path) -> str:
    """Code that trains the saved model further on its task."""
    config = adapted.run.config
    limit = f", max_episode_steps={config.max_episode_steps}" if config.max_episode_steps else ""
    imports, made = "", f"gymnasium.make({config.env_id!r}{limit})"
    if config.observe_task:
        imports, made = "from maml_rl.task_observation import TaskObservation\n", f"TaskObservation({made})"
    return f"""\
import gymnasium
{imports}from stable_baselines3 import PPO
env = {made}
env.unwrapped.task = env.unwrapped.task_space.from_jsonable({adapted.task_json!r})[0]
PPO.load({str(path)!r}, env).learn(100_000)"""
