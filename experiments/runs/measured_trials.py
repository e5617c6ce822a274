"""What RL^2 reaches: its learning curve while it trains, and evaluations by episode, as files and tables."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maml_rl.checkpoint import write_json
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.runs.evaluations import EVALUATION, EvaluatedTasks, file_of
from maml_rl.experiments.runs.ppo_baselines import Point
from maml_rl.experiments.runs.progress import ProgressBar
from maml_rl.experiments.runs.recurrent_ppo import evaluate_rl2, load_rl2, trial_envs
from maml_rl.experiments.runs.rl2_files import CURVE, Training, stored_training
from maml_rl.experiments.runs.rl2_settings import RL2Config, Schedule
from maml_rl.experiments.runs.task_input import task_list, usable_tasks
from maml_rl.experiments.runs.text import text_table
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.statistics import Mean, mean_with_interval
from maml_rl.tasks import Task, evaluation_tasks, task_space
from maml_rl.tasks import strata as strata_of

Returns = NDArray[np.float64] | Sequence[Sequence[float]]


def episode_means(returns: Returns, strata: Sequence[int] | None = None) -> list[Mean]:
    """Mean over tasks of each episode's return, and of their sum over the trial.

    Args:
        returns: `[tasks, n]`.
        strata: Of each task, where they are all that p(T) has (`maml_rl.tasks.strata`).
    """
    of_tasks = np.asarray(returns)
    return [mean_with_interval(values, strata) for values in (*of_tasks.T, of_tasks.sum(1))]


def episode_table(means: Sequence[Mean]) -> str:
    """`episode_means` as a table."""
    names = [*(str(i + 1) for i in range(len(means) - 1)), "trial"]
    rows = [
        [name, f"{mean.value:.3f}", f"[{mean.low:.3f}, {mean.high:.3f}]"]
        for name, mean in zip(names, means, strict=True)
    ]
    return text_table([["episode", "return", "95 % interval"], *rows])


def measure_training(
    points: Iterator[Point],
    config: RL2Config,
    schedule: Schedule,
    out: Path,
    machine: Machine = THIS_MACHINE,
    resumed: bool = False,
) -> list[Mean]:
    """Trains, and writes the learning curve after each evaluation; the `episode_means` of the last one.

    Args:
        points: The training.
        config: Its settings.
        schedule: How long it trains, and how it is evaluated meanwhile.
        out: Directory of the curve.
        machine: Processes of an environment that is not batched.
        resumed: Whether it continues the one that is there.

    Raises:
        InputError: If that one is damaged.
    """
    training = stored_training(out) if resumed else Training(asdict(config), schedule, [])
    curve, before, started = training.curve, training.seconds, time.perf_counter()
    first = curve[-1]["env_steps"] if curve else 0
    strata = _held_out_strata(config, schedule.tasks, machine)
    with ProgressBar("", "env step", schedule.env_steps, first, keep=True, every_update=True) as bar:
        for point in points:
            means = episode_means(point.returns, strata)
            total = means[-1]
            curve.append(
                {
                    "env_steps": point.env_steps,
                    "seconds": before + time.perf_counter() - started,
                    "mean_return": total.value,
                    "standard_error": total.standard_error,
                    "by_episode": point.returns.mean(0).tolist(),
                }
            )
            write_json(out / CURVE, {"config": asdict(config), "schedule": schedule._asdict(), "curve": curve})
            bar.until(point.env_steps, f"return of a trial {total.value:.2f}")
    return means


def _held_out_strata(config: RL2Config, count: int, machine: Machine) -> list[int] | None:
    with closing(trial_envs(config, 1, machine)) as envs:
        space = task_space(envs)
    return strata_of(space, evaluation_tasks(space, count))


def evaluation_record(
    directory: Path, on: int | Path | Literal["paper"], seed: int, greedy: bool, machine: Machine
) -> dict[str, Any]:
    """An evaluation of what was trained in a directory, as it is stored.

    Args:
        directory: The policy.
        on: Number of held-out tasks, a file that lists tasks, or the paper's.
        seed: Of tasks, first states and actions.
        greedy: Whether it takes the likeliest actions.
        machine: Processes of an environment that is not batched.

    Raises:
        InputError: If policy or tasks cannot be used.
    """
    model, config = load_rl2(directory, machine)
    tasks: Sequence[Task]
    task_set: EvaluatedTasks
    with closing(trial_envs(config, 1, machine)) as envs:
        if isinstance(on, Path):
            tasks, task_set = usable_tasks(envs, task_list(on), on, config.env_id), "given"
        elif on == "paper":
            tasks, task_set = paper_tasks(config.env_id), "paper"
        else:
            tasks, task_set = evaluation_tasks(task_space(envs), on, seed), "held-out"
        strata = strata_of(task_space(envs), tasks)
    returns = evaluate_rl2(model, config, tasks, seed, greedy, machine)
    means = [mean._asdict() for mean in episode_means(returns, strata)]
    return {
        "env_id": config.env_id,
        "memory": config.memory,
        "env_steps": model.num_timesteps,
        "task_set": task_set,
        "tasks": len(returns),
        "strata": strata,
        "seed": seed,
        "greedy": greedy,
        "by_episode": means[:-1],
        "trial": means[-1],
        "returns": returns.tolist(),
    }


def store_returns(directory: Path, record: dict[str, Any]) -> Path:
    """Writes an evaluation into a directory: the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file_of(EVALUATION, record["task_set"])
    write_json(path, record)
    return path
