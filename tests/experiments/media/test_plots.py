"""Pictures of evaluations and comparisons that are made up, and the charts that they consist of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maml_rl.experiments.media.charts import COLOURS, FIGURES, Axis, Chart, Series, draw_charts, thinned
from maml_rl.experiments.media.comparison_charts import methods_chart
from maml_rl.experiments.media.evaluation_charts import episodes_charts, step_chart, task_charts
from maml_rl.experiments.media.plots import draw_comparison, draw_evaluation, first_episodes
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.comparison_files import Comparison, Estimate, Method, MethodCurve, PaperPoint
from maml_rl.learner import RANDOM
from maml_rl.run import METRICS, new_run, open_learner, save_run

TRAINED = Path(__file__).parents[3] / "trained"
GOALS = [[0.1, 0.2], [-0.3, 0.4], [0.2, -0.1], [0.0, 0.3], [0.1, 0.1]]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def panels_in_colour(path: Path, columns: int = 3) -> list[bool]:
    """Whether each panel of one row has lines in colour, in addition to its frame and letters."""
    picture = pixels(path)
    panels = np.array_split(picture, columns, axis=1)
    assert all(0.005 < (panel < 250).any(-1).mean() < 0.9 for panel in panels)
    return [bool((np.ptp(panel, axis=-1) > 60).any()) for panel in panels]


# What a gradient step gains


def test_means_stand_next_to_those_of_the_random_policy_and_of_the_paper(evaluation_of):
    made = evaluation_of("navigation", tasks=GOALS, steps=2)
    chart = step_chart(made)
    run, paper, random = chart.series
    assert (run.label, random.label, random.colour) == ("this run", RANDOM, "random")
    np.testing.assert_allclose(run.y, made.curves[0].values.mean(1))
    assert (paper.label, paper.x, paper.y) == ("paper, on other tasks", [0, 1, 2], [-40.41, -11.68, -3.33])
    assert all(low < mean < high for low, mean, high in zip(run.low, run.y, run.high, strict=True))
    assert (chart.y.label, chart.subtitle) == ("mean return", "with 95 % intervals over 5 held-out tasks")


def test_every_condition_has_a_curve_and_baselines_have_one(evaluation_of):
    labels = [one.label for one in step_chart(evaluation_of("sinusoid", baselines=("pretrained", "oracle"))).series]
    assert labels == ["10-shot", "5-shot", "5-shot, paper", "20-shot", "pretrained, 10-shot", "oracle, 10-shot"]


def test_accuracies_are_in_per_cent_and_losses_are_left_out(evaluation_of):
    chart = step_chart(evaluation_of("omniglot-5way-1shot", steps=3))
    assert chart.y.label == "mean accuracy, %"
    assert [one.label for one in chart.series] == [
        "1-shot, transductive BN",
        "1-shot, transductive BN, paper",
        "1-shot, support BN",
    ]
    assert max(chart.series[0].y) > 1


def test_a_mean_that_is_not_finite_is_left_out(evaluation_of):
    made = evaluation_of("sinusoid", steps=2)
    made.curves[0].values[1, 0] = np.inf
    assert [one.x for one in step_chart(made).series[:2]] == [[0, 2], [0, 1, 2]]


def test_several_numbers_of_episodes_used_have_a_line_for_each_number_of_gradient_steps(evaluation_of):
    made = evaluation_of("navigation", tasks=GOALS, steps=1)
    assert episodes_charts(made) == []
    first = made.curves[0]
    curves = [first._replace(values=first.values + n, condition=f"{n} episodes") for n in (2, 5)]
    (chart,) = episodes_charts(made._replace(curves=curves, settings=replace(made.settings, episodes_used=(2, 5))))
    assert (chart.x.ticks, chart.x.names) == ([0, 1], ["2", "5"])
    assert [one.label for one in chart.series] == ["before adaptation", "after 1 gradient step"]
    for step, one in enumerate(chart.series):
        np.testing.assert_allclose(one.y, first.values[step].mean() + np.array([2, 5]))


# Which tasks are hard


def test_tasks_are_drawn_against_their_parts(evaluation_of):
    made = evaluation_of("half-cheetah-vel", tasks=[[0.5], [1.0], [1.5]], steps=2)
    (chart,) = task_charts(made, "goal velocity (m/s)")
    assert (chart.title, chart.x.label) == ("Return by goal velocity (m/s)", "goal velocity (m/s)")
    assert [(one.label, one.marks) for one in chart.series] == [
        ("before adaptation", "hollow"),
        ("after 1 gradient step", "point"),
        ("after 2 gradient steps", "point"),
    ]
    for one, values in zip(chart.series, made.curves[0].values, strict=True):
        assert (one.x, one.y) == ([0.5, 1.0, 1.5], values.tolist())
        assert one.titles[0].startswith(f"task 0.5, {one.label}: ")


def test_goals_in_the_plane_are_drawn_at_their_places_in_colours_of_their_values(evaluation_of):
    charts = task_charts(evaluation_of("navigation", tasks=GOALS, steps=3), "goal")
    assert [chart.title.partition(", ")[2] for chart in charts] == [
        "before adaptation",
        "after 1 gradient step",
        "after 3 gradient steps",
    ]
    for chart in charts:
        points = [[x, y] for one in chart.series for x, y in zip(one.x, one.y, strict=True)]
        assert sorted(points) == sorted(GOALS)


def test_tasks_without_numbers_are_drawn_in_the_order_of_their_results(evaluation_of):
    made = evaluation_of("sinusoid", steps=1)
    made.curves[0].values[1, 0] = np.nan
    (chart,) = task_charts(made, "task")
    before, after = chart.series
    assert before.y == sorted(before.y)
    assert (len(before.y), len(after.y)) == (5, 4)
    np.testing.assert_allclose(before.x, [10, 30, 50, 70, 90])  # per cent, the middle of each fifth


@pytest.mark.parametrize(
    "tasks",
    [["reach", "push", "pull"], [None, 2.0, None], [[1.0], [1.0, 2.0], []], [{"a": [1, "b"]}, {"a": 1}, {}]],
    ids=str,
)
def test_tasks_of_any_type_are_drawn(evaluation_of, tmp_path, tasks):
    made = evaluation_of("navigation", tasks=tasks)
    assert all(one.titles for chart in task_charts(made, "task") for one in chart.series)
    draw_evaluation(made, tmp_path, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000


# Pictures


@pytest.mark.parametrize("steps", [0, 2])
def test_the_picture_of_navigation_shows_paths(evaluation_of, tmp_path, steps):
    run = TRAINED / "navigation"
    draw_evaluation(evaluation_of("navigation", tasks=GOALS, steps=steps), run, tmp_path / "picture.png")
    assert panels_in_colour(tmp_path / "picture.png") == [True] * 3


def test_paths_are_those_of_the_evaluation_and_lead_to_the_goals(evaluation_of):
    made = evaluation_of("navigation", tasks=GOALS, steps=2)
    episodes = first_episodes(made, TRAINED / "navigation", 2)
    assert [len(of_step) for of_step in episodes] == [4, 4, 4]
    ends = [[np.linalg.norm(path[-1] - goal) for path, goal in zip(paths, GOALS, strict=False)] for paths in episodes]
    assert np.mean(ends[2]) < np.mean(ends[0])
    for again, path in zip(first_episodes(made, TRAINED / "navigation", 0)[0], episodes[0], strict=True):
        np.testing.assert_array_equal(again, path)


def test_the_picture_of_an_oracle_shows_returns_by_task_since_its_observations_are_not_places(evaluation_of, tmp_path):
    config = PRESETS["navigation-oracle"].config
    with open_learner(config) as learner:
        save_run(tmp_path, new_run(learner, config))
    draw_evaluation(evaluation_of("navigation-oracle", tasks=GOALS), tmp_path, tmp_path / "picture.svg")
    assert "Return by task, after 1 gradient step" in (tmp_path / "picture.svg").read_text()


def test_the_picture_of_the_sinusoid_shows_fits(evaluation_of, tmp_path):
    draw_evaluation(evaluation_of("sinusoid", steps=2), TRAINED / "sinusoid", tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    for said in ("K = 10", "K = 5", "truth", "after 2 gradient steps", "points to learn from", "5-shot, paper"):
        assert said in text


def test_a_figure_is_the_same_file_every_time(evaluation_of, tmp_path):
    made = evaluation_of("omniglot-5way-1shot")
    for ending, start in zip(FIGURES, (b"\x89PNG", b"%PDF", b"<?xml"), strict=True):
        draw_evaluation(made, tmp_path, tmp_path / f"a{ending}")
        assert (tmp_path / f"a{ending}").read_bytes().startswith(start)
    draw_evaluation(made, tmp_path, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert (tmp_path / "b.svg").read_text() == text
    assert f"{METRICS} has no rows" in text
    assert "Accuracy by task" in text


def test_charts_are_drawn_with_bands_marks_and_named_ticks(tmp_path):
    series = [
        Series("band", "after", [0, 1], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5], marks="point"),
        Series("faint", "before", [0, 1], [2.0, 1.0], faint=True, dashed=True),
        Series("goal", "goal", [0.5], [1.5], line=False, marks="goal"),
        Series("points", "random", [0, 1], [1.0, 1.0], line=False, marks="hollow"),
        Series("fifth, so that the key stands below", "task-1", [0, 1], [1.2, 1.2]),
    ]
    ticks = Axis("x", [0, 1], ["a name that is long enough to be turned", "another"])
    log = Axis("y", is_log=True)
    charts = [Chart("a", "said below", ticks, log, series), Chart("b", "", Axis("x"), log, series[:1], is_square=False)]
    draw_charts(charts, tmp_path / "charts.svg")
    text = (tmp_path / "charts.svg").read_text()
    for said in ("said below", "another", "faint", "fifth, so that the key stands below"):
        assert said in text
    for one in series:
        assert COLOURS[one.colour] in text


def test_a_line_has_at_most_200_points():
    assert len(thinned(list(range(1000)))) == 200
    assert thinned([1.0, 2.0]) == [1.0, 2.0]
    assert thinned([]) == []


# Comparisons


def comparison(*labels: str, conditions: tuple[str, ...] = ("",)) -> Comparison:
    """Methods whose values rise by gradient step; an oracle has one value."""
    methods = []
    for i, label in enumerate(labels):
        values = [step - 10.0 * i for step in range(1 if label == "oracle" else 3)]
        means = [Estimate(value, value - 1, value + 1) for value in values]
        paper = [PaperPoint(0, -50.0, 1.0)] if label == "maml" else []
        curves = [MethodCurve(condition, means, means, paper) for condition in conditions]
        methods.append(Method(label, label.partition(" ")[0], "tasks", curves, []))
    about = ("maml_rl.envs:finn2017/Navigation2D-v0", "navigation", "return", list(conditions), 2, "held-out", 5, 3, 0)
    return Comparison(*about, [], None, methods)


def test_a_method_has_the_same_colour_in_every_picture_and_an_oracle_is_a_level_line():
    chart = methods_chart(comparison("maml", "maml (seed)", "oracle"))
    maml, paper, other, oracle, key = chart.series
    assert (maml.colour, paper.colour, oracle.colour) == ("after", "after", "goal")
    assert other.colour not in ("after", "goal")
    assert methods_chart(comparison("oracle", "maml")).series[0].colour == "goal"
    assert (oracle.x, oracle.y) == ([0, 1, 2], [-20.0] * 3)
    assert (paper.x, paper.y, paper.dashed, key.label) == ([0], [-50.0], True, "paper, on other tasks")
    assert chart.title == "navigation, 5 held-out tasks"
    assert methods_chart(replace(comparison("maml"), task_set="given")).title == "navigation, 5 given tasks"


def test_a_comparison_has_a_chart_for_each_condition(tmp_path):
    widths = []
    for conditions in (("",), ("1-shot", "5-shot")):
        draw_comparison(comparison("maml", "oracle", conditions=conditions), tmp_path / "picture.png")
        assert all(panels_in_colour(tmp_path / "picture.png", len(conditions)))
        widths.append(pixels(tmp_path / "picture.png").shape[1])
    assert widths[1] == 2 * widths[0]


def test_a_run_is_charted_with_the_other_methods_of_a_comparison(evaluation_of):
    made = evaluation_of("navigation", tasks=GOALS, steps=2)
    shown = step_chart(made, comparison("maml", "oracle", "pretrained", "random")).series
    assert [one.label for one in shown] == ["this run", "paper, on other tasks", RANDOM, "oracle", "pretrained"]
    other = comparison("maml", "oracle", conditions=("5-shot",))
    assert len(step_chart(made, other).series) == 3
