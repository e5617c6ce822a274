"""Recordings: episodes of a few tasks after each number of gradient steps, in one small file that every view reads.

For an environment of this package's own kind (`TaskMDP`), poses are recorded and drawn later, so that recording needs
no OpenGL. For any other environment, its own pictures are recorded, or observations if it draws none.

A file is an npz archive of plain arrays, which executes no code when it is read:

record        JSON: format, version, and the fields of `Recording` that are not arrays
sha256        digest of the record and of all arrays that follow
motion        poses or observations [S, M, T + 1, P] float32, before the first step and after each
rewards       [S, M, T] float32
lengths       steps of each episode [S, M]
mean_returns  [S, M], of the episodes that the gradient steps were taken on
pictures      contact sheets (`sheets.py`), one after the other, with their sizes in bytes in `picture_sizes`
"""

import io
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.checkpoint import NamedArray, check_version, digest, write_atomically
from maml_rl.errors import InputError
from maml_rl.experiments.media.sheets import from_sheet
from maml_rl.experiments.media.task_display import are_places
from maml_rl.json_types import from_json
from maml_rl.json_values import json_text, parse_json

RECORDING = "recording.npz"
"""The file in a run's directory."""
FORMAT = "maml-rl recording"
VERSION = 1
RECORDED_TASKS = 4  # unless another number is given
Kind = Literal["poses", "pictures", "observations"]

_MOST_PICTURES = 100  # of one episode, in addition to the first
_TYPES = {"motion": np.float32, "rewards": np.float32, "lengths": np.int64, "mean_returns": np.float64}
_REMEDY = "remove it, to record again"


class _Record(NamedTuple):
    """The fields of `Recording` that are not arrays, with format and version."""

    format: str
    version: int
    kind: Kind
    env_id: str
    tasks: list[Any]
    task_names: list[str]
    task_quantity: str
    inner_lrs: list[float]
    episodes: int
    seed: int
    iteration: int
    seconds_per_step: float


class Recording(NamedTuple):
    """One episode of each of M tasks after each of S numbers of gradient steps: 0, 1, ..., S - 1.

    A task's episodes have the same start and the same noise after each number of gradient steps, so that they differ
    only in the policy.
    """

    kind: Kind
    env_id: str
    tasks: list[Any]  # [M]   as JSON values
    task_names: list[str]  # [M]   for people
    task_quantity: str  # what the numbers of a task are
    inner_lrs: list[float]  # [S - 1]   step size of each gradient step; empty where they are learned
    episodes: int  # of each task, that each gradient step was taken on
    seed: int
    iteration: int  # meta-iterations that had trained the policy
    seconds_per_step: float  # of simulated time; 1 / 30 where the environment has no `render_fps`
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
            raise InputError(f"the recorded {error}: record again with maml-rl visualize RUN --record") from error

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
    """Writes a recording; the file at `path` is the old one or the new one, never part of one."""
    own = recording._asdict()
    record = json_text(
        {"format": FORMAT, "version": VERSION} | {name: own[name] for name in _Record._fields if name in own}
    )
    pictures = [file for stage in recording.pictures for file in stage]
    arrays: dict[str, Any] = {name: np.asarray(own[name], dtype) for name, dtype in _TYPES.items()}
    arrays["pictures"] = np.frombuffer(b"".join(pictures), np.uint8)
    arrays["picture_sizes"] = np.array([len(file) for file in pictures], np.int64)
    content = io.BytesIO()
    np.savez_compressed(content, record=np.array(record), sha256=np.array(content_digest(record, arrays)), **arrays)
    write_atomically(path, content.getvalue())


def load_recording(path: Path) -> Recording:
    """Reads a recording.

    Raises:
        InputError: If the file is missing, truncated, damaged, not a recording, or from a newer version of this
            package.
    """
    if not path.is_file():
        raise InputError(f"there is no recording at {path}: make one with maml-rl evaluate RUN --record")
    content = path.read_bytes()
    try:
        # NumPy, zipfile, zlib and Python's tokeniser each have their own exceptions and warnings for flipped bits.
        with warnings.catch_warnings(action="error"), np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        text, sha256 = str(arrays.pop("record")), str(arrays.pop("sha256"))
        record = parse_json(text)
        found, version = record["format"], record["version"]
    except Exception as error:
        raise InputError(f"{path} is damaged or not a maml-rl recording: {_REMEDY}") from error
    if found != FORMAT:
        raise InputError(f"{path} is not a maml-rl recording: {_REMEDY}")
    check_version(f"{path}", version, VERSION)
    try:
        if sha256 != content_digest(text, arrays):
            raise ValueError("its content does not match its checksum")
        recording = _recording(from_json(_Record, record), arrays)
        _check(recording)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMEDY}") from error
    return recording


def content_digest(record: str, arrays: dict[str, NDArray[Any]]) -> str:
    """The digest of a recording's content."""
    return digest(
        record, (NamedArray(name, array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items())
    )


def _recording(record: _Record, arrays: dict[str, Any]) -> Recording:
    """The recording that a file holds; raises KeyError, TypeError or ValueError unless its arrays are as written."""
    sizes = arrays.pop("picture_sizes")
    if sizes.ndim != 1 or sizes.dtype != np.int64 or (sizes < 0).any():
        raise ValueError("picture_sizes should be whole numbers")
    for name, dtype in _TYPES.items():
        if arrays[name].dtype != dtype:
            raise TypeError(f"{name} should be of type {np.dtype(dtype)}, is of type {arrays[name].dtype}")
    files = _split(arrays.pop("pictures").tobytes(), sizes)
    stages, tasks = arrays["lengths"].shape
    pictures = [files[i : i + tasks] for i in range(0, len(files), tasks)] if tasks else []
    fields = {name: value for name, value in record._asdict().items() if name in Recording._fields}
    return Recording(**fields, **arrays, pictures=pictures or [[] for _ in range(stages)])


def _split(content: bytes, sizes: NDArray[np.int64]) -> list[bytes]:
    ends = np.cumsum(sizes).tolist()
    if len(content) != (ends[-1] if ends else 0):
        raise ValueError(f"pictures have {len(content)} bytes instead of {ends[-1] if ends else 0}")
    return [content[end - size : end] for size, end in zip(sizes.tolist(), ends, strict=True)]


def _check(recording: Recording) -> None:
    """Raises ValueError unless all parts are consistent."""
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
        or len(recording.inner_lrs) not in (0, stages - 1)
    ):
        raise ValueError(f"{len(recording.tasks)} tasks, {tasks} recorded; {stages} stages")
    if (recording.lengths < 0).any() or (recording.lengths > horizon).any():
        raise ValueError(f"lengths should be from 0 to {horizon}")
    if not (recording.seconds_per_step > 0 and recording.episodes >= 1 and recording.iteration >= 0):
        raise ValueError("seconds_per_step and episodes should be above 0, iteration at least 0")
    if recording.kind == "pictures" and [len(stage) for stage in recording.pictures] != [tasks] * stages:
        raise ValueError("pictures are missing")
