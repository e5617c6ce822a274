"""Evaluations of runs on held-out tasks: their contents, and how they are stored and read."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from maml_rl.checkpoint import write_json
from maml_rl.config import EvaluationConfig, RLConfig, RLEvaluation, RunConfig
from maml_rl.errors import InputError, one_line
from maml_rl.experiments.paper.published import PublishedValue, paper_tasks, published
from maml_rl.json_types import from_json, read_typed
from maml_rl.learner import QUANTITIES, RANDOM, THIS_RUN, Curve, Quantity, Validation
from maml_rl.run import CHECKPOINT, Run, load_run, overridden, run_directory
from maml_rl.supervised.settings import SupervisedConfig, SupervisedEvaluation
from maml_rl.task_parts import plain

EVALUATION = "evaluation.json"
PICTURE = "adaptation.png"
TaskSet = Literal["held-out", "paper"]
"""Tasks of an evaluation: held-out ones, drawn by its seed, or the 40 that the paper's policies were tested on."""
EvaluatedTasks = Literal[TaskSet, "given"]
"""Tasks of an evaluation, which the user may also have given."""
OWN_SETTINGS: Mapping[str, Any] = MappingProxyType({})
"""No settings that differ from the run's."""
_BASELINES = ("pretrained", "oracle")
_SINGLE = ("squared error", "accuracy", "loss")  # in single precision, and written with no more digits than that has
_REMEDY = "remove it, to evaluate the run again"


class Evaluation(NamedTuple):
    """A run's results on new tasks, by number of gradient steps."""

    config: RLConfig | SupervisedConfig  # of the run, as it is now
    problem: str  # of the run, as it was evaluated; so are the next four
    training_seed: int
    iteration: int
    env_steps: int
    seconds: float
    settings: EvaluationConfig
    task_set: EvaluatedTasks
    curves: list[Curve]  # first the run's own, then the random policy's or those of baselines
    baselines: dict[str, int]  # iterations of the runs whose curves are shown with it, by their name

    @property
    def quantity(self) -> Quantity:
        """The main quantity of the run."""
        return QUANTITIES[self.curves[0].quantity]

    @property
    def gradient_steps(self) -> int:
        """Gradient steps after the first values."""
        return self.curves[0].gradient_steps

    @property
    def conditions(self) -> list[str]:
        """Conditions under which it was measured, the run's own first; a single empty name if there is only one."""
        return list(dict.fromkeys(curve.condition for curve in self.curves))

    def main_curves(self, of: str = THIS_RUN) -> list[Curve]:
        """Curves of the main quantity, one for each condition, of the run itself or of another name."""
        return [curve for curve in self.curves if (curve.of, curve.quantity) == (of, self.curves[0].quantity)]

    def under(self, condition: str) -> list[Curve]:
        """Curves of the main quantity under a condition: the run's own and those to compare with."""
        return [c for c in self.curves if (c.condition, c.quantity) == (condition, self.curves[0].quantity)]

    def published(self, curve: Curve) -> dict[int, PublishedValue]:
        """The paper's values of what a curve shows, by gradient step; empty where it has none, as on given tasks."""
        if self.task_set == "given" or curve.quantity != self.curves[0].quantity:
            return {}
        return published(self.config, curve.condition, {THIS_RUN: None, RANDOM: "random"}.get(curve.of, curve.of))

    def is_of(self, run: Run) -> bool:
        """Whether it is of a run as it is now."""
        ours = (self.problem, self.training_seed, self.iteration, self.env_steps)
        return ours == (run.config.problem, run.config.seed, run.state.iteration, run.progress.env_steps)

    @property
    def has_own_settings(self) -> bool:
        """Whether its settings are the run's own, and so are its tasks."""
        if self.task_set == "given":
            return False
        own = settings_with(self.config, task_set=self.task_set)
        return settled(self.settings, self.config) == settled(own, self.config)

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values, `EvaluationRecord`; a number that is not finite is null."""
        first = self.curves[0]
        return {
            "problem": self.problem,
            "method": self.config.method,
            "training_seed": self.training_seed,
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "task_set": self.task_set,
            "settings": asdict(self.settings),
            "gradient_steps": list(range(first.gradient_steps + 1)),
            "interval_over": "tasks",
            "tasks": list(first.tasks),
            "strata": None if first.strata is None else list(first.strata),
            "baselines": self.baselines,
            "curves": [_curve_to_json(curve) for curve in self.curves],
        }


class CurveRecord(TypedDict):
    """A curve as JSON values, by gradient step S and task M."""

    of: str
    quantity: str
    condition: str
    inner_lr: list[float]  # [S - 1]; empty where step sizes are learned
    mean: list[float | None]  # [S]
    standard_error: list[float | None]  # [S]
    interval_95: list[tuple[float | None, float | None]]  # [S]
    values: list[list[float | None]]  # [S, M]
    validation: Validation | None  # of a run without inner updates


class EvaluationRecord(TypedDict):
    """An evaluation as JSON values: `evaluation.json`."""

    problem: str
    method: str  # for people
    training_seed: int
    iteration: int
    env_steps: int
    seconds: float
    task_set: EvaluatedTasks
    settings: dict[str, Any]  # of the evaluation
    gradient_steps: list[int]  # [S]   0, 1, ...
    interval_over: str  # tasks: of this run, not of other seeds
    tasks: list[Any]  # [M]; empty where their index says all
    strata: list[int] | None  # [M]   of each task, where these are all the tasks there are
    baselines: dict[str, int]
    curves: list[CurveRecord]


def values_to_json(curve: Curve) -> list[list[float | None]]:
    """A curve's values by gradient step and task, `[S, M]`; one that is not finite is None."""
    values: list[list[float]] = curve.values.tolist()
    if curve.quantity in _SINGLE:
        values = [[float(str(np.float32(value))) for value in of_step] for of_step in values]
    return [[value if math.isfinite(value) else None for value in of_step] for of_step in values]


