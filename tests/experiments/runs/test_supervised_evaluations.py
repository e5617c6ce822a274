"""Evaluation of supervised runs: what is measured, recorded and drawn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maml_rl.experiments.media.supervised_plots import draw
from maml_rl.experiments.paper.published_supervised import PaperValue, method, paper_values
from maml_rl.experiments.presets.supervised_presets import PRESETS
from maml_rl.experiments.runs.run import EVALUATION, PICTURE
from maml_rl.experiments.runs.supervised_evaluations import Evaluation, Evaluations, Overrides, evaluate, table
from maml_rl.experiments.runs.supervised_run import load_run
from maml_rl.experiments.runs.supervised_stored import restored, why_not
from maml_rl.experiments.runs.supervised_training import train
from maml_rl.maml import inner_update
from maml_rl.parallel import TaskThreads
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import Adaptation, adaptation
from maml_rl.supervised.meta_learning import loss_and_accuracy
from maml_rl.supervised.sources import task_source
from maml_rl.supervised.tasks import Sinusoid

_SINUSOID = PRESETS["sinusoid"].config
SHRUNK = replace(
    _SINUSOID,
    iterations=3,
    method=replace(_SINUSOID.method, meta_batch_size=4, chunk_size=2),  # more than one piece of work for threads
    evaluation=replace(_SINUSOID.evaluation, tasks=6, gradient_steps=2, shots=(10, 5)),
)
FIRST = Overrides()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run with its pretrained baseline and oracle beside it."""
    out = tmp_path_factory.mktemp("runs")
    train(SHRUNK, out / "wave", threads=1)
    for name in ("pretrained", "oracle"):
        preset = PRESETS[f"sinusoid-{name}"].config
        train(
            replace(SHRUNK, tasks=preset.tasks, method=replace(preset.method, meta_batch_size=4)),
            out / f"wave-{name}",
            threads=1,
        )
    return out


@pytest.fixture(scope="module")
def evaluations(runs) -> Evaluations:
    return evaluate(runs / "wave", threads=1)


def test_the_error_of_each_step_is_that_of_inner_updates_one_by_one(runs, evaluations):
    run = load_run(runs / "wave", task_source(SHRUNK.tasks, None))
    tasks = Sinusoid(10, 100).batch(0, Phase.EVALUATION, range(6))
    for m in (0, 5):
        support_x, support_y, query_x, query_y = (x[m] for x in tasks)
        params = run.state.meta
        for step in range(3):
            error = (run.network(params, query_x) - query_y).square().mean().item()
            assert evaluations.evaluations[0].values[step, m] == pytest.approx(error, rel=1e-5)
            loss = lambda p, x=support_x, y=support_y: loss_and_accuracy(run.network(p, x), y)[0]  # noqa: E731
            params = inner_update(loss, params, 0.01)


def test_the_record_has_every_step_and_the_paper_s_interval(evaluations):
    record = evaluations.record()
    values = evaluations.evaluations[0].values
    assert record["gradient_steps"] == [0, 1, 2]
    assert record["num_tasks"] == 6
    assert record["mean_squared_error"] == pytest.approx(values.mean(1).tolist())
    assert record["median_squared_error"] == pytest.approx(np.median(values, axis=1).tolist())
    assert record["half_interval"] == pytest.approx((1.96 * values.std(1, ddof=1) / 6**0.5).tolist())
    assert [further["shots"] for further in record["further"]] == [5]
    assert record["method"] == "maml"


def test_baselines_beside_the_run_are_evaluated_on_the_same_tasks(evaluations, runs):
    assert evaluations.beside.keys() == {"pretrained", "oracle"}
    alone = evaluate(runs / "wave-pretrained", threads=1)
    assert np.array_equal(evaluations.beside["pretrained"][0].values, alone.evaluations[0].values)
    assert {evaluation.inner_lr for evaluation in alone.evaluations} <= set(SHRUNK.evaluation.inner_lrs)
    assert alone.record()["method"] == "pretrained"


