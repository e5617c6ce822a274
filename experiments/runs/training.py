"""Meta-training for reinforcement learning: a run from its start, or from its last checkpoint."""

import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from maml_rl.experiments.media.clips import Clips
from maml_rl.experiments.runs.loop import Step, alone_in, check_extension, check_new, new_in, training_loop
from maml_rl.experiments.runs.run import (
    Progress,
    Run,
    RunConfig,
    load_config,
    load_run,
    make_envs,
    new_run,
    save_run,
    warn_of_few_episodes,
)
from maml_rl.experiments.runs.run_log import Clip
from maml_rl.meta_rl import meta_iteration
from maml_rl.parallel import TaskThreads, threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.requirements import picture_advice
from maml_rl.tasks import TaskVectorEnv


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
    check_new(out)
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    with closing(make_envs(config, _num_envs(config), processes)) as envs:
        advice = picture_advice(envs.single_observation_space)
        if advice:
            print(f"warning: {advice}", file=sys.stderr)
        clips = Clips(envs, render_every, task_threads, processes)
        run = new_run(config, envs)
        with new_in(out):
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
    """Resumes a run from its last checkpoint, bit for bit.

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
    with closing(make_envs(config, _num_envs(config), processes)) as envs, alone_in(out):
        clips = Clips(envs, render_every, task_threads, processes)
        run = load_run(out, envs)
        check_extension(out, run, iterations)
        if iterations is not None:
            run = run._replace(config=replace(run.config, iterations=iterations))
        return _train(run, envs, out, torch_device, task_threads, clips)


def _num_envs(config: RunConfig) -> int:
    return config.num_envs or config.meta.meta_batch_size * config.meta.episodes


def _train(run: Run, envs: TaskVectorEnv, out: Path, device: torch.device, threads: TaskThreads, clips: Clips) -> Run:
    policy = run.policy.to(device)
    warn_of_few_episodes(envs, run.config.meta.episodes)

    def iterate(run: Run) -> Step[Run]:
        started = time.monotonic()
        config, before = run.config, run.progress
        theta, metrics, by_task = meta_iteration(
            policy, run.theta, envs, config.meta, config.seed, before.iteration, threads
        )
        seconds = time.monotonic() - started
        env_steps = int(metrics["sampling/env_steps"])
        progress = Progress(before.iteration + 1, before.env_steps + env_steps, before.seconds + seconds)
        summary = _summary(config, metrics, env_steps / seconds)
        run = run._replace(theta=theta, progress=progress)
        return Step(run, _row(progress, metrics, seconds), summary, _shown(by_task, clips.after(run)))

    run = run._replace(theta={name: value.to(device) for name, value in run.theta.items()})
    return training_loop(run, iterate, lambda run: save_run(out, run), out, device)


def _summary(config: RunConfig, metrics: dict[str, float], env_steps_per_second: float) -> str:
    returns = f"return {metrics['return/after_0_steps']:.1f}"
    if config.meta.inner_steps:
        returns += f" before, {metrics[f'return/after_{config.meta.inner_steps}_steps']:.1f} after adaptation"
    return f"{returns}, {env_steps_per_second:,.0f} env steps/s"


def _row(progress: Progress, metrics: dict[str, float], seconds: float) -> dict[str, float]:
    totals = {"iteration": progress.iteration, "sampling/env_steps": progress.env_steps}
    times = {"time/env_steps_per_second": metrics["sampling/env_steps"] / seconds, "time/seconds": progress.seconds}
    return {**metrics, **totals, **times}


def _shown(by_task: dict[str, Tensor], clip: Clip | None) -> dict[str, Tensor | Clip]:
    """Histograms over tasks, and a clip if there is one."""
    histograms: dict[str, Tensor | Clip] = {f"tasks/{name}": values for name, values in by_task.items()}
    return histograms | ({"adaptation": clip} if clip else {})