def _curve_to_json(curve: Curve) -> dict[str, Any]:
    means = curve.means()
    return {
        "of": curve.of,
        "quantity": curve.quantity,
        "condition": curve.condition,
        "inner_lr": list(curve.inner_lr),
        "mean": [mean.value for mean in means],
        "standard_error": [mean.standard_error for mean in means],
        "interval_95": [[mean.low, mean.high] for mean in means],
        "values": values_to_json(curve),
        "validation": curve.validation and curve.validation._asdict(),
    }


def settings_with(
    config: RLConfig | SupervisedConfig, given: Mapping[str, Any] = OWN_SETTINGS, task_set: TaskSet = "held-out"
) -> EvaluationConfig:
    """Settings of an evaluation: the run's own, updated with the given ones.

    If no number of episodes is given, there are as many as the largest of `episodes_used` needs.

    Raises:
        InputError: If a setting is unknown, of no use or outside its range, or the paper has no such tasks.
    """
    own = config.evaluation
    if unknown := given.keys() - {setting.name for setting in fields(own)}:
        raise InputError(f"{', '.join(sorted(unknown))} is not a setting of the evaluation of a {config.kind} run")
    if isinstance(config, SupervisedConfig):
        if config.tasks.family == "function" and given.get("shots"):
            raise InputError("tasks of a function have as many examples as it returns: remove --shots")
        if task_set == "paper":
            raise InputError(f"the paper has no list of its tasks of {config.problem}: give --tasks N")
    else:
        if task_set == "paper":
            given = {**given, "tasks": len(paper_tasks(config.env_id))}
        if used := given.get("episodes_used"):
            given = {"episodes": max(config.evaluation.episodes, *used), **given}
    return overridden(own, **given)


def settled(settings: EvaluationConfig, config: RLConfig | SupervisedConfig) -> EvaluationConfig:
    """The same settings with everything filled in that they leave to the run."""
    if isinstance(settings, SupervisedEvaluation) and isinstance(config, SupervisedConfig):
        return replace(settings, shots=settings.shots or (config.tasks.shots,))
    return settings


