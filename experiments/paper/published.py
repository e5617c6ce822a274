"""The returns that Finn, Abbeel, Levine 2017 published, and the 40 tasks that they were measured on.

Tasks and methods have the names of the paper's code, `cbfinn/maml_rl`.
"""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from maml_rl.errors import InputError
from maml_rl.tasks import Task

_TASKS = {
    "finn2017/Navigation2D-v0": "navigation",
    "finn2017/HalfCheetahDir-v0": "half-cheetah-dir",
    "finn2017/HalfCheetahVel-v0": "half-cheetah-vel",
    "finn2017/AntDir-v0": "ant-dir",
    "finn2017/AntVel-v0": "ant-vel",
}


class PaperReturn(NamedTuple):
    """A mean over the paper's 40 tasks (`paper_tasks`)."""

    mean: float
    standard_error: float  # over tasks; of one training run


def paper_task(env_id: str) -> str | None:
    """The paper's task that an environment is; None if it is none of them."""
    return _TASKS.get(env_id.rpartition(":")[2])


def paper_returns(env_id: str, method: str = "maml") -> dict[int, PaperReturn]:
    """The paper's return by gradient step, for the environments and methods it has; empty for others."""
    task = paper_task(env_id)
    return {
        step: value
        for (row_task, row_method, step), value in _rows().items()
        if (row_task, row_method) == (task, method)
    }


def paper_tasks(env_id: str) -> list[Task]:
    """The 40 tasks on which the paper's policies were tested, in the paper's order, as the environment takes them.

    The published test scripts (`maml_examples/test_maml_*.py`) seed NumPy's global generator and draw all goals by one
    call of `uniform`. The published returns of each task correlate with exactly these goals. A direction is a goal too
    there, and forward above a threshold. In ant direction it is the range and the threshold (0.4) of the code that made
    the published returns, with 20 tasks of each direction; a later version of its script and environment has others.

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


@cache
def _rows() -> dict[tuple[str, str, int], PaperReturn]:
    with (files("maml_rl.experiments.paper") / "paper_returns.csv").open() as file:
        return {
            (row["task"], row["method"], int(row["gradient_steps"])): PaperReturn(
                float(row["mean_return"]), float(row["standard_error"])
            )
            for row in csv.DictReader(file)
        }