def test_baselines_have_the_seed_in_their_names_where_the_run_has_it(runs, tmp_path):
    for name in ("wave", "wave-pretrained", "wave-oracle"):
        shutil.copytree(runs / name, tmp_path / f"{name}-seed7")
    small = Overrides(tasks=2, gradient_steps=1, shots=(5,))
    assert evaluate(tmp_path / "wave-seed7", small, threads=1).beside.keys() == {"pretrained", "oracle"}
    (tmp_path / "wave-oracle-seed7").rename(tmp_path / "wave-oracle-seed8")
    assert evaluate(tmp_path / "wave-seed7", small, threads=1).beside.keys() == {"pretrained"}


def test_overrides_change_what_is_evaluated(runs):
    chosen = evaluate(runs / "wave", Overrides(tasks=3, gradient_steps=1, shots=(7,)), threads=1)
    assert chosen.record()["shots"] == 7
    assert chosen.evaluations[0].values.shape == (2, 3)


def test_the_number_of_threads_does_not_change_the_evaluation(runs, evaluations):
    again = evaluate(runs / "wave", threads=3)
    assert np.array_equal(again.evaluations[0].values, evaluations.evaluations[0].values)


def test_a_task_diverged_when_its_error_exceeds_all_before_adaptation():
    losses = np.array([[1.0, 2.0, 3.0, 0.5], [2.5, 3.5, np.inf, np.nan]])
    evaluation = Evaluation(5, None, Adaptation(losses, np.zeros_like(losses)), is_classification=False, inner_lr=0.1)
    assert evaluation.diverged().tolist() == [0.0, 0.75]  # 2.5 is worse than its own 1, but no worse than the others
    record = evaluation.record()
    assert record["mean_squared_error"] == [1.625, None]


def test_accuracy_is_a_fraction():
    accuracies = np.array([[0.2, 0.4], [1.0, 0.6]])
    record = Evaluation(1, "support", Adaptation(np.ones_like(accuracies), accuracies), True, 0.1).record()
    assert record["mean_accuracy"] == pytest.approx([0.3, 0.8])
    assert record["batch_norm"] == "support"


def test_without_the_other_query_examples_a_prediction_is_the_same_with_support_statistics():
    config = replace(PRESETS["omniglot-5way-1shot"].config.method, chunk_size=None)
    from maml_rl.supervised.networks import ModelConfig, build_network
    from maml_rl.supervised.tasks import TaskBatch

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 2, 5, 1, 28, 28, generator=generator)
    labels = torch.arange(5).repeat(2, 1)
    tasks = TaskBatch(x[0], labels, x[1], labels)
    network = build_network(ModelConfig("strided-conv", filters=8), tasks, 5, 0)
    fewer = tasks._replace(query_x=tasks.query_x[:, :1], query_y=labels[:, :1])
    for mode, alike in (("support", True), ("transductive", False)):
        of_five, of_one = (
            network.query(network.parameters(), t.support_x[0], t.query_x[0], mode)[0] for t in (tasks, fewer)
        )
        assert torch.allclose(of_five, of_one, atol=1e-5) == alike
        values = adaptation(network, config, network.parameters(), tasks, 1, mode, TaskThreads(1))
        assert values.accuracies.shape == (2, 2)


def test_the_paper_s_values_stand_beside_those_of_the_same_tasks_and_method():
    assert paper_values(_SINUSOID, 5)[1] == PaperValue(0.67, None)
    assert paper_values(_SINUSOID, 10) == {}
    assert paper_values(PRESETS["sinusoid-pretrained"].config, 5)[10].value == 2.19
    assert paper_values(PRESETS["omniglot-20way-5shot"].config, 5) == {5: PaperValue(0.989, 0.002)}
    mini = PRESETS["mini-imagenet-5way-1shot"].config
    assert paper_values(replace(mini, method=replace(mini.method, first_order=True)), 1)[10].value == 0.4807
    assert method(PRESETS["sinusoid-oracle"].config) == "oracle"


def test_the_table_has_a_row_for_each_number_of_steps(evaluations):
    lines = table(evaluations).splitlines()
    assert len(lines) == 2 + 3
    assert "paper, 5-shot" in lines[0]
    assert "0.67" in lines[3]


