"""Learning curves of runs, from hand-written logs."""

import pytest

from maml_rl.errors import InputError
from maml_rl.experiments.media.learning_curves import read_log, training_charts
from maml_rl.run import METRICS

RL = "iteration,sampling/env_steps,return/after_0_steps,return/after_1_steps,inner/kl"


@pytest.mark.parametrize(
    ("env_steps", "unit", "x"),
    [((2000, 5000), "env steps", [2000.0, 5000.0]), ((50_000, 200_000), "million env steps", [0.05, 0.2])],
)
def test_a_short_run_counts_env_steps_and_a_long_one_millions(tmp_path, evaluation_of, env_steps, unit, x):
    rows = [f"{i},{steps},{-i},{2 * i},0.5" for i, steps in enumerate(env_steps, start=1)]
    (tmp_path / METRICS).write_text("\n".join([RL, *rows]))
    learned, moved = training_charts(evaluation_of("navigation"), tmp_path)
    assert (learned.x.label, learned.y.label, moved.x.label) == (unit, "mean return", unit)
    assert [(one.label, one.x, one.y) for one in learned.series] == [
        ("before adaptation", x, [-1.0, -2.0]),
        ("after 1 gradient step", x, [2.0, 4.0]),
    ]
    assert moved.series[0].y == [0.5, 0.5]


def test_a_supervised_run_is_shown_by_iteration_in_the_unit_of_its_main_quantity(tmp_path, evaluation_of):
    columns = "iteration,accuracy/after,accuracy/before,loss/after,loss/before"
    (tmp_path / METRICS).write_text(f"{columns}\n10,0.5,0.25,1,2\n20,0.75,0.25,0.5,2\n")
    (chart,) = training_charts(evaluation_of("omniglot-5way-1shot"), tmp_path)
    assert (chart.x.label, chart.y.label, chart.y.is_log) == ("meta-iterations", "mean accuracy, %", False)
    assert [(one.x, one.y) for one in chart.series] == [([10.0, 20.0], [25.0, 25.0]), ([10.0, 20.0], [50.0, 75.0])]
    (chart,) = training_charts(evaluation_of("sinusoid"), tmp_path)
    assert (chart.y.label, chart.y.is_log) == ("mean squared error", True)
    assert [one.y for one in chart.series] == [[2.0, 2.0], [1.0, 0.5]]


@pytest.mark.parametrize("name", ["navigation-pretrained", "sinusoid-pretrained"])
def test_a_run_without_inner_updates_has_one_curve(tmp_path, evaluation_of, name):
    columns = "iteration,sampling/env_steps,return/after_0_steps,loss/after,loss/before"
    (tmp_path / METRICS).write_text(f"{columns}\n1,100,3,3,4\n")
    (chart,) = training_charts(evaluation_of(name), tmp_path)
    assert [(one.label, one.y) for one in chart.series] == [("before adaptation", [3.0])]


@pytest.mark.parametrize("content", [None, "", RL + "\n"], ids=["no file", "nothing", "only the header"])
def test_a_run_without_rows_says_so(tmp_path, evaluation_of, content):
    """As after Ctrl-C in the first iteration."""
    if content is not None:
        (tmp_path / METRICS).write_text(content)
    (chart,) = training_charts(evaluation_of("navigation"), tmp_path)
    assert (chart.subtitle, chart.series) == (f"{METRICS} has no rows", [])


@pytest.mark.parametrize(
    "content",
    [
        b"iteration,a\n1,2\n\xff,3\n4,5\n",
        b"iteration,a\n1,text\n2,3\n",
        b"iteration,a\n1\n2,3\n",
        b"iteration,a\n1,2,3\n2,3\n",
        b'iteration,a\n1,"' + b"2" * 200_000 + b'"\n3,4\n',
        b"iteration,a\n1,2\n",
        b"iteration,sampling/env_steps\n1,2\n",
    ],
)
@pytest.mark.parametrize("name", ["navigation", "sinusoid"])
def test_a_hostile_log_is_refused_in_one_line(tmp_path, evaluation_of, name, content):
    (tmp_path / METRICS).write_bytes(content)
    with pytest.raises(InputError) as refused:
        training_charts(evaluation_of(name), tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path / METRICS) in str(refused.value)


def test_a_log_that_was_cut_off_has_its_whole_rows(tmp_path):
    (tmp_path / METRICS).write_text("iteration,a\n1,2.5\n2,1e")
    assert read_log(tmp_path / METRICS) == [{"iteration": 1.0, "a": 2.5}]
