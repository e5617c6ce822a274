"""The paper's comparison: maml, pretrained, oracle and random runs of one task distribution by gradient step."""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maml_rl.config import RLConfig, RLEvaluation, RunConfig
from maml_rl.errors import InputError
from maml_rl.experiments.media.plots import draw_evaluation
from maml_rl.experiments.paper.published import paper_task
from maml_rl.experiments.runs.comparison_files import (
    ComparedRun,
    Comparison,
    Method,
    PaperPoint,
    curve_of,
    interval_over,
)
from maml_rl.experiments.runs.evaluating import announcement, evaluate
from maml_rl.experiments.runs.evaluations import (
    Evaluation,
    TaskSet,
    settings_with,
    stored_evaluation,
    values_to_json,
    why_again,
    write_evaluation,
)
from maml_rl.experiments.runs.provenance import flat, trained_on, training_command
from maml_rl.experiments.runs.rl2_files import is_rl2
from maml_rl.learner import Curve
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.run import Run, load_run, run_directory
from maml_rl.supervised.settings import SupervisedConfig

# maml comes first, and then its variants
_LAST = ["maml-oracle", "mimic", "pretrained", "mimic-oracle", "oracle", "random"]
_OF_ALL = ("later_lr_factor", "validation_tasks", "inner_lrs")  # settings of an evaluation that make another method
_RULE = "meta.step.rule"
_IMMATERIAL = {"seed": 0, "num_envs": None, "checkpoint_every": 1, "log_every": 1, "data": None}


class _Member(NamedTuple):
    """A run of a comparison, before or after its evaluation."""

    directory: Path
    run: Run


def compare(
    directories: Sequence[Path],
    gradient_steps: int | None = None,
    task_set: TaskSet = "held-out",
    data: str | None = None,
    machine: Machine = THIS_MACHINE,
    tasks: Path | None = None,
) -> Comparison:
    """Compares runs of one task distribution; those that differ only in their seed are one method.

    They are compared by their main quantity, under each condition that all were evaluated under. A run's stored
    evaluation is used if it is of the run's last checkpoint and its own settings; otherwise the run is evaluated, and
    the evaluation stored.

    Args:
        directories: The runs, and what RL^2 was trained in.
        gradient_steps: Gradient steps to compare; if None, as many as all runs are evaluated for. An oracle, which
            observes the task, may have fewer.
        task_set: See `evaluate`, also for all that follow.
        data: Directory of the images.
        machine: What may be used of the machine.
        tasks: A file of tasks that replace the task set. All runs are evaluated on them, and nothing is stored.

    Raises:
        InputError: If a directory holds no run, or runs cannot be compared: they are of different task distributions or
            time limits, have other held-out tasks or fewer gradient steps, or are the same run twice; or if the paper
            has no such tasks.
        WorkerError: If the environment fails in one of its processes.
    """
    members, trials = _read(directories)
    _check_comparable(members)
    steps = _gradient_steps(members, gradient_steps)
    groups = _grouped(members)
    settings_with(members[0].run.config, task_set=task_set)

    def evaluation_of(member: _Member) -> Evaluation:
        if tasks is None:
            return evaluated_run(*member, task_set, data, machine)
        print(f"evaluating {member.directory} on the tasks of {tasks}", file=sys.stderr)
        return evaluate(member.directory, machine=machine, tasks=tasks)

    evaluated = {label: [(member, evaluation_of(member)) for member in group] for label, group in groups.items()}
    config = members[0].run.config
    comparison = _comparison(evaluated, problem_name(config), steps)
    return _with_rl2(comparison, config, trials, machine) if trials else comparison


def _read(directories: Sequence[Path]) -> tuple[list[_Member], list[Path]]:
    """The runs, and the directories of RL^2, which are read later."""
    trials = [directory for directory in directories if is_rl2(directory)]
    runs = [directory for directory in directories if directory not in trials]
    if not runs:
        only = ", next to which RL^2 is shown" if trials else ""
        raise InputError(f"compare needs at least one run of maml-rl train{only}: maml-rl compare RUN [RUN ...]")
    return [_Member(run_directory(directory), load_run(directory)) for directory in runs], trials


def _with_rl2(comparison: Comparison, of: RunConfig, trials: Sequence[Path], machine: Machine) -> Comparison:
    if not isinstance(of, RLConfig):
        raise InputError(f"{trials[0]} is a policy of RL^2, the others are runs of {of.kind} learning: leave it out")
    from maml_rl.experiments.runs.compared_trials import with_trials  # with Stable-Baselines3, which takes a second

    return with_trials(comparison, of, trials, machine)


