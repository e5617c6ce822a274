"""Evaluates runs on held-out tasks: Figures 3 to 5 and Tables 1 and 2 of Finn, Abbeel, Levine 2017."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from maml_rl.config import EvaluationConfig, RLConfig, RLEvaluation
from maml_rl.errors import InputError
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.runs.evaluations import (
    OWN_SETTINGS,
    EvaluatedTasks,
    Evaluation,
    TaskSet,
    baseline_runs,
    extent,
    settings_with,
    settled,
    stored_validation,
)
from maml_rl.experiments.runs.progress import ProgressBar
from maml_rl.experiments.runs.task_input import task_list, usable_tasks
from maml_rl.experiments.runs.text import duration
from maml_rl.experiments.runs.trust import allow
from maml_rl.learner import Advance, AnyLearner, Curve, Validation
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.ranks import this_rank
from maml_rl.reinforcement import RLLearner, evaluation_episodes, make_envs
from maml_rl.run import Progress, Run, load_run, run_directory, with_data
from maml_rl.tasks import Task, admit_beyond


def evaluate(
    directory: Path,
    given: Mapping[str, Any] = OWN_SETTINGS,
    task_set: TaskSet = "held-out",
    data: str | None = None,
    machine: Machine = THIS_MACHINE,
    tasks: Path | None = None,
) -> Evaluation:
    """Evaluates a run on held-out or other tasks, together with what it is compared with on the same tasks.

    In reinforcement learning that is its own random policy, on supervised tasks the runs of `baseline_runs`. If other
    ranks run `follow_evaluations`, they share the tasks.

    Args:
        directory: The run.
        given: Settings that differ from the run's own, by name.
        task_set: Which tasks; those of the paper are 40, whatever the settings.
        data: Directory of the images; that of the run if None.
        machine: What may be used of the machine, which does not change the result.
        tasks: A JSON file that lists other tasks (reinforcement learning), which may be outside the bounds of p(T).

    Raises:
        InputError: If the run, its environment or data, the device, a setting or a task cannot be used.
        WorkerError: If the environment fails in one of its processes.
    """
    directory = run_directory(directory)
    run = _with_own_data(load_run(directory), data, directory)
    listed = None if tasks is None else _listed(run, tasks)
    settings = settings_with(run.config, {**given, "tasks": len(listed.values)} if listed else given, task_set)
    found = baseline_runs(directory, run.config)
    others = {name: (path, _with_own_data(load_run(path), data, path)) for name, path in found}
    with ProgressBar("evaluating", "", 1.0) as bar:

        def advance(share: float) -> None:
            bar.update(share / (1 + len(others)))

        curves = _evaluated(directory, run, settings, listed or task_set, machine, advance)
        for name, (path, other) in others.items():
            own = replace(settled(settings, run.config), inner_lrs=other.config.evaluation.inner_lrs)
            curves += [c._replace(of=name) for c in _evaluated(path, other, own, task_set, machine, advance)]
    iterations = {name: other.state.iteration for name, (_, other) in others.items()}
    reached = (run.config.seed, run.state.iteration, run.progress.env_steps, run.progress.seconds)
    evaluated: EvaluatedTasks = "given" if listed else task_set
    return Evaluation(run.config, run.config.problem, *reached, settings, evaluated, curves, iterations)


class _Listed(NamedTuple):
    """Tasks that a user listed in a file."""

    path: Path
    values: list[Any]  # JSON

    def of(self, learner: RLLearner) -> list[Task]:
        """The tasks, if the environment can take a step with each."""
        with closing(make_envs(learner.config, 1, replace(learner.machine, processes=1))) as envs:
            return usable_tasks(envs, self.values, self.path, learner.config.env_id)


def _listed(run: Run, tasks: Path) -> _Listed:
    if not isinstance(run.config, RLConfig):
        raise InputError(f"tasks of {run.config.problem} cannot be listed in a file: give --tasks N")
    return _Listed(tasks, task_list(tasks))


class _Job(NamedTuple):
    """One evaluation of one run, of which every rank computes a part."""

    run: Run
    settings: EvaluationConfig
    tasks: Sequence[Task] | None = None
    validation: Validation | None = None

    def curves(self, learner: AnyLearner, advance: Advance = lambda _: None) -> list[Curve]:
        """What the run does."""
        if isinstance(learner, RLLearner) and isinstance(self.settings, RLEvaluation):
            if self.tasks is not None:
                admit_beyond(learner.envs)
            return learner.evaluate(self.run.state, self.settings, advance, self.tasks, self.validation)
        return learner.evaluate(self.run.state, self.settings, advance)


def _evaluated(
    directory: Path, run: Run, settings: EvaluationConfig, chosen: TaskSet | _Listed, machine: Machine, advance: Advance
) -> list[Curve]:
    job = _Job(run._replace(progress=Progress(pending={})), settings)
    learner: AnyLearner
    with run.open(machine, evaluation=settings) as learner:
        if isinstance(learner, RLLearner) and isinstance(settings, RLEvaluation):
            for line in learner.few_episodes(settings.step_episodes) if settings.gradient_steps else ():
                print(f"warning: {line}", file=sys.stderr)
            if chosen != "held-out":
                tasks = chosen.of(learner) if isinstance(chosen, _Listed) else paper_tasks(learner.config.env_id)
                job = job._replace(tasks=tasks)
                if replace(settings, tasks=run.config.evaluation.tasks) == run.config.evaluation:
                    job = job._replace(validation=stored_validation(directory, run))
        this_rank().from_first(job)
        return job.curves(learner, advance)


def follow_evaluations(machine: Machine = THIS_MACHINE) -> None:
    """Computes this rank's part of the evaluations of rank 0, until rank 0 calls `end_evaluations`.

    Args:
        machine: What may be used of the machine. None of it changes the result.

    Raises:
        InputError: If environment, data or device cannot be used, or there are more ranks than tasks.
        RankError: If another rank has ended or does not answer.
        WorkerError: If the environment fails in one of its processes.
    """
    while True:
        job: _Job | None = this_rank().from_first(None)
        if job is None:
            return
        allow(job.run.config.modules)  # rank 0 has checked that the user trusts them
        with job.run.open(machine, evaluation=job.settings) as learner:
            job.curves(learner)


def end_evaluations() -> None:
    """Ends `follow_evaluations` on the other ranks, if there are any."""
    this_rank().from_first(None)


def _with_own_data(run: Run, data: str | None, directory: Path) -> Run:
    return run if data is None else run._replace(config=with_data(run.config, data, directory))


def announcement(
    directory: Path, run: Run, settings: EvaluationConfig, why: str, task_set: TaskSet = "held-out"
) -> str:
    """What an evaluation that the user did not request will do, why, and about how long it takes.

    Args:
        directory: The run.
        run: The run.
        settings: Settings of the evaluation.
        why: See `why_again`.
        task_set: Which tasks.
    """
    where = " on the paper's tasks" if task_set == "paper" else ""
    said = f"evaluating {directory}{where}, since {why}: {extent(settings)} after 0 to {settings.gradient_steps} "
    if isinstance(run.config, RLConfig) and isinstance(settings, RLEvaluation):
        count = evaluation_episodes(run.config, settings, settings.tasks)
        said += f"gradient steps, of the run and of its random policy; {count:,} episodes"
    else:
        others = [name for name, _ in baseline_runs(directory, run.config)]
        shots = len(getattr(settings, "shots", ())) or 1
        count = (1 + len(others)) * shots * settings.tasks * (settings.gradient_steps + 1)
        said += f"gradient steps, of the run{' and of ' if others else ''}{', '.join(others)}"
    return ", ".join(filter(None, [said, how_long(run, count)]))


def how_long(run: Run, count: int) -> str:
    """How long so many episodes, or adaptations by one gradient step, take at the speed of a run's training.

    Empty for a run that was not trained.
    """
    meta = run.config.meta
    each = getattr(meta, "episodes", 1)
    trained_on = run.state.iteration * meta.meta_batch_size * each * (meta.inner_steps + 1)
    return (
        f"about {duration(count * run.progress.seconds / trained_on)} at the speed of its training"
        if trained_on
        else ""
    )
