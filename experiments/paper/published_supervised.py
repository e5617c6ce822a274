"""The errors and accuracies that Finn, Abbeel, Levine 2017 published."""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from maml_rl.experiments.runs.supervised_run import SupervisedConfig
from maml_rl.supervised.networks import PAPER_UNITS


class PaperValue(NamedTuple):
    """Mean squared error, or accuracy as a fraction, over 600 held-out tasks."""

    value: float
    half_interval: float | None  # 95 %, over tasks; not published for the sinusoid


def method(config: SupervisedConfig) -> str:
    """The name of what a run's settings make of it, the paper's or its variant's; random where it was not trained."""
    if config.iterations == 0:
        return "random"
    if config.method.algorithm == "reptile":
        return "reptile"
    own = config.method
    if own.inner_steps == 0:
        return "oracle" if config.tasks.observe_task else "pretrained"
    if own.adapted == "last-layer":
        return "anil"
    if own.learned_lr == "parameter":
        return "meta-sgd"
    if own.learned_lr == "layer-and-step" or own.multi_step_iterations:
        return "maml++"
    return "first-order" if own.first_order or own.first_order_iterations >= config.iterations else "maml"


def paper_values(config: SupervisedConfig, shots: int) -> dict[int, PaperValue]:
    """The paper's value by gradient step, of a run's tasks and method with K = `shots`; empty for what it lacks."""
    tasks = config.tasks
    family: str = tasks.family
    if family == "omniglot" and config.model.architecture == "fully-connected":
        if config.model.units != PAPER_UNITS[config.model.architecture]:
            return {}
        family += "-fully-connected"
    ways = tasks.ways if tasks.is_classification else None
    wanted = (family, ways, shots, method(config))
    return {step: value for (*key, step), value in _rows().items() if tuple(key) == wanted}


@cache
def _rows() -> dict[tuple[str, int | None, int, str, int], PaperValue]:
    with (files("maml_rl.experiments.paper") / "paper_values.csv").open() as file:
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
