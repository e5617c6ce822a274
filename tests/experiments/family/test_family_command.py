"""`maml-rl family` from its start to its files, with short settings."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from maml_rl.config import RLEvaluation
from maml_rl.experiments.__main__ import main
from maml_rl.experiments.family import choosing, measuring
from maml_rl.experiments.family.variants import (
    CHOICE,
    CHOICE_TABLE_SEED,
    METHODS,
    PROBLEMS,
    TABLE_SEED,
    Problem,
    configuration,
    held_out,
    methods_of,
)
from maml_rl.experiments.presets.rl_presets import RL_PRESETS
from maml_rl.learner import Metrics
from maml_rl.machine import Machine
from maml_rl.reinforcement import RLLearner
from maml_rl.run import Run, load_run, train
from maml_rl.types import State

pytestmark = pytest.mark.usefixtures("quick_pictures")

SHORT = [
    "--problems",
    "tabular-mdp",
    "--methods",
    "maml",
    "first-order",
    "--seeds",
    "2",
    "--timing-rounds",
    "1",
    "--draws",
    "2",
]
FILES = ["--runs", "runs", "--out", "out"]


@pytest.fixture(autouse=True)
def small_problem(monkeypatch) -> None:
    """A small network, small batches and few iterations."""
    preset = RL_PRESETS["tabular-mdp"]
    config = preset.config
    small = replace(
        config,
        checkpoint_every=1,
        meta=replace(config.meta, meta_batch_size=2, episodes=3),
        network=replace(config.network, hidden_sizes=(4,)),
        evaluation=replace(config.evaluation, episodes=3),
    )
    monkeypatch.setitem(RL_PRESETS, "tabular-mdp", preset._replace(config=small))
    monkeypatch.setitem(PROBLEMS, "tabular-mdp", Problem("tabular-mdp", 2, 1, 3, has_std=False))


@pytest.fixture
def family(monkeypatch, tmp_path, capsys):
    """Runs the command in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["maml-rl", "family", *arguments])
        main()
        return tuple(capsys.readouterr())

    return run


