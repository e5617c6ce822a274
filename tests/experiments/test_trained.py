"""The trained initialisations that come with the repository: complete, small, and able to adapt."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from maml_rl.experiments.paper.published import paper_returns, paper_task
from maml_rl.experiments.runs import comparison as compare_module
from maml_rl.experiments.runs import supervised_evaluations as supervised
from maml_rl.experiments.runs.evaluations import Overrides, current_evaluation, evaluate
from maml_rl.experiments.runs.run import is_supervised, load_config, method
from maml_rl.experiments.runs.supervised_run import load_config as load_supervised_config
from maml_rl.statistics import mean_with_interval

TRAINED = Path(__file__).parents[2] / "trained"
ALL = sorted(path.parent.relative_to(TRAINED).as_posix() for path in TRAINED.glob("*/checkpoint.safetensors"))
SUPERVISED = [name for name in ALL if is_supervised(TRAINED / name)]
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
    config, progress, _ = load_config(directory)
    record = json.loads((directory / "evaluation.json").read_text())
    assert (record["env_id"], record["num_tasks"], record["seed"]) == (config.env_id, 40, 0)
    assert (record["iteration"], record["env_steps"]) == (progress.iteration, progress.env_steps)
    with (directory / "metrics.csv").open(newline="") as file:
        iterations = [int(row["iteration"]) for row in csv.DictReader(file)]
    # The log of half-cheetah-dir-seed0 lacks its last ten rows: trained/README.md says why.
    logged = 120 if name == "half-cheetah-dir-seed0" else progress.iteration
    assert iterations == list(range(1, logged + 1))
    assert json.loads((directory / "config.json").read_text())["seed"] == record["training_seed"]


@pytest.mark.parametrize("name", RUNS)
def test_a_trained_run_was_evaluated_on_held_out_tasks_and_on_the_papers(name):
    config, progress, _ = load_config(TRAINED / name)
    for task_set in ("held-out", "paper"):
        record = current_evaluation(TRAINED / name, config, progress, task_set)
        assert record is not None
        returns = np.array(record["task_returns"])
        means = [mean_with_interval(values, record["strata"]) for values in returns]
        np.testing.assert_allclose(record["mean_return"], [mean.value for mean in means])
        np.testing.assert_allclose(record["interval_95"], [mean[2:] for mean in means])


README_TASKS = {
    "2D navigation": "navigation",
    "half-cheetah direction": "half-cheetah-dir",
    "half-cheetah velocity": "half-cheetah-vel",
    "ant velocity": "ant-vel",
    "ant direction": "ant-dir",
}


def test_the_readme_has_the_returns_of_the_trained_runs_on_the_papers_tasks_next_to_the_papers():
    found = {}
    for name in RUNS:
        record = json.loads((TRAINED / name / "evaluation-paper.json").read_text())
        if record["method"] == "maml":
            found[paper_task(record["env_id"]), f"seed {record['training_seed']}"] = record["mean_return"]
            found[paper_task(record["env_id"]), "paper"] = [p.mean for p in paper_returns(record["env_id"]).values()]
    text = (TRAINED.parent / "README.md").read_text()
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    shown, task = set(), ""
    for row in [row for row in rows if len(row) == 7]:
        task = README_TASKS.get(row[0], task)
        key = (task, row[1].partition(" (")[0])
        if key in found:
            assert [float(cell) for cell in row[3:]] == pytest.approx(found[key][:4], abs=0.0501), key
            shown.add(key)
    assert shown == found.keys()


@pytest.mark.parametrize("name", [name for name in RUNS if method(load_config(TRAINED / name)[0]) == "maml"])
def test_a_trained_policy_adapts_in_one_gradient_step(name):
    kind = next(preset for preset in ADAPTED if name.startswith(preset))
    overrides = Overrides(tasks=6, gradient_steps=1, episodes=20)
    after = evaluate(TRAINED / name, overrides).trained.returns[1].mean()
    assert after > ADAPTED[kind]


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_trained_supervised_run_is_complete_and_small(name):
    directory = TRAINED / name
    assert sum(path.stat().st_size for path in directory.iterdir()) < 2_000_000
    config, progress = load_supervised_config(directory)
    assert config.data is None or not Path(config.data).is_absolute()
    record = json.loads((directory / "evaluation.json").read_text())
    assert (record["family"], record["num_tasks"], record["iteration"]) == (
        config.tasks.family,
        600,
        progress.iteration,
    )
    with (directory / "metrics.csv").open(newline="") as file:
        last = [int(row["iteration"]) for row in csv.DictReader(file)][-1]
    assert last == progress.iteration


def test_the_trained_sinusoid_adapts_as_well_as_the_paper_s():
    record = json.loads((TRAINED / "sinusoid" / "evaluation.json").read_text())
    by_shots = {evaluation["shots"]: evaluation["mean_squared_error"] for evaluation in (record, *record["further"])}
    assert by_shots[5][1] <= 0.67  # Table 2 of the paper
    assert by_shots[10][10] <= 0.15
    # The same on fewer tasks, with the checkpoint as it is here: 0.55 and 0.11 on all, 3.1 before adaptation.
    overrides = supervised.Overrides(tasks=100)
    errors = {e.shots: e.values.mean(1) for e in supervised.evaluate(TRAINED / "sinusoid", overrides).evaluations}
    assert errors[5][1] < 0.9
    assert errors[10][10] < 0.25
