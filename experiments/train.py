"""Meta-training: the loop over meta-iterations, with progress, logs and checkpoints."""

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from stable_baselines3.common.logger import KVWriter, Logger
from tqdm import tqdm

from experiments.clips import Clips, TensorBoard
from experiments.provenance import note_machine
from experiments.run import METRICS, Progress, Run, RunConfig, load_config, load_run, new_run, save_run
from maml_rl.checkpoint import write_atomically
from maml_rl.errors import InputError, WorkerError
from maml_rl.meta_rl import meta_iteration
from maml_rl.parallel import TaskThreads, threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.tasks import TaskVectorEnv, vectorize

_PLAIN_PROGRESS_SECONDS = 15.0  # between lines of progress where the output is no terminal


def train(
    config: RunConfig,
    out: Path,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    render_every: int = 0,
) -> Run:
    """Meta-trains from the start, or from another run's policy, and leaves a run directory.

    Args:
        config: Settings.
        out: Directory of the run, which must not exist or be empty.
        device: Where policy and update are computed, for example "cpu" or "cuda".
        threads: Threads that share the tasks of the update; all cores if None. They do not change the result.
        processes: Processes of an environment that is not batched. They do not change the result.
        render_every: Meta-iterations from one clip in TensorBoard to the next; none if 0. They do not change the
            result.

    Raises:
        InputError: If `out` holds something, or environment or device cannot be used.
        NonFiniteError: If training diverges; the last checkpoint stays.
        WorkerError: If the environment fails in one of its processes, with the finished iterations saved.
        KeyboardInterrupt: After Ctrl-C, with the finished iterations saved.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists: go on with maml-rl train --resume {out}, or give another --out")
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    with closing(vectorize(config.env_id, _num_envs(config), processes, config.observe_task)) as envs:
        clips = Clips(envs, render_every, task_threads, processes)
        run = new_run(config, envs)
        with _alone_in(out):
            save_run(out, run)
            return _train(run, envs, out, torch_device, task_threads, clips)


def resume(
    out: Path,
    iterations: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
    render_every: int = 0,
) -> Run:
    """Goes on with a run from its last checkpoint, to the same result as if it had never stopped.

    Args:
        out: Directory of the run.
        iterations: New number of iterations; that of the run if None.
        device: See `train`.
        threads: See `train`.
        processes: See `train`.
        render_every: See `train`.

    Raises:
        InputError: If there is no usable checkpoint, or another process trains in the directory. Otherwise as `train`.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    out = out.parent if out.is_file() else out
    config, _, _ = load_config(out)
    with closing(vectorize(config.env_id, _num_envs(config), processes, config.observe_task)) as envs, _alone_in(out):
        clips = Clips(envs, render_every, task_threads, processes)
        run = load_run(out, envs)
        if iterations is not None and iterations < run.progress.iteration:
            raise InputError(f"{out} has finished {run.progress.iteration} iterations already, more than {iterations}")
        if iterations is not None:
            run = run._replace(config=replace(run.config, iterations=iterations))
        return _train(run, envs, out, torch_device, task_threads, clips)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Holds a run directory, so that no second process writes into it.

    Raises:
        InputError: If another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"another process is training in {out}: wait for it, or give another --out") from None


def _num_envs(config: RunConfig) -> int:
    return config.num_envs or config.meta.meta_batch_size * config.meta.episodes


def _train(run: Run, envs: TaskVectorEnv, out: Path, device: torch.device, threads: TaskThreads, clips: Clips) -> Run:
    """The loop: from `run.progress` to `run.config.iterations`."""
    config, policy = run.config, run.policy.to(device)
    note_machine(out, run.progress.iteration, device)
    theta = {name: value.to(device) for name, value in run.theta.items()}
    logger = _logger(out, run.progress.iteration)
    bar = tqdm(total=config.iterations, initial=run.progress.iteration, unit="iteration", disable=None, smoothing=0.1)
    said = begun = time.monotonic()
    first = run.progress.iteration
    try:
        for iteration in range(first, config.iterations):
            started = time.monotonic()
            theta, metrics, by_task = meta_iteration(policy, theta, envs, config.meta, config.seed, iteration, threads)
            seconds = time.monotonic() - started
            before = run.progress
            env_steps = int(metrics["sampling/env_steps"])
            progress = Progress(iteration + 1, before.env_steps + env_steps, before.seconds + seconds)
            _log(logger, progress, metrics, by_task, seconds)
            run = run._replace(theta=theta, progress=progress)
            if clip := clips.after(run):
                logger.record("adaptation", clip, exclude="csv")
                logger.dump(progress.iteration)
            summary = _summary(config, metrics, env_steps / seconds)
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
                save_run(out, run)
    except (KeyboardInterrupt, WorkerError):
        save_run(out, run)
        raise
    finally:
        bar.close()
        logger.close()
    save_run(out, run)
    return run


def _summary(config: RunConfig, metrics: dict[str, float], env_steps_per_second: float) -> str:
    returns = f"return {metrics['return/after_0_steps']:.1f}"
    if config.meta.inner_steps:
        returns += f" before, {metrics[f'return/after_{config.meta.inner_steps}_steps']:.1f} after adaptation"
    return f"{returns}, {env_steps_per_second:,.0f} env steps/s"


def _log(
    logger: Logger, progress: Progress, metrics: dict[str, float], by_task: dict[str, torch.Tensor], seconds: float
) -> None:
    totals = {"iteration": progress.iteration, "sampling/env_steps": progress.env_steps}
    times = {"time/env_steps_per_second": metrics["sampling/env_steps"] / seconds, "time/seconds": progress.seconds}
    for name, value in {**metrics, **totals, **times}.items():
        logger.record(name, value)
    for name, values in by_task.items():
        finite = values[values.isfinite()].cpu()  # a histogram has no place for others; the scalar tells of them
        if len(finite):
            logger.record(f"tasks/{name}", finite, exclude="csv")
    logger.dump(progress.iteration)


def _logger(out: Path, finished: int) -> Logger:
    """Logger that goes on after `finished` iterations."""
    table = MetricsTable(out / METRICS, finished)
    return Logger(str(out), [table, TensorBoard(str(out / "tensorboard"))])


class MetricsTable(KVWriter):
    """A csv file with a row for each iteration, columns in the order of their names.

    Stable-Baselines3's own starts the file anew, and orders its columns by chance.

    Args:
        path: The file.
        finished: Iterations that stay, where the file exists; rows of later ones, lost in an interruption, are dropped.
    """

    def __init__(self, path: Path, finished: int) -> None:
        self._writer: csv.DictWriter[str] | None = None
        lines: list[str] = []
        if path.exists():
            lines = [f"{line}\n" for line in path.read_text().splitlines() if line]
            rows = list(csv.DictReader(lines))
            kept = [line for line, row in zip(lines[1:], rows, strict=True) if _iteration(row) <= finished]
            lines = [*lines[:1], *kept] if kept else []
        write_atomically(path, "".join(lines).encode())
        self._file = path.open("a", newline="")
        if lines:
            self._writer = csv.DictWriter(self._file, next(csv.reader(lines)), lineterminator="\n")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Adds a row of what is not excluded from csv files, if that is anything."""
        key_values = {name: value for name, value in key_values.items() if "csv" not in (key_excluded[name] or ())}
        if not key_values:
            return
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, sorted(key_values), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(key_values)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _iteration(row: dict[str, str | None]) -> float:
    """A row's iteration; infinite for a row that was cut off in the writing."""
    text = row.get("iteration") or ""
    return int(text) if text.isdigit() and None not in row.values() else float("inf")
