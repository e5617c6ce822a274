"""The loop over meta-iterations of any kind of run, with progress, logs and checkpoints."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from maml_rl.config import RLConfig
from maml_rl.errors import InputError, RankError, WorkerError
from maml_rl.experiments.runs.progress import ProgressBar
from maml_rl.experiments.runs.provenance import note_machine
from maml_rl.experiments.runs.run_log import log, run_logger
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, Tracking
from maml_rl.experiments.runs.trackers import Tracker
from maml_rl.learner import AnyLearner, Metrics
from maml_rl.ranks import this_rank
from maml_rl.run import Run, after_iteration, save_run
from maml_rl.supervised.settings import SupervisedConfig
from maml_rl.types import Params, State

_LOCK = ".lock"
Show = Callable[[Run], Mapping[str, Any]]
"""What TensorBoard and a tracker show of a run in addition to its metrics."""


def check_new(out: Path, remedy: str = "") -> None:
    """Checks that a run may begin in a directory.

    Args:
        out: The directory.
        remedy: What to do if it may not; by default, what to do with a run of `maml-rl train`.

    Raises:
        InputError: If it holds something, other than the lock of a run that never began.
    """
    if out.exists() and (not out.is_dir() or any(path.name != _LOCK for path in out.iterdir())):
        remedy = remedy or (
            f"resume it with maml-rl train --resume {out}, or give another --out (with --resume-if-exists, the same "
            "command starts a run and resumes it)"
        )
        raise InputError(f"{out} exists: {remedy}")


def check_extension(out: Path, run: Run, iterations: int | None) -> None:
    """Checks a new number of iterations of a run.

    Raises:
        InputError: If it has finished more already.
    """
    if iterations is not None and iterations < run.state.iteration:
        raise InputError(f"{out} has finished {run.state.iteration} iterations already, more than {iterations}")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Locks a run directory, so that no second process writes into it.

    Raises:
        InputError: If another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / _LOCK, timeout=0):
            yield
    except Timeout:
        raise InputError(f"another process is training in {out}: wait for it, or give another --out") from None


@contextmanager
def new_in(out: Path, remedy: str = "") -> Iterator[None]:
    """Locks a directory in which a run begins. If another run began there since the last check, it is kept.

    Args:
        out: The directory.
        remedy: See `check_new`.

    Raises:
        InputError: If it holds something, or another process holds it.
    """
    with alone_in(out):
        check_new(out, remedy)
        yield


def training_loop(
    run: Run, learner: AnyLearner, out: Path, device: torch.device, shown: Show, tracking: Tracking = NO_TRACKER
) -> Run:
    """Runs the iterations that a run still has to do, together with the ranks that follow, if there are any.

    Args:
        run: A run, as its last checkpoint has it.
        learner: What iterates.
        out: Directory of the run.
        device: Where it is computed.
        shown: What TensorBoard shows of a run in addition to its metrics.
        tracking: A tracker that the run goes to as well.

    Raises:
        OSError: If something of the run cannot be written, or its directory was removed; names the file.
        RankError: If another rank has ended or does not answer, with the finished iterations saved.
    """
    first, last = run.state.iteration, run.config.iterations
    note_machine(out, first, device)
    directory = out.stat()
    trackers = [Tracker(tracking, out, run.config, last)] if tracking.tracker else []

    def save_there() -> None:
        _check_there(out, directory)
        save_run(out, run)

    with (
        closing(run_logger(out, first, trackers)) as logger,
        ProgressBar("", "iteration", last, first, keep=True) as progress,
        _saving(save_there),
    ):
        for iteration in range(first, last):
            started = time.monotonic()
            state, metrics = learner.iterate(run.state)
            this_rank().check_same_bits(state)
            after, values = after_iteration(run, state, metrics, time.monotonic() - started)
            _check_there(out, directory)
            row, by_task = ({}, {}) if after.progress.pending else (values, _by_task(metrics))
            log(logger, iteration + 1, row, {**by_task, **shown(after)})
            run = after  # an iteration counts once it is logged: saved without its row, it would never get one
            progress.update(summary=learner.summary(values))
            if (iteration + 1) % run.config.checkpoint_every == 0:
                save_there()
    return run


@contextmanager
def _saving(save: Callable[[], None]) -> Iterator[None]:
    """Saves the finished iterations at the end, and also when one is interrupted or fails for an outside reason."""
    try:
        yield
    except (KeyboardInterrupt, WorkerError, RankError, InputError):
        save()
        raise
    except OSError:
        with suppress(OSError):
            save()  # a log that cannot be written need not cost the finished iterations
        raise
    save()


def hand_over(run: Run) -> Run:
    """Gives a run to the ranks that follow, if there are any, and returns it."""
    this_rank().from_first((run.config, run.state, run.constants))
    return run


def received() -> Run:
    """The run that rank 0 has handed over."""
    given: tuple[RLConfig | SupervisedConfig, State, Params] = this_rank().from_first(None)
    return Run(*given)


def following_loop(run: Run, learner: AnyLearner) -> None:
    """The same iterations on a rank other than 0, which keeps nothing of them."""
    state = run.state
    for _ in range(state.iteration, run.config.iterations):
        state, _ = learner.iterate(state)
        this_rank().check_same_bits(state)


def _by_task(metrics: Metrics) -> Mapping[str, Any]:
    return {f"tasks/{name}": value for name, value in metrics.by_task.items()}


def _check_there(out: Path, directory: os.stat_result) -> None:
    """Checks that a run directory is still the one that the loop began in.

    Raises:
        FileNotFoundError: If it was removed; a new one of the same name is left alone.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(out.stat(), directory):
            return
    raise FileNotFoundError(f"the directory of the run, {out}, was removed")
