"""How a run learned: its log, metrics.csv, and charts of it."""

import csv
import io
from pathlib import Path

from maml_rl.errors import InputError
from maml_rl.experiments.media.charts import OF_STEPS, Axis, Chart, Series, thinned
from maml_rl.experiments.media.labels import in_env_steps, steps_label, value_axis
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.json_values import read_text
from maml_rl.run import METRICS


def training_charts(evaluation: Evaluation, directory: Path) -> list[Chart]:
    """Learning curve, by env steps or else by meta-iterations, and how far adaptation moves a policy.

    Args:
        evaluation: An evaluation of the run, which names the quantity.
        directory: The run.

    Raises:
        InputError: If the log is damaged.
    """
    quantity, meta, scale = evaluation.curves[0].quantity, evaluation.config.meta, evaluation.quantity.scale
    columns, by, unit = {0: "return/after_0_steps"}, "sampling/env_steps", "env steps"
    columns |= {meta.inner_steps: f"return/after_{meta.inner_steps}_steps"}
    if quantity != "return":
        name = "accuracy" if quantity == "accuracy" else "loss"
        columns, by, unit = {0: f"{name}/before", meta.inner_steps: f"{name}/after"}, "iteration", "meta-iterations"
    rows = read_log(directory / METRICS, by, *columns.values())
    if not rows:
        return [Chart("Learning curve", f"{METRICS} has no rows", Axis(""), value_axis(quantity), [])]
    x = thinned([row[by] for row in rows])
    if unit == "env steps":
        x, unit = in_env_steps(x, rows[-1][by])
    series = [
        Series(steps_label(step), colour, x, thinned([scale * row[name] for row in rows]))
        for (step, name), colour in zip(columns.items(), OF_STEPS, strict=False)
    ]
    subtitle = f"mean over the {meta.meta_batch_size} training tasks of each meta-iteration"
    charts = [Chart("Learning curve", subtitle, Axis(unit), value_axis(quantity), series)]
    if "inner/kl" in rows[0]:
        subtitle = "mean KL divergence of the policy before from that after the gradient steps of training"
        series = [Series("", "after", x, thinned([row["inner/kl"] for row in rows]))]
        charts.append(Chart("How far adaptation moves the policy", subtitle, Axis(unit), Axis("nats"), series))
    return charts


def read_log(metrics: Path, *columns: str) -> list[dict[str, float]]:
    """Rows of a run's log, without a last one that was cut off; none if there is no log.

    Args:
        metrics: The file.
        columns: Quantities that it has to have.

    Raises:
        InputError: If it is damaged.
    """
    if not metrics.exists():
        return []
    remedy = "restore it from a copy, or remove it"
    text = read_text(metrics, remedy)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise InputError(f"{metrics} is damaged ({error}): {remedy}") from error
    log = [_numbers_of(row) for row in rows]
    whole = [row for row in log if row is not None]
    if None in log[:-1] or any(name not in row for row in whole[:1] for name in columns):
        raise InputError(f"{metrics} is damaged (it should have rows of numbers, with the columns of a run): {remedy}")
    return whole


def _numbers_of(row: dict[str, str]) -> dict[str, float] | None:
    """The quantities of a row; None if it is incomplete."""
    try:
        return {name: float(value) for name, value in row.items()}
    except (TypeError, ValueError):
        return None
