"""Evaluation of runs of both kinds: tasks, step sizes and results."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maml_rl.checkpoint import load_checkpoint, save_checkpoint, write_json
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.evaluation import task_returns
from maml_rl.experiments.paper.published import paper_tasks
from maml_rl.experiments.presets import PRESETS
from maml_rl.experiments.runs.evaluating import announcement, evaluate, how_long
from maml_rl.experiments.runs.evaluations import (
    EVALUATION,
    Evaluation,
    baseline_runs,
    read_evaluation,
    settings_with,
    write_evaluation,
)
from maml_rl.experiments.runs.training import train
from maml_rl.inner import inner_update
from maml_rl.learner import RANDOM, THIS_RUN, Curve, Validation, validated
from maml_rl.machine import Machine
from maml_rl.rates import InnerUpdate
from maml_rl.reinforcement import RLLearner
from maml_rl.run import CHECKPOINT, load_run
from maml_rl.seeding import Phase
from maml_rl.supervised.meta_learning import loss_and_accuracy
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedEvaluation, TasksConfig
from maml_rl.supervised.supervised_learner import SupervisedLearner
from maml_rl.supervised.task_batches import Sinusoid, TaskBatch
from maml_rl.tasks import evaluation_tasks

ONE = Machine(threads=1)
NAVIGATION, DIRECTION = (PRESETS[name].config for name in ("navigation", "half-cheetah-dir"))
SINUSOID = PRESETS["sinusoid"].config


def shrunk(config: RLConfig, **meta: object) -> RLConfig:
    return replace(
        config,
        iterations=1,
        meta=replace(config.meta, **({"meta_batch_size": 2, "episodes": 3} | meta)),
        network=PolicyConfig(hidden_sizes=(8, 8)),
        evaluation=RLEvaluation(tasks=3, gradient_steps=2, episodes=3, later_lr_factor=0.2, seed=4),
    )


WAVE = replace(
    SINUSOID,
    iterations=3,
    meta=replace(SINUSOID.meta, meta_batch_size=4, chunk_size=2),  # more than one piece of work for threads
    network=NetworkConfig("mlp", hidden_sizes=(8,)),
    evaluation=replace(SINUSOID.evaluation, tasks=6, gradient_steps=2, shots=(10, 5), validation_tasks=3),
)


@pytest.fixture(scope="module")
def navigation(tmp_path_factory) -> Path:
    """A run on navigation. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "navigation"
    train(shrunk(NAVIGATION), out, ONE)
    return out


@pytest.fixture(scope="module")
def evaluation(navigation) -> Evaluation:
    return evaluate(navigation, machine=ONE)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A run of multi-task TRPO on navigation. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    config = shrunk(NAVIGATION, inner_steps=0)
    chosen = replace(config.evaluation, validation_tasks=2, inner_lrs=(0.01, 0.4))
    train(replace(config, evaluation=chosen), out, ONE)
    return out


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> Path:
    """A run on sinusoids, with its pretrained baseline and oracle next to it. No test changes its directory."""
    out = tmp_path_factory.mktemp("runs")
    train(WAVE, out / "wave", ONE)
    for name in ("pretrained", "oracle"):
        preset = PRESETS[f"sinusoid-{name}"].config
        config = replace(WAVE, tasks=preset.tasks, meta=replace(preset.meta, meta_batch_size=4))
        train(config, out / f"wave-{name}", ONE)
    return out


@pytest.fixture(scope="module")
def of_wave(waves) -> Evaluation:
    return evaluate(waves / "wave", machine=ONE)


def values(evaluation: Evaluation, of: str = THIS_RUN) -> np.ndarray:
    return evaluation.main_curves(of)[0].values


# Reinforcement learning


