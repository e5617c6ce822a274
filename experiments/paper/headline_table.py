"""The table of the README: every result before and after adaptation, next to the published one."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from maml_rl.experiments.paper import figure5
from maml_rl.experiments.runs.comparison_files import COMPARISON, Comparison, Method, MethodCurve, read_comparison
from maml_rl.experiments.runs.evaluations import EVALUATION, current_evaluation, file_of
from maml_rl.experiments.runs.text import env_steps_text, markdown_table
from maml_rl.learner import QUANTITIES, Quantity
from maml_rl.run import CHECKPOINT, load_run

_NOT_SHOWN = ("mimic", "pretrained", "random")
_SUPERVISED = {"sinusoid": 1, "omniglot-5-way": 3, "omniglot-20-way": 5}  # gradient steps that the paper reports
_ENV_STEPS = {  # of the paper's runs: iterations x tasks x episodes x time steps, before and after the gradient step
    "navigation": 8e6,
    "half-cheetah-dir": 32e6,
    "half-cheetah-vel": 76e6,
    "ant-vel": 120e6,
    "ant-dir": 369e6,
}
_READ_OFF = {"promp-half-cheetah-dir": 312.0}  # after one step and 120 M env steps, off Rothfuss et al. 2019, Figure 2
_HEAD = ["task", "method", "seeds", "env steps", "before", "after", "paper's env steps", "before", "after"]


class _Published(NamedTuple):
    """Cells of the published result, empty where there is none."""

    env_steps: str = ""
    before: str = ""
    after: str = ""


def headline_table(results: Path, trained: Path) -> str:
    """Means before and after adaptation by task and method: one gradient step, or as many as a row says.

    Args:
        results: Directory of comparisons.
        trained: Directory of runs.

    Raises:
        InputError: If a file is damaged.
    """
    rows = [_HEAD]
    for task in ("navigation", *figure5.TASKS):
        path = results / task / file_of(COMPARISON, "paper")
        rows += _reinforcement(read_comparison(path)) if path.exists() else []
    rows += [_promp(path.parent, value) for path, value in _with_read_off(trained)]
    for name, step in _SUPERVISED.items():
        path = results / name / COMPARISON
        rows += _supervised(read_comparison(path), step) if path.exists() else []
    return markdown_table(rows)


def _reinforcement(comparison: Comparison) -> Iterator[list[str]]:
    """Returns on the paper's tasks of maml, its variants and the oracle."""
    quantity = QUANTITIES[comparison.quantity]
    for method in (method for method in comparison.methods if method.method not in _NOT_SHOWN):
        (curve,), is_maml = method.curves, method.method == "maml"
        env_steps = sum(run.env_steps for run in method.runs) / len(method.runs)
        theirs = env_steps_text(_ENV_STEPS[comparison.name]) if is_maml else ""
        yield [
            comparison.name if is_maml else "",
            *_measured(method, curve, quantity, 1, env_steps_text(env_steps)),
            *_published(curve, quantity, 1, theirs),
        ]


def _supervised(comparison: Comparison, step: int) -> Iterator[list[str]]:
    """Errors or accuracies on held-out tasks of maml, under every condition."""
    quantity = QUANTITIES[comparison.quantity]
    steps = f"{step} gradient step{'' if step == 1 else 's'}"
    measured = f"{comparison.quantity}{f' in {quantity.unit}' if quantity.unit else ''}, {steps}"
    (method,) = (method for method in comparison.methods if method.method == "maml")
    for condition in comparison.conditions:
        curve = method.curve(condition)
        row = [*_measured(method, curve, quantity, step, ""), *_published(curve, quantity, step, "")]
        yield [f"{comparison.name}, {condition}: {measured}", *row]


def _measured(method: Method, curve: MethodCurve, quantity: Quantity, step: int, env_steps: str) -> list[str]:
    means = ["-" if mean.value is None else quantity.text(mean.value) for mean in curve.mean]
    after = f"**{means[step]}**" if step < len(means) else ""
    return [method.label, str(len(method.runs)), env_steps, means[0], after]


def _published(curve: MethodCurve, quantity: Quantity, step: int, env_steps: str) -> _Published:
    values = {point.gradient_steps: quantity.text(point.value) for point in curve.paper}
    return _Published(env_steps, values.get(0, ""), values.get(step, ""))


def _with_read_off(trained: Path) -> Iterator[tuple[Path, float]]:
    """Evaluations of runs whose published value was read off a figure."""
    for name, value in _READ_OFF.items():
        if (trained / name / CHECKPOINT).exists():
            yield trained / name / EVALUATION, value


def _promp(directory: Path, value: float) -> list[str]:
    """A run in its own evaluation, next to a value that was read off a figure."""
    run = load_run(directory)
    evaluation = current_evaluation(directory, run)
    if evaluation is None:
        raise FileNotFoundError(f"{directory} has no evaluation of its last checkpoint: maml-rl evaluate {directory}")
    env_steps, means = env_steps_text(evaluation.env_steps), evaluation.curves[0].values.mean(1)
    before, after = (evaluation.quantity.text(mean) for mean in means[:2])
    row = [directory.name, run.config.method, "1", env_steps, before, f"**{after}**"]
    return [*row, *_Published(env_steps, "", f"about {value:.0f}")]
