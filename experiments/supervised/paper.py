"""The errors and accuracies that Finn, Abbeel, Levine 2017 published."""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from experiments.supervised.run import SupervisedConfig


class PaperValue(NamedTuple):
    """Mean squared error, or accuracy as a fraction, over 600 held-out tasks."""

    value: float
    half_interval: float | None  # 95 %, over tasks; not published for the sinusoid


def method(config: SupervisedConfig) -> str:
    """The paper's name of what a run's settings make of it; random where it was not trained."""
    if config.iterations == 0:
        return "random"
    if config.method.algorithm == "reptile":
        return "reptile"
    if config.method.inner_steps == 0:
        return "oracle" if config.tasks.observe_task else "pretrained"
    return "first-order" if config.method.first_order else "maml"


def paper_values(config: SupervisedConfig, shots: int) -> dict[int, PaperValue]:
    """The paper's value by gradient step, of a run's tasks and method with K = `shots`; empty for what it lacks."""
    tasks = config.tasks
    family: str = tasks.family
    if family == "omniglot" and config.model.architecture == "fully-connected":
        family += "-fully-connected"
    ways = tasks.ways if tasks.is_classification else None
    wanted = (family, ways, shots, method(config))
    return {step: value for (*key, step), value in _rows().items() if tuple(key) == wanted}


@cache
def _rows() -> dict[tuple[str, int | None, int, str, int], PaperValue]:
    with (files("experiments.supervised") / "paper_values.csv").open() as file:
        return {
            (
                row["family"],
                int(row["ways"]) if row["ways"] else None,
                int(row["shots"]),
                row["method"],
                int(row["gradient_steps"]),
            ): PaperValue(float(row["value"]), float(row["half_interval"]) if row["half_interval"] else None)
            for row in csv.DictReader(file)
        }