def test_the_returns_are_those_of_adaptation_on_the_held_out_tasks(navigation, evaluation):
    run = load_run(navigation)
    with run.open_rl(ONE) as learner:
        tasks = evaluation_tasks(learner.task_space, 3, 4)
        returns = [task_returns(sampled) for _, sampled in learner.adaptation(run.state, tasks)]
    (curve,) = evaluation.main_curves()
    assert (curve.of, curve.quantity, curve.condition) == (THIS_RUN, "return", "")
    assert [list(task) for task in curve.tasks] == [task.tolist() for task in tasks]
    np.testing.assert_array_equal(curve.values, returns)
    assert curve.inner_lr == pytest.approx([0.5, 0.5 * 0.2])


def test_the_random_policy_meets_the_same_tasks_and_is_the_run_before_training(evaluation, tmp_path):
    random = evaluation.main_curves(RANDOM)[0]
    assert random.tasks == evaluation.curves[0].tasks
    assert not np.array_equal(random.values, values(evaluation))
    untrained = replace(shrunk(NAVIGATION), iterations=0)
    train(untrained, tmp_path / "run", ONE)
    first = evaluate(tmp_path / "run", machine=ONE)
    np.testing.assert_array_equal(values(first), random.values)
    np.testing.assert_array_equal(values(first, RANDOM), random.values)
    assert (first.config.method, first.iteration, first.env_steps) == ("random", 0, 0)


def test_an_evaluation_depends_only_on_its_own_seed(navigation, evaluation, tmp_path):
    """Neither on the number of threads, nor on the seed of the training."""
    out = tmp_path / "run"
    shutil.copytree(navigation, out)
    checkpoint = load_checkpoint(out / CHECKPOINT)
    checkpoint.record["config"]["seed"] = 17
    save_checkpoint(out / CHECKPOINT, checkpoint)
    other = evaluate(out, machine=Machine(threads=2))
    np.testing.assert_array_equal(values(other), values(evaluation))
    assert other.training_seed == 17
    assert not np.array_equal(values(other, RANDOM), values(evaluation, RANDOM))  # its weights are those of the seed


def test_settings_given_by_the_user_replace_the_runs_own(navigation, evaluation):
    given = {"tasks": 2, "gradient_steps": 1, "episodes": 4, "later_lr_factor": 0.7, "seed": 5}
    other = evaluate(navigation, given, machine=ONE)
    assert other.settings == RLEvaluation(**given)
    assert values(other).shape == (2, 2)
    fewer = evaluate(navigation, {"gradient_steps": 0}, machine=ONE)
    assert fewer.settings == replace(evaluation.settings, gradient_steps=0)
    np.testing.assert_array_equal(values(fewer), values(evaluation)[:1])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tasks": 1}, "tasks must be"),
        ({"gradient_steps": -1}, "gradient_steps must be"),
        ({"episodes": 0}, "episodes must be"),
        ({"seed": -1}, "seed must be"),
        ({"shots": (5,)}, "shots is not a setting of the evaluation of a reinforcement run"),
    ],
)
def test_an_invalid_setting_is_refused_and_named(navigation, given, expected):
    with pytest.raises(InputError, match=f"^{expected}"):
        evaluate(navigation, given)


def test_an_unavailable_device_is_refused(navigation):
    with pytest.raises(InputError, match="cuda:99"):
        evaluate(navigation, machine=Machine(device="cuda:99"))


def test_the_two_directions_occur_equally_often(tmp_path):
    train(replace(shrunk(DIRECTION), iterations=0), tmp_path / "run", ONE)
    curve = evaluate(tmp_path / "run", {"tasks": 4, "gradient_steps": 1, "episodes": 2}, machine=ONE).curves[0]
    assert sorted(curve.tasks) == [0, 0, 1, 1]
    assert list(curve.strata) == list(curve.tasks)


