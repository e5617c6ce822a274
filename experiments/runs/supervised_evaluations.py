"""Evaluation of a run on held-out tasks, as numbers: Figure 3 and Tables 1 and 2 of Finn, Abbeel, Levine 2017."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from maml_rl.errors import InputError
from maml_rl.experiments.paper.published_supervised import method, paper_values
from maml_rl.experiments.runs.evaluations import aligned
from maml_rl.experiments.runs.records import read_record
from maml_rl.experiments.runs.run import CHECKPOINT, overridden, run_directory
from maml_rl.experiments.runs.supervised_run import EvaluationConfig, Run, load_config, load_run
from maml_rl.parallel import TaskThreads, threads_for, usable_device
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import Adaptation, adaptation
from maml_rl.supervised.config import BatchNorm, MethodConfig
from maml_rl.supervised.sources import task_source, with_shots
from maml_rl.supervised.tasks import TaskBatch, TaskSource

_MODES: tuple[BatchNorm, ...] = ("transductive", "support")
_BESIDE = ("pretrained", "oracle")
_REGRESSION = {"mean_squared_error", "median_squared_error", "diverged_share"}


class Evaluation(NamedTuple):
    """What an initialisation does on held-out tasks with some number of shots."""

    shots: int
    batch_norm: BatchNorm | None  # statistics for the query examples; None of a network that has no use for them
    adaptation: Adaptation
    is_classification: bool
    inner_lr: float  # step size

    @property
    def values(self) -> NDArray[np.float64]:
        """Accuracy as a fraction, or squared error, by gradient step and task, `[gradient steps + 1, M]`."""
        return self.adaptation.accuracies if self.is_classification else self.adaptation.losses

    def diverged(self) -> NDArray[np.float64]:
        """Share of tasks whose error is not finite, or above any task's before adaptation, by gradient step."""
        errors = self.adaptation.losses
        share: NDArray[np.float64] = 1.0 - (errors <= errors[0].max()).mean(1)
        return share

    def half_interval(self) -> NDArray[np.float64]:
        """1.96 standard deviations over tasks by the root of their number, as the paper has it, by gradient step."""
        with np.errstate(invalid="ignore"):  # of a task that diverged
            half: NDArray[np.float64] = 1.96 * self.values.std(1, ddof=1) / self.values.shape[1] ** 0.5
        return half

    def median(self) -> NDArray[np.float64]:
        """Median over tasks by gradient step; what is not a number counts as the largest."""
        middle: NDArray[np.float64] = np.median(np.where(np.isnan(self.values), np.inf, self.values), axis=1)
        return middle

    def record(self) -> dict[str, Any]:
        """The evaluation as JSON values, with each task's to six digits; what is not finite is null."""
        mean, half = (_plain(values) for values in (self.values.mean(1), self.half_interval()))
        own: dict[str, Any]
        if self.is_classification:
            losses = _plain(self.adaptation.losses.mean(1))
            own = {"mean_accuracy": mean, "half_interval": half, "mean_loss": losses, "batch_norm": self.batch_norm}
            own["task_accuracies"] = _rounded(self.adaptation.accuracies)
        else:
            own = {
                "mean_squared_error": mean,
                "half_interval": half,
                "median_squared_error": _plain(self.median()),
                "diverged_share": _plain(self.diverged()),
            }
        own["task_losses"] = _rounded(self.adaptation.losses)
        return {"shots": self.shots, "inner_lr": self.inner_lr, **own}


class ShotsRecord(TypedDict):
    """An evaluation as JSON values; a mean that is not finite is null. Of classification, or else of regression."""

    shots: int
    inner_lr: float
    half_interval: list[float | None]
    mean_accuracy: NotRequired[list[float]]
    mean_loss: NotRequired[list[float | None]]
    batch_norm: NotRequired[BatchNorm | None]
    mean_squared_error: NotRequired[list[float | None]]
    median_squared_error: NotRequired[list[float | None]]
    diverged_share: NotRequired[list[float]]
    task_losses: NotRequired[list[list[float | None]]]  # by gradient step and task
    task_accuracies: NotRequired[list[list[float | None]]]


class EvaluationRecord(ShotsRecord):
    """All evaluations of a run as JSON values: `evaluation.json`."""

    family: str
    ways: int | None
    method: str
    gradient_steps: list[int]
    num_tasks: int
    seed: int
    training_seed: int
    iteration: int
    seconds: float
    further: list[ShotsRecord]
    beside: dict[str, list[ShotsRecord]]
    neighbours: NotRequired[dict[str, int]]  # iterations of the runs of `beside`


