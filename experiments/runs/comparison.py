"""The paper's comparison: return by gradient step of MAML, pretrained, oracle and random runs of one environment."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.media.plots import draw_adaptation
from maml_rl.experiments.paper.published import paper_returns, paper_task, paper_tasks
from maml_rl.experiments.runs.evaluation_files import write_evaluation
from maml_rl.experiments.runs.evaluations import announcement, current_evaluation, evaluate
from maml_rl.experiments.runs.provenance import flat, trained_on, training_command
from maml_rl.experiments.runs.run import Progress, RunConfig, TaskSet, load_config, method, run_directory
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.statistics import FEWEST_SEEDS, Interval, interquartile_mean, interval, mean

_ORDER = ["maml", "maml-oracle", "pretrained", "oracle", "random"]


class EvaluatedRun(NamedTuple):
    """A run with its evaluation."""

    directory: Path
    config: RunConfig
    progress: Progress
    evaluation: dict[str, Any]  # the record of `maml_rl.experiments.runs.evaluations.Evaluations`

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that it was evaluated for."""
        return int(self.evaluation["gradient_steps"][-1])


class Method(NamedTuple):
    """Runs that differ by their seed only."""

    label: str
    runs: list[EvaluatedRun]

    def name(self) -> str:
        """The name of the method, the paper's where it has one."""
        return method(self.runs[0].config)

    def returns(self, step: int) -> NDArray[np.float64]:
        """Return after `step` gradient steps by seed and task, `[N, M]`."""
        return np.array([run.evaluation["task_returns"][step] for run in self.runs])

    def intervals(self, gradient_steps: int) -> tuple[list[Interval], list[Interval]]:
        """Mean and interquartile mean by gradient step, as far as the runs were evaluated."""
        strata = self.runs[0].evaluation["strata"]
        steps = range(min(gradient_steps, *(run.gradient_steps for run in self.runs)) + 1)
        means, middle_means = (
            [interval(self.returns(step), statistic, strata) for step in steps]
            for statistic in (mean, interquartile_mean)
        )
        return means, middle_means

    @property
    def interval_over(self) -> str:
        """What its intervals are over: of one seed or two they say nothing about other seeds."""
        return "seeds and tasks" if len(self.runs) >= FEWEST_SEEDS else "tasks"


class Comparison(NamedTuple):
    """Methods on the same tasks of one environment, held out or the paper's."""

    methods: list[Method]
    gradient_steps: int

    def record(self) -> dict[str, Any]:
        """The comparison as JSON values: all that tables and figures show."""
        first = self.methods[0].runs[0]
        env_id = first.config.env_id
        names = ("task_set", "num_tasks", "episodes", "seed", "tasks", "strata")
        shared = {name: first.evaluation[name] for name in names}
        return {
            "env_id": env_id,
            "task": task_name(env_id),
            "gradient_steps": self.gradient_steps,
            **shared,
            "methods": [self._method_record(group) for group in self.methods],
        }

    def _method_record(self, group: Method) -> dict[str, Any]:
        paper = paper_returns(group.runs[0].config.env_id, group.name())
        means, middle_means = group.intervals(self.gradient_steps)
        return {
            "label": group.label,
            "method": group.name(),
            "mean_return": [interval._asdict() for interval in means],
            "interquartile_mean": [interval._asdict() for interval in middle_means],
            "interval_over": group.interval_over,
            "paper": [paper[step]._asdict() for step in range(self.gradient_steps + 1) if step in paper],
            "runs": [
                {
                    "directory": run.directory.as_posix(),
                    "seed": run.config.seed,
                    "iterations": run.progress.iteration,
                    "env_steps": run.progress.env_steps,
                    "seconds": run.progress.seconds,
                    "machines": trained_on(run.directory),
                    "command": training_command(run.config),
                    "inner_lr": run.evaluation["inner_lr"][: self.gradient_steps],
                    "task_returns": run.evaluation["task_returns"][: self.gradient_steps + 1],
                }
                for run in group.runs
            ],
        }