def baseline_runs(directory: Path, config: RunConfig | None = None) -> list[tuple[str, Path]]:
    """Supervised runs on the same tasks whose name is a run's plus "-pretrained" or "-oracle", by that word.

    If the run's name ends with its seed, theirs do too: wave-pretrained-seed1 for wave-seed1.

    Args:
        directory: The run.
        config: Its settings; read if None.
    """
    directory = run_directory(directory).resolve()
    config = config or load_run(directory).config
    if not isinstance(config, SupervisedConfig):
        return []
    stem, _, seed = directory.name.rpartition("-seed")
    named = bool(stem) and seed.isdigit()
    names = {b: f"{stem}-{b}-seed{seed}" if named else f"{directory.name}-{b}" for b in _BASELINES}
    found = [(baseline, directory.with_name(name)) for baseline, name in names.items()]
    return [(b, p) for b, p in found if (p / CHECKPOINT).exists() and load_run(p).config.problem == config.problem]


def file_of(name: str, task_set: EvaluatedTasks) -> str:
    """Name of a file about an evaluation on these tasks: `evaluation.json`, or `evaluation-paper.json`."""
    stem, _, ending = name.rpartition(".")
    return name if task_set == "held-out" else f"{stem}-{task_set}.{ending}"


def write_evaluation(out: Path, evaluation: Evaluation, draw: Callable[[Path], None]) -> None:
    """Writes an evaluation as JSON and as a picture, which replace those of an earlier one.

    The picture comes first: if it cannot be drawn, both files stay as they were.

    Args:
        out: Directory; created if it does not exist.
        evaluation: The evaluation.
        draw: Draws it into a file.
    """
    out.mkdir(parents=True, exist_ok=True)
    draw(out / file_of(PICTURE, evaluation.task_set))
    write_json(out / file_of(EVALUATION, evaluation.task_set), evaluation.to_json())


def stored_evaluation(directory: Path, run: Run, task_set: TaskSet = "held-out") -> Evaluation | None:
    """A run's evaluation on these tasks, if there is one, whatever its checkpoint and settings.

    Raises:
        InputError: If the file is damaged.
    """
    path = run_directory(directory) / file_of(EVALUATION, task_set)
    stored = read_evaluation(path, run.config) if path.exists() else None
    return stored if stored and stored.task_set == task_set else None


def read_evaluation(path: Path, config: RLConfig | SupervisedConfig) -> Evaluation:
    """An evaluation as it was stored.

    Args:
        path: The file.
        config: Settings of the run that was evaluated.

    Raises:
        InputError: If the file is damaged, or of another kind of run.
        FileNotFoundError: If there is none.
    """
    record: dict[str, Any] = read_typed(path, EvaluationRecord, _REMEDY)
    try:
        settings = from_json(type(config.evaluation), record["settings"])
    except (TypeError, InputError) as error:
        raise InputError(f"{path} is damaged (settings: {error}): {_REMEDY}") from error
    tasks, strata = record["tasks"], record["strata"]
    if damage := next(_damage(record, settings), None):
        raise InputError(f"{path} is damaged ({damage}): {_REMEDY}")
    return Evaluation(
        config=config,
        problem=record["problem"],
        training_seed=record["training_seed"],
        iteration=record["iteration"],
        env_steps=record["env_steps"],
        seconds=record["seconds"],
        settings=settings,
        task_set=record["task_set"],
        curves=[_curve_from_json(one, tasks, strata) for one in record["curves"]],
        baselines=record["baselines"],
    )


def _curve_from_json(record: dict[str, Any], tasks: Sequence[Any], strata: Sequence[int] | None) -> Curve:
    precision = np.float32 if record["quantity"] in _SINGLE else np.float64
    with np.errstate(over="ignore"):
        values = np.array(record["values"], precision).astype(np.float64)  # what was not finite is null, and then nan
    values[np.isinf(values)] = np.nan  # too large for its precision
    validation = record["validation"] and from_json(Validation, record["validation"])
    about = (tuple(record["inner_lr"]), record["condition"], tasks, strata, validation)
    return Curve(record["of"], record["quantity"], values, *about)


