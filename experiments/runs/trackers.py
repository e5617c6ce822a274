"""Experiment trackers in addition to TensorBoard: Weights & Biases (`wandb`) and Trackio (`trackio`), by one writer.

Trackio has the functions of wandb, so one class serves both. A tracker never ends a run: an error becomes a one-line
warning, and the run continues without the tracker. `tracker.json` in a run directory names its run of the tracker, so
that a resumed run is one run there too.
"""

import contextlib
import io
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from stable_baselines3.common.logger import KVWriter
from torch import Tensor

from maml_rl.checkpoint import write_json
from maml_rl.config import RunConfig
from maml_rl.experiments.runs.run_log import Clip
from maml_rl.experiments.runs.tracker_options import Tracking
from maml_rl.json_types import read_typed

TRACKER = "tracker.json"
_SECONDS = 30.0  # that a run waits for wandb's server when it begins
_LAST_SECONDS = 120.0  # that it waits for what is left to be sent when it ends
_BINS = 64
_INSTEAD = {
    "wandb": "WANDB_MODE=offline needs neither network nor account",
    "trackio": "without TRACKIO_SPACE_ID it needs no network",
}


class TrackedRun(TypedDict):
    """A run directory's run in a tracker: an entry of `tracker.json`."""

    project: str
    id: str


class Tracker(KVWriter):
    """Writes the results of an iteration to a tracker: scalars, histograms and clips.

    Args:
        tracking: Which tracker; there has to be one.
        out: Directory of the run, which wandb's own files go to.
        config: Settings of the run.
        iterations: Iterations after which the run is complete; an earlier end counts as an interruption.
    """

    def __init__(self, tracking: Tracking, out: Path, config: RunConfig, iterations: int) -> None:
        self._name, self._iterations, self._last = str(tracking.tracker), iterations, 0
        self._module: Any = None  # None where it has failed, or was closed
        self._run: Any = None
        self._files = tempfile.TemporaryDirectory(prefix="maml-rl-")  # of what it reads from files
        with self._surviving():
            self._module = import_module(self._name)
            with contextlib.redirect_stdout(io.StringIO()):
                self._run = _begun(self._module, tracking, out, config)
            print(f"tracker: {_place(self._run, tracking)}", file=sys.stderr)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Writes what there is of an iteration; never raises what the tracker raises."""
        self._last = step
        if self._module is None:
            return
        with self._surviving():
            values = {name: self._shown(value) for name, value in key_values.items()}
            self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def add_file(self, path: Path, name: str, kind: str) -> bool:
        """Keeps a file with the run, as an artifact, and returns whether that worked.

        Args:
            path: The file.
            name: Of the artifact.
            kind: What it is, such as "report".
        """
        if self._module is None:
            return False
        with self._surviving():
            artifact = self._module.Artifact(name, type=kind)
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)
        return self._module is not None

    def close(self) -> None:
        """Ends the run in the tracker, once everything has been sent."""
        module, run = self._module, self._run
        if module is not None:
            with self._surviving(), contextlib.redirect_stdout(io.StringIO()):
                if self._name == "wandb":
                    run.finish(exit_code=int(self._last < self._iterations))
                else:
                    module.finish()
        self._module = None
        self._files.cleanup()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Turns any error of the tracker into one line, after which it is left alone."""
        try:
            yield
        except Exception as error:
            self._module = None
            said = " ".join(str(error).split())[:300] or type(error).__name__
            print(
                f"warning: the tracker {self._name} failed, and the run continues without it: {said} "
                f"({_INSTEAD[self._name]})",
                file=sys.stderr,
                flush=True,
            )

    def _shown(self, value: Any) -> Any:
        """A value as the tracker takes it; None for what it cannot show."""
        if isinstance(value, Clip):
            path = Path(self._files.name) / f"{uuid.uuid4().hex}.gif"
            path.write_bytes(value.gif)
            return self._module.Video(str(path), format="gif")
        if isinstance(value, Tensor):
            try:
                return self._module.Histogram(np_histogram=np.histogram(value.numpy(), bins=_BINS))
            except ValueError:  # the values are too close to each other, for their size
                return None
        return value


def send_file(tracking: Tracking, out: Path, config: RunConfig, path: Path, kind: str) -> bool:
    """Adds a file to a run in a tracker, starting the run there if necessary, and returns whether that worked.

    Args:
        tracking: Which tracker.
        out: Directory of the run.
        config: Settings of the run.
        path: The file.
        kind: What it is, such as "report".
    """
    tracker = Tracker(tracking, out, config, iterations=0)
    try:
        return tracker.add_file(path, f"{_plain(out.resolve().name)}-{kind}", kind)
    finally:
        tracker.close()


def _begun(module: Any, tracking: Tracking, out: Path, config: RunConfig) -> Any:
    """The tracker's run of a run directory: the one that was begun before, or a new one."""
    stored = _tracked(out)
    name = str(tracking.tracker)
    known = stored.get(name)
    own: TrackedRun = known or {"project": tracking.tracker_project, "id": uuid.uuid4().hex[:8]}
    called = out.resolve().name
    given = {"project": own["project"], "config": asdict(config), "group": re.sub(r"-seed\d+$", "", called)}
    if name == "wandb":
        # Output is not captured: it has the progress bar, and what environments print.
        settings = {"console": "off", "silent": True, "init_timeout": _SECONDS, "finish_timeout": _LAST_SECONDS}
        given |= {"name": called, "id": own["id"], "resume": "allow", "dir": str(out)}
        run = module.init(**given, settings=module.Settings(**settings))
    else:  # which knows a run by its name
        run = module.init(**given, name=f"{called}-{own['id']}", resume="allow", embed=False)
    if known is None:
        write_json(out / TRACKER, {**stored, name: own})
    return run


def _tracked(out: Path) -> dict[str, TrackedRun]:
    """A run directory's runs in trackers, by the tracker's name."""
    path = out / TRACKER
    remedy = "remove it, to begin another run in the tracker"
    stored: dict[str, TrackedRun] = read_typed(path, dict[str, TrackedRun], remedy) if path.exists() else {}
    return stored


def _place(run: Any, tracking: Tracking) -> str:
    """Where to see a run."""
    if tracking.tracker == "trackio":
        return f"trackio show --project {run.project} shows this run, {run.name}"
    if run.offline:
        return f"wandb is offline; wandb sync {Path(run.dir).parent} uploads this run"
    return str(run.url)


def _plain(name: str) -> str:
    """A name with only those characters that names of artifacts may have."""
    return re.sub(r"[^\w.-]+", "-", name)
