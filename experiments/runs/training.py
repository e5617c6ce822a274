"""Meta-training: a run from its start, or from its last checkpoint."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maml_rl.experiments.runs.loop import (
    alone_in,
    check_extension,
    check_new,
    following_loop,
    hand_over,
    new_in,
    received,
    training_loop,
)
from maml_rl.experiments.runs.tracker_options import NO_TRACKER, Tracking
from maml_rl.experiments.runs.trust import allow
from maml_rl.learner import AnyLearner
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.run import Run, check_fits, load_run, new_run, open_learner, run_directory, save_run, with_data

Shown = Mapping[str, Any]
Watch = Callable[[AnyLearner], Callable[[Run], Shown]]
"""Makes what TensorBoard shows of a run after an iteration in addition to its metrics, such as a clip."""


def train(
    config: Any,
    out: Path,
    machine: Machine = THIS_MACHINE,
    watch: Watch | None = None,
    tracking: Tracking = NO_TRACKER,
) -> Run:
    """Meta-trains from the start, or from another run's policy, and saves a run directory.

    Args:
        config: Settings: an `RLConfig` or a `SupervisedConfig`.
        out: Directory of the run, which must not exist or be empty.
        machine: What may be used of the machine. None of it changes the result.
        watch: What TensorBoard shows in addition to the metrics.
        tracking: A tracker that the run goes to as well.

    Raises:
        InputError: If `out` holds something, or environment, data or device cannot be used.
        NonFiniteError: If training diverges; the last checkpoint stays.
        WorkerError: If the environment fails in one of its processes, with the finished iterations saved.
        RankError: If another rank has ended or does not answer, with the finished iterations saved.
        KeyboardInterrupt: After Ctrl-C, with the finished iterations saved.
    """
    check_new(out)
    with open_learner(config, machine) as learner:
        shown = watch(learner) if watch else _nothing
        run = new_run(learner, config)
        with new_in(out):
            save_run(out, run)
            for line in learner.advice:
                print(f"warning: {line}", file=sys.stderr)
            return training_loop(hand_over(run), learner, out, machine.torch_device(), shown, tracking)


def resume(
    out: Path,
    iterations: int | None = None,
    data: str | None = None,
    machine: Machine = THIS_MACHINE,
    watch: Watch | None = None,
    tracking: Tracking = NO_TRACKER,
) -> Run:
    """Resumes a run from its last checkpoint, bit for bit.

    Args:
        out: Directory of the run.
        iterations: New number of iterations; that of the run if None.
        data: Directory of the images; that of the run if None.
        machine: See `train`.
        watch: See `train`.
        tracking: See `train`.

    Raises:
        InputError: If there is no usable checkpoint, or another process trains in the directory. Otherwise as `train`.
    """
    first, out = load_run(out), run_directory(out)
    config = first.config if data is None else with_data(first.config, data, out)
    with open_learner(config, machine, first.constants) as learner, alone_in(out):
        shown = watch(learner) if watch else _nothing
        run = load_run(out)  # again, since another process may have trained it until now
        check_fits(learner, run, resumes=True)
        check_extension(out, run, iterations)
        total = run.config.iterations if iterations is None else iterations
        run = run._replace(config=replace(config, iterations=total))
        return training_loop(hand_over(run), learner, out, machine.torch_device(), shown, tracking)


def follow(machine: Machine = THIS_MACHINE) -> None:
    """Trains together with rank 0, which has the run: this rank computes its share of the tasks, and leaves no files.

    Args:
        machine: See `train`.

    Raises:
        InputError: If environment, data or device cannot be used.
        NonFiniteError: If training diverges.
        RankError: If another rank has ended or does not answer.
        WorkerError: If the environment fails in one of its processes.
    """
    run = received()
    allow(run.config.modules)  # rank 0 has checked that the user trusts them
    with open_learner(run.config, machine, run.constants) as learner:
        following_loop(run, learner)


def _nothing(_: Run) -> Shown:
    return {}
