"""The trained initialisations that come with the repository: complete, small, and able to adapt."""

import csv
import json
from pathlib import Path

import pytest

from maml_rl.config import RLEvaluation
from maml_rl.experiments.runs import comparison as compare_module
from maml_rl.experiments.runs.evaluating import evaluate
from maml_rl.experiments.runs.evaluations import current_evaluation
from maml_rl.run import load_run
from maml_rl.tasks import evaluation_tasks

TRAINED = Path(__file__).parents[2] / "trained"
ALL = sorted(path.parent.relative_to(TRAINED).as_posix() for path in TRAINED.glob("*/checkpoint.safetensors"))
LOADED = {name: load_run(TRAINED / name) for name in ALL}
SUPERVISED = [name for name, run in LOADED.items() if run.config.kind == "supervised"]
RUNS = [name for name in ALL if name not in SUPERVISED]

# Lowest mean return after one gradient step on 6 tasks x 20 episodes, in the order below. A full evaluation has -10,
# 424 to 482, -80, 98 and 395, and these few -8 to -9, 436 to 481, -101, 76 and 304 (the last 339 with another seed).
# Before adaptation it is about -40, -30, -160, 17 and 2 to 24, so a policy that does not adapt fails.
ADAPTED = {
    "navigation": -14.0,
    "half-cheetah-dir": 380.0,
    "half-cheetah-vel": -120.0,
    "ant-vel": 48.0,
    "ant-dir": 250.0,
}
OF_PROMP = {"promp-half-cheetah-dir": 290.0, "promp-half-cheetah-dir-maml": 220.0}


def test_every_preset_of_the_paper_has_a_trained_run():
    assert set(ADAPTED) <= set(RUNS)


@pytest.mark.parametrize("task", ["navigation", "half-cheetah-dir", "half-cheetah-vel"])
def test_trained_runs_are_compared_by_their_stored_evaluations(task, monkeypatch):
    def evaluate_again(*_: object, **__: object) -> None:
        raise AssertionError("an evaluation that comes with the repository is made again")

    monkeypatch.setattr(compare_module, "evaluate", evaluate_again)
    comparison = compare_module.compare([TRAINED / name for name in RUNS if name.startswith(task)])
    assert comparison.gradient_steps == 3


@pytest.mark.parametrize("name", RUNS)
def test_a_trained_run_is_complete_and_small(name):
    directory = TRAINED / name
    assert sum(path.stat().st_size for path in directory.iterdir()) < 1_000_000
    run = LOADED[name]
    with (directory / "metrics.csv").open(newline="") as file:
        iterations = [int(row["iteration"]) for row in csv.DictReader(file)]
    # The last ten rows of the log of half-cheetah-dir-seed0 are missing: trained/README.md says why.
    logged = 120 if name == "half-cheetah-dir-seed0" else run.state.iteration
    assert iterations == list(range(1, logged + 1))
    assert json.loads((directory / "config.json").read_text())["seed"] == run.config.seed


@pytest.mark.parametrize("name", ALL)
def test_a_trained_run_was_evaluated_as_it_is(name):
    has_paper = name in RUNS and ":finn2017/" in LOADED[name].config.env_id
    for task_set in ("held-out", "paper") if has_paper else ("held-out",):
        evaluation = current_evaluation(TRAINED / name, LOADED[name], task_set)
        assert evaluation is not None
        assert evaluation.settings.tasks == (40 if name in RUNS else 600)


@pytest.mark.parametrize("name", [n for n in RUNS if LOADED[n].config.method == "maml" or n in OF_PROMP])
def test_a_trained_policy_adapts_in_one_gradient_step(name):
    least = (
        OF_PROMP[name] if name in OF_PROMP else ADAPTED[next(preset for preset in ADAPTED if name.startswith(preset))]
    )
    run, config = LOADED[name], RLEvaluation(tasks=6, gradient_steps=1, episodes=20)
    with run.open(evaluation=config) as learner:
        tasks = evaluation_tasks(learner.task_space, config.tasks, config.seed)
        *_, (_, after) = learner.adaptation(run.state, tasks, config)  # evaluates no random policy, as `evaluate` would
    assert after.returns.mean() > least


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_trained_supervised_run_is_complete_and_small(name):
    directory = TRAINED / name
    assert sum(path.stat().st_size for path in directory.iterdir()) < 2_000_000
    run = LOADED[name]
    assert run.config.data is None or not Path(run.config.data).is_absolute()
    with (directory / "metrics.csv").open(newline="") as file:
        last = [int(row["iteration"]) for row in csv.DictReader(file)][-1]
    assert last == run.state.iteration


def test_the_trained_sinusoid_adapts_as_well_as_the_papers():
    def errors(evaluation):
        return {curve.condition: [mean.value for mean in curve.means()] for curve in evaluation.main_curves()}

    stored = errors(current_evaluation(TRAINED / "sinusoid", LOADED["sinusoid"]))
    assert stored["5-shot"][1] <= 0.67  # Table 2 of the paper
    assert stored["10-shot"][10] <= 0.15
    # The same on fewer tasks, with the checkpoint as it is here: 0.55 and 0.11 on all, 3.1 before adaptation.
    again = errors(evaluate(TRAINED / "sinusoid", {"tasks": 100, "validation_tasks": 10, "shots": (10, 5)}))
    assert again["5-shot"][1] < 0.9
    assert again["10-shot"][10] < 0.25
