"""Tables of evaluations, next to the paper's values."""

from dataclasses import replace

import numpy as np
import pytest

from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.evaluation_tables import heading, published_text, remarks, table, tasks_named
from maml_rl.experiments.runs.evaluations import Evaluation, settings_with
from maml_rl.learner import QUANTITIES, RANDOM, THIS_RUN, Curve, Validation

NAVIGATION, SINUSOID, OMNIGLOT = (PRESETS[name].config for name in ("navigation", "sinusoid", "omniglot-20way-1shot"))


def evaluation(config, curves: list[Curve], **given: object) -> Evaluation:
    settings = settings_with(config, given | {"tasks": 2, "gradient_steps": curves[0].gradient_steps})
    return Evaluation(config, config.problem, 0, 1, 0, 1.0, settings, "held-out", curves, {})


OF_POLICY = evaluation(
    NAVIGATION,
    [
        Curve(THIS_RUN, "return", np.array([[-40.0, -42.0], [-9.0, -11.0]])),
        Curve(RANDOM, "return", np.array([[-80.0, -80.0], [-60.0, -62.0]])),
    ],
)
OF_WAVE = evaluation(
    SINUSOID,
    [
        Curve(THIS_RUN, "squared error", np.array([[3.0, 3.5], [0.5, 4.5]]), condition="5-shot"),
        Curve("oracle", "squared error", np.array([[0.5, 0.5], [0.25, 0.25]]), condition="5-shot"),
        Curve("pretrained", "squared error", np.array([[3.0, 3.0], [2.5, 2.5]]), condition="5-shot"),
        Curve(THIS_RUN, "squared error", np.array([[3.0, 3.0], [0.2, 0.2]]), condition="10-shot"),
    ],
)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_a_policy_stands_next_to_the_random_one_and_to_the_paper():
    header, rule, *rows = cells(table(OF_POLICY))
    assert header == ["gradient steps", "this run", "95 % interval", "random policy", "paper", "paper, random"]
    assert all(set(cell) == {"-"} for cell in rule)
    low, high = -41.0 - 12.7062, -41.0 + 12.7062  # Student's of 2 tasks whose mean has standard error 1
    assert rows == [
        ["0", "-41.0", f"[{low:.1f}, {high:.1f}]", "-80.0", "-40.4", "-82.7"],
        ["1", "-10.0", "[-22.7, 2.7]", "-61.0", "-11.7", "-58.0"],
    ]
    assert len({len(line) for line in table(OF_POLICY).splitlines()}) == 1


def test_the_table_has_no_paper_numbers_for_other_environments():
    other = OF_POLICY._replace(config=replace(NAVIGATION, env_id="other/Environment-v0"))
    assert cells(table(other))[0] == ["gradient steps", "this run", "95 % interval", "random policy"]
    assert " - " not in table(other)
    assert len(remarks(other)) == 1
    assert remarks(OF_POLICY)[1].startswith("paper: on the paper's own 40 tasks")
    assert len(remarks(OF_POLICY._replace(task_set="paper"))) == 1


def test_numbers_of_episodes_used_are_the_rows_of_one_table():
    """Two tasks: of means -10 and -20, whose returns differ by 2, Student's interval is 12.7 wide to each side."""
    curves = [
        Curve(THIS_RUN, "return", np.array([[-39.0, -41.0], [-19.0, -21.0]]), condition="1 episode"),
        Curve(THIS_RUN, "return", np.array([[-39.0, -41.0], [-9.0, -11.0]]), condition="20 episodes"),
    ]
    made = evaluation(NAVIGATION, curves, episodes_used=(1, 20))
    header, _, *rows = cells(table(made))
    assert header == ["episodes used", "before", "after 1 step"]
    assert rows == [["1", "-40.0", "-20.0 [-32.7, -7.3]"], ["20", "-40.0", "-10.0 [-22.7, 2.7]"]]


def test_there_is_a_table_for_each_number_of_shots_with_its_baselines():
    first, second = table(OF_WAVE).split("\n\n10-shot\n\n")
    title, _, header, _, *rows = cells(first)
    assert title == ["5-shot"]
    columns = ["this run", "95 % interval", "median", "diverged", "oracle", "pretrained", "paper", "paper, pretrained"]
    assert header == ["gradient steps", *columns]
    assert [rows[0][1], *rows[0][3:]] == ["3.250", "3.250", "0.0 %", "0.500", "3.000", "-", "-"]
    assert [rows[1][1], *rows[1][3:]] == ["2.500", "2.500", "50.0 %", "0.250", "2.500", "0.67", "2.41"]
    assert cells(second)[0] == ["gradient steps", "this run", "95 % interval", "median", "diverged"]
    assert "diverged: tasks whose error" in remarks(OF_WAVE)[1]


def test_accuracies_are_in_percent_and_losses_are_left_out():
    accuracy = np.array([[0.05, 0.05]] + [[0.9, 0.8]] * 5)
    conditions = ("1-shot, transductive BN", "1-shot, support BN")
    pairs = [(q, c) for c in conditions for q in ("accuracy", "loss")]
    shown = evaluation(OMNIGLOT, [Curve(THIS_RUN, q, accuracy, condition=c) for q, c in pairs])
    transductive, support = table(shown).split(f"\n\n{conditions[1]}\n\n")
    assert cells(transductive)[-1] == ["5", "85.00", "[21.47, 148.53]", "95.8"]  # +- 12.7062 x 0.05
    assert cells(support)[0] == ["gradient steps", "this run", "95 % interval"]
    assert heading(shown) == ["mean accuracy, % over 2 held-out tasks"]


@pytest.mark.parametrize(
    ("quantity", "value", "error", "text"),
    [
        ("return", -40.41, 2.07, "-40.4 ± 2.1"),
        ("return", -80.0, None, "-80.0"),
        ("accuracy", 0.987, 0.004, "98.7 ± 0.4"),
        ("accuracy", 0.4870, 0.0184, "48.7 ± 1.84"),
        ("squared error", 0.67, None, "0.67"),
    ],
)
def test_the_papers_values_have_the_digits_that_are_published(quantity, value, error, text):
    assert published_text(QUANTITIES[quantity], value, error) == text


def test_the_heading_says_what_was_measured():
    assert heading(OF_POLICY) == ["mean return over 2 held-out tasks, 40 episodes each"]
    validation = Validation(2, (0.1, 0.5), [-3.0, -2.0], higher_is_better=True)
    chosen = [curve._replace(validation=validation) for curve in OF_POLICY.curves]
    assert heading(OF_POLICY._replace(curves=chosen))[1] == ("step size 0.5: of 0.1, 0.5 the best on validation tasks")


@pytest.mark.parametrize(
    ("task_set", "strata", "name"),
    [
        ("held-out", None, "4 held-out tasks"),
        ("held-out", [0, 1, 0, 1], "4 tasks (all 2 there are, repeated)"),
        ("held-out", [2, 0, 1, 3], "all 4 tasks"),
        ("paper", [0, 1, 0, 1], "the paper's own 4 tasks"),
        ("given", None, "4 given tasks"),
    ],
)
def test_tasks_are_not_called_held_out_where_they_are_all_that_there_are(task_set, strata, name):
    assert tasks_named(task_set, 4, strata) == name
