"""What Finn, Abbeel, Levine 2017 published: returns, errors and accuracies, and the 40 tasks of the returns.

`published.csv` holds them. Tasks and methods of reinforcement learning have the names of the paper's code,
`cbfinn/maml_rl`.
"""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from maml_rl.config import RLConfig, RunConfig
from maml_rl.errors import InputError
from maml_rl.supervised.settings import PAPER_UNITS, SupervisedConfig
from maml_rl.tasks import Task

_TASKS = {
    "finn2017/Navigation2D-v0": "navigation",
    "finn2017/HalfCheetahDir-v0": "half-cheetah-dir",
    "finn2017/HalfCheetahVel-v0": "half-cheetah-vel",
    "finn2017/AntDir-v0": "ant-dir",
    "finn2017/AntVel-v0": "ant-vel",
}


class PublishedValue(NamedTuple):
    """A mean over the paper's 40 tasks (`paper_tasks`), or over 600 held-out ones of supervised learning."""

    value: float  # return, squared error, or accuracy as a fraction
    error: float | None  # over tasks, of one run: standard error of a return, half the 95 % interval of an accuracy


def published(config: RunConfig, condition: str = "", method: str | None = None) -> dict[int, PublishedValue]:
    """The paper's values by gradient step; empty where it has none.

    Args:
        config: A run on the task distribution of the values.
        condition: As `maml_rl.learner.Curve` names it.
        method: The paper's name of a method; the run's own if None.
    """
    wanted = (_task(config), method or config.method, condition)
    return {step: value for (*key, step), value in _rows().items() if tuple(key) == wanted}


def paper_task(env_id: str) -> str | None:
    """Name of the paper's task for an environment; None if the paper does not have it."""
    return _TASKS.get(env_id.rpartition(":")[2])


def paper_tasks(env_id: str) -> list[Task]:
    """The 40 tasks on which the paper's policies were tested, in the paper's order, as the environment takes them.

    The published test scripts (`maml_examples/test_maml_*.py`) seed NumPy's global generator and draw all goals in one
    call of `uniform`. The published returns of each task correlate with exactly these goals. There, a direction is a
    goal too, and is forward above a threshold. Ant direction has the range and the threshold (0.4) of the code that
    made the published returns, with 20 tasks of each direction; a later version of its script and environment has
    others.

    Raises:
        InputError: If the environment is none of the paper's.
    """
    task, generator = paper_task(env_id), np.random.RandomState(1)
    if task == "navigation":
        return list(generator.uniform(-0.5, 0.5, (40, 2)).astype(np.float32))
    if task == "half-cheetah-vel":
        return list(generator.uniform(0.0, 2.0, (40, 1)).astype(np.float32))
    if task == "ant-vel":
        return list(generator.uniform(0.0, 3.0, (40, 1)).astype(np.float32))
    if task == "half-cheetah-dir":
        return list((generator.uniform(0.0, 2.0, 40) >= 1.0).astype(np.int64))
    if task == "ant-dir":
        return list((np.random.RandomState(2).uniform(0.1, 0.8, 40) >= 0.4).astype(np.int64))
    raise InputError(f"the paper has no tasks of {env_id}, only of {', '.join(_TASKS)}: leave out --tasks paper")


def _task(config: RunConfig) -> str | None:
    """Name of a run's task distribution in the table."""
    if isinstance(config, RLConfig):
        return paper_task(config.env_id)
    if isinstance(config, SupervisedConfig) and config.network.architecture == "fully-connected":
        is_paper = config.network.units == PAPER_UNITS["fully-connected"]
        return config.problem.replace(",", " fully-connected,") if is_paper else None
    return config.problem


@cache
def _rows() -> dict[tuple[str, str, str, int], PublishedValue]:
    with (files("maml_rl.experiments.paper") / "published.csv").open() as file:
        return {
            (row["task"], row["method"], row["condition"], int(row["gradient_steps"])): PublishedValue(
                float(row["value"]), float(row["error"]) if row["error"] else None
            )
            for row in csv.DictReader(file)
        }