def _comparison(evaluated: Mapping[str, Sequence[tuple[_Member, Evaluation]]], name: str, steps: int) -> Comparison:
    """Evaluated runs by label, under the conditions that are common to all."""
    conditions = _common_conditions([run for group in evaluated.values() for run in group])
    evaluation = next(iter(evaluated.values()))[0][1]
    first, settings = evaluation.curves[0], evaluation.settings
    return Comparison(
        problem=evaluation.problem,
        name=name,
        quantity=first.quantity,
        conditions=conditions,
        gradient_steps=steps,
        task_set=evaluation.task_set,
        num_tasks=settings.tasks,
        episodes=settings.episodes if isinstance(settings, RLEvaluation) else None,
        seed=settings.seed,
        tasks=list(first.tasks),
        strata=None if first.strata is None else list(first.strata),
        methods=[_method(label, group, conditions, steps) for label, group in evaluated.items()],
    )


def _common_conditions(evaluated: Sequence[tuple[_Member, Evaluation]]) -> list[str]:
    of_each = [evaluation.conditions for _, evaluation in evaluated]
    common = [condition for condition in of_each[0] if all(condition in conditions for conditions in of_each)]
    if not common:
        listed = "; ".join(f"{member.directory}: {', '.join(one.conditions)}" for member, one in evaluated)
        raise InputError(f"no condition is common to all runs ({listed}): evaluate them with the same --shots")
    return common


def problem_name(config: RunConfig) -> str:
    """Short name of a task distribution: the paper's, or the last part of its id, as it may name a directory."""
    own = paper_task(config.env_id) if isinstance(config, RLConfig) else None
    return own or re.sub(r"[^\w.]+", "-", config.problem.rpartition("/")[2].rpartition(":")[2])


def evaluated_run(
    directory: Path, run: Run, task_set: TaskSet = "held-out", data: str | None = None, machine: Machine = THIS_MACHINE
) -> Evaluation:
    """The stored evaluation of a run, if it is of its last checkpoint and its own settings, or a new one.

    A new one is announced on stderr, and stored.

    Args:
        directory: The run.
        run: The run.
        task_set: See `evaluate`, also for all that follow.
        data: Directory of the images.
        machine: What may be used of the machine.

    Raises:
        InputError: If the stored evaluation is damaged. Otherwise as `evaluate`.
    """
    stored = stored_evaluation(directory, run, task_set)
    why = why_again(stored, directory, run)
    if stored and not why:
        return stored
    settings = settings_with(run.config, task_set=task_set)
    print(announcement(directory, run, settings, why, task_set), file=sys.stderr)
    evaluation = evaluate(directory, task_set=task_set, data=data, machine=machine)
    write_evaluation(directory, evaluation, lambda path: draw_evaluation(evaluation, directory, path))
    return evaluation


def _check_comparable(members: Sequence[_Member]) -> None:
    for (a, first), (b, second) in pairwise(members):
        if first.config.kind != second.config.kind:
            raise InputError(
                f"{a} is a run of {first.config.kind} learning, {b} of {second.config.kind} learning: they cannot be "
                "compared"
            )
        ours, theirs = _common(first.config), _common(second.config)
        for name in ours | theirs:
            if ours.get(name) != theirs.get(name):
                raise InputError(
                    f"{a} has {name} {ours.get(name)}, {b} has {theirs.get(name)}: compare runs of one task "
                    "distribution, with the same time limit and held-out tasks"
                )


def _common(config: RLConfig | SupervisedConfig) -> dict[str, Any]:
    """Settings that runs must share to be compared, by name."""
    held_out = {f"evaluation.{name}": getattr(config.evaluation, name) for name in ("tasks", "seed")}
    if isinstance(config, RLConfig):
        held_out["evaluation.episodes"] = config.evaluation.episodes
        return {"env_id": config.env_id, "max_episode_steps": config.max_episode_steps} | held_out
    tasks = replace(config.tasks, shots=1, queries=1, observe_task=False)
    return asdict(tasks) | {"queries": config.evaluation.queries or config.tasks.queries} | held_out


