"""Trains, evaluates and compares the runs behind Figures 4 and 5.

    python -m maml_rl.experiments.paper.train_runs                # all of the paper's environments with results
    python -m maml_rl.experiments.paper.train_runs navigation     # some of them
    python -m maml_rl.experiments.paper.train_runs --list         # the commands of all runs, and which are finished

A run is in `runs/figures/PRESET-seedN`, unless one with the same settings and seed comes with the repository in
`trained/`. Ctrl-C saves; the same command then resumes where it stopped. Each task ends with two comparisons in
`results/TASK`: on held-out tasks, and on the paper's own 40, next to its returns. They include the other methods whose
runs are in `trained/` or `results/rl2` (extra rl2).
"""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from maml_rl.config import RLConfig
from maml_rl.experiments.media.plots import draw_comparison
from maml_rl.experiments.paper import figure4
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.experiments.runs.comparison import compare
from maml_rl.experiments.runs.comparison_files import comparison_heading, comparison_table, write_comparison
from maml_rl.experiments.runs.evaluations import TaskSet
from maml_rl.experiments.runs.provenance import training_command
from maml_rl.experiments.runs.recurrent_ppo import check_installed
from maml_rl.experiments.runs.rl2_files import POLICY, is_rl2
from maml_rl.experiments.runs.training import resume, train
from maml_rl.run import CHECKPOINT, load_run

SEEDS = {
    "navigation": {"": 5, "-pretrained": 5, "-oracle": 5, "-random": 5},
    "half-cheetah-dir": {"": 3, "-pretrained": 1, "-oracle": 1, "-random": 1},
    "half-cheetah-vel": {"": 1, "-pretrained": 1, "-oracle": 1, "-random": 1},
    "ant-vel": {"": 1, "-pretrained": 1, "-oracle": 1, "-random": 1},
}
RUNS, TRAINED, RESULTS = Path("runs/figures"), Path("trained"), Path("results")


def configurations(task: str) -> dict[str, RLConfig]:
    """Settings of a task's runs by name."""
    presets = {f"{task}{suffix}": seeds for suffix, seeds in SEEDS[task].items()}
    return {
        f"{preset}-seed{seed}": replace(RL_PRESETS[preset].config, seed=seed)
        for preset, seeds in presets.items()
        for seed in range(seeds)
    }


def directory(name: str, config: RLConfig) -> Path:
    """Where a run is, or will be."""
    for checkpoint in sorted(TRAINED.glob(f"*/{CHECKPOINT}")):
        if load_run(checkpoint).config == config:
            return checkpoint.parent
    return RUNS / name


def is_finished(run: Path) -> bool:
    """Whether a run has done all its iterations."""
    if not (run / CHECKPOINT).exists():
        return False
    loaded = load_run(run)
    return loaded.state.iteration >= loaded.config.iterations


def further_runs(task: str, runs: Collection[Path]) -> list[Path]:
    """What else comes with the repository for a task: runs of other methods, and policies of RL^2."""
    trained = [checkpoint.parent for checkpoint in sorted(TRAINED.glob(f"{task}-*/{CHECKPOINT}"))]
    recurrent = [policy.parent for policy in sorted((RESULTS / "rl2").glob(f"{task}*/{POLICY}"))]
    return [*(run for run in trained if run not in runs), *recurrent]


def make_results(task: str) -> None:
    """Trains the missing runs of a task, and compares all of them, with what other methods have trained.

    Raises:
        InputError: If a policy of RL^2 is among them, and the extra rl2 is not installed.
    """
    runs = {name: directory(name, config) for name, config in configurations(task).items()}
    if any(is_rl2(path) for path in further_runs(task, runs.values())):
        check_installed()
    for name, config in configurations(task).items():
        if is_finished(runs[name]):
            continue
        print(f"\n{runs[name]}: {training_command(config)}", flush=True)
        if (runs[name] / CHECKPOINT).exists():
            resume(runs[name])
        else:
            train(config, runs[name])
    paths, maml = list(runs.values()), SEEDS[task][""]
    compared = [*paths[:maml], *further_runs(task, paths), *paths[maml:]]
    for task_set in get_args(TaskSet):
        comparison = compare(compared, task_set=task_set)
        write_comparison(comparison, RESULTS / task, draw_comparison)
        print(f"\n{comparison_heading(comparison)}\n{comparison_table(comparison)}")
    if task == "navigation":
        figure4.write_paths(runs["navigation-seed0"], runs["navigation-pretrained-seed0"], RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(SEEDS), metavar="task", help="tasks; all if none is named")
    parser.add_argument("--list", action="store_true", help="print commands, and train nothing")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.tasks) - SEEDS.keys():
        parser.error(f"there is no task {', '.join(sorted(unknown))}: choose from {', '.join(SEEDS)}")
    torch.set_num_threads(1)
    for task in chosen.tasks:
        if chosen.list:
            for name, config in configurations(task).items():
                run = directory(name, config)
                print(f"{training_command(config)} --out {run}{'  # finished' if is_finished(run) else ''}")
        else:
            make_results(task)


if __name__ == "__main__":
    main()
