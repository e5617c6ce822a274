"""Words that pictures, videos and reports share."""

from collections.abc import Sequence

from maml_rl.experiments.media.charts import Axis
from maml_rl.experiments.runs.evaluations import EvaluatedTasks
from maml_rl.learner import QUANTITIES

_IN_MILLIONS = 1e5  # env steps from which on they are given in millions


def counted(count: int, name: str) -> str:
    """A number of things."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def steps_label(count: int) -> str:
    """A number of gradient steps as people read it."""
    return f"after {counted(count, 'gradient step')}" if count else "before adaptation"


def in_env_steps(values: Sequence[float], longest: float) -> tuple[list[float], str]:
    """Env steps as an axis has them, and its label: in millions, if the longest curve has many."""
    if longest >= _IN_MILLIONS:
        return [value / 1e6 for value in values], "million env steps"
    return [*values], "env steps"


def value_axis(quantity: str) -> Axis:
    """An axis of means of a quantity, in its unit; of errors it is logarithmic, as they fall by orders of magnitude."""
    unit = QUANTITIES[quantity].unit
    label = f"mean {quantity}, {unit}" if unit else f"mean {quantity}"
    return Axis(label, is_log=not QUANTITIES[quantity].higher_is_better)


def paper_label(task_set: EvaluatedTasks, strata: Sequence[int] | None, condition: str = "") -> str:
    """Label of the paper's values, next to others on such tasks."""
    if condition:
        return f"{condition}, paper"
    return "paper" if task_set == "paper" or strata is not None else "paper, on other tasks"


def number(quantity: str, value: float) -> str:
    """A value of a quantity in its unit, with as many digits as tables have."""
    return minus(f"{value:.{QUANTITIES[quantity].digits}f}")


def minus(text: str) -> str:
    """Numbers with a minus as wide as a plus."""
    return text.replace("-", "−")  # noqa: RUF001
