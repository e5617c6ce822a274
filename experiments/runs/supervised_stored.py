"""A supervised run's stored evaluation, which its report and its figure are made from without computing it again."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maml_rl.experiments.runs.evaluations import duration
from maml_rl.experiments.runs.run import EVALUATION, overridden
from maml_rl.experiments.runs.supervised_evaluations import (
    Evaluation,
    Evaluations,
    Overrides,
    neighbours,
    read_evaluation,
)
from maml_rl.experiments.runs.supervised_run import EvaluationConfig, Progress, SupervisedConfig, load_config, load_run
from maml_rl.supervised.adaptation import Adaptation
from maml_rl.supervised.sources import task_source


def stored_record(directory: Path) -> dict[str, Any] | None:
    """The record of a run's evaluation, if there is one, whatever its checkpoint and settings.

    Raises:
        InputError: If the file is damaged.
    """
    path = directory / EVALUATION
    return read_evaluation(path) if path.exists() else None


def settings_of(record: dict[str, Any]) -> Overrides:
    """The settings that an evaluation was made with."""
    shots = dict.fromkeys([record["shots"], *(evaluation["shots"] for evaluation in record["further"])])
    return Overrides(record["num_tasks"], record["gradient_steps"][-1], tuple(shots), record["seed"])


def has_own_settings(settings: Overrides, config: SupervisedConfig) -> bool:
    """Whether settings, where they are given, are a run's own."""
    own = config.evaluation
    usual = Overrides(own.tasks, own.gradient_steps, own.shots or (config.tasks.shots,), own.seed)
    if config.tasks.family == "function":  # which decides its shots
        settings = settings._replace(shots=None)
    return all(value in (None, normal) for value, normal in zip(settings, usual, strict=True))


def is_of_checkpoint(record: dict[str, Any], config: SupervisedConfig, progress: Progress) -> bool:
    """Whether an evaluation is of a run as it is now."""
    now = (config.tasks.family, config.seed, progress.iteration)
    return tuple(record.get(name) for name in ("family", "training_seed", "iteration")) == now


def is_current(directory: Path, config: SupervisedConfig, progress: Progress) -> bool:
    """Whether a run has an evaluation of its last checkpoint with its own settings."""
    record = stored_record(directory)
    return record is not None and is_of_checkpoint(record, config, progress) and _own(record, config)


def _own(record: dict[str, Any], config: SupervisedConfig) -> bool:
    return has_own_settings(settings_of(record), config)


def why_not(record: dict[str, Any], directory: Path, gradient_steps: int | None = None) -> str:
    """Why a stored evaluation cannot be shown up to so many gradient steps; nothing if it can."""
    if not is_of_checkpoint(record, *load_config(directory)):
        return "its evaluation is of another checkpoint"
    if record.get("neighbours") != {name: load_config(run)[1].iteration for name, run in neighbours(directory).items()}:
        return "its evaluation is of other checkpoints of its neighbours"
    if (gradient_steps or 0) > record["gradient_steps"][-1]:
        return f"its evaluation has {record['gradient_steps'][-1]} gradient steps"
    return "" if "task_losses" in record else "its evaluation has no values of single tasks"


def restored(
    record: dict[str, Any], directory: Path, gradient_steps: int | None = None, data: str | None = None
) -> Evaluations:
    """Evaluations as they were stored, up to so many gradient steps, the run being on the CPU.

    Raises:
        InputError: If the run or its data cannot be used.
    """
    config, _ = load_config(directory)
    steps = record["gradient_steps"][-1] if gradient_steps is None else gradient_steps
    source = task_source(config.tasks, data or config.data)
    given = settings_of(record)._replace(shots=None, gradient_steps=steps)
    settings = overridden(config.evaluation, **given._asdict())
    evaluations = [_evaluation(one, config, steps) for one in (record, *record["further"])]
    beside = {name: [_evaluation(one, config, steps) for one in others] for name, others in record["beside"].items()}
    return Evaluations(load_run(directory, source), source, settings, evaluations, beside, record["neighbours"])


def _evaluation(record: dict[str, Any], config: SupervisedConfig, steps: int) -> Evaluation:
    losses = _values(record["task_losses"], steps)
    accuracies = _values(record["task_accuracies"], steps) if config.tasks.is_classification else np.zeros_like(losses)
    adaptation = Adaptation(losses, accuracies)
    mode = record.get("batch_norm")
    return Evaluation(record["shots"], mode, adaptation, config.tasks.is_classification, record["inner_lr"])


def _values(values: list[list[float | None]], steps: int) -> NDArray[np.float64]:
    array: NDArray[np.float64] = np.array(values[: steps + 1], np.float64)  # what was not finite is null, and then nan
    return array


def announcement(
    directory: Path, config: SupervisedConfig, progress: Progress, settings: EvaluationConfig, why: str
) -> str:
    """What an evaluation that nobody has asked for will do, why, and about how long it takes."""
    shots = settings.shots or (config.tasks.shots,)
    runs = 1 + len(neighbours(directory))
    steps = runs * len(shots) * settings.tasks * (settings.gradient_steps + 1)
    trained_on = progress.iteration * config.method.meta_batch_size * (config.method.inner_steps + 1)
    said = f"evaluating {directory}, since {why}: {settings.tasks} tasks x {settings.gradient_steps} gradient steps"
    said += f" for {', '.join(map(str, shots))} shots"
    if runs > 1:
        said += f", of the run and of {', '.join(neighbours(directory))}"
    if not trained_on:
        return said
    return f"{said}; about {duration(steps * progress.seconds / trained_on)} at the speed of its training"