def test_an_oracle_is_evaluated_with_the_task_in_its_observation(tmp_path):
    config = replace(shrunk(NAVIGATION, inner_steps=0), observe_task=True)
    train(config, tmp_path / "run", ONE)
    oracle = evaluate(tmp_path / "run", {"gradient_steps": 0}, machine=ONE)
    assert oracle.config.method == "oracle"
    assert oracle.curves[0].validation is None  # nothing is chosen where no gradient step is taken
    assert np.isfinite(values(oracle)).all()


# Step sizes


def test_the_step_size_of_a_run_without_inner_updates_is_chosen_and_kept(pretrained):
    curve, random = evaluate(pretrained, machine=ONE).curves
    assert (curve.validation.tasks, curve.validation.inner_lrs) == (2, (0.01, 0.4))
    best = curve.validation.inner_lrs[int(np.argmax(curve.validation.scores))]
    assert curve.inner_lr == random.inner_lr == pytest.approx((best, best * 0.2))
    run = load_run(pretrained)
    with run.open_rl(ONE) as learner:
        meta = replace(run.rl_config.meta, inner_lr=best)
        tasks = evaluation_tasks(learner.task_space, 3, 4)
        path = learner.adaptation(run.state, tasks, run.rl_config.evaluation, meta)
        np.testing.assert_array_equal(curve.values, [task_returns(sampled) for _, sampled in path])


def test_the_step_size_of_maml_is_that_of_its_training(evaluation):
    assert all(curve.validation is None for curve in evaluation.curves)


def test_the_best_step_size_has_the_best_finite_score():
    def chosen(scores: dict[float, float], higher_is_better: bool) -> float:
        meta, evaluation = replace(NAVIGATION.meta, inner_steps=0), RLEvaluation(inner_lrs=tuple(scores))

        def score(settings):
            if scores[settings.inner_lr] == 0.0:
                raise NonFiniteError("diverged")
            return scores[settings.inner_lr]

        settings, validation = validated(meta, evaluation, score, higher_is_better=higher_is_better)
        assert validation.best == settings.inner_lr
        return settings.inner_lr

    scores = {0.1: 2.0, 0.2: 3.0, 0.3: float("nan"), 0.4: float("inf"), 0.5: 0.0}
    assert chosen(scores, higher_is_better=True) == 0.2
    assert chosen(scores, higher_is_better=False) == 0.1
    with pytest.raises(NonFiniteError, match="no result is finite"):
        chosen({0.1: float("nan")}, higher_is_better=True)
    assert validated(NAVIGATION.meta, RLEvaluation(), None, higher_is_better=True) == (NAVIGATION.meta, None)


# The paper's tasks


def test_a_run_is_evaluated_on_the_papers_tasks(navigation):
    on_paper = evaluate(navigation, {"gradient_steps": 0, "episodes": 1}, "paper", machine=ONE)
    assert (on_paper.task_set, on_paper.settings.tasks) == ("paper", 40)
    np.testing.assert_array_equal(on_paper.curves[0].tasks, paper_tasks(NAVIGATION.env_id))
    assert values(on_paper).shape == (1, 40)