def read_evaluation(path: Path) -> dict[str, Any]:
    """The record of a run's evaluations (`EvaluationRecord`).

    Raises:
        InputError: If the file is damaged.
    """
    remedy = "remove it, to evaluate the run again"
    record: dict[str, Any] = read_record(path, EvaluationRecord, remedy)
    steps = len(record["gradient_steps"])
    classified = "mean_accuracy" in record
    names = {"mean_accuracy", "batch_norm"} if classified else _REGRESSION
    for evaluation in (record, *record["further"], *chain.from_iterable(record["beside"].values())):
        by_step = [evaluation.get(name, []) for name in (*names, "half_interval") if name != "batch_norm"]
        by_task = [evaluation[name] for name in ("task_losses", "task_accuracies") if name in evaluation]
        passed = (
            steps >= 1
            and names <= evaluation.keys()
            and {len(values) for values in (*by_step, *by_task)} == {steps}
            and all(len(values) == record["num_tasks"] for values in chain.from_iterable(by_task))
            and (not classified or len(by_task) in (0, 2))
        )
        if not passed:
            expected = ", ".join(sorted(names))
            raise InputError(f"{path} is damaged (it should have {expected} by gradient step): {remedy}")
    return record


class Evaluations(NamedTuple):
    """A run's evaluations, the first of them with its own settings."""

    run: Run
    source: TaskSource
    config: EvaluationConfig
    evaluations: list[Evaluation]
    beside: dict[str, list[Evaluation]]  # of its neighbours, on the same tasks
    neighbours: dict[str, int]  # meta-iterations of each

    def inner_lr(self, shots: int) -> float:
        """Step size with some number of shots; of one that was not evaluated, that of the first evaluation."""
        return {e.shots: e.inner_lr for e in self.evaluations}.get(shots, self.evaluations[0].inner_lr)

    def record(self) -> dict[str, Any]:
        """The evaluations as JSON values: the first, and the others in `further`."""
        first, *further = (evaluation.record() for evaluation in self.evaluations)
        config = self.run.config
        return {
            "family": config.tasks.family,
            "ways": config.tasks.ways if config.tasks.is_classification else None,
            "method": method(config),
            "gradient_steps": list(range(self.config.gradient_steps + 1)),
            **first,
            "num_tasks": self.config.tasks,
            "seed": self.config.seed,
            "training_seed": config.seed,
            "iteration": self.run.progress.iteration,
            "seconds": self.run.progress.seconds,
            "further": further,
            "neighbours": self.neighbours,
            "beside": {name: [e.record() for e in evaluations] for name, evaluations in self.beside.items()},
        }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _rounded(values: NDArray[np.float64]) -> list[list[float | None]]:
    """Values `[steps + 1, M]` to six digits."""
    return [[None if value is None else float(f"{value:.6g}") for value in _plain(row)] for row in values]


class Overrides(NamedTuple):
    """Settings of the evaluation given by the user; None leaves the run's own."""

    tasks: int | None = None
    gradient_steps: int | None = None
    shots: tuple[int, ...] | None = None
    seed: int | None = None


DEFAULTS = Overrides()


