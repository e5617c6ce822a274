"""Puts a run on the Hugging Face Hub: checkpoint, settings, log and evaluation, with a card and a short clip."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from maml_rl.checkpoint import write_atomically
from maml_rl.config import RLConfig
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.media.filming import film_held_out
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.rendering import Drawing, frame_times, side_by_side, write_video
from maml_rl.experiments.report.reporting import evaluation_shown, stored_recording
from maml_rl.experiments.runs.evaluations import PICTURE, Evaluation, file_of, stored_evaluation
from maml_rl.experiments.runs.model_card import CARD, model_card
from maml_rl.hub import EVALUATIONS, FILES, endpoint, explained, hub_module, without_bars
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.run import Run, load_run, run_directory, save_run
from maml_rl.supervised.settings import SupervisedConfig

CLIP = "clip.webp"
_TASKS = 2  # that the clip shows, one above the other
_SIZE = (320, 200)  # pixels of each picture
_SECONDS = 6.0  # of simulated time, at most


def stage(directory: Path, out: Path, repository: str, machine: Machine = THIS_MACHINE) -> list[Path]:
    """Writes those files of a run that are pushed into a directory, and returns them.

    The run is evaluated if it has no evaluation of its last checkpoint. The place of its images on this machine is left
    out.

    Args:
        directory: The run.
        out: Directory for the files; created if it does not exist.
        repository: Its name on the Hub, `owner/name`.
        machine: What may be used of the machine.

    Raises:
        InputError: If the run, its environment or its data cannot be used.
    """
    run, directory = load_run(directory), run_directory(directory)
    evaluation = evaluation_shown(directory, run, None, machine)
    config = replace(run.config, data=None) if isinstance(run.config, SupervisedConfig) else run.config
    save_run(out, run._replace(config=config))
    others = [name for name in (*FILES, PICTURE) if not (out / name).exists() and (directory / name).is_file()]
    paper = stored_evaluation(directory, run, "paper")
    given = [EVALUATIONS[0], *([EVALUATIONS[1], file_of(PICTURE, "paper")] if paper and paper.is_of(run) else [])]
    for name in (*others, *given):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, out / name)
    picture = CLIP if _clip(directory, run, evaluation, out / CLIP, machine) else PICTURE
    shown = picture if (out / picture).exists() else None
    write_atomically(out / CARD, model_card(directory, run, evaluation, repository, shown).encode())
    return sorted(path for path in out.iterdir() if path.is_file())


def check_token(repository: str) -> None:
    """Checks that there is a token, before anything is computed for a push.

    Raises:
        InputError: If there is none, or huggingface_hub is not installed.
    """
    hub = hub_module()
    with explained(repository):
        if hub.get_token() is None:
            raise hub.errors.LocalTokenNotFoundError


def push(files: list[Path], repository: str, *, private: bool = False) -> str:
    """Puts files into a repository of the Hub in one commit, and returns the commit's address.

    Args:
        files: The files.
        repository: `owner/name`; created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        InputError: If no token has write access to it, or the Hub cannot be reached.
    """
    hub = hub_module()
    with explained(repository), without_bars(hub):
        api = hub.HfApi(endpoint=endpoint(), token=hub.get_token())
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(path.name, path) for path in files]
        commit = api.create_commit(repository, operations, commit_message="Add a run of maml-rl")
    return str(commit.commit_url)


def _clip(directory: Path, run: Run, evaluation: Evaluation, path: Path, machine: Machine) -> bool:
    """Draws a few episodes before and after adaptation; says why it cannot, and returns whether it could."""
    if not isinstance(run.config, RLConfig):
        return False
    try:
        recording = stored_recording(directory, run, None, None) or _filmed(run, evaluation, machine)
        last = min(max(1, run.config.meta.inner_steps), recording.gradient_steps)
        _, frames_per_second = frame_times(recording)
        with Drawing(recording, *_SIZE) as drawing:
            tasks = _spread(recording)
            frames = np.concatenate([side_by_side(drawing, task, sorted({0, last})) for task in tasks], axis=1)
        frames = frames[: round(_SECONDS * frames_per_second) : 2]  # every second one, for half the size
        write_video(path, frames, frames_per_second / 2)
    except (InputError, NonFiniteError) as error:
        print(f"no clip: {error}", file=sys.stderr)
        return False
    return True


def _filmed(run: Run, evaluation: Evaluation, machine: Machine) -> Recording:
    settings = evaluation.settings
    return film_held_out(run, settings, _TASKS, machine, evaluation.curves[0].validation)  # type: ignore[arg-type]


def _spread(recording: Recording) -> list[int]:
    """The first and the last recorded task."""
    return sorted({0, len(recording.tasks) - 1})
