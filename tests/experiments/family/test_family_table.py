"""Statistics and table of the comparison, with known answers; and its file."""

import json

import numpy as np
import pytest

from maml_rl.errors import InputError
from maml_rl.experiments.family.family_table import (
    CeilingPoint,
    FamilyComparison,
    family_table,
    interval_text,
    learning_charts,
    merged,
    paired_gains,
    read_family,
    write_family,
)
from maml_rl.experiments.family.measuring import GradientQuality, MeasuredRun, Times, relative_times


def measured(method: str, seed: int, after: float) -> MeasuredRun:
    return MeasuredRun(method, seed, "maml-rl train x", 4, 8000, [1.0, after, 3.0, 4.0], 0.1, 0.3, [1.0, 2.0])


RUNS = [
    *(measured("maml", seed, after) for seed, after in enumerate((1.0, 2.0, 3.0))),
    *(measured("lvc", seed, after) for seed, after in enumerate((2.0, 4.0, 6.0))),
    measured("anil", 1, 2.5),
]
TIMES = {"maml": Times(0.1, 0.3, 1.0, 1.0), "lvc": Times(0.1, 0.45, 1.375, 1.5)}
NOISE = {
    "maml": GradientQuality(0.5, 1.02, 0.2),
    "lvc": GradientQuality(0.0, 1.0, 0.0),
    "cavia": GradientQuality(1.0, 3.0, 0.1),
}
COMPARISON = FamilyComparison("tabular-mdp", "a:B-v0", 4, 200, 20, RUNS, TIMES, NOISE, [CeilingPoint(0, 10.0, 0.1)])


def test_intervals_over_seeds_are_students():
    """Of 1, 2, 3: s = 1, and the 97.5 % quantile with 2 degrees of freedom is 4.303: 4.303 / sqrt(3) = 2.484."""
    assert interval_text(np.array([1.0, 2.0, 3.0])) == "2.00 ± 2.48"
    assert interval_text(np.array([1.0]), sign=True) == "+1.00"


def test_the_table_has_differences_of_the_same_seeds_and_ratios_of_times():
    """LVC minus MAML: 1, 2, 3. ANIL's only seed is 1, where MAML has 2."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in family_table(COMPARISON).splitlines()]
    maml, lvc, anil, cavia, planner = lines[2:]
    assert cavia == ["CAVIA", "0", *"------", "3.0", "-", "-"]
    assert maml == [
        *("MAML", "3", "8,000", "1.00", "**2.00 ± 2.48**", "3.00", "4.00", "-", "2.0", "0.40 s", "0.30 s"),
    ]
    assert lvc[4:] == ["**4.00 ± 4.97**", "3.00", "4.00", "+2.00 ± 2.48", "no signal", "x 1.38", "x 1.50"]
    assert anil[1:] == ["1", "8,000", "1.00", "**2.50**", "3.00", "4.00", "+0.50", "-", "-", "-"]
    assert planner[:4] == ["planner on random episodes", "", "", "10.00"]
    assert paired_gains(RUNS[3:6], RUNS[:3]).tolist() == [1.0, 2.0, 3.0]


def test_times_are_compared_within_a_round():
    """The machine is twice as slow in the second round, for both: every ratio of the iteration is 1.5."""
    seconds = {
        "maml": np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]),
        "lvc": np.array([[1.0, 2.0], [2.0, 4.0], [1, 2]]),
    }
    times = relative_times(seconds)
    assert times["maml"] == Times(1.0, 1.0, 1.0, 1.0)
    assert times["lvc"] == Times(1.0, 2.0, 1.5, 2.0)


def test_a_comparison_is_stored_and_read_again(tmp_path):
    stored, picture = write_family(COMPARISON, tmp_path)
    assert read_family(stored) == COMPARISON
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_charts_have_maml_in_each_and_intervals_where_there_are_seeds():
    (chart,) = learning_charts(COMPARISON)
    assert [series.label for series in chart.series] == ["MAML", "LVC", "ANIL"]
    assert chart.series[0].x == pytest.approx([0.002, 0.006])  # the middles of 0 to 4,000 and 4,000 to 8,000 env steps
    assert [series.low is None for series in chart.series] == [False, False, True]


def test_earlier_runs_are_kept_unless_new_ones_replace_them():
    new = COMPARISON._replace(
        runs=[measured("anil", 0, 1.0), measured("maml", 0, 9.0)], times={"anil": Times(1, 1, 1, 1)}
    )
    both = merged(COMPARISON, new)
    assert [(run.method, run.seed) for run in both.runs][:3] == [("maml", 0), ("maml", 1), ("maml", 2)]
    assert both.runs[0].returns[1] == 9.0
    assert [run.seed for run in both.runs if run.method == "anil"] == [0, 1]
    assert both.times.keys() == {"maml", "lvc", "anil"}
    with pytest.raises(InputError, match="has iterations 4, this one 5: give another --out"):
        merged(COMPARISON, new._replace(iterations=5))


def test_a_hostile_file_is_refused_in_one_line(tmp_path, check_reader):
    stored, _ = write_family(COMPARISON._replace(runs=RUNS[:1]), tmp_path)
    check_reader(stored, json.loads(stored.read_text()), lambda path: family_table(read_family(path)))
