"""Evaluation of a run on held-out tasks, as numbers: Figures 4 and 5 of Finn, Abbeel, Levine 2017 for this policy."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray
from tqdm import tqdm

from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig, Validation, adaptation, task_returns, with_step_size
from maml_rl.experiments.media.filming import Stage, recorded, spread
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.task_display import task_quantity
from maml_rl.experiments.paper.published import paper_returns, paper_task, paper_tasks
from maml_rl.experiments.runs.records import read_record
from maml_rl.experiments.runs.run import (
    EVALUATION,
    Progress,
    Run,
    RunConfig,
    TaskSet,
    file_of,
    load_config,
    load_run,
    make_envs,
    method,
    overridden,
    run_directory,
    warn_of_few_episodes,
)
from maml_rl.initial import build_policy, parameters
from maml_rl.parallel import threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.statistics import Mean, mean_with_interval
from maml_rl.task_parts import plain
from maml_rl.tasks import Task, TaskVectorEnv, evaluation_tasks, groups, strata, task_space

_NUM_ENVS = 800  # sub-environments stepped at once; it does not change what is sampled


class Evaluation(NamedTuple):
    """What a policy does on tasks that are new to it after each number of gradient steps."""

    tasks: list[Task]
    strata: list[int] | None  # of each task, where they are all there are; see `maml_rl.tasks.strata`
    returns: NDArray[np.float64]  # [gradient steps + 1, M]   mean over each task's episodes
    episodes: list[
        list[NDArray[np.float32]]
    ]  # observations [length, obs] of each task's first episode, by gradient step

    def means(self) -> list[Mean]:
        """Mean return over tasks with its uncertainty over tasks, by gradient step."""
        return [mean_with_interval(returns, self.strata) for returns in self.returns]


class ValidationRecord(TypedDict):
    """How the step size was chosen, as JSON values."""

    tasks: int
    inner_lrs: list[float]
    mean_returns: list[float | None]


class EvaluationRecord(TypedDict):
    """An evaluation as JSON values: `evaluation.json`, with a value for each number of gradient steps, S."""

    env_id: str
    method: NotRequired[str]  # for people
    gradient_steps: list[int]  # [S]   0, 1, ...
    mean_return: list[float]  # [S]
    standard_error: list[float]  # [S]
    interval_95: list[tuple[float, float]]  # [S]
    random_mean_return: list[float]  # [S]   of the random initialisation
    random_interval_95: list[tuple[float, float]]  # [S]
    interval_over: str  # tasks: of this run, not of other seeds
    task_set: TaskSet
    num_tasks: int  # M
    episodes: int
    inner_lr: list[float]  # [S - 1]
    validation: NotRequired[ValidationRecord | None]  # of a run without inner updates
    seed: int
    training_seed: int
    iteration: int
    env_steps: int
    tasks: list[Any]  # [M]
    strata: list[int] | None  # [M]   of each task, where they are all there are
    task_returns: list[list[float]]  # [S, M]


class Evaluations(NamedTuple):
    """A run's evaluation, and that of its own policy before training."""

    run: Run
    config: EvaluationConfig
    trained: Evaluation
    random: Evaluation
    task_set: TaskSet = "held-out"
    task_quantity: str = "task"  # what the numbers of a task are
    validation: Validation | None = None  # how the step size was chosen, where training had none
    recording: Recording | None = None  # of the trained policy on a few of the tasks

    @property
    def inner_lr(self) -> float:
        """Step size of the first gradient step."""
        return self.validation.best if self.validation else self.run.config.meta.inner_lr

    def record(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        steps = list(range(self.config.gradient_steps + 1))
        trained, random = (e.means() for e in (self.trained, self.random))
        return {
            "env_id": self.run.config.env_id,
            "method": method(self.run.config),
            "gradient_steps": steps,
            "mean_return": [mean.value for mean in trained],
            "standard_error": [mean.standard_error for mean in trained],
            "interval_95": [[mean.low, mean.high] for mean in trained],
            "random_mean_return": [mean.value for mean in random],
            "random_interval_95": [[mean.low, mean.high] for mean in random],
            "interval_over": "tasks",
            "task_set": self.task_set,
            "num_tasks": self.config.tasks,
            "episodes": self.config.episodes,
            "inner_lr": self.config.step_sizes(self.inner_lr),
            "validation": self.validation and {"tasks": self.config.validation_tasks, **self.validation._asdict()},
            "seed": self.config.seed,
            "training_seed": self.run.config.seed,
            "iteration": self.run.progress.iteration,
            "env_steps": self.run.progress.env_steps,
            "tasks": [plain(task) for task in self.trained.tasks],
            "strata": self.trained.strata,
            "task_returns": self.trained.returns.tolist(),
        }


class Overrides(NamedTuple):
    """Settings of the evaluation given by the user; None leaves the run's own."""

    tasks: int | None = None
    gradient_steps: int | None = None
    episodes: int | None = None
    later_lr_factor: float | None = None
    seed: int | None = None


DEFAULTS = Overrides()


def evaluate(
    directory: Path,
    overrides: Overrides = DEFAULTS,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    recorded_tasks: int = 0,
    task_set: TaskSet = "held-out",
) -> Evaluations:
    """Evaluates a run, and its random initialisation, on the same tasks, held out or the paper's.

    Both take gradient steps of the size that the run was trained for. A run that was trained without inner updates has
    none: then it is chosen on validation tasks (`maml_rl.evaluation.validate`), or is that which the run's evaluation
    on held-out tasks has chosen.

    Args:
        directory: The run.
        overrides: Settings that differ from those of the run.
        device: Where policy and updates are computed.
        threads: Threads that share the tasks; all cores if None. They do not change the result.
        processes: Processes of an environment that is not batched. They do not change the result.
        recorded_tasks: On how many of the tasks an episode is recorded after each number of gradient steps.
        task_set: Which tasks; those of the paper are 40, whatever the settings.

    Raises:
        InputError: If the run, the environment, the device or a setting cannot be used, or the paper has no tasks of
            the environment.
        WorkerError: If the environment fails in one of its processes.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    run_config, progress, _ = load_config(directory)
    paper = paper_tasks(run_config.env_id) if task_set == "paper" else []
    config = overridden(run_config.evaluation, **overrides._replace(tasks=len(paper) or overrides.tasks)._asdict())
    validation = _validated(directory, run_config, progress, config) if paper else None
    total, num_envs = _episodes(run_config, config, bool(validation)), min(_NUM_ENVS, config.tasks * config.episodes)
    with (
        tqdm(total=total, unit="episode", desc="evaluating", disable=None, leave=False) as bar,
        closing(make_envs(run_config, num_envs, processes)) as made,
    ):
        envs = _Counted(made, bar.update)
        run = load_run(directory, envs)
        if config.gradient_steps:
            warn_of_few_episodes(made, config.episodes)
        space, quantity = task_space(envs), task_quantity(envs)
        tasks = paper or evaluation_tasks(space, config.tasks, config.seed)
        policy = run.policy.to(torch_device)
        initial = parameters(build_policy(envs, run_config.policy, run_config.seed))
        thetas = [{name: value.to(torch_device) for name, value in theta.items()} for theta in (run.theta, initial)]
        if validation:
            meta = replace(run_config.meta, inner_lr=validation.best)
        else:
            meta, validation = with_step_size(policy, thetas[0], envs, run_config.meta, config, task_threads)
        chosen = spread(tasks, recorded_tasks)
        stages: list[Stage] = []
        evaluations = []
        for theta in thetas:
            returns, episodes = [], []
            for params, sampled in adaptation(policy, theta, envs, tasks, meta, config, task_threads):
                returns.append(task_returns(sampled))
                if chosen and theta is thetas[0]:
                    stages.append(Stage({name: value[chosen] for name, value in params.items()}, returns[-1][chosen]))
                lengths = sampled.mask[:, 0].sum(-1).long()
                episodes.append([o[:n].cpu().numpy() for o, n in zip(sampled.observations[:, 0], lengths, strict=True)])
            evaluations.append(Evaluation(tasks, strata(space, tasks), np.stack(returns), episodes))
    trained, random = evaluations
    recording = None
    if chosen:
        recording = recorded(run, [tasks[m] for m in chosen], stages, config, meta.inner_lr, processes)
    return Evaluations(run, config, trained, random, task_set, quantity, validation, recording)


class _Counted(VectorWrapper[Any, Any, Any, Any, Any]):
    """Sub-environments that report how many episodes begin."""

    def __init__(self, envs: TaskVectorEnv, begun: Callable[[int], object]) -> None:
        super().__init__(envs)
        self._begun = begun
        self.groups: list[TaskVectorEnv] = [self if one is envs else _Counted(one, begun) for one in groups(envs)]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins episodes; those that are there to fill the batch have the seed of another one."""
        self._begun(len(set(seed)))
        return self.env.reset(seed=seed, options=options)


def _episodes(config: RunConfig, settings: EvaluationConfig, is_validated: bool = False) -> int:
    """Number of episodes of an evaluation: of the run, of its random policy, and to choose a step size if need be."""
    stages = settings.gradient_steps + 1
    needs_choice = config.meta.inner_steps == 0 and settings.gradient_steps and not is_validated
    chosen_from = len(settings.inner_lrs) if needs_choice else 0
    return (2 * settings.tasks + chosen_from * settings.validation_tasks) * settings.episodes * stages


def current_evaluation(
    directory: Path, config: RunConfig, progress: Progress, task_set: TaskSet = "held-out"
) -> dict[str, Any] | None:
    """The record of a run's evaluation on these tasks, if there is one of its last checkpoint and its own settings.

    Raises:
        InputError: If the file is damaged.
    """
    record = stored_evaluation(directory, task_set)
    return record if record and _is_current(record, config, progress, task_set) else None


def stored_evaluation(directory: Path, task_set: TaskSet = "held-out") -> dict[str, Any] | None:
    """The record of a run's evaluation on these tasks, if there is one, whatever its checkpoint and settings.

    Raises:
        InputError: If the file is damaged.
    """
    path = run_directory(directory) / file_of(EVALUATION, task_set)
    if not path.exists():
        return None
    return read_evaluation(path)


def read_evaluation(path: Path) -> dict[str, Any]:
    """The record of an evaluation (`EvaluationRecord`).

    Raises:
        InputError: If the file is damaged.
    """
    remedy = "remove it, to evaluate the run again"
    record: dict[str, Any] = read_record(path, EvaluationRecord, remedy)
    steps, tasks = len(record["gradient_steps"]), len(record["tasks"])
    by_step = ("mean_return", "standard_error", "interval_95", "random_mean_return", "random_interval_95")
    sizes = {name: len(record[name]) for name in (*by_step, "task_returns")}
    passed = (
        steps >= 1
        and record["gradient_steps"] == list(range(steps))
        and set(sizes.values()) == {steps}
        and len(record["inner_lr"]) == steps - 1
        and all(size > 0 for size in record["inner_lr"])
        and tasks == record["num_tasks"] >= 1
        and all(len(returns) == tasks for returns in (*record["task_returns"], record["strata"] or record["tasks"]))
    )
    if not passed:
        raise InputError(
            f"{path} is damaged (it should have values for gradient steps 0, 1, ..., and returns of {tasks} tasks "
            f"after each): {remedy}"
        )
    return record


def settings_of(record: dict[str, Any], own: EvaluationConfig) -> Overrides:
    """The settings that an evaluation was made with, of a run whose own are `own`."""
    sizes, factor = record["inner_lr"], own.later_lr_factor
    if len(sizes) > 1 and sizes[1] != own.inner_lr(sizes[0], 1):
        factor = sizes[1] / sizes[0]
    return Overrides(record["num_tasks"], record["gradient_steps"][-1], record["episodes"], factor, record["seed"])


def is_of_checkpoint(record: dict[str, Any], config: RunConfig, progress: Progress) -> bool:
    """Whether an evaluation is of a run as it is now."""
    now = (config.env_id, config.seed, progress.iteration, progress.env_steps)
    return tuple(record.get(name) for name in ("env_id", "training_seed", "iteration", "env_steps")) == now


def announcement(
    directory: Path, config: RunConfig, progress: Progress, settings: EvaluationConfig, task_set: TaskSet = "held-out"
) -> str:
    """What an evaluation that nobody has asked for will do, why, and how long it will take."""
    stored = stored_evaluation(directory, task_set)
    why = "it has no evaluation"
    if task_set == "paper":
        settings = replace(settings, tasks=len(paper_tasks(config.env_id)))
        why += " on the paper's tasks"
    if stored:
        found = settings_of(stored, config.evaluation)
        why = f"its evaluation, {found.tasks} tasks x {found.episodes} episodes, has other settings"
        if not is_of_checkpoint(stored, config, progress):
            why = "its evaluation is of another checkpoint"
    return (
        f"evaluating {directory}, since {why}: {settings.tasks} tasks x {settings.episodes} episodes after 0 to "
        f"{settings.gradient_steps} gradient steps, of the run and of its random policy; "
        f"{at_the_speed_of_training(config, progress, _episodes(config, settings))}"
    )


def at_the_speed_of_training(config: RunConfig, progress: Progress, episodes: int) -> str:
    """A number of episodes, and how long they take at the speed at which the run was trained, if it was."""
    trained_on = progress.iteration * config.meta.meta_batch_size * config.meta.episodes * (config.meta.inner_steps + 1)
    if not trained_on:
        return f"{episodes:,} episodes"
    seconds = episodes * progress.seconds / trained_on
    return f"{episodes:,} episodes, about {duration(seconds)} at the speed of its training"


def duration(seconds: float) -> str:
    """A time as people read it."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def chosen_step_size(directory: Path, config: RunConfig, progress: Progress) -> float | None:
    """The step size of the first gradient step that a run's evaluation has, or None if it was not evaluated."""
    record = current_evaluation(directory, config, progress)
    return next(iter(record["inner_lr"]), None) if record else None


def _validated(
    directory: Path, run_config: RunConfig, progress: Progress, config: EvaluationConfig
) -> Validation | None:
    """How the run's evaluation on held-out tasks chose a step size, if by the settings of this one."""
    chooses = run_config.meta.inner_steps == 0 and config.gradient_steps > 0
    if not chooses or replace(config, tasks=run_config.evaluation.tasks) != run_config.evaluation:
        return None
    record = current_evaluation(directory, run_config, progress)
    chosen = record.get("validation") if record else None
    return Validation(tuple(chosen["inner_lrs"]), chosen["mean_returns"]) if chosen else None


def _is_current(record: dict[str, Any], config: RunConfig, progress: Progress, task_set: TaskSet) -> bool:
    """Whether an evaluation is of the last checkpoint, these tasks and the run's own settings."""
    evaluation = config.evaluation
    steps = range(evaluation.gradient_steps)
    expected = {
        "task_set": task_set,
        "num_tasks": evaluation.tasks,
        "episodes": evaluation.episodes,
        "seed": evaluation.seed,
        "gradient_steps": [*steps, evaluation.gradient_steps],
    }
    if task_set == "paper":
        tasks = [plain(task) for task in paper_tasks(config.env_id)]
        expected |= {"num_tasks": len(tasks), "tasks": tasks}
    inner_lr = config.meta.inner_lr
    if config.meta.inner_steps == 0 and evaluation.gradient_steps:
        validation = record.get("validation") or {}
        chosen_from = (validation.get("tasks"), tuple(validation.get("inner_lrs", ())))
        if chosen_from != (evaluation.validation_tasks, evaluation.inner_lrs):
            return False
        inner_lr = record["inner_lr"][0]
    expected["inner_lr"] = [evaluation.inner_lr(inner_lr, step) for step in steps]
    fits = all(record.get(name) == value for name, value in expected.items())
    return fits and is_of_checkpoint(record, config, progress)


def table(evaluations: Evaluations) -> str:
    """Mean return by gradient step with its 95 % interval, the random policy's, and the paper's if it has any."""
    trained, random = (e.means() for e in (evaluations.trained, evaluations.random))
    config = evaluations.run.config
    paper, paper_random = (paper_returns(config.env_id, name) for name in (method(config), "random"))
    published = {name: values for name, values in (("paper", paper), ("paper, random", paper_random)) if values}
    rows = [["gradient steps", "this run", "95 % interval", "random policy", *published]]
    for step, (ours, theirs) in enumerate(zip(trained, random, strict=True)):
        rows.append(
            [
                str(step),
                f"{ours.value:.1f}",
                f"[{ours.low:.1f}, {ours.high:.1f}]",
                f"{theirs.value:.1f}",
                *(f"{values[step].mean:.1f}" if step in values else "-" for values in published.values()),
            ]
        )
    return aligned(rows)


def tasks_named(task_set: TaskSet, count: int) -> str:
    """The tasks of an evaluation, as its tables name them."""
    return f"{count} held-out tasks" if task_set == "held-out" else f"the paper's own {count} tasks"


def remarks(evaluations: Evaluations) -> list[str]:
    """What must be known to read the table: what its intervals cover, and on which tasks the paper measured."""
    lines = ["[95 % interval over tasks: of this run, not of other seeds]"]
    if evaluations.task_set == "held-out" and paper_task(evaluations.run.config.env_id):
        lines.append("paper: on its own 40 tasks, which are others; --tasks paper evaluates on those")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first of them its head, with columns aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