def evaluate(
    directory: Path,
    overrides: Overrides = DEFAULTS,
    data: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Evaluations:
    """Evaluates a run on held-out tasks; for images with batch normalisation in both of its modes.

    It takes gradient steps of the size that it was trained for. A run that was trained without inner updates has none:
    then it is chosen on validation tasks.

    Args:
        directory: The run.
        overrides: Settings that differ from those of the run.
        data: Directory of the images; that of the run if None.
        device: Where everything is computed.
        threads: Threads that share the tasks; all cores if None. They do not change the result.

    Raises:
        InputError: If run, data, device or a setting cannot be used.
    """
    torch_device = usable_device(device)
    task_threads = threads_for(torch_device, threads)
    run_config, _ = load_config(directory)
    if overrides.shots and run_config.tasks.family == "function":
        raise InputError("tasks of a function have as many examples as it returns: leave --shots out")
    config = overridden(run_config.evaluation, **overrides._asdict())
    source = task_source(run_config.tasks, data or run_config.data)
    run = load_run(directory, source)
    evaluations = _evaluate(run.to(torch_device), source, config, task_threads)
    beside, iterations = {}, {}
    for name, other in neighbours(directory).items():
        other_config, progress = load_config(other)
        other_source = task_source(other_config.tasks, data or other_config.data)
        other_run = load_run(other, other_source).to(torch_device)
        own_choice = replace(config, inner_lrs=other_config.evaluation.inner_lrs)
        beside[name], iterations[name] = (
            _evaluate(other_run, other_source, own_choice, task_threads),
            progress.iteration,
        )
    return Evaluations(run, source, config, evaluations, beside, iterations)


def neighbours(directory: Path) -> dict[str, Path]:
    """Runs on the same family of tasks with a run's name and "-pretrained" or "-oracle", by these words.

    A run whose name ends with its seed has neighbours of that seed: wave-pretrained-seed1 for wave-seed1.
    """
    directory = run_directory(directory).resolve()
    family = load_config(directory)[0].tasks.family
    found = {name: _neighbour(directory, name) for name in _BESIDE}
    existing = {name: other for name, other in found.items() if (other / CHECKPOINT).exists()}
    return {name: other for name, other in existing.items() if load_config(other)[0].tasks.family == family}


def _neighbour(directory: Path, name: str) -> Path:
    stem, _, seed = directory.name.rpartition("-seed")
    names_seed = bool(stem) and seed.isdigit()
    return directory.with_name(f"{stem}-{name}-seed{seed}" if names_seed else f"{directory.name}-{name}")


def _evaluate(run: Run, source: TaskSource, config: EvaluationConfig, threads: TaskThreads) -> list[Evaluation]:
    """Evaluations for each number of shots and mode of batch normalisation."""
    own, method_config = run.config, run.config.method
    all_shots = config.shots or (own.tasks.shots,)
    if own.tasks.family == "function":  # which decides how many there are
        all_shots = all_shots[:1]
    modes: tuple[BatchNorm | None, ...] = (None,)
    if run.network.has_batch_norm:
        modes = (method_config.batch_norm, *(mode for mode in _MODES if mode != method_config.batch_norm))
    evaluations = []
    for shots in all_shots:
        if method_config.inner_steps == 0 and config.gradient_steps:
            method_config = replace(method_config, inner_lr=_chosen(run, source, config, shots, threads))
        tasks = drawn_tasks(run, source, config, shots, config.tasks)
        shots = shots if own.tasks.family != "function" else tasks.support_x.shape[1]
        for mode in modes:
            adapted = _adapted(run, method_config, config.gradient_steps, mode, tasks, threads)
            evaluations.append(Evaluation(shots, mode, adapted, own.tasks.is_classification, method_config.inner_lr))
    return evaluations


def drawn_tasks(
    run: Run, source: TaskSource, config: EvaluationConfig, shots: int, count: int, phase: Phase = Phase.EVALUATION
) -> TaskBatch:
    """Held-out tasks of an evaluation, the first `count` of them.

    Args:
        run: The run, on whose device they come.
        source: Its tasks.
        config: Settings of the evaluation.
        shots: Support examples of a task, or of each class.
        count: How many.
        phase: Those of the evaluation, or others for validation.
    """
    tasks = with_shots(source, shots, config.queries).batch(config.seed, phase, range(count))
    device = next(iter(run.state.meta.values())).device
    return TaskBatch(*(examples.to(device) for examples in tasks))


def _adapted(
    run: Run, config: MethodConfig, steps: int, mode: BatchNorm | None, tasks: TaskBatch, threads: TaskThreads
) -> Adaptation:
    return adaptation(run.network, config, run.state.meta, tasks, steps, mode or config.batch_norm, threads)


def _chosen(run: Run, source: TaskSource, config: EvaluationConfig, shots: int, threads: TaskThreads) -> float:
    """The step size with the lowest mean loss over tasks and gradient steps, on validation tasks."""
    tasks = drawn_tasks(run, source, config, shots, config.validation_tasks, Phase.VALIDATION)

    def loss(inner_lr: float) -> float:
        method_config = replace(run.config.method, inner_lr=inner_lr)
        value = _adapted(run, method_config, config.gradient_steps, None, tasks, threads).losses[1:].mean()
        return float(value) if np.isfinite(value) else float("inf")

    return min(config.inner_lrs, key=loss)


def table(evaluations: Evaluations) -> str:
    """Error or accuracy by gradient step, each evaluation in its own columns, beside the paper's."""
    own = evaluations.run.config
    steps = range(evaluations.config.gradient_steps + 1)
    columns: list[list[str]] = [["gradient steps", *map(str, steps)]]
    for evaluation in evaluations.evaluations:
        columns += _columns(evaluation)
        paper = paper_values(own, evaluation.shots)
        if paper and evaluation.batch_norm in (None, "transductive"):
            scale, digits = (100.0, 1) if evaluation.is_classification else (1.0, 2)
            cells = [f"{paper[step].value * scale:.{digits}f}" if step in paper else "-" for step in steps]
            columns.append([f"paper, {evaluation.shots}-shot", *cells])
    return aligned(list(zip(*columns, strict=True)))


def _columns(evaluation: Evaluation) -> list[list[str]]:
    mean, half = evaluation.values.mean(1), evaluation.half_interval()
    if evaluation.is_classification:
        mode = f", {evaluation.batch_norm} BN" if evaluation.batch_norm else ""
        cells = [f"{100 * m:.2f} ± {100 * h:.2f}" for m, h in zip(mean, half, strict=True)]
        return [[f"{evaluation.shots}-shot accuracy, %{mode}", *cells]]
    medians = [f"{value:.3f}" for value in evaluation.median()]
    diverged = [f"{100 * value:.1f} %" for value in evaluation.diverged()]
    cells = [f"{m:.3f} ± {h:.3f}" for m, h in zip(mean, half, strict=True)]
    return [[f"{evaluation.shots}-shot error", *cells], ["median", *medians], ["diverged", *diverged]]
