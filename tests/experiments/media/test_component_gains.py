"""Where adaptation helps, on made-up results: only the part of a task that decides the gain is found."""

import numpy as np
import pytest

from maml_rl.experiments.media.component_gains import component_gains, gain_charts, gains_rows, gains_text
from maml_rl.experiments.runs.evaluations import Evaluation

M = 30


@pytest.fixture
def helped(evaluation_of) -> Evaluation:
    """Adaptation gains 0 up to a load of 10, and 20 above it; the rope and the motor decide nothing.

    The load of task m is m, so its thirds are 0 to 9, 10 to 19 and 20 to 29, with gains of 0, 18 on average and 20,
    give or take noise with standard deviation 1. Rope and motor are drawn independently of it.
    """
    generator = np.random.default_rng(3)
    ropes, motors = generator.permutation(np.linspace(0.5, 1.5, M)), generator.permutation([0, 1, 2] * 10)
    tasks = [
        {"load": [float(m)], "rope": [rope], "motor": int(n)}
        for m, rope, n in zip(range(M), ropes, motors, strict=True)
    ]
    made = evaluation_of("half-cheetah-vel", tasks=tasks)
    before = -50.0 - np.arange(M)
    gain = np.where(np.arange(M) > 10, 20.0, 0.0) + generator.normal(0.0, 1.0, M)
    return made._replace(curves=[made.curves[0]._replace(values=np.stack([before, before + gain]))])


def test_only_the_part_that_decides_the_gain_is_found(helped):
    gains = {one.component.name: one for one in component_gains(helped, "dynamics")}
    assert set(gains) == {"load", "rope", "motor"}
    load = gains["load"]
    assert [group.label for group in load.groups] == ["0 to 9", "10 to 19", "20 to 29"]
    assert [group.before for group in load.groups] == [-54.5, -64.5, -74.5]
    assert [group.gain.value for group in load.groups] == pytest.approx([0.0, 18.0, 20.0], abs=1.0)
    assert [group.verdict for group in load.groups] == ["no clear change", "helps", "helps"]
    assert load.depends
    assert load.statement == "load: the gain depends on it, most at 20 to 29, least at 0 to 9 (p < 0.001)"
    for name in ("rope", "motor"):
        assert not gains[name].depends
        assert gains[name].statement.startswith(f"{name}: no sign that the gain depends on it (p = 0.")
    assert [group.label for group in gains["motor"].groups] == ["0", "1", "2"]  # ten tasks each
    assert next(iter(gains)) == "load"  # what explains most comes first


def test_intervals_are_students_and_a_loss_is_reported_as_one(evaluation_of):
    """Gains of -3, -1, -2 and of 1, 2, 3: means -2 and 2 with 4.303 / sqrt(3) = 2.48 to each side, so 0 is inside."""
    made = evaluation_of("half-cheetah-vel", tasks=[{"way": way} for way in (0, 0, 0, 1, 1, 1)])
    values = np.array([[0.0] * 6, [-3.0, -1.0, -2.0, 1.0, 2.0, 3.0]])
    (one,) = component_gains(made._replace(curves=[made.curves[0]._replace(values=values)]), "dynamics")
    first, second = one.groups
    assert first.gain[2:] == pytest.approx((-2 - 2.484, -2 + 2.484), abs=1e-3)
    assert second.gain[2:] == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)
    assert [group.verdict for group in one.groups] == ["no clear change", "no clear change"]
    values[1] *= [1, 1, 1, 10, 10, 10]
    values[1, :3] = [-2.0, -2.1, -1.9]
    (one,) = component_gains(made._replace(curves=[made.curves[0]._replace(values=values)]), "dynamics")
    assert [group.verdict for group in one.groups] == ["hurts", "no clear change"]


def test_the_table_and_the_charts_show_the_same_groups(helped):
    gains = component_gains(helped, "dynamics")
    head, *rows = gains_rows(gains)
    assert [row[0] for row in rows[:4]] == ["load", "", "", gains[1].component.name]
    assert rows[0][1:4] == ["0 to 9", "10", "-54.5"]
    assert rows[0][-1] == "no clear change"
    assert len(head) == len(rows[0])
    text = gains_text(helped, "dynamics")
    assert text.startswith("where adaptation helps, after 1 gradient step\n")
    assert all(one.statement in text for one in gains)
    chart = gain_charts(helped, gains, "dynamics")[0]
    none, tasks, groups = chart.series
    assert (chart.title, chart.x.label, list(none.y)) == ("Gain by load", "load", [0.0, 0.0])
    assert list(groups.x) == [4.5, 14.5, 24.5]
    assert list(groups.y) == [group.gain.value for group in gains[0].groups]
    assert len(tasks.y) == M
    assert tasks.titles[0].startswith("load 0, rope")


@pytest.mark.parametrize(
    ("preset", "tasks", "quantity"),
    [
        ("half-cheetah-vel", [{"load": [float(m)]} for m in range(8)], "dynamics"),  # no three groups of three
        ("navigation", [[0.01 * m, 0.1] for m in range(30)], "goal position"),  # drawn in the plane
        ("half-cheetah-vel", [[1.0]] * 30, "goal velocity (m/s)"),
        ("sinusoid", [0.1] * 5, "task"),
    ],
)
def test_there_are_no_gains_where_tasks_cannot_be_grouped(evaluation_of, preset, tasks, quantity):
    made = evaluation_of(preset, tasks=tasks)
    assert component_gains(made, quantity) == []
    assert gains_text(made, quantity) == ""


def test_without_gradient_steps_nothing_is_gained(helped):
    curve = helped.curves[0]
    assert component_gains(helped._replace(curves=[curve._replace(values=curve.values[:1])]), "x") == []
