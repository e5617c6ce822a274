"""Evaluations as text for a terminal, next to the paper's values."""

from collections.abc import Sequence

from maml_rl.config import RLConfig, RLEvaluation
from maml_rl.experiments.paper.published import paper_task
from maml_rl.experiments.runs.evaluations import EvaluatedTasks, Evaluation
from maml_rl.experiments.runs.text import text_table
from maml_rl.learner import RANDOM, THIS_RUN, Curve, Quantity


def tasks_named(task_set: EvaluatedTasks, count: int, strata: Sequence[int] | None = None) -> str:
    """The tasks of an evaluation, as its tables name them: not held-out where they are all that there are.

    Args:
        task_set: Which tasks.
        count: How many.
        strata: Of each task, where they are all that p(T) has (`maml_rl.tasks.strata`).
    """
    if task_set == "paper":
        return f"the paper's own {count} tasks"
    if task_set == "held-out" and strata is not None:
        different = len(set(strata))
        return f"all {count} tasks" if count == different else f"{count} tasks (all {different} there are, repeated)"
    return f"{count} {task_set} tasks"


def heading(evaluation: Evaluation) -> list[str]:
    """What was measured on which tasks, and with which step size, a line each."""
    settings, first = evaluation.settings, evaluation.curves[0]
    episodes = ""
    if isinstance(settings, RLEvaluation):
        episodes = f", {settings.episodes} episode{'' if settings.episodes == 1 else 's'} each"
    unit = f", {evaluation.quantity.unit}" if evaluation.quantity.unit else ""
    lines = [
        f"mean {first.quantity}{unit} over {tasks_named(evaluation.task_set, settings.tasks, first.strata)}{episodes}"
    ]
    if first.validation:
        chosen = {c.condition: f"{c.validation.best:g}" for c in evaluation.main_curves() if c.validation}
        best = chosen.values() if len(set(chosen.values())) > 1 else [next(iter(chosen.values()))]
        sizes = ", ".join(f"{inner_lr:g}" for inner_lr in first.validation.inner_lrs)
        lines.append(f"step size {', '.join(best)}: of {sizes} the best on validation tasks")
    return lines


def table(evaluation: Evaluation) -> str:
    """The main quantity by gradient step: its mean with its 95 % interval, and what it is compared with.

    That is the random policy or the baselines, and the paper's values if it has any. There is a table for each
    condition. A regression run's table also has the median and the share of tasks that diverged. If several numbers of
    episodes were used, they are the rows of one table.
    """
    if isinstance(evaluation.settings, RLEvaluation) and len(evaluation.conditions) > 1:
        return _by_episodes_used(evaluation)
    tables = []
    for condition in evaluation.conditions:
        text = text_table(list(zip(*_columns(evaluation, evaluation.under(condition)), strict=True)))
        tables.append(f"{condition}\n\n{text}" if condition else text)
    return "\n\n".join(tables)


def _by_episodes_used(evaluation: Evaluation) -> str:
    """Rows of numbers of episodes, columns of gradient steps."""
    quantity, steps = evaluation.quantity, range(1, evaluation.gradient_steps + 1)
    rows = [["episodes used", "before", *(f"after {step} step{'' if step == 1 else 's'}" for step in steps)]]
    for curve in evaluation.main_curves():
        before, *after = curve.means()
        cells = [f"{quantity.text(m.value)} [{quantity.text(m.low)}, {quantity.text(m.high)}]" for m in after]
        rows.append([curve.condition.partition(" ")[0], quantity.text(before.value), *cells])
    return text_table(rows)


def _columns(evaluation: Evaluation, curves: Sequence[Curve]) -> list[list[str]]:
    quantity, steps = evaluation.quantity, range(evaluation.gradient_steps + 1)
    columns, papers = [["gradient steps", *map(str, steps)]], []
    for curve in curves:
        means = curve.means()
        columns.append([curve.of, *(quantity.text(mean.value) for mean in means)])
        if curve.of == THIS_RUN:
            intervals = [f"[{quantity.text(mean.low)}, {quantity.text(mean.high)}]" for mean in means]
            columns.append(["95 % interval", *intervals])
        if curve.of == THIS_RUN and not quantity.higher_is_better:
            columns.append(["median", *map(quantity.text, curve.medians())])
            columns.append(["diverged", *(f"{100 * share:.1f} %" for share in curve.diverged())])
        if paper := evaluation.published(curve):
            name = {THIS_RUN: "paper", RANDOM: "paper, random"}.get(curve.of, f"paper, {curve.of}")
            papers.append([name, *(published_text(quantity, paper[s].value) if s in paper else "-" for s in steps)])
    return columns + papers


def published_text(quantity: Quantity, value: float, error: float | None = None) -> str:
    """A value of the paper as tables show it, with its error if it has one, and no more digits than were published."""

    def short(value: float) -> str:
        whole, point, digits = quantity.text(value).partition(".")
        return f"{whole}{point}{digits.rstrip('0') or '0'}"

    return short(value) if error is None else f"{short(value)} ± {short(error)}"


def remarks(evaluation: Evaluation) -> list[str]:
    """Notes for reading the table: what its intervals cover, and on which tasks the paper measured."""
    lines = ["[95 % interval over tasks: of this run, not of other seeds]"]
    config = evaluation.config
    if not evaluation.quantity.higher_is_better:
        lines.append("diverged: tasks whose error is not finite, or above that of any task before adaptation")
    if evaluation.task_set == "held-out" and isinstance(config, RLConfig) and paper_task(config.env_id):
        lines.append(f"{paper_remark(evaluation.curves[0].strata)}; --tasks paper evaluates on those")
    return lines


def paper_remark(strata: Sequence[int] | None) -> str:
    """On which tasks the paper's values are that stand next to those of other tasks.

    Args:
        strata: Of the other tasks; see `tasks_named`.
    """
    return f"paper: on the paper's own 40 tasks, {'not these' if strata is None else 'these in other proportions'}"