def test_other_tasks_get_the_step_size_that_the_run_has_chosen(pretrained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    held_out = evaluate(run, machine=ONE)
    write_json(run / EVALUATION, held_out.to_json())
    given: list[Validation | None] = []
    monkeypatch.setattr(RLLearner, "evaluate", lambda *arguments: [given.append(arguments[-1])])
    evaluate(run, task_set="paper")
    evaluate(run, {"episodes": 2}, "paper")
    (tmp_path / "far.json").write_text("[[2.0, 1.0], [-1.5, 0.5]]")
    evaluate(run, tasks=tmp_path / "far.json")
    assert given == [held_out.curves[0].validation, None, held_out.curves[0].validation]


def test_other_environments_and_supervised_runs_have_no_tasks_of_the_paper(waves, tmp_path):
    config = replace(shrunk(NAVIGATION), env_id="maml_rl.envs:duan2016/BernoulliBandit-v0", iterations=0)
    train(config, tmp_path / "run", ONE)
    with pytest.raises(InputError, match=r"the paper has no tasks of maml_rl.envs:duan2016/BernoulliBandit-v0"):
        evaluate(tmp_path / "run", task_set="paper")
    with pytest.raises(InputError, match="the paper has no list of its tasks of sinusoid: give --tasks N"):
        evaluate(waves / "wave", task_set="paper")


# Tasks from a file


def test_a_run_is_evaluated_on_tasks_from_a_file_also_beyond_its_distribution(navigation, tmp_path, capsys):
    tasks, few = tmp_path / "goals.json", {"gradient_steps": 1, "episodes": 2}
    tasks.write_text("[[0.1, 0.2], [0.9, -0.9], [0.3, 0.3]]")
    made = evaluate(navigation, few, machine=ONE, tasks=tasks)
    assert (made.task_set, made.settings.tasks, made.has_own_settings) == ("given", 3, False)
    np.testing.assert_array_equal(made.curves[0].tasks, np.array(json.loads(tasks.read_text()), np.float32))
    assert capsys.readouterr().err.endswith("1 of 3 tasks are outside the task space of the training\n")
    write_evaluation(tmp_path, made, lambda path: path.write_bytes(b""))
    assert read_evaluation(tmp_path / "evaluation-given.json", load_run(navigation).config).task_set == "given"
    same, other = (evaluate(navigation, few, machine=ONE, tasks=tasks) for _ in range(2))
    np.testing.assert_array_equal(values(same), values(other))


def test_an_invalid_task_is_refused_with_its_place_in_the_file(navigation, waves, tmp_path):
    tasks = tmp_path / "goals.json"
    tasks.write_text("[[0.1, 0.2], [0.9]]")
    with pytest.raises(InputError, match=r"goals.json: task 2, \[0.9\], does not have the form of the task space"):
        evaluate(navigation, machine=ONE, tasks=tasks)
    with pytest.raises(InputError, match="tasks of sinusoid cannot be listed in a file: give --tasks N"):
        evaluate(waves / "wave", machine=ONE, tasks=tasks)


def test_a_task_that_the_environment_cannot_run_is_refused_in_one_line(tmp_path):
    hopper = replace(shrunk(NAVIGATION), env_id="maml_rl.envs:maml_rl/HopperPayload-v0", iterations=0)
    train(replace(hopper, max_episode_steps=3), tmp_path / "run", ONE)
    tasks = tmp_path / "loads.json"
    tasks.write_text('[{"payload": [30.0], "place": [0.0]}, {"payload": [-1.0], "place": [0.0]}]')
    with pytest.raises(InputError, match=r"cannot take a step with task 2, .*mass must be at least 0, got -1"):
        evaluate(tmp_path / "run", machine=ONE, tasks=tasks)


# Episodes used


def test_the_number_of_episodes_rises_to_the_largest_number_used():
    given = settings_with(NAVIGATION, {"episodes_used": (1, 60)})
    assert (given.episodes, given.episodes_used) == (60, (1, 60))
    assert settings_with(NAVIGATION, {"episodes_used": (1, 2)}).episodes == NAVIGATION.evaluation.episodes
    with pytest.raises(InputError, match="from 1 to episodes, 5"):
        settings_with(NAVIGATION, {"episodes_used": (1, 60), "episodes": 5})


# Supervised learning


def test_the_error_of_each_step_is_that_of_inner_updates_one_by_one(waves, of_wave):
    run = load_run(waves / "wave")
    with run.open(ONE) as learner:
        network = learner.network
    tasks = Sinusoid(10, 100).batch(0, Phase.EVALUATION, range(6))
    for m in (0, 5):
        support_x, support_y, query_x, query_y = (x[m] for x in tasks)
        params = run.state.meta
        for step in range(3):
            error = (network(params, query_x) - query_y).square().mean().item()
            assert values(of_wave)[step, m] == pytest.approx(error, rel=1e-5)
            loss = lambda p, x=support_x, y=support_y: loss_and_accuracy(network(p, x), y)[0]  # noqa: E731
            params = inner_update(loss, params, InnerUpdate(dict.fromkeys(params, 0.01)))


def test_there_is_a_curve_for_each_number_of_shots(of_wave, waves):
    assert [(c.quantity, c.condition, c.inner_lr) for c in of_wave.main_curves()] == [
        ("squared error", "10-shot", (0.01, 0.01)),
        ("squared error", "5-shot", (0.01, 0.01)),
    ]
    chosen = evaluate(waves / "wave", {"tasks": 3, "gradient_steps": 1, "shots": (7,)}, machine=ONE)
    assert chosen.conditions == ["7-shot"]
    assert values(chosen).shape == (2, 3)


def test_the_number_of_threads_does_not_change_an_error(waves, of_wave):
    assert evaluate(waves / "wave", machine=Machine(threads=3)).to_json() == of_wave.to_json()


def test_baselines_next_to_the_run_are_evaluated_on_the_same_tasks(of_wave, waves):
    assert of_wave.baselines == {"pretrained": 3, "oracle": 3}
    alone = evaluate(waves / "wave-pretrained", machine=ONE)
    for ours, theirs in zip(of_wave.main_curves("pretrained"), alone.main_curves(), strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert ours.validation == theirs.validation
        assert ours.validation.best in WAVE.evaluation.inner_lrs


def test_baselines_have_the_seed_in_their_names_where_the_run_has_it(waves, tmp_path):
    for name in ("wave", "wave-pretrained", "wave-oracle"):
        shutil.copytree(waves / name, tmp_path / f"{name}-seed7")
    assert [name for name, _ in baseline_runs(tmp_path / "wave-seed7")] == ["pretrained", "oracle"]
    (tmp_path / "wave-oracle-seed7").rename(tmp_path / "wave-oracle-seed8")
    assert [name for name, _ in baseline_runs(tmp_path / "wave-seed7" / CHECKPOINT)] == ["pretrained"]


def test_baselines_have_the_shots_of_the_run(waves, tmp_path):
    for name in ("wave", "wave-pretrained"):
        shutil.copytree(waves / name, tmp_path / name)
        checkpoint = load_checkpoint(tmp_path / name / CHECKPOINT)
        checkpoint.record["config"]["evaluation"]["shots"] = []
        checkpoint.record["config"]["tasks"]["shots"] = 4 if name == "wave" else 9
        save_checkpoint(tmp_path / name / CHECKPOINT, checkpoint)
    assert {c.condition for c in evaluate(tmp_path / "wave", {"gradient_steps": 1}, machine=ONE).curves} == {"4-shot"}


class Labels:
    """Tasks of two classes that a network with batch normalisation takes."""

    def batch(self, seed, phase, indices):
        x = Sinusoid(4, 4).batch(seed, phase, indices).support_x
        images = x[..., None, None].expand(-1, -1, 1, 28, 28).contiguous()
        labels = (x[..., 0] > 0).long()
        return TaskBatch(images, labels, images + 0.1, labels)


def test_classification_has_accuracy_and_loss_in_both_modes_of_batch_normalisation():
    network = NetworkConfig("strided-conv", filters=2)
    config = SupervisedConfig(tasks=TasksConfig("omniglot", ways=2, shots=2), network=network)
    learner = SupervisedLearner(config, Labels(), ONE)
    shares: list[float] = []
    curves = learner.evaluate(learner.initial(), SupervisedEvaluation(tasks=3, gradient_steps=1), shares.append)
    assert [(curve.quantity, curve.condition) for curve in curves] == [
        ("accuracy", "2-shot, transductive BN"),
        ("loss", "2-shot, transductive BN"),
        ("accuracy", "2-shot, support BN"),
        ("loss", "2-shot, support BN"),
    ]
    accuracy = curves[0].values
    assert accuracy.shape == (2, 3)
    assert set(np.unique(accuracy * 4)) <= set(range(5))  # shares of four query examples
    assert sum(shares) == pytest.approx(1.0)


def test_tasks_of_a_function_have_as_many_shots_as_it_returns(tmp_path, monkeypatch):
    (tmp_path / "lines.py").write_text(
        "import numpy as np\n"
        "def line(seed, index):\n"
        "    slope, x = np.random.default_rng([seed, index]).standard_normal(), np.linspace(-1, 1, 8)\n"
        "    return x[:5], slope * x[:5], x[5:], slope * x[5:]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(WAVE, iterations=0, tasks=TasksConfig("function", function="lines:line"))
    train(config, tmp_path / "run", ONE)
    assert evaluate(tmp_path / "run", machine=ONE).conditions == ["5-shot"]
    with pytest.raises(InputError, match="remove --shots"):
        evaluate(tmp_path / "run", {"shots": (3,)})


# Progress


@pytest.mark.parametrize("name", ["navigation", "pretrained", "wave"])
def test_progress_ends_at_the_whole_evaluation(request, waves, name, monkeypatch, capsys):
    monkeypatch.setattr("maml_rl.experiments.runs.progress._SECONDS", 0.0)
    evaluate(waves / "wave" if name == "wave" else request.getfixturevalue(name), machine=ONE)
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 1
    assert said[-1] == "evaluating: 100 %, 00:00 left"


def test_an_implicit_evaluation_is_announced(navigation, waves):
    run = load_run(navigation)
    said = announcement(navigation, run, run.config.evaluation, "it has no evaluation")
    assert said.startswith(
        f"evaluating {navigation}, since it has no evaluation: 3 tasks x 3 episodes after 0 to 2 gradient steps, of "
        "the run and of its random policy; 54 episodes, about "
    )
    assert said.endswith(" at the speed of its training")
    on_paper = announcement(navigation, run, settings_with(run.config, task_set="paper"), "it has none", "paper")
    assert f"evaluating {navigation} on the paper's tasks, since it has none: 40 tasks x 3 episodes" in on_paper
    wave = load_run(waves / "wave")
    said = announcement(waves / "wave", wave, wave.config.evaluation, "it has no evaluation")
    assert "6 tasks x 10, 5 shots after 0 to 2 gradient steps, of the run and of pretrained, oracle, about " in said
    assert how_long(wave._replace(state=wave.state._replace(iteration=0)), 100) == ""


# Statistics


def test_means_are_those_of_the_tasks(evaluation, of_wave):
    for one in (evaluation, of_wave):
        record = json.loads(json.dumps(one.to_json(), allow_nan=False))
        assert record["gradient_steps"] == [0, 1, 2]
        assert (record["task_set"], record["interval_over"]) == ("held-out", "tasks")
        for curve, written in zip(one.curves, record["curves"], strict=True):
            count = curve.values.shape[1]
            np.testing.assert_allclose(written["values"], curve.values, rtol=1e-7)
            np.testing.assert_allclose(written["mean"], curve.values.mean(1))
            np.testing.assert_allclose(written["standard_error"], curve.values.std(1, ddof=1) / count**0.5)
            for mean, (low, high) in zip(written["mean"], written["interval_95"], strict=True):
                assert low < mean < high


def test_a_task_diverged_when_its_error_exceeds_all_before_adaptation():
    curve = Curve(THIS_RUN, "squared error", np.array([[1.0, 2.0, 3.0, 0.5], [2.5, 3.5, np.inf, np.nan]]))
    assert curve.diverged().tolist() == [0.0, 0.75]  # 2.5 is worse than its own 1, but no worse than the others
    assert curve.medians().tolist() == [1.5, np.inf]
    assert curve.means()[0].value == 1.625
    assert not np.isfinite(curve.means()[1].value)