def test_the_command_trains_measures_and_writes(family, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results_page: tabular-mdp -->\nold\n<!-- end -->\nafter\n")
    out, err = family(*SHORT, *FILES, "--page", str(page))
    assert "run 4 of 4: runs/tabular-mdp/first-order-seed1" in err
    assert "| MAML | 2 | 240 |" in out  # 2 iterations x 2 tasks x 3 episodes x 10 steps, before and after: 240
    record = json.loads((tmp_path / "out" / "tabular-mdp.json").read_text())
    assert [(run["method"], run["seed"]) for run in record["runs"]] == [
        *(("maml", 0), ("maml", 1), ("first-order", 0), ("first-order", 1)),
    ]
    assert [point["episodes"] for point in record["ceiling"]] == [0, 3, 6, 9]
    assert record["times"]["maml"]["iteration_ratio"] == 1.0
    assert -1 <= record["gradients"]["first-order"]["cosine"] <= 1
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "planner on random episodes" in text
    assert "old" not in text

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    for name in ("train", "resume"):
        monkeypatch.setattr(measuring, name, refuse)
    again, _ = family(*SHORT, *FILES[:2], "--out", "again", "--timing-rounds", "0", "--draws", "0")
    assert [line.split(" | x ")[0][:60] for line in again.splitlines() if line.startswith("| f")] == [
        line.split(" | x ")[0][:60] for line in out.splitlines() if line.startswith("| f")
    ]


def test_a_finished_run_is_evaluated_again_only_on_other_tasks(family, monkeypatch):
    evaluated, evaluate = [], measuring.held_out_returns

    def counted(run: Run, settings: RLEvaluation) -> list[float]:
        evaluated.append(settings.tasks)
        return evaluate(run, settings)

    monkeypatch.setattr(measuring, "held_out_returns", counted)
    monkeypatch.setattr(measuring, "resume", None)
    arguments = ["--problems", "tabular-mdp", "--methods", "maml", *FILES[:2], "--timing-rounds", "0", "--draws", "0"]
    for out in ("out", "again"):
        family(*arguments, "--out", out)
    monkeypatch.setitem(PROBLEMS, "tabular-mdp", PROBLEMS["tabular-mdp"]._replace(tasks=5))
    family(*arguments, "--out", "out of five tasks")
    assert evaluated == [3, 5]


def test_a_page_without_markers_is_refused_before_anything_is_trained(family, tmp_path, capsys):
    (tmp_path / "page.md").write_text("no table here\n")
    with pytest.raises(SystemExit):
        family(*SHORT, *FILES, "--page", "page.md")
    assert "page.md should have the lines <!-- results_page: tabular-mdp -->" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_run_is_resumed_to_the_same_returns(family, monkeypatch, tmp_path):
    one = ["--problems", "tabular-mdp", "--methods", "maml", "--seeds", "1", "--timing-rounds", "0", "--draws", "0"]
    family(*one, "--runs", "whole", "--out", "out")
    original = RLLearner.iterate

    def interrupted(learner: RLLearner, state: State) -> tuple[State, Metrics]:
        if state.iteration == 1:
            raise KeyboardInterrupt
        return original(learner, state)

    with monkeypatch.context() as patched:
        patched.setattr(RLLearner, "iterate", interrupted)
        with pytest.raises(SystemExit) as stop:
            family(*one, "--runs", "parts", "--out", "out2")
    assert stop.value.code == 130
    assert load_run(tmp_path / "parts" / "tabular-mdp" / "maml-seed0").state.iteration == 1
    family(*one, "--runs", "parts", "--out", "out2")
    runs = [json.loads((tmp_path / out / "tabular-mdp.json").read_text())["runs"][0] for out in ("out", "out2")]
    assert runs[0]["returns"] == runs[1]["returns"]
    assert runs[0]["curve"] == runs[1]["curve"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems", "chess"], "there is no problem 'chess': expected some of tabular-mdp,"),
        (["--methods", "mml"], "there is no method 'mml': expected some of maml,"),
        (["--seeds", "-1"], "--seeds must be at least 0, got -1"),
        (["--seeds", "0", "--runs", "nowhere"], "no checkpoint"),
        (["--draws", "1"], "--draws must be at least 2, or 0 for none, got 1"),
        (["--iterations", "0"], "--iterations must be at least 1, got 0"),
    ],
)
def test_an_invalid_option_is_refused_in_one_line(family, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        family(*arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_run_with_other_settings_is_refused(family, capsys):
    one = ["--problems", "tabular-mdp", "--methods", "maml", "--seeds", "1", "--timing-rounds", "0", "--draws", "0"]
    family(*one, *FILES)
    for other, message in ((["--out", "out"], "has iterations 2, this one 1"), (["--out", "new"], "other settings")):
        with pytest.raises(SystemExit):
            family(*one, "--iterations", "1", "--runs", "runs", *other)
        assert message in capsys.readouterr().err


def test_the_noise_of_gradients_is_compared_where_networks_are_alike():
    """CAVIA has another network, and learned step sizes have not been learned yet."""
    methods = {"maml": "maml", "same": "maml", "meta-sgd": "meta-sgd", "filtered": "filtered", "cavia": "cavia"}
    configs = {name: configuration("tabular-mdp", method, 0) for name, method in methods.items()}
    reached = train(configs["maml"], iterations=1, machine=Machine(threads=1))
    with measuring.opened(configs, reached) as learners:
        qualities = measuring.gradient_qualities(learners, draws=3)
    assert qualities["same"] == qualities["maml"]
    assert qualities.keys() == {"maml", "same"}


def test_step_sizes_are_chosen_on_other_seeds_and_tasks(family, monkeypatch):
    used = []
    original = choosing.held_out_returns

    def noted(run: Run, settings: RLEvaluation) -> list[float]:
        used.append((run.config.seed, run.rl_config.meta.step.lr, settings.seed))
        return original(run, settings)

    monkeypatch.setattr(choosing, "held_out_returns", noted)
    out, _ = family("--choose", "--problems", "tabular-mdp", "--methods", "maml", "promp", "--iterations", "1")
    assert used == [(CHOICE, lr, CHOICE_TABLE_SEED) for lr in (0.001, 0.003, 0.01, 0.03)]
    (row,) = [line for line in out.splitlines() if "ProMP" in line]
    returns = re.sub(r"[\d.]+(?=,|\*\*,| \|$)", "R", row)
    assert returns == "| ProMP | step.lr | 0.001: R, 0.003: R, **0.01: R**, 0.03: R |"


@pytest.mark.parametrize("problem", PROBLEMS)
def test_step_sizes_in_use_are_among_the_candidates(problem):
    for member in METHODS.values():
        if member.own is not None:
            assert member.own.chosen[problem] in member.own.candidates[problem]


def test_list_prints_the_commands_of_all_runs(family):
    out, _ = family("--list", "--problems", "tabular-mdp", "--methods", "first-order", "--seeds", "1")
    assert "maml-rl train" in out
    assert "--meta.first-order" in out
    assert "--out runs/family/tabular-mdp/first-order-seed0" in out


@pytest.mark.parametrize("problem", PROBLEMS)
def test_all_methods_of_a_problem_have_the_same_episodes_and_held_out_tasks(problem):
    """The same number of episodes in an iteration, and of iterations; seeds that no setting was chosen on."""
    configs = [configuration(problem, method, 0) for method in methods_of(problem)]
    batches = {(c.iterations, c.meta.meta_batch_size, c.meta.episodes, c.meta.inner_steps) for c in configs}
    assert len(batches) == 1
    assert {held_out(c, problem) for c in configs} == {held_out(configs[0], problem)}
    assert held_out(configs[0], problem).seed == TABLE_SEED
    assert PROBLEMS[problem].seeds <= CHOICE


ROOT = Path(__file__).parents[3]
SMALL = ["--iterations=1", "--meta.meta-batch-size=2", "--meta.episodes=2", "--network.hidden-sizes", "4"]


@pytest.fixture(name="two_methods")
def _two_methods() -> Iterator[None]:
    """MAML and LVC alone: each of the others has its own command on the page."""
    every = dict(METHODS)
    for method in every.keys() - {"maml", "lvc"}:
        del METHODS[method]
    yield
    METHODS.clear()
    METHODS.update(every)  # in their order, which deleting and setting one by one would change


@pytest.mark.usefixtures("two_methods")
def test_the_commands_of_the_page_run(family, monkeypatch, capsys):
    for problem in PROBLEMS:
        monkeypatch.setitem(PROBLEMS, problem, PROBLEMS["tabular-mdp"])
    page = (ROOT / "docs" / "methods.md").read_text()
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S) for line in block.splitlines()]
    assert sum(line.startswith("maml-rl family") for line in commands) == 6
    for i, command in enumerate(commands):
        program, *arguments = shlex.split(command)
        assert program == "maml-rl"
        if arguments[0] == "family":
            family(
                *arguments[1:], *([] if "--list" in arguments else ["--iterations=1", "--timing-rounds=0", "--draws=0"])
            )
        else:
            monkeypatch.setattr(sys, "argv", ["maml-rl", *arguments, *SMALL, "--out", f"run{i}"])
            main()
            assert "Traceback" not in capsys.readouterr().err


def test_every_method_has_its_line_on_the_page_and_is_shown_in_the_readme():
    page = (ROOT / "docs" / "methods.md").read_text()
    for member in METHODS.values():
        assert member.label.partition(",")[0].lower() in page.lower()
    for other in ("README.md", "docs/algorithm.md"):
        assert "methods.md" in (ROOT / other).read_text()