def test_figures_2_and_3_are_drawn(evaluations, runs, tmp_path):
    draw(evaluations, runs / "wave", tmp_path / "adaptation.png")
    assert (tmp_path / "adaptation.png").read_bytes().startswith(b"\x89PNG")


# What is stored, and shown again


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    """A copy of the run and its neighbours."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs" / "wave"


def test_stored_evaluations_are_those_that_were_made(evaluations, runs):
    record = json.loads(json.dumps(evaluations.record(), allow_nan=False))
    assert why_not(record, runs / "wave") == ""
    again = restored(record, runs / "wave")
    assert again.config == evaluations.config
    pairs = zip(again.evaluations, evaluations.evaluations, strict=True)
    beside = [(again.beside[name][0], evaluations.beside[name][0]) for name in evaluations.beside]
    for ours, theirs in (*pairs, *beside):
        np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-5)
        np.testing.assert_allclose(ours.half_interval(), theirs.half_interval(), rtol=1e-4)
        assert (ours.shots, ours.inner_lr, ours.batch_norm) == (theirs.shots, theirs.inner_lr, theirs.batch_norm)
    assert restored(record, runs / "wave", gradient_steps=1).evaluations[0].values.shape == (2, 6)


def test_a_report_shows_the_evaluation_that_is_there_and_makes_none(maml_rl, copied, monkeypatch):
    assert maml_rl("evaluate", copied, "--tasks=4", "--threads=1").code == 0
    made = [(copied / name).read_bytes() for name in (EVALUATION, PICTURE)]
    monkeypatch.setattr("maml_rl.experiments.report.supervised_report.evaluate", None)  # calling it fails
    for arguments in ([], ["--gradient-steps=1", "--figure=fits.svg"]):
        result = maml_rl("visualize", copied, "--threads=1", *arguments)
        assert (result.code, result.err) == (0, "")
        assert "on 4 held-out tasks" in (copied / "report.html").read_text()
    assert [(copied / name).read_bytes() for name in (EVALUATION, PICTURE)] == made


def test_a_report_makes_what_is_missing_says_so_and_stores_it(maml_rl, copied):
    def said(*arguments: str) -> str:
        result = maml_rl("visualize", copied, "--threads=1", *arguments)
        assert result.code == 0
        return result.err

    first = said()
    assert first.startswith(
        f"evaluating {copied}, since it has no evaluation: 6 tasks x 2 gradient steps for 10, 5 shots"
    )
    assert "of the run and of pretrained, oracle; about " in first
    assert (copied / PICTURE).exists()
    assert said() == ""
    own = (copied / EVALUATION).read_bytes()
    assert "since its evaluation has 2 gradient steps" in said("--gradient-steps=3")
    assert (copied / EVALUATION).read_bytes() == own  # one with the run's own settings stays
    assert maml_rl("evaluate", copied, "--tasks=3", "--threads=1").out.endswith("give --out DIR to keep this one\n")
    maml_rl("train", "--resume", f"{copied}-oracle", "--iterations=4", "--threads=1")
    assert "other checkpoints of its neighbours" in said()
    maml_rl("train", "--resume", copied, "--iterations=4", "--threads=1")
    assert maml_rl("evaluate", copied, "--tasks=3", "--threads=1").out.endswith("adaptation.png\n")
    maml_rl("train", "--resume", copied, "--iterations=5", "--threads=1")
    assert "of another checkpoint: 3 tasks x 2 gradient steps" in said()
    record = json.loads((copied / EVALUATION).read_text())
    assert (record["num_tasks"], record["iteration"]) == (3, 5)
    for name in ("task_losses", "neighbours"):
        (copied / EVALUATION).write_text(json.dumps({key: record[key] for key in record if key != name}))
        assert "since its evaluation " in said()


def test_a_damaged_evaluation_is_one_line(maml_rl, copied):
    for content in ("{", "[]", "null", '{"shots": 1}'):
        (copied / EVALUATION).write_text(content)
        result = maml_rl("visualize", copied, "--threads=1")
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "remove it, to evaluate the run again" in result.err