def compare(
    directories: Sequence[Path],
    gradient_steps: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    task_set: TaskSet = "held-out",
) -> Comparison:
    """Compares runs of one environment; those that differ by their seed only are one method.

    A run's `evaluation.json`, or `evaluation-paper.json`, is used if it is of the run's last checkpoint and its own
    settings; otherwise the run is evaluated, and that file written.

    Args:
        directories: The runs.
        gradient_steps: Gradient steps to compare; as many as all runs were made to be evaluated for if None. An oracle
            takes none: it is told the task.
        device: See `evaluate`.
        threads: See `evaluate`.
        processes: See `evaluate`.
        task_set: See `evaluate`.

    Raises:
        InputError: If a directory holds no run, or runs cannot be compared: they are of different environments or time
            limits, have other held-out tasks or fewer gradient steps, or are the same run twice; or if the paper has no
            tasks of the environment.
        WorkerError: If the environment fails in one of its processes.
    """
    if not directories:
        raise InputError("compare needs at least one run: maml-rl compare RUN [RUN ...]")
    loaded = [(run_directory(directory), *load_config(directory)[:2]) for directory in directories]
    for (a, first, _), (b, second, _) in pairwise(loaded):
        if first.env_id != second.env_id:
            raise InputError(f"{a} is a run on {first.env_id}, {b} on {second.env_id}: compare runs of one environment")
        if first.max_episode_steps != second.max_episode_steps:
            raise InputError(
                f"{a} has max_episode_steps {first.max_episode_steps}, {b} {second.max_episode_steps}: compare runs of "
                "one time limit"
            )
        if _tasks_of(first.evaluation) != _tasks_of(second.evaluation):
            raise InputError(
                f"{a} is evaluated on {_tasks_of(first.evaluation)}, {b} on {_tasks_of(second.evaluation)}: compare "
                "runs with the same held-out tasks"
            )
    limits = {
        directory: config.evaluation.gradient_steps for directory, config, _ in loaded if method(config) != "oracle"
    }
    steps = min(limits.values(), default=0) if gradient_steps is None else gradient_steps
    if steps < 0:
        raise InputError(f"gradient_steps must be at least 0, got {steps}")
    if task_set == "paper":
        paper_tasks(loaded[0][1].env_id)
    for directory, limit in limits.items():
        if limit < steps:
            raise InputError(f"{directory} is evaluated after at most {limit} gradient steps, {steps} were asked for")
    groups = _grouped(loaded)
    return Comparison(
        [
            Method(
                label,
                [
                    evaluated(*run, device, threads, processes, task_set)
                    for run in sorted(runs, key=lambda run: run[1].seed)
                ],
            )
            for label, runs in groups.items()
        ],
        steps,
    )


_Loaded = tuple[Path, RunConfig, Progress]


def _tasks_of(evaluation: EvaluationConfig) -> str:
    return f"{evaluation.tasks} tasks x {evaluation.episodes} episodes of seed {evaluation.seed}"


def _grouped(loaded: Sequence[_Loaded]) -> dict[str, list[_Loaded]]:
    """Runs by label: the method's name, and the settings that differ where several have that name."""
    groups: dict[RunConfig, list[_Loaded]] = {}
    for directory, config, progress in loaded:
        groups.setdefault(_without_seed(config, progress), []).append((directory, config, progress))
    names = Counter(method(config) for config in groups)
    labelled = {}
    for config, runs in sorted(groups.items(), key=lambda item: _ORDER.index(method(item[0]))):
        for (a, first, _), (b, second, _) in pairwise(sorted(runs, key=lambda run: run[1].seed)):
            if first.seed == second.seed:
                raise InputError(
                    f"{a} and {b} have the same settings and the same seed, {first.seed}: give one of them"
                )
        name = method(config)
        others = [flat(asdict(other)) for other in groups if method(other) == name]
        own = flat(asdict(config))
        differing = [f"{key} {own[key]}" for key in own if len({str(other[key]) for other in others}) > 1]
        labelled[name if names[name] == 1 else f"{name} ({', '.join(differing)})"] = runs
    return labelled


def _without_seed(config: RunConfig, progress: Progress) -> RunConfig:
    """What runs have in common that differ by their seed, or by what does not change their result."""
    whole = config.evaluation
    evaluation = EvaluationConfig(
        later_lr_factor=whole.later_lr_factor, validation_tasks=whole.validation_tasks, inner_lrs=whole.inner_lrs
    )
    iterations = progress.iteration if config.iterations else 0
    defaults = RunConfig(config.env_id)
    return replace(
        config,
        iterations=iterations,
        seed=0,
        num_envs=defaults.num_envs,
        checkpoint_every=defaults.checkpoint_every,
        evaluation=evaluation,
    )


def evaluated(
    directory: Path,
    config: RunConfig,
    progress: Progress,
    device: str,
    threads: int | None,
    processes: Processes,
    task_set: TaskSet = "held-out",
) -> EvaluatedRun:
    """A run with its stored evaluation, or with a new one, which is stored.

    The stored one is used if it is of the run's last checkpoint and its own settings.

    Args:
        directory: The run.
        config: Its settings.
        progress: What it has reached.
        device: See `evaluate`.
        threads: See `evaluate`.
        processes: See `evaluate`.
        task_set: See `evaluate`.

    Raises:
        InputError: If the stored evaluation is damaged. Otherwise as `evaluate`.
    """
    stored = current_evaluation(directory, config, progress, task_set)
    if stored is not None:
        return EvaluatedRun(directory, config, progress, stored)
    print(announcement(directory, config, progress, config.evaluation, task_set), file=sys.stderr)
    evaluations = evaluate(directory, device=device, threads=threads, processes=processes, task_set=task_set)
    record = evaluations.record()
    write_evaluation(directory, record, lambda path: draw_adaptation(evaluations, directory, path))
    return EvaluatedRun(directory, config, progress, record)


def task_name(env_id: str) -> str:
    """Short name of an environment: the paper's, or the last part of its id."""
    return paper_task(env_id) or env_id.rpartition("/")[2].rpartition(":")[2]
