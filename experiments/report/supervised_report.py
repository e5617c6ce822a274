"""Seeing a supervised run adapt: its report, and a figure for a paper."""

import sys
from pathlib import Path

import torch

from maml_rl.checkpoint import write_atomically
from maml_rl.config import require
from maml_rl.experiments.media.supervised_plots import draw, learning_curve
from maml_rl.experiments.report import supervised_sections as sections
from maml_rl.experiments.report.page import page
from maml_rl.experiments.report.report import Outputs, check_outputs
from maml_rl.experiments.report.sections import settings
from maml_rl.experiments.runs.evaluation_files import write_evaluation
from maml_rl.experiments.runs.run import METRICS, overridden, run_directory
from maml_rl.experiments.runs.supervised_evaluations import DEFAULTS, Evaluations, drawn_tasks, evaluate
from maml_rl.experiments.runs.supervised_run import load_config
from maml_rl.experiments.runs.supervised_stored import (
    announcement,
    has_own_settings,
    is_current,
    restored,
    settings_of,
    stored_record,
    why_not,
)
from maml_rl.parallel import usable_device
from maml_rl.supervised.tasks import TaskBatch

_TASKS = 4


def visualize(
    directory: Path,
    report: Path,
    figure: Path | None = None,
    tasks: int | None = None,
    gradient_steps: int | None = None,
    data: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Makes the report of a run, and a figure if asked to.

    Args:
        directory: The run.
        report: File for the report.
        figure: File for a figure.
        tasks: Held-out tasks to show; four if None.
        gradient_steps: Gradient steps; those of the run's evaluation if None.
        data: Directory of the images; that of the run if None.
        device: Where everything is computed.
        threads: Threads that share the tasks; all cores if None.

    Raises:
        InputError: If the run, its data, a setting or a file's name cannot be used.
    """
    check_outputs(Outputs(report, None, figure))
    require("tasks", tasks or 0, tasks is None or tasks >= 1, "at least 1")
    directory = run_directory(directory)
    evaluations = _evaluations_shown(directory, gradient_steps, data, device, threads)
    config = evaluations.run.config
    evaluations = evaluations._replace(run=evaluations.run.to(torch.device("cpu")))
    shots = evaluations.evaluations[0].shots
    shown: TaskBatch = drawn_tasks(evaluations.run, evaluations.source, evaluations.config, shots, tasks or _TASKS)
    parts = [
        *sections.examples(evaluations, shown),
        sections.results(evaluations),
        sections.training(config, *learning_curve(directory / METRICS)),
        settings(config, directory),
    ]
    lead, facts = sections.lead(evaluations), sections.facts(evaluations)
    footer = "Made by <code>maml-rl visualize</code>."
    write_atomically(report, page(directory.resolve().name, lead, facts, parts, footer).encode())
    if figure is not None:
        draw(evaluations, directory, figure)


def _evaluations_shown(
    directory: Path, gradient_steps: int | None, data: str | None, device: str, threads: int | None
) -> Evaluations:
    """A run's stored evaluations, whatever their settings, or new ones if they are not of the runs now.

    New ones are stored, unless they would replace others with the run's own settings. They have the settings of those
    before, or the run's own if there are none.
    """
    usable_device(device)
    config, progress = load_config(directory)
    overridden(config.evaluation, gradient_steps=gradient_steps)
    record = stored_record(directory)
    why = why_not(record, directory, gradient_steps) if record else "it has no evaluation"
    if record and not why:
        return restored(record, directory, gradient_steps, data)
    given = settings_of(record) if record else DEFAULTS
    if gradient_steps is not None:
        given = given._replace(gradient_steps=gradient_steps)
    if config.tasks.family == "function":
        given = given._replace(shots=None)
    settings = overridden(config.evaluation, **given._asdict())
    print(announcement(directory, config, progress, settings, why), file=sys.stderr)
    evaluations = evaluate(directory, given, data, device, threads)
    if has_own_settings(given, config) or not is_current(directory, config, progress):
        write_evaluation(directory, evaluations.record(), lambda path: draw(evaluations, directory, path))
    return evaluations
