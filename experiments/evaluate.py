"""Evaluation of a run on held-out tasks, as numbers: Figures 4 and 5 of Finn, Abbeel, Levine 2017 for this policy."""

import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.run import Run, load_config, load_run
from maml_rl.evaluation import EvaluationConfig, adaptation, task_returns
from maml_rl.initial import build_policy, parameters
from maml_rl.parallel import threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.statistics import Mean, mean_with_interval
from maml_rl.tasks import Task, evaluation_tasks, task_space, vectorize

_NUM_ENVS = 800  # sub-environments stepped at once; it does not change what is sampled


class Evaluation(NamedTuple):
    """What a policy does on held-out tasks after each number of gradient steps."""

    tasks: list[Task]
    returns: NDArray[np.float64]  # [gradient steps + 1, M]   mean over each task's episodes
    episodes: list[
        list[NDArray[np.float32]]
    ]  # observations [length, obs] of each task's first episode, by gradient step

    def means(self, seed: int) -> list[Mean]:
        """Mean return over tasks with its uncertainty, by gradient step."""
        generator = Draw(seed, Phase.EVALUATION).generator(Purpose.INTERVALS)
        return [mean_with_interval(returns, generator) for returns in self.returns]


class Evaluations(NamedTuple):
    """A run's evaluation beside that of its own policy before training."""

    run: Run
    config: EvaluationConfig
    trained: Evaluation
    random: Evaluation

    def record(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        steps = list(range(self.config.gradient_steps + 1))
        trained, random = (e.means(self.config.seed) for e in (self.trained, self.random))
        return {
            "env_id": self.run.config.env_id,
            "gradient_steps": steps,
            "mean_return": [mean.value for mean in trained],
            "standard_error": [mean.standard_error for mean in trained],
            "interval_95": [[mean.low, mean.high] for mean in trained],
            "random_mean_return": [mean.value for mean in random],
            "random_interval_95": [[mean.low, mean.high] for mean in random],
            "num_tasks": self.config.tasks,
            "episodes": self.config.episodes,
            "inner_lr": [self.config.inner_lr(self.run.config.meta.inner_lr, step) for step in steps[:-1]],
            "seed": self.config.seed,
            "training_seed": self.run.config.seed,
            "iteration": self.run.progress.iteration,
            "env_steps": self.run.progress.env_steps,
            "tasks": [_plain(task) for task in self.trained.tasks],
            "task_returns": self.trained.returns.tolist(),
        }


def _plain(task: Task) -> Any:
    """A task as JSON values."""
    return (
        {name: _plain(value) for name, value in task.items()} if isinstance(task, dict) else np.asarray(task).tolist()
    )


class Overrides(NamedTuple):
    """Settings of the evaluation given by the user; None leaves the run's own."""

    tasks: int | None = None
    gradient_steps: int | None = None
    episodes: int | None = None
    later_lr_factor: float | None = None
    seed: int | None = None


DEFAULTS = Overrides()


def evaluate(
    directory: Path,
    overrides: Overrides = DEFAULTS,
    device: str = "cpu",
    threads: int | None = None,
    processes: Processes = ALL_CORES,
) -> Evaluations:
    """Evaluates a run, and its random initialisation, on the same held-out tasks.

    Args:
        directory: The run.
        overrides: Settings that differ from those of the run.
        device: Where policy and updates are computed.
        threads: Threads that share the tasks; all cores if None. They do not change the result.
        processes: Processes of an environment that is not batched. They do not change the result.

    Raises:
        InputError: If the run, the environment, the device or a setting cannot be used.
        WorkerError: If the environment fails in one of its processes.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    run_config, _, _ = load_config(directory)
    config = replace(run_config.evaluation, **{k: v for k, v in overrides._asdict().items() if v is not None})
    with closing(vectorize(run_config.env_id, min(_NUM_ENVS, config.tasks * config.episodes), processes)) as envs:
        run = load_run(directory, envs)
        tasks = evaluation_tasks(task_space(envs), config.tasks, config.seed)
        policy = run.policy.to(torch_device)
        initial = parameters(build_policy(envs, run_config.policy, run_config.seed))
        bar = tqdm(total=2 * (config.gradient_steps + 1), unit="step", desc="evaluating", disable=None, leave=False)
        evaluations = []
        for theta in (run.theta, initial):
            params = {name: value.to(torch_device) for name, value in theta.items()}
            returns, episodes = [], []
            for sampled in adaptation(policy, params, envs, tasks, run_config.meta, config, task_threads):
                returns.append(task_returns(sampled))
                lengths = sampled.mask[:, 0].sum(-1).long()
                episodes.append([o[:n].cpu().numpy() for o, n in zip(sampled.observations[:, 0], lengths, strict=True)])
                bar.update()
            evaluations.append(Evaluation(tasks, np.stack(returns), episodes))
        bar.close()
    return Evaluations(run, config, *evaluations)


def paper_returns(env_id: str, method: str = "maml") -> dict[int, float]:
    """The paper's mean return by gradient step, for the environments it has; empty for others."""
    tasks = {
        "finn2017/Navigation2D-v0": "navigation",
        "finn2017/HalfCheetahDir-v0": "half-cheetah-dir",
        "finn2017/HalfCheetahVel-v0": "half-cheetah-vel",
    }
    task = tasks.get(env_id.rpartition(":")[2])
    with (files("experiments") / "paper_returns.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task and row["method"] == method]
    return {int(row["gradient_steps"]): float(row["mean_return"]) for row in rows}


def table(evaluations: Evaluations) -> str:
    """Mean return by gradient step with its 95 % interval, beside the random initialisation's and the paper's."""
    trained, random = (e.means(evaluations.config.seed) for e in (evaluations.trained, evaluations.random))
    paper, paper_random = (paper_returns(evaluations.run.config.env_id, method) for method in ("maml", "random"))
    rows = [["gradient steps", "this run", "95 % interval", "random policy", "paper", "paper, random"]]
    for step, (ours, theirs) in enumerate(zip(trained, random, strict=True)):
        rows.append(
            [
                str(step),
                f"{ours.value:.1f}",
                f"[{ours.low:.1f}, {ours.high:.1f}]",
                f"{theirs.value:.1f}",
                *(f"{row[step]:.1f}" if step in row else "-" for row in (paper, paper_random)),
            ]
        )
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