def _damage(record: dict[str, Any], settings: EvaluationConfig) -> Iterator[str]:
    """What is wrong with a record whose fields have their types."""
    steps, count = len(record["gradient_steps"]), settings.tasks
    if settings.gradient_steps != steps - 1 or record["gradient_steps"] != list(range(steps)):
        yield f"it should have gradient steps 0 to {settings.gradient_steps}"
    listed = {len(record["tasks"])} - ({0} if isinstance(settings, SupervisedEvaluation) else set())
    if not listed | ({len(record["strata"])} if record["strata"] is not None else set()) <= {count}:
        yield f"it should have {count} tasks"
    if not record["curves"] or record["curves"][0]["of"] != THIS_RUN:
        yield f"its first curve should be of {THIS_RUN}"
    for curve in record["curves"]:
        name = one_line(curve["of"])[:40]
        if curve["quantity"] not in QUANTITIES:
            yield f"quantities should be among {', '.join(QUANTITIES)}"
        lengths = {len(curve[of]) for of in ("mean", "standard_error", "interval_95", "values")}
        if lengths != {steps} or any(len(values) != count for values in curve["values"]):
            yield f"{name} should have values of {count} tasks for gradient steps 0 to {steps - 1}"
        if len(curve["inner_lr"]) not in (0, steps - 1) or any(size <= 0 for size in curve["inner_lr"]):
            yield f"{name} should have a step size above 0 for each gradient step"
        validation = curve["validation"]
        if validation and not 1 <= len(validation["inner_lrs"]) == len(validation["scores"]):
            yield f"{name} should have a score of each step size it was chosen from"


def current_evaluation(directory: Path, run: Run, task_set: TaskSet = "held-out") -> Evaluation | None:
    """A run's evaluation on these tasks, if there is one of its last checkpoint and its own settings.

    Raises:
        InputError: If the file is damaged.
    """
    stored = stored_evaluation(directory, run, task_set)
    return stored if not why_again(stored, directory, run) else None


def why_again(
    stored: Evaluation | None, directory: Path, run: Run, *, any_settings: bool = False, gradient_steps: int = 0
) -> str:
    """Why a run has to be evaluated: it has no evaluation, or one that will not do. Empty if it need not be.

    Args:
        stored: Its evaluation.
        directory: The run.
        run: The run as it is now.
        any_settings: Whether an evaluation with other settings than the run's own will do.
        gradient_steps: How many it has to have at least.
    """
    if stored is None:
        return "it has no evaluation"
    if not stored.is_of(run):
        return "its evaluation is of another checkpoint"
    if stored.baselines != {
        name: load_run(path).state.iteration for name, path in baseline_runs(directory, run.config)
    }:
        return "its evaluation is of other checkpoints of the runs it is compared with"
    if stored.gradient_steps < gradient_steps:
        return f"its evaluation has {stored.gradient_steps} gradient steps"
    if stored.task_set == "paper" and list(stored.curves[0].tasks) != [plain(t) for t in paper_tasks(stored.problem)]:
        return "its evaluation is not on the paper's tasks"
    if not (any_settings or stored.has_own_settings):
        return f"its evaluation, {extent(stored.settings)}, has other settings"
    return ""


def is_kept(directory: Path, run: Run, new: Evaluation) -> bool:
    """Whether the stored evaluation stays, since it has the run's own settings and the new one does not."""
    if new.task_set == "given" or new.has_own_settings:
        return False
    return current_evaluation(directory, run, new.task_set) is not None


def stored_validation(directory: Path, run: Run) -> Validation | None:
    """How a run's evaluation chose a step size, if the run has none of its own and was evaluated as it is now."""
    evaluation = None if run.config.meta.inner_steps else current_evaluation(directory, run)
    return evaluation.curves[0].validation if evaluation else None


def extent(settings: EvaluationConfig) -> str:
    """Tasks of an evaluation, and what it does on each."""
    if isinstance(settings, RLEvaluation):
        return f"{settings.tasks} tasks x {settings.episodes} episodes"
    shots = ", ".join(map(str, getattr(settings, "shots", ())))
    return f"{settings.tasks} tasks{' x ' if shots else ''}{shots}{' shots' if shots else ''}"
