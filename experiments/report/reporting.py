"""Shows how a run of either kind adapts: its report, a figure for a paper, and videos of recorded episodes."""

import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Discrete

from maml_rl.checkpoint import write_atomically
from maml_rl.config import RLConfig, RLEvaluation, RunConfig, require
from maml_rl.errors import InputError
from maml_rl.experiments.media.charts import FIGURES
from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.fits import open_held_out
from maml_rl.experiments.media.plots import draw_evaluation
from maml_rl.experiments.media.recording import RECORDED_TASKS, RECORDING, Recording, load_recording, save_recording
from maml_rl.experiments.media.rendering import Drawing, check_video, frame_times, side_by_side, write_video
from maml_rl.experiments.report.examples import examples
from maml_rl.experiments.report.page import Section, html_page
from maml_rl.experiments.report.player import paths, player
from maml_rl.experiments.report.sections import facts, lead, results, settings, training, where_it_helps
from maml_rl.experiments.runs.comparison import problem_name
from maml_rl.experiments.runs.comparison_files import COMPARISON, Comparison, read_comparison
from maml_rl.experiments.runs.evaluating import announcement, evaluate, how_long
from maml_rl.experiments.runs.evaluations import (
    Evaluation,
    settings_with,
    stored_evaluation,
    why_again,
    write_evaluation,
)
from maml_rl.experiments.runs.progress import ProgressBar, with_progress
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.reinforcement import make_envs
from maml_rl.run import Run, load_run, overridden, run_directory
from maml_rl.tasks import task_space

REPORT = "report.html"


class Outputs(NamedTuple):
    """Files to make."""

    report: Path
    video: Path | None = None
    figure: Path | None = None


def check_outputs(outputs: Outputs) -> None:
    """Checks that files of these names can be made.

    Raises:
        InputError: If a directory is missing, or a file's suffix cannot be used.
    """
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no directory {path.parent}: make it, or give another name")
    if outputs.video is not None:
        check_video(outputs.video)
    if outputs.figure is not None and outputs.figure.suffix not in FIGURES:
        raise InputError(f"--figure {outputs.figure} must end in one of {', '.join(FIGURES)}")


class _Watched(NamedTuple):
    """What a report shows of single tasks."""

    sections: list[Section]
    recording: Recording | None = None  # of reinforcement learning
    reason: str | None = None  # why there are no moving pictures


def visualize(
    directory: Path,
    outputs: Outputs,
    tasks: int | None = None,
    gradient_steps: int | None = None,
    record: bool = False,
    data: str | None = None,
    machine: Machine = THIS_MACHINE,
) -> str | None:
    """Makes a run's report, and a video and a figure if requested; returns why the report has no moving pictures, if
    so.

    Args:
        directory: The run. Its recording and its evaluation are made if it has none of its last checkpoint; an
            evaluation is used whatever its settings.
        outputs: Files to make. A video needs recorded episodes, and so a run of reinforcement learning.
        tasks: How many of the held-out tasks to watch; those of the recording, or four, if None.
        gradient_steps: Gradient steps to watch; those of the recording, or of the run's evaluation, if None.
        record: Whether to record even if there is a recording.
        data: Directory of the images; that of the run if None.
        machine: What may be used of the machine. None of it changes the result.

    Raises:
        InputError: If the run, its recording, its data, a setting or a file's suffix cannot be used, or a video is
            requested and this machine cannot draw it.
    """
    check_outputs(outputs)
    require("tasks", tasks or 0, tasks is None or tasks >= 1, "at least 1")
    run, directory = load_run(directory), run_directory(directory)
    overridden(run.config.evaluation, gradient_steps=gradient_steps)
    machine.torch_device()
    if isinstance(run.config, RLConfig):
        stored = None if record else stored_recording(directory, run, tasks, gradient_steps)
        evaluation = evaluation_shown(directory, run, data, machine)
        watched = _watched(stored or _recorded(directory, run, evaluation, tasks, gradient_steps, machine))
    else:
        evaluation = evaluation_shown(directory, run, data, machine)
        opened = open_held_out(evaluation, directory, data, gradient_steps)
        watched = _Watched(examples(opened, tasks or RECORDED_TASKS))
    if outputs.figure is not None:
        draw_evaluation(evaluation, directory, outputs.figure, watched.recording)
    write_atomically(outputs.report, _page(evaluation, directory, watched).encode())
    if outputs.video is not None and watched.recording is not None:
        _video_last(watched.recording, outputs.video, outputs)
    return watched.reason


def _page(evaluation: Evaluation, directory: Path, watched: _Watched) -> str:
    config, quantity = evaluation.config, watched.recording.task_quantity if watched.recording else "task"
    sections = [
        *watched.sections,
        results(evaluation, _comparison(config), quantity),
        *where_it_helps(evaluation, quantity),
        training(evaluation, directory),
        settings(config, directory),
    ]
    footer = f"Made by <code>maml-rl visualize</code> after {evaluation.iteration:,} meta-iterations."
    return html_page(problem_name(config), lead(evaluation), facts(evaluation), sections, footer)


