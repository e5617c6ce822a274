"""The returns that Finn, Abbeel, Levine 2017 published, with their code's names of tasks and methods."""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_TASKS = {
    "finn2017/Navigation2D-v0": "navigation",
    "finn2017/HalfCheetahDir-v0": "half-cheetah-dir",
    "finn2017/HalfCheetahVel-v0": "half-cheetah-vel",
    "finn2017/AntDir-v0": "ant-dir",
    "finn2017/AntVel-v0": "ant-vel",
}


class PaperReturn(NamedTuple):
    """A mean over 40 held-out tasks."""

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


@cache
def _rows() -> dict[tuple[str, str, int], PaperReturn]:
    with (files("experiments") / "paper_returns.csv").open() as file:
        return {
            (row["task"], row["method"], int(row["gradient_steps"])): PaperReturn(
                float(row["mean_return"]), float(row["standard_error"])
            )
            for row in csv.DictReader(file)
        }
