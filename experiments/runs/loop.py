"""The loop over meta-iterations of any kind of run, with progress, logs and checkpoints."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from maml_rl.errors import InputError, WorkerError
from maml_rl.experiments.runs.provenance import note_machine
from maml_rl.experiments.runs.run_log import log, run_logger

_LOCK = ".lock"
_PLAIN_PROGRESS_SECONDS = 15.0  # between lines of progress where the output is no terminal


class RunProgress(Protocol):
    """What a run has reached."""

    @property
    def iteration(self) -> int:
        """Meta-iterations finished."""
        ...


class LoopConfig(Protocol):
    """Settings of a run that the loop needs."""

    @property
    def iterations(self) -> int:
        """Meta-iterations of the whole run."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Meta-iterations from one checkpoint to the next."""
        ...


class AnyRun(Protocol):
    """A run of any kind."""

    @property
    def config(self) -> LoopConfig:
        """Its settings."""
        ...

    @property
    def progress(self) -> RunProgress:
        """What it has reached."""
        ...


R = TypeVar("R", bound=AnyRun)


class Step(NamedTuple, Generic[R]):
    """Result of one meta-iteration."""

    run: R
    row: dict[str, float]  # quantities to log; empty for none
    summary: str  # what the progress bar shows; empty to leave it
    shown: Mapping[str, Any] = MappingProxyType({})  # further values of the row, for TensorBoard only


def check_new(out: Path) -> None:
    """Checks that a run may begin in a directory.

    Raises:
        InputError: If it holds something, other than the lock of a run that never began.
    """
    if out.exists() and (not out.is_dir() or any(path.name != _LOCK for path in out.iterdir())):
        raise InputError(
            f"{out} exists: resume it with maml-rl train --resume {out}, or give another --out (with "
            "--resume-if-exists, the same command starts a run and resumes it)"
        )


def check_extension(out: Path, run: AnyRun, iterations: int | None) -> None:
    """Checks a new number of iterations of a run.

    Raises:
        InputError: If it has finished more already.
    """
    if iterations is not None and iterations < run.progress.iteration:
        raise InputError(f"{out} has finished {run.progress.iteration} iterations already, more than {iterations}")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Holds a run directory, so that no second process writes into it.

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
def new_in(out: Path) -> Iterator[None]:
    """Holds a directory in which a run begins. Any other run that began there since the last check is kept.

    Raises:
        InputError: If it holds something, or another process holds it.
    """
    with alone_in(out):
        check_new(out)
        yield


def training_loop(
    run: R, iterate: Callable[[R], Step[R]], save: Callable[[R], None], out: Path, device: torch.device
) -> R:
    """From `run.progress` to `run.config.iterations`.

    Args:
        run: A run, as its last checkpoint has it.
        iterate: One meta-iteration.
        save: Writes a checkpoint.
        out: Directory of the run.
        device: Where it is computed.

    Raises:
        OSError: If something of the run cannot be written, or its directory was removed; names the file.
    """
    config, first = run.config, run.progress.iteration
    note_machine(out, first, device)
    logger = run_logger(out, first)
    directory = out.stat()

    def save_there(run: R) -> None:
        _check_there(out, directory)
        save(run)

    bar = tqdm(total=config.iterations, initial=first, unit="iteration", disable=None, smoothing=0.1)
    said = begun = time.monotonic()
    summary = ""
    try:
        for iteration in range(first, config.iterations):
            step = iterate(run)
            _check_there(out, directory)
            if step.row:
                log(logger, step.run.progress.iteration, step.row, step.shown)
            run = step.run
            if step.summary:
                summary = step.summary
                bar.set_postfix_str(summary, refresh=False)
            bar.update()
            if bar.disable and (
                time.monotonic() - said > _PLAIN_PROGRESS_SECONDS or iteration + 1 == config.iterations
            ):
                said = time.monotonic()
                left = bar.format_interval(
                    (said - begun) / (iteration + 1 - first) * (config.iterations - iteration - 1)
                )
                line = f"iteration {iteration + 1}/{config.iterations}: {summary}, {left} left"
                print(line, file=sys.stderr, flush=True)
            if (iteration + 1) % config.checkpoint_every == 0:
                save_there(run)
    except (KeyboardInterrupt, WorkerError):
        save_there(run)
        raise
    except OSError:
        with suppress(OSError):
            save_there(run)  # a log that cannot be written need not cost the finished iterations
        raise
    finally:
        bar.close()
        logger.close()
    save_there(run)
    return run


def _check_there(out: Path, directory: os.stat_result) -> None:
    """Checks that a run directory is still the one that the loop began in.

    Raises:
        FileNotFoundError: If it was removed; another of its name is left alone.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(out.stat(), directory):
            return
    raise FileNotFoundError(f"the directory of the run, {out}, was removed")
