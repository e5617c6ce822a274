"""RL^2 as charts: what it learned, and its return by episode of a trial."""

from collections.abc import Sequence
from typing import Any

from maml_rl.experiments.media.charts import Axis, Chart, Series
from maml_rl.experiments.media.labels import counted, in_env_steps, value_axis
from maml_rl.experiments.runs.rl2_files import Training

LEARNING_CURVE = "learning_curve.png"
_TICKS = 10
_HALF_WIDTH = 1.96  # of a 95 % interval, in standard errors


def trial_charts(training: Training) -> list[Chart]:
    """The return of a trial by env steps, and of each of its episodes before and after the training."""
    curve, tasks = training.curve, training.schedule.tasks
    x, unit = in_env_steps([point["env_steps"] for point in curve], curve[-1]["env_steps"])
    mean = [point["mean_return"] for point in curve]
    low, high = (
        [point["mean_return"] + side * _HALF_WIDTH * point["standard_error"] for point in curve] for side in (-1, 1)
    )
    subtitle = f"mean over {counted(tasks, 'task')}; shaded: 95 % interval over tasks"
    learned = Chart(
        "Return of a trial", subtitle, Axis(unit), value_axis("return"), [Series("", "after", x, mean, low, high)]
    )
    episodes = list(range(1, len(curve[0]["by_episode"]) + 1))
    series = [
        Series(label, colour, episodes, point["by_episode"], marks="point")
        for label, colour, point in (("before training", "before", curve[0]), ("trained", "after", curve[-1]))
    ]
    subtitle = f"mean over {counted(tasks, 'task')}"
    return [learned, Chart("Return by episode", subtitle, _episode_axis(episodes), value_axis("return"), series)]


def _episode_axis(episodes: Sequence[int]) -> Axis:
    """An axis with a tick at each episode, or at some of many."""
    ticks = episodes[:: -(-len(episodes) // _TICKS)]
    return Axis("episode", ticks, [str(tick) for tick in ticks])


def evaluated_chart(record: dict[str, Any]) -> Chart:
    """The return of each episode of a trial in an evaluation, with 95 % intervals over tasks."""
    means = record["by_episode"]
    mean, low, high = ([one[name] for one in means] for name in ("value", "low", "high"))
    episodes = list(range(1, len(means) + 1))
    subtitle = f"mean over {counted(record['tasks'], 'task')}; shaded: 95 % interval over tasks"
    series = [Series("", "after", episodes, mean, low, high, marks="point")]
    return Chart("Return by episode", subtitle, _episode_axis(episodes), value_axis("return"), series)
