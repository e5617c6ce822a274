"""Seeing a run adapt: its report, videos of its episodes, and a figure for a paper."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from tqdm import tqdm

from maml_rl.checkpoint import write_atomically
from maml_rl.config import require
from maml_rl.errors import InputError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.media.filming import record, spread
from maml_rl.experiments.media.plots import FIGURES, draw_adaptation, draw_figure
from maml_rl.experiments.media.recording import RECORDED_TASKS, Recording, in_the_plane, load_recording, save_recording
from maml_rl.experiments.media.rendering import Drawing, check_video, frame_times, side_by_side, write_video
from maml_rl.experiments.report.page import page
from maml_rl.experiments.report.player import rollouts
from maml_rl.experiments.report.sections import Reported, facts, lead, paths, returns, settings, training
from maml_rl.experiments.runs.comparison import task_name
from maml_rl.experiments.runs.comparison_files import COMPARISON, read_comparison
from maml_rl.experiments.runs.evaluation_files import write_evaluation
from maml_rl.experiments.runs.evaluations import (
    DEFAULTS,
    announcement,
    at_the_speed_of_training,
    evaluate,
    is_of_checkpoint,
    settings_of,
    stored_evaluation,
)
from maml_rl.experiments.runs.run import (
    RECORDING,
    Progress,
    RunConfig,
    load_config,
    load_run,
    make_envs,
    overridden,
    run_directory,
)
from maml_rl.parallel import threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.tasks import evaluation_tasks, task_space

REPORT = "report.html"


def stored_recording(directory: Path, tasks: int | None = None, gradient_steps: int | None = None) -> Recording | None:
    """The recording in a run's directory, if it is of the last checkpoint and of so many tasks and gradient steps.

    Args:
        directory: The run.
        tasks: How many tasks; any number if None.
        gradient_steps: Gradient steps; any number if None.

    Raises:
        InputError: If the run cannot be used, or the recording is damaged.
    """
    config, progress, _ = load_config(directory)
    path = directory / RECORDING
    if not path.exists():
        return None
    stored = load_recording(path)
    of_the_run = stored.env_id == config.env_id and stored.iteration == progress.iteration
    if of_the_run and _as_many(stored, config, tasks) and gradient_steps in (None, stored.gradient_steps):
        return stored
    print(f"{path} is of another checkpoint or other settings: recording again", file=sys.stderr)
    return None


def _as_many(stored: Recording, config: RunConfig, tasks: int | None) -> bool:
    """Whether a recording has as many tasks as asked for, or all that there are."""
    if tasks is None or len(stored.tasks) >= tasks:
        return tasks in (None, len(stored.tasks))
    with closing(make_envs(config, 1)) as envs:
        space = task_space(envs)
    return isinstance(space, Discrete) and space.n == len(stored.tasks)


def new_recording(
    directory: Path,
    tasks: int | None = None,
    gradient_steps: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    evaluation: dict[str, Any] | None = None,
) -> Recording:
    """A run's episodes on a few of its held-out tasks, recorded now and stored nowhere.

    Args:
        directory: The run.
        tasks: How many of the held-out tasks; four if None.
        gradient_steps: Gradient steps; those of the evaluation if None.
        device: Where policy and updates are computed.
        threads: Threads that share the tasks; all cores if None. They do not change the result.
        processes: Processes of an environment that is not batched. They do not change the result.
        evaluation: The record of the run's evaluation, whose tasks, episodes and step sizes are those of the recording;
            the run's own settings if None.

    Raises:
        InputError: If the run or a setting cannot be used.
    """
    config, _, _ = load_config(directory)
    settings = _recorded_settings(config, tasks, gradient_steps, evaluation)
    torch_device = usable_device(device)
    with closing(make_envs(config, 1, processes)) as envs:
        run = load_run(directory, envs)
        held_out = evaluation_tasks(task_space(envs), max(settings.tasks, tasks or 0), settings.seed)
    theta = {name: value.to(torch_device) for name, value in run.theta.items()}
    run = run._replace(policy=run.policy.to(torch_device), theta=theta)
    chosen = [held_out[m] for m in spread(held_out, tasks or RECORDED_TASKS)]
    inner_lr = next(iter(evaluation["inner_lr"]), None) if evaluation else None
    return record(run, chosen, settings, threads_for(torch_device, threads), processes, inner_lr)


def _recorded_settings(
    config: RunConfig, tasks: int | None, gradient_steps: int | None, evaluation: dict[str, Any] | None = None
) -> EvaluationConfig:
    """How to record; raises InputError for a value outside its range."""
    require("tasks", tasks or 0, tasks is None or tasks >= 1, "at least 1")
    given = settings_of(evaluation, config.evaluation) if evaluation else DEFAULTS
    return overridden(overridden(config.evaluation, **given._asdict()), gradient_steps=gradient_steps)


class Outputs(NamedTuple):
    """Files to make."""

    report: Path
    video: Path | None = None
    figure: Path | None = None


def check_outputs(outputs: Outputs) -> None:
    """Checks that files of these names can be made.

    Raises:
        InputError: If a directory is missing, or a file's ending cannot be used.
    """
    for path in outputs:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no directory {path.parent}: make it, or give another name")
    if outputs.video is not None:
        check_video(outputs.video)
    if outputs.figure is not None and outputs.figure.suffix not in FIGURES:
        raise InputError(f"--figure {outputs.figure} must end in one of {', '.join(FIGURES)}")


def visualize(
    directory: Path,
    outputs: Outputs,
    tasks: int | None = None,
    gradient_steps: int | None = None,
    anew: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
) -> str | None:
    """Makes a run's report, and a video and a figure if asked to; returns why the report has no moving pictures, if so.

    Args:
        directory: The run. Its recording and its evaluation are made if it has none of its last checkpoint; an
            evaluation is used whatever its settings.
        outputs: Files to make.
        tasks: How many of the held-out tasks; those of the recording, or four, if None.
        gradient_steps: Gradient steps; those of the recording, or of the run's evaluation, if None.
        anew: Whether to record whatever is recorded already.
        device: See `new_recording`; so are all that follow.

    Raises:
        InputError: If the run, its recording, a setting or a file's ending cannot be used, or a video is asked for and
            this machine cannot draw it.
    """
    check_outputs(outputs)
    config, progress, _ = load_config(directory)
    directory = run_directory(directory)
    _recorded_settings(config, tasks, gradient_steps)
    usable_device(device)
    machine = (device, threads, processes)
    recording = None if anew else stored_recording(directory, tasks, gradient_steps)
    evaluation = evaluation_shown(directory, config, progress, *machine)
    if recording is None:
        settings = _recorded_settings(config, tasks, gradient_steps, evaluation)
        episodes = (settings.episodes + 1) * (tasks or RECORDED_TASKS) * (settings.gradient_steps + 1)
        print(f"recording: {at_the_speed_of_training(config, progress, episodes)}", file=sys.stderr)
        recording = new_recording(directory, tasks, gradient_steps, *machine, evaluation)
        save_recording(directory / RECORDING, recording)
    if outputs.figure is not None:
        draw_figure(evaluation, config, directory, recorded_paths(recording), outputs.figure, recording.task_quantity)
    reported = Reported(directory, config, progress, evaluation, comparison(config.env_id), recording.task_quantity)
    reason = report(reported, recording, outputs.report)
    if outputs.video is not None:
        _video_last(recording, outputs.video, outputs)
    return reason


def _video_last(recording: Recording, path: Path, outputs: Outputs) -> None:
    """Makes the video after the other files: where it cannot be drawn, the error names what is there."""
    try:
        video(recording, path)
    except InputError as error:
        made = ", ".join(str(file) for file in (outputs.report, outputs.figure) if file is not None)
        raise InputError(f"--video {path} cannot be made: {error} (made without it: {made})") from error


def evaluation_shown(
    directory: Path, config: RunConfig, progress: Progress, device: str, threads: int | None, processes: Processes
) -> dict[str, Any]:
    """The record of a run's evaluation: the stored one of its last checkpoint, whatever its settings, or a new one.

    A new one is stored. It has the settings of the one before, or the run's own if there is none.
    """
    stored = stored_evaluation(directory)
    if stored and is_of_checkpoint(stored, config, progress):
        return stored
    given = settings_of(stored, config.evaluation) if stored else DEFAULTS
    print(
        f"{announcement(directory, config, progress, overridden(config.evaluation, **given._asdict()))}. "
        f"For fewer: maml-rl evaluate {directory} --tasks 8 --episodes 5",
        file=sys.stderr,
    )
    evaluations = evaluate(directory, given, device, threads, processes)
    record = evaluations.record()
    write_evaluation(directory, record, lambda path: draw_adaptation(evaluations, directory, path))
    return record


def report(run: Reported, recording: Recording, path: Path) -> str | None:
    """Writes the report of a run; returns why it has no moving pictures, if it has none."""
    total = recording.lengths.size
    with tqdm(total=total, desc="drawing", unit="episode", disable=None, leave=False) as bar:
        player, reason = rollouts(recording, lambda done: bar.update(done - bar.n))
    sections = [player, *paths(recording), returns(run), training(run), settings(run.config, run.directory)]
    footer = f"Made by <code>maml-rl visualize</code> from a recording after {recording.iteration} meta-iterations."
    title = task_name(run.config.env_id)
    write_atomically(path, page(title, lead(run), facts(run), sections, footer).encode())
    return reason


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
        bar = tqdm(tasks, "drawing the video", unit="task", disable=None, leave=False)
        frames = np.concatenate([side_by_side(drawing, task, steps) for task in bar])
    write_video(path, frames, frame_times(recording)[1])


def recorded_paths(recording: Recording) -> list[tuple[Any, NDArray[np.float32], NDArray[np.float32]]]:
    """Each task with its path in the plane before and after the first gradient step; none if there are none."""
    if not in_the_plane(recording):
        return []
    after = min(1, recording.gradient_steps)
    return [(task, recording.episode(m, 0), recording.episode(m, after)) for m, task in enumerate(recording.tasks)]


def comparison(env_id: str) -> dict[str, Any] | None:
    """What `maml-rl compare` left of the other methods on an environment, if it did."""
    path = Path("results") / task_name(env_id) / COMPARISON
    if not path.is_file():
        return None
    record = read_comparison(path)
    return record if record["env_id"] == env_id else None
