"""Which experiment tracker a run goes to: options of commands, apart from what writes to a tracker."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from maml_rl.errors import InputError

TrackerName = Literal["wandb", "trackio"]


@dataclass(frozen=True)
class Tracking:
    """Which tracker a run goes to, in addition to TensorBoard."""

    tracker: TrackerName | None = None
    """Also send settings, metrics, histograms, clips and the report to a tracker: wandb (Weights & Biases) or trackio,
    each with the extra of its name. If the tracker fails, the run continues. Without a network, set WANDB_MODE=offline;
    trackio needs none."""
    tracker_project: str = "maml-rl"
    """The tracker's project for a new run."""


NO_TRACKER = Tracking()


def check_tracker(tracking: Tracking) -> None:
    """Checks that the tracker is installed.

    Raises:
        InputError: If not.
    """
    name = tracking.tracker
    if name is not None and find_spec(name) is None:
        raise InputError(f"--tracker {name} needs the package {name}: pip install 'maml-rl[{name}]'")
