"""Supervised meta-training: a run from its start, or from its last checkpoint."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from maml_rl.experiments.runs.loop import Step, alone_in, check_extension, check_new, new_in, training_loop
from maml_rl.experiments.runs.supervised_run import (
    Progress,
    Run,
    SupervisedConfig,
    load_config,
    load_run,
    new_run,
    save_run,
)
from maml_rl.parallel import TaskThreads, threads_for, usable_device
from maml_rl.supervised.meta_learning import meta_gradient, meta_iteration
from maml_rl.supervised.sources import task_source, training_batches
from maml_rl.supervised.tasks import TaskBatch, TaskSource


def train(config: SupervisedConfig, out: Path, device: str = "cpu", threads: int | None = None) -> Run:
    """Meta-trains from the start, and leaves a run directory.

    Args:
        config: Settings.
        out: Directory of the run, which must not exist or be empty.
        device: Where everything is computed, for example "cpu" or "cuda".
        threads: Threads that share the tasks; all cores if None. They do not change the result.

    Raises:
        InputError: If `out` holds something, or data or device cannot be used.
        NonFiniteError: If training diverges; the last checkpoint stays.
        KeyboardInterrupt: After Ctrl-C, with the finished iterations saved.
    """
    check_new(out)
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    source = task_source(config.tasks, config.data)
    run = new_run(config, source)
    with new_in(out):
        save_run(out, run)
        return _train(run, source, out, torch_device, task_threads)


def resume(
    out: Path,
    iterations: int | None = None,
    data: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Run:
    """Resumes a run from its last checkpoint, bit for bit.

    Args:
        out: Directory of the run.
        iterations: New number of iterations; that of the run if None.
        data: Directory of the images; that of the run if None.
        device: See `train`.
        threads: See `train`.

    Raises:
        InputError: If there is no usable checkpoint, or another process trains in the directory. Otherwise as `train`.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    out = out.parent if out.is_file() else out
    config, _ = load_config(out)
    source = task_source(config.tasks, data or config.data)
    with alone_in(out):
        run = load_run(out, source, to_go_on=True)
        check_extension(out, run, iterations)
        total = config.iterations if iterations is None else iterations
        run = run._replace(config=replace(config, iterations=total, data=data or config.data))
        return _train(run, source, out, torch_device, task_threads)


def _train(run: Run, source: TaskSource, out: Path, device: torch.device, threads: TaskThreads) -> Run:
    config, run = run.config, run.to(device)
    gradient = meta_gradient(run.network, config.method)
    batches = training_batches(source, config.seed, config.method.meta_batch_size, run.state.iteration)

    def iterate(run: Run) -> Step[Run]:
        started = time.monotonic()
        tasks = TaskBatch(*(examples.to(device) for examples in next(batches)))
        state, metrics = meta_iteration(gradient, run.state, tasks, config.method, threads)
        before = run.progress
        seconds = time.monotonic() - started
        metrics["time/iteration_seconds"] = seconds
        sums = {name: before.pending.get(name, 0.0) + value for name, value in metrics.items()}
        count = (state.iteration - 1) % config.log_every + 1
        means = {name: value / count for name, value in sums.items()}
        progress = Progress(state.iteration, before.seconds + seconds, {} if count == config.log_every else sums)
        totals = {"iteration": state.iteration, "time/seconds": progress.seconds}
        row = means | totals if count == config.log_every else {}
        return Step(run._replace(state=state, progress=progress), row, _summary(means))

    return training_loop(run, iterate, lambda run: save_run(out, run), out, device)


def _summary(means: dict[str, float]) -> str:
    name, unit, scale = ("accuracy", " %", 100.0) if "accuracy/after" in means else ("loss", "", 1.0)
    before, after = (means[f"{name}/{when}"] * scale for when in ("before", "after"))
    return f"{name} {before:.3g}{unit} before, {after:.3g}{unit} after adaptation"
