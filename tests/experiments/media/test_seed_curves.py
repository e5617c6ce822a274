"""Learning curves over seeds, with known answers, and the table for LaTeX."""

from dataclasses import replace
from pathlib import Path

import pytest

from maml_rl.experiments.media.seed_curves import seeds_chart
from maml_rl.experiments.runs.comparison_files import Estimate, read_comparison
from maml_rl.experiments.runs.latex import escaped, latex_table
from maml_rl.run import METRICS, load_run, save_run

ROOT = Path(__file__).parents[3]
TRAINED = ROOT / "trained"


@pytest.fixture(scope="module")
def stored():
    """A comparison of navigation's methods, as it was stored."""
    (path,) = ROOT.glob("results/navigation/comparison.json")
    return read_comparison(path)


@pytest.fixture
def comparison_of(tmp_path, stored):
    """A comparison of runs of one method whose logs are given, as returns by env steps."""

    def make(*logs: dict[int, float]):
        run, method = load_run(TRAINED / "navigation"), stored.methods[0]
        runs = []
        for seed, log in enumerate(logs):
            out = tmp_path / str(seed)
            save_run(out, run)
            lines = [f"{i},{steps},{value}\n" for i, (steps, value) in enumerate(log.items(), start=1)]
            (out / METRICS).write_text("iteration,sampling/env_steps,return/after_1_steps\n" + "".join(lines))
            runs.append(replace(method.runs[0], directory=str(out), seed=seed))
        return replace(stored, methods=[replace(method, runs=runs)])

    return make


def test_the_band_is_students_interval_over_seeds(comparison_of):
    (series,) = seeds_chart(comparison_of({100: 1.0, 200: 4.0}, {100: 2.0, 200: 4.0}, {100: 3.0, 200: 4.0})).series
    assert series.x == [100, 200]
    assert series.y == pytest.approx([2, 4])
    # Deviation 1 of three seeds, t(2) = 4.3027: half the interval is 4.3027 / sqrt(3) = 2.4841.
    assert series.low == pytest.approx([2 - 2.4841, 4], abs=1e-4)
    assert series.high == pytest.approx([2 + 2.4841, 4], abs=1e-4)
    assert series.label == "maml, 3 seeds"


def test_two_seeds_have_a_mean_and_no_band_where_both_are_there(comparison_of):
    (series,) = seeds_chart(comparison_of({100: 0.0, 300: 2.0, 500: 4.0}, {200: 5.0, 300: 6.0, 400: 7.0})).series
    assert (series.low, series.high) == (None, None)
    assert series.x == [200, 300, 400]
    assert series.y == pytest.approx([(1 + 5) / 2, (2 + 6) / 2, (3 + 7) / 2])  # the first is interpolated


def test_a_run_without_a_log_has_no_curve(comparison_of):
    assert seeds_chart(comparison_of({})).series == []


def test_many_env_steps_are_in_millions(comparison_of):
    chart = seeds_chart(comparison_of({1_000_000: 1.0, 2_000_000: 2.0}))
    assert chart.x.label == "million env steps"
    assert chart.series[0].x == [1, 2]


def test_the_table_has_values_with_half_of_their_interval(stored):
    curve = replace(stored.methods[0].curves[0], mean=[Estimate(-40.26, -42.26, -38.26), Estimate(None, None, None)])
    method = replace(stored.methods[0], label="maml_a & b", curves=[replace(curve, paper=curve.paper[:1])])
    table = latex_table(replace(stored, methods=[method], gradient_steps=2))
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r" & seeds & 0 & 1 & 2 \\"
    assert rows[1] == rf"maml\_a \& b & {len(method.runs)} & $-40.3 \pm 2.0$ & -- & -- \\"
    assert rows[2].startswith(r"\quad paper & & $-40.4$ & -- & -- \\")
    assert table.count(r"\begin{tabular}{lrrrr}") == 1


def test_special_characters_are_escaped():
    assert escaped(r"a_b%{c}\~^") == r"a\_b\%\{c\}\textbackslash{}\textasciitilde{}\textasciicircum{}"


@pytest.mark.usefixtures("quick_pictures")
def test_the_command_writes_the_figure_and_the_table(run_command, tmp_path):
    for name in ("navigation", "navigation-seed1", "navigation-seed2"):
        (tmp_path / name).symlink_to(TRAINED / name)
    runs = ("navigation", "navigation-seed1", "navigation-seed2")
    result = run_command("compare", *runs, "--out=out", "--figure=out.pdf", "--latex=table.tex")
    assert result.code == 0, result.err
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")
    assert r"maml & 3 & $" in (tmp_path / "table.tex").read_text()
    refused = run_command("compare", *runs, "--figure=out.doc")
    assert (refused.code, refused.out) == (2, "")
    assert "must end in one of" in refused.err
