"""Recordings: episodes of a few tasks after each number of gradient steps, in one small file that every view reads.

Of an environment of this package's own kind (`envs.batched.TaskMDP`) poses are recorded, which are drawn later, so that
recording needs no OpenGL. Of any other environment its own pictures are recorded, or observations where it draws none.

A file is an npz archive of plain arrays, which executes no code when it is read:

record        JSON: format, version, and the fields of `Recording` that are no arrays
motion        poses or observations [S, M, T + 1, P] float32, before the first step and after each
rewards       [S, M, T] float32
lengths       steps of each episode [S, M]
mean_returns  [S, M], of the episodes that the gradient steps were taken on
pictures      contact sheets (`experiments.sheets`), one after the other, with their sizes in bytes in `picture_sizes`
"""

import io
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.sheets import from_sheet
from experiments.task_display import are_places
from maml_rl.checkpoint import write_atomically
from maml_rl.errors import InputError

FORMAT = "maml-rl recording"
VERSION = 1
RECORDED_TASKS = 4  # unless told otherwise
Kind = Literal["poses", "pictures", "observations"]

_MOST_PICTURES = 100  # of one episode, besides the first
_ARRAYS = ("motion", "rewards", "lengths", "mean_returns", "pictures")


class Recording(NamedTuple):
    """One episode of each of M tasks after each of S numbers of gradient steps: 0, 1, ..., S - 1.

    A task's episodes begin alike and meet the same noise after each number of gradient steps, so that what differs
    between them is the policy.
    """

    kind: Kind
    env_id: str
    tasks: list[Any]  # [M]   as JSON values
    task_names: list[str]  # [M]   for people
    task_quantity: str  # what the numbers of a task are
    inner_lrs: list[float]  # [S - 1]   step size of each gradient step
    episodes: int  # of each task, that each gradient step was taken on
    seed: int
    iteration: int  # meta-iterations that had trained the policy
    seconds_per_step: float  # of simulated time; 1 / 30 where the environment does not tell
    motion: NDArray[np.float32]  # [S, M, T + 1, P]   poses or observations; [S, M, T + 1, 0] of pictures
    rewards: NDArray[np.float32]  # [S, M, T]   0 after an episode's end
    lengths: NDArray[np.int64]  # [S, M]   steps
    mean_returns: NDArray[np.float64]  # [S, M]   of the episodes that the gradient steps were taken on
    pictures: list[list[bytes]] = []  # noqa: RUF012 (never changed)   [S][M]   contact sheets

    @property
    def gradient_steps(self) -> int:
        """The largest number of gradient steps."""
        return len(self.rewards) - 1

    @property
    def returns(self) -> NDArray[np.float64]:
        """Return of each recorded episode, `[S, M]`."""
        sums: NDArray[np.float64] = self.rewards.sum(-1, dtype=np.float64)
        return sums

    def pictures_of(self, task: int, step: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Recorded pictures `[n, height, width, 3]` of one episode, and the steps `[n]` after which they were taken.

        Raises:
            InputError: If they are damaged.
        """
        times = picture_times(int(self.lengths[step, task]), self.rewards.shape[-1])
        try:
            return from_sheet(self.pictures[step][task], len(times)), times
        except ValueError as error:
            raise InputError(f"the recorded {error}: record anew with maml-rl visualize RUN --record") from error

    def episode(self, task: int, step: int) -> NDArray[np.float32]:
        """Poses or observations `[length + 1, P]` of one episode."""
        return self.motion[step, task, : self.lengths[step, task] + 1]


def picture_times(length: int, horizon: int) -> NDArray[np.int64]:
    """Steps after which pictures of an episode of `length` steps are recorded, where the time limit is `horizon`."""
    return np.arange(0, length + 1, -(-horizon // _MOST_PICTURES))


def in_the_plane(recording: Recording) -> bool:
    """Whether the motion is a path in the plane and the tasks are places in it."""
    return recording.motion.shape[-1] == 2 and are_places(recording.tasks, recording.task_quantity)


def save_recording(path: Path, recording: Recording) -> None:
    """Writes a recording; the file at `path` is the old one or the new one, never a part."""
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    record |= {name: value for name, value in recording._asdict().items() if name not in _ARRAYS}
    pictures = [file for stage in recording.pictures for file in stage]
    content = io.BytesIO()
    np.savez_compressed(
        content,
        record=np.array(json.dumps(record)),
        **{name: getattr(recording, name) for name in _ARRAYS if name != "pictures"},
        pictures=np.frombuffer(b"".join(pictures), np.uint8),
        picture_sizes=np.array([len(file) for file in pictures], np.int64),
    )
    write_atomically(path, content.getvalue())


def load_recording(path: Path) -> Recording:
    """Reads a recording.

    Raises:
        InputError: If the file is missing, truncated, not a recording, or from a newer version of this package.
    """
    if not path.is_file():
        raise InputError(f"there is no recording at {path}: make one with maml-rl evaluate RUN --record")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        record = json.loads(str(arrays.pop("record")))
        found, version = record.pop("format"), record.pop("version")
    except Exception as error:  # NumPy, zipfile, zlib and Python's tokeniser each have their own for turned bits
        raise InputError(f"{path} is damaged or no recording of maml-rl: remove it, to record anew") from error
    if found != FORMAT:
        raise InputError(f"{path} is no recording of maml-rl: remove it, to record anew")
    if version > VERSION:
        raise InputError(
            f"{path} was written by a newer maml-rl (recording version {version}, this one reads up to {VERSION}): "
            "upgrade maml-rl"
        )
    try:
        sizes = arrays.pop("picture_sizes")
        files = _split(arrays.pop("pictures").tobytes(), sizes)
        shape = arrays["lengths"].shape
        pictures = [files[i : i + shape[1]] for i in range(0, len(files), shape[1])] or [[] for _ in range(shape[0])]
        recording = Recording(**record, **arrays, pictures=pictures)
        _check(recording)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, to record anew") from error
    return recording


def _split(content: bytes, sizes: NDArray[np.int64]) -> list[bytes]:
    ends = np.cumsum(sizes).tolist()
    if len(content) != (ends[-1] if ends else 0):
        raise ValueError(f"pictures have {len(content)} bytes instead of {ends[-1] if ends else 0}")
    return [content[end - size : end] for size, end in zip(sizes.tolist(), ends, strict=True)]


def _check(recording: Recording) -> None:
    """Raises ValueError unless all parts fit each other."""
    stages, tasks, horizon = recording.rewards.shape
    expected = {
        "motion": (stages, tasks, horizon + 1, recording.motion.shape[-1]),
        "rewards": (stages, tasks, horizon),
        "lengths": (stages, tasks),
        "mean_returns": (stages, tasks),
    }
    for name, shape in expected.items():
        array = getattr(recording, name)
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name} should be finite numbers of shape {shape}")
    if (
        stages < 1
        or not len(recording.tasks) == len(recording.task_names) == tasks
        or len(recording.inner_lrs) != stages - 1
    ):
        raise ValueError(f"{len(recording.tasks)} tasks, {tasks} recorded; {stages} stages")
    if (recording.lengths < 0).any() or (recording.lengths > horizon).any():
        raise ValueError(f"lengths should be from 0 to {horizon}")
    if recording.kind not in ("poses", "pictures", "observations"):
        raise ValueError(f"there is no kind {recording.kind!r}")
    if recording.kind == "pictures" and [len(stage) for stage in recording.pictures] != [tasks] * stages:
        raise ValueError("pictures are missing")
