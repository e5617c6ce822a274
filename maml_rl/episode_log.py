"""Episodes logged outside of this package, for example on a robot. Needs only NumPy."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.errors import InputError
from maml_rl.numpy_policy import read_arrays

_ENDS = ("terminated", "truncated")
_FIELDS = ("observations", "actions", "rewards", *_ENDS)


class LoggedSteps(NamedTuple):
    """Steps of whole episodes, one after the other; an episode ends where it terminated or was truncated."""

    observations: NDArray[np.float32]  # [N, obs]   that the actions were chosen in
    actions: NDArray[Any]  # [N, act] as sampled, before they were clipped; [N] of choices
    rewards: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]

    @property
    def episodes(self) -> list[slice]:
        """The steps of each episode."""
        ends = np.flatnonzero(self.terminated | self.truncated) + 1
        return [slice(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    @property
    def returns(self) -> NDArray[np.float64]:
        """Sum of the rewards of each episode, `[K]`."""
        return np.array([self.rewards[steps].sum(dtype=np.float64) for steps in self.episodes])

    def save(self, path: str | Path) -> None:
        """Writes the steps as an npz archive.

        Raises:
            OSError: If the file cannot be written.
        """
        content = io.BytesIO()
        np.savez_compressed(content, **self._asdict())
        Path(path).write_bytes(content.getvalue())


class EpisodeLog:
    """Collects steps as they happen.

    A step is what an action did: `log.add(observation, action, *env.step(env_action)[1:4])`.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def add(self, observation: Any, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        """Adds a step.

        Args:
            observation: The observation in which the action was chosen, `[obs]`.
            action: As it was sampled, before it was clipped.
            reward: The reward that it brought.
            terminated: Whether the process itself ended the episode after it.
            truncated: Whether a time limit ended the episode after it.
        """
        self._rows.append((np.ravel(observation), action, reward, terminated, truncated))

    def steps(self) -> LoggedSteps:
        """All steps so far.

        Raises:
            InputError: See `logged_steps`.
        """
        columns = zip(*self._rows, strict=True) if self._rows else [[]] * len(_FIELDS)
        return logged_steps(dict(zip(_FIELDS, map(list, columns), strict=True)), "the log")


def load_steps(path: str | Path) -> LoggedSteps:
    """Reads steps from an npz archive with the fields of `LoggedSteps`.

    Raises:
        InputError: If the file is missing or not such an archive; also as `logged_steps`.
    """
    return logged_steps(read_arrays(path, f"an npz archive with {', '.join(_FIELDS)}"), str(path))


def load_minari(dataset: str) -> LoggedSteps:
    """The steps of a local Minari data set.

    Args:
        dataset: Its id, for example `robot/crawler-v0`.

    Raises:
        InputError: If Minari is not installed or has no such data set; also as `logged_steps`.
    """
    try:
        import minari
    except ImportError:
        raise InputError("reading a Minari data set needs the package minari: pip install 'maml-rl[minari]'") from None
    try:
        episodes = list(minari.load_dataset(dataset).iterate_episodes())
    except (FileNotFoundError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"Minari cannot read the data set {dataset} ({' '.join(str(error).split())})") from error
    columns: dict[str, list[Any]] = {field: [] for field in _FIELDS}
    for episode in episodes:  # one observation more than actions: the last one
        columns["observations"] += [np.ravel(seen) for seen in episode.observations[: len(episode.rewards)]]
        columns["actions"] += list(episode.actions)
        columns["rewards"] += list(episode.rewards)
        columns["terminated"] += list(episode.terminations)
        columns["truncated"] += list(episode.truncations)
    return logged_steps(columns, f"the data set {dataset}")


def logged_steps(arrays: Mapping[str, Sequence[Any] | NDArray[Any]], name: str) -> LoggedSteps:
    """Steps from their arrays, checked.

    Args:
        arrays: The fields of `LoggedSteps` by name; one of `terminated` and `truncated` is enough.
        name: Where they come from, for messages.

    Raises:
        InputError: If a field is missing, has another length or is not numeric, or the last episode has no end.
    """
    given = {field: np.asarray(arrays[field]) for field in _FIELDS if field in arrays}
    count = len(given["rewards"]) if "rewards" in given and given["rewards"].ndim else 0
    if any(field in given for field in _ENDS):  # one of them is enough
        given = {field: np.zeros(count, np.bool_) for field in _ENDS} | given
    if missing := [field for field in _FIELDS if field not in given]:
        raise InputError(f"{name} has no {' and no '.join(missing)}: expected {', '.join(_FIELDS)} of each step")
    if not count:
        raise InputError(f"{name} has no steps: log whole episodes")
    for field, values in given.items():
        if not values.ndim or len(values) != count or values.dtype.kind not in "biuf":
            raise InputError(
                f"{name} has {field} of shape {values.shape} and type {values.dtype} for {count} rewards: expected "
                "numbers, one row per step"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{name} has {field} that are not finite: remove those episodes")
    if given["rewards"].ndim > 1:
        raise InputError(f"{name} has rewards of shape {given['rewards'].shape}: expected one number for each step")
    terminated, truncated = (given[field].reshape(count, -1).astype(np.bool_)[:, 0] for field in _ENDS)
    if not (terminated[-1] or truncated[-1]):
        raise InputError(f"{name} ends within an episode: set truncated at its last step, or remove that episode")
    observations = np.ascontiguousarray(given["observations"].reshape(count, -1), np.float32)
    return LoggedSteps(observations, given["actions"], given["rewards"].astype(np.float32), terminated, truncated)
