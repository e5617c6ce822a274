"""RL^2 as charts: the values that they show."""

import pytest

from maml_rl.experiments.media.charts import draw_charts
from maml_rl.experiments.media.trial_charts import evaluated_chart, trial_charts
from maml_rl.experiments.runs.rl2_files import Training
from maml_rl.experiments.runs.rl2_settings import Schedule


def training(last: int) -> Training:
    points = [(0, 4.0, [1.0, 3.0]), (last, 10.0, [3.0, 7.0])]
    curve = [
        {"env_steps": steps, "mean_return": mean, "standard_error": 0.5, "by_episode": by_episode}
        for steps, mean, by_episode in points
    ]
    return Training({}, Schedule(last, last, 40), curve)


@pytest.mark.parametrize(("last", "x", "unit"), [(600, 600, "env steps"), (2_000_000, 2, "million env steps")])
def test_the_learning_curve_has_intervals_and_env_steps(last, x, unit, tmp_path):
    learned, episodes = trial_charts(training(last))
    (series,) = learned.series
    assert (list(series.x), list(series.y), learned.x.label) == ([0, x], [4.0, 10.0], unit)
    assert series.low == pytest.approx([4 - 0.98, 10 - 0.98])
    assert series.high == pytest.approx([4 + 0.98, 10 + 0.98])
    assert "40 tasks" in learned.subtitle
    assert [(one.label, list(one.x), list(one.y)) for one in episodes.series] == [
        ("before training", [1, 2], [1.0, 3.0]),
        ("trained", [1, 2], [3.0, 7.0]),
    ]
    draw_charts([learned, episodes], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_shows_each_episode_with_its_interval():
    record = {
        "tasks": 3,
        "by_episode": [{"value": 1.0, "low": 0.5, "high": 1.5}, {"value": 2.0, "low": 1.0, "high": 3.0}],
    }
    (series,) = evaluated_chart(record).series
    assert (series.x, series.y, series.low, series.high) == ([1, 2], [1.0, 2.0], [0.5, 1.0], [1.5, 3.0])
