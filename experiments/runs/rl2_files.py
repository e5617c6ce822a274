"""What RL^2 stores, as far as it can be read without the libraries that train it: policy and learning curve."""

from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from maml_rl.errors import InputError
from maml_rl.experiments.runs.rl2_settings import Schedule
from maml_rl.json_types import read_typed

POLICY = "policy.safetensors"
CURVE = "rl2.json"


class CurvePoint(TypedDict):
    """An evaluation during the training."""

    env_steps: int
    seconds: NotRequired[float]  # of the training and its evaluations until then
    mean_return: float  # of a trial
    standard_error: float
    by_episode: list[float]


class Training(NamedTuple):
    """The learning curve, and what it was measured with."""

    config: dict[str, Any]
    schedule: Schedule
    curve: list[CurvePoint]

    @property
    def seconds(self) -> float:
        """How long the training took, with its evaluations; 0 if that was not noted."""
        return self.curve[-1].get("seconds", 0.0) if self.curve else 0.0


def is_rl2(directory: Path) -> bool:
    """Whether a directory holds a policy of RL^2."""
    return (directory / POLICY).is_file()


def stored_training(directory: Path) -> Training:
    """The learning curve of a directory, with settings.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    path = directory / CURVE
    if not path.is_file():
        raise InputError(f"there is no {CURVE} in {directory}: give the directory that RL^2 was trained in")
    training: Training = read_typed(path, Training, "train again")
    return training
