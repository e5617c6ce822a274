"""Tunes two step sizes with Optuna: several seeds a trial, pruned by their learning curves, resumable at any time.

    pip install 'maml-rl[tuning]'
    python examples/tuning.py --preset navigation --trials 30 --seeds 3

A trial trains all of its seeds in stages. After each stage, it reports to Optuna what they have reached, and Optuna
ends trials that are below the median of the others. Both the study and the runs are files: the same command continues
after an interruption, and several processes, with the same --out, share one study. docs/tuning.md has more.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from maml_rl.config import RLConfig, TrustRegion
from maml_rl.errors import NonFiniteError
from maml_rl.experiments.media.learning_curves import read_log
from maml_rl.experiments.presets import find_preset
from maml_rl.experiments.runs.provenance import training_command
from maml_rl.experiments.runs.training import resume, train
from maml_rl.machine import Machine
from maml_rl.run import CHECKPOINT, METRICS, load_run

LAST_ROWS = 10  # rows of the log, whose mean is what a run has reached


def suggested(trial: Any, config: RLConfig) -> RLConfig:
    """Settings of a trial. Change this function to tune other settings."""
    inner_lr = trial.suggest_float("inner_lr", 0.01, 1.0, log=True)
    max_kl = trial.suggest_float("max_kl", 0.001, 0.05, log=True)
    return replace(config, meta=replace(config.meta, inner_lr=inner_lr, step=TrustRegion(max_kl=max_kl)))


def reached(run: Path, inner_steps: int, iterations: int) -> float:
    """Mean return after adaptation in the last rows up to an iteration, on the tasks drawn in training."""
    column = f"return/after_{inner_steps}_steps"
    rows = [row for row in read_log(run / METRICS, column) if row["iteration"] <= iterations]
    return float(np.mean([row[column] for row in rows[-LAST_ROWS:]]))


def trained_until(config: RLConfig, run: Path, iterations: int, machine: Machine) -> None:
    """Trains a run up to a number of iterations, from its last checkpoint if it has one."""
    if not (run / CHECKPOINT).exists():
        train(replace(config, iterations=iterations), run, machine)
    elif load_run(run).state.iteration < iterations:  # it may have got further before an interruption
        resume(run, iterations, machine=machine)


def objective(trial: Any, options: argparse.Namespace) -> float:
    """Mean over seeds of what the runs of a trial reach; ends early if the learning curves lag behind."""
    config = suggested(trial, options.config)
    # The same settings have the same directory, so that an interrupted trial is continued.
    digest = hashlib.sha256(json.dumps(asdict(replace(config, seed=0, iterations=0))).encode()).hexdigest()[:12]
    runs = {seed: options.out / digest / f"seed{seed}" for seed in range(options.seeds)}
    trial.set_user_attr("command", training_command(config))
    trial.set_user_attr("runs", str(options.out / digest))
    value = float("nan")
    for stage in range(1, options.stages + 1):
        iterations = round(config.iterations * stage / options.stages)
        try:
            for seed, run in runs.items():
                trained_until(replace(config, seed=seed), run, iterations, options.machine)
        except NonFiniteError as error:
            raise optuna.TrialPruned(f"a seed diverged: {error}") from error
        value = float(np.mean([reached(run, config.meta.inner_steps, iterations) for run in runs.values()]))
        trial.report(value, iterations)
        if stage < options.stages and trial.should_prune():
            raise optuna.TrialPruned
    return value


def requeue(study: Any, also_running: bool) -> None:
    """Puts trials that were interrupted at the front of the queue, unless that was done before."""
    states = [optuna.trial.TrialState.FAIL, *([optuna.trial.TrialState.RUNNING] if also_running else [])]
    for trial in study.get_trials(states=states):
        later = [other for other in study.trials if other.number > trial.number]
        queued = [other.system_attrs.get("fixed_params") or other.params for other in later]
        if trial.params and trial.params not in queued:
            study.enqueue_trial(trial.params)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset", default="navigation", help="preset of reinforcement learning whose settings are tuned"
    )
    parser.add_argument("--iterations", type=int, help="meta-iterations of a run (default: the preset's)")
    parser.add_argument("--trials", type=int, default=30, help="trials that this process adds")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each trial")
    parser.add_argument(
        "--stages", type=int, default=4, help="stages of a training, after each of which the trial may be pruned"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"), help="directory of the study and its runs")
    parser.add_argument("--threads", type=int, help="threads of this process (default: all cores)")
    parser.add_argument("--requeue", action="store_true", help="also continue trials of processes that were killed")
    options = parser.parse_args(arguments)
    config = find_preset(options.preset).config
    if not isinstance(config, RLConfig):
        parser.error(f"{options.preset} is a preset of supervised learning")
    options.config = replace(config, iterations=options.iterations or config.iterations)
    options.machine = Machine(threads=options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(options.out / "study.journal")))
    study = optuna.create_study(
        study_name=options.preset,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    requeue(study, options.requeue)
    study.optimize(lambda trial: objective(trial, options), n_trials=options.trials)
    print(f"best of {len(study.trials)} trials: {study.best_value:.2f} with {study.best_params}")
    print(f"its runs: {study.best_trial.user_attrs['runs']}")
    print(f"next: {study.best_trial.user_attrs['command']} --seeds 10-14")


if __name__ == "__main__":
    main()