def evaluation_shown(directory: Path, run: Run, data: str | None, machine: Machine) -> Evaluation:
    """A run's evaluation: the stored one of its last checkpoint, whatever its settings, or a new one.

    A new one is stored. It has the settings of the one before, or the run's own if there is none.
    """
    stored = stored_evaluation(directory, run)
    why = why_again(stored, directory, run, any_settings=True)
    if stored and not why:
        return stored
    given = asdict(stored.settings) if stored else {}
    said = announcement(directory, run, settings_with(run.config, given), why)
    print(f"{said}. For fewer: maml-rl evaluate {directory} --tasks 8", file=sys.stderr)
    evaluation = evaluate(directory, given, data=data, machine=machine)
    write_evaluation(directory, evaluation, lambda path: draw_evaluation(evaluation, directory, path))
    return evaluation


def stored_recording(directory: Path, run: Run, tasks: int | None, gradient_steps: int | None) -> Recording | None:
    """The recording in a run's directory, if it is of the last checkpoint and of so many tasks and gradient steps.

    Args:
        directory: The run.
        run: The same.
        tasks: How many tasks; any number if None.
        gradient_steps: Gradient steps; any number if None.

    Raises:
        InputError: If the recording is damaged.
    """
    path = directory / RECORDING
    if not path.exists():
        return None
    stored = load_recording(path)
    of_the_run = (stored.env_id, stored.iteration) == (run.config.problem, run.state.iteration)
    if of_the_run and _as_many(stored, run, tasks) and gradient_steps in (None, stored.gradient_steps):
        return stored
    print(f"{path} is from another checkpoint or other settings: recording again", file=sys.stderr)
    return None


def _as_many(stored: Recording, run: Run, tasks: int | None) -> bool:
    """Whether a recording has as many tasks as asked for, or all that there are."""
    if tasks is None or len(stored.tasks) >= tasks:
        return tasks in (None, len(stored.tasks))
    assert isinstance(run.config, RLConfig)
    with closing(make_envs(run.config, 1)) as envs:
        space = task_space(envs)
    return isinstance(space, Discrete) and space.n == len(stored.tasks)


def _recorded(
    directory: Path, run: Run, evaluation: Evaluation, tasks: int | None, gradient_steps: int | None, machine: Machine
) -> Recording:
    """A new recording of an evaluation's tasks, which is stored."""
    chosen, count = overridden(evaluation.settings, gradient_steps=gradient_steps), tasks or RECORDED_TASKS
    assert isinstance(chosen, RLEvaluation)
    episodes = (chosen.episodes + 1) * count * (chosen.gradient_steps + 1)
    said = ", ".join(filter(None, [f"{episodes:,} episodes", how_long(run, episodes)]))
    print(f"recording: {said}", file=sys.stderr)
    recording = film_held_out(run, chosen, count, machine, evaluation.curves[0].validation)
    save_recording(directory / RECORDING, recording)
    return recording


def _watched(recording: Recording) -> _Watched:
    """The player of recorded episodes, and their paths."""
    with ProgressBar("drawing", "episode", recording.lengths.size) as bar:
        section, reason = player(recording, bar.until)
    return _Watched([section, *paths(recording)], recording, reason)


def _video_last(recording: Recording, path: Path, outputs: Outputs) -> None:
    """Makes the video after the other files: if it cannot be drawn, the error names the files that were made."""
    try:
        video(recording, path)
    except InputError as error:
        made = ", ".join(str(file) for file in (outputs.report, outputs.figure) if file is not None)
        raise InputError(f"--video {path} cannot be made: {error} (made without it: {made})") from error


def video(recording: Recording, path: Path) -> None:
    """Writes each task's episodes before and after adaptation side by side, one task after the other.

    Raises:
        InputError: See `Drawing` and `check_video`.
    """
    check_video(path)
    last = recording.gradient_steps
    steps = sorted({0, min(1, last), last})
    with Drawing(recording) as drawing:
        tasks = range(len(recording.tasks))
        bar = with_progress(tasks, "drawing the video", "task", len(tasks))
        frames = np.concatenate([side_by_side(drawing, task, steps) for task in bar])
    write_video(path, frames, frame_times(recording)[1])


def _comparison(config: RunConfig) -> Comparison | None:
    """The stored comparison of methods on a run's problem (`maml-rl compare`), if there is one."""
    path = Path("results") / problem_name(config) / COMPARISON
    if not path.is_file():
        return None
    comparison = read_comparison(path)
    return comparison if comparison.problem == config.problem else None