def _gradient_steps(members: Sequence[_Member], asked: int | None) -> int:
    """Gradient steps to compare: as many as asked for, or as all runs but oracles have."""
    limits = {directory: run.config.evaluation.gradient_steps for directory, run in members}
    others = {directory: limits[directory] for directory, run in members if run.config.method != "oracle"} or limits
    steps = min(others.values()) if asked is None else asked
    if steps < 0:
        raise InputError(f"gradient_steps must be at least 0, got {steps}")
    for directory, limit in others.items():
        if limit < steps:
            raise InputError(f"{directory} is evaluated after at most {limit} gradient steps, {steps} were requested")
    return steps


def _grouped(members: Sequence[_Member]) -> dict[str, list[_Member]]:
    """Runs by label, in the order of their seeds. A label is the method's name, plus what differs if several share the
    name."""
    groups: dict[RunConfig, list[_Member]] = {}
    for member in sorted(members, key=lambda member: member.run.config.seed):
        groups.setdefault(_without_seed(member.run), []).append(member)
    names = Counter(config.method for config in groups)
    labelled = {}
    for config, group in sorted(groups.items(), key=lambda item: _place(item[0].method)):
        for (a, first), (b, second) in pairwise(group):
            if first.config.seed == second.config.seed:
                raise InputError(
                    f"{a} and {b} have the same settings and the same seed, {first.config.seed}: give one of them"
                )
        name = config.method
        others = [flat(asdict(other)) for other in groups if other.method == name]
        differing = ", ".join(_differing(flat(asdict(config)), others))
        labelled[name if names[name] == 1 else f"{name} ({differing})"] = group
    return labelled


def _differing(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Settings that distinguish a method from others of its name; for the meta-step, from those with the same rule."""
    same_rule = [other for other in others if other[_RULE] == own[_RULE]]
    for key, value in sorted(own.items(), key=lambda item: item[0] != _RULE):
        compared = same_rule if key.startswith("meta.step.") and key != _RULE else others
        if len({str(other.get(key)) for other in compared}) > 1:
            yield f"{key.removeprefix('meta.').removesuffix('.rule')} {value}"


def _place(method: str) -> int:
    return _LAST.index(method) + 1 if method in _LAST else -(method == "maml")


def _without_seed(run: Run) -> RunConfig:
    """Settings of a run without its seed and without anything that does not change its result."""
    config: Any = run.config
    kept = {name: value for name, value in asdict(config.evaluation).items() if name in _OF_ALL}
    immaterial = {name: value for name, value in _IMMATERIAL.items() if hasattr(config, name)}
    iterations = run.state.iteration if config.iterations else 0
    alike: RunConfig = replace(config, iterations=iterations, evaluation=type(config.evaluation)(**kept), **immaterial)
    return alike


def _method(
    label: str, group: Sequence[tuple[_Member, Evaluation]], conditions: Sequence[str], gradient_steps: int
) -> Method:
    """Runs that differ only in their seed, up to the last gradient step that all of them were evaluated after."""
    evaluations = [evaluation for _, evaluation in group]
    last = min(gradient_steps, *(evaluation.gradient_steps for evaluation in evaluations))
    curves = []
    for condition in conditions:
        of_runs = [_main_curve(evaluation, condition) for evaluation in evaluations]
        published = evaluations[0].published(of_runs[0]).items()
        paper = [PaperPoint(step, *values) for step, values in published if step <= gradient_steps]
        values = np.stack([curve.values[: last + 1] for curve in of_runs])
        curves.append(curve_of(condition, values, of_runs[0].strata, paper))
    runs = [_compared(*run, conditions, gradient_steps) for run in group]
    return Method(label, evaluations[0].config.method, interval_over(len(group)), curves, runs)


def _main_curve(evaluation: Evaluation, condition: str) -> Curve:
    return next(curve for curve in evaluation.main_curves() if curve.condition == condition)


def _compared(member: _Member, evaluation: Evaluation, conditions: Sequence[str], gradient_steps: int) -> ComparedRun:
    directory, run = member
    curves = {condition: _main_curve(evaluation, condition) for condition in conditions}
    return ComparedRun(
        directory=directory.as_posix(),
        seed=run.config.seed,
        iterations=run.state.iteration,
        env_steps=run.progress.env_steps,
        seconds=run.progress.seconds,
        machines=[*trained_on(directory)],
        command=training_command(run.config),
        inner_lr={name: list(curve.inner_lr[:gradient_steps]) for name, curve in curves.items()},
        values={name: values_to_json(curve)[: gradient_steps + 1] for name, curve in curves.items()},
    )
