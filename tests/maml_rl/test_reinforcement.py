"""Reinforcement learning as a learner, against plain loops over the method's own functions."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from maml_rl import reinforcement
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError
from maml_rl.evaluation import SeededTasks, adaptation, task_returns
from maml_rl.initial import build_policy, parameters
from maml_rl.learner import RANDOM, THIS_RUN, Validation
from maml_rl.machine import Machine
from maml_rl.meta_rl import meta_iteration
from maml_rl.reinforcement import (
    Counted,
    RLLearner,
    evaluation_episodes,
    open_rl,
    rl_learner,
    step_sizes,
)
from maml_rl.seeding import Phase
from maml_rl.tasks import evaluation_tasks, task_space

ONE_THREAD = Machine(threads=1)
CONFIG = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    max_episode_steps=5,
    meta=RLMeta(meta_batch_size=2, episodes=3, inner_lr=0.5),
    network=PolicyConfig(hidden_sizes=(8,), standardise=False),
    evaluation=RLEvaluation(
        tasks=4, gradient_steps=2, episodes=3, seed=7, validation_tasks=2, inner_lrs=(0.1, 0.5), later_lr_factor=0.5
    ),
)
WITHOUT_UPDATES = replace(CONFIG, meta=replace(CONFIG.meta, inner_steps=0))
EVALUATION = CONFIG.evaluation


@pytest.fixture(scope="module")
def learner() -> Iterator[RLLearner]:
    with open_rl(CONFIG, ONE_THREAD) as opened:
        yield opened


def test_an_iteration_is_that_of_the_method_whatever_the_order_of_the_parameters(learner: RLLearner) -> None:
    state = learner.initial()
    expected = meta_iteration(learner.policy, state, learner.envs, CONFIG.meta, CONFIG.seed, learner.threads)
    shuffled = state._replace(meta=dict(reversed(state.meta.items())))
    found, metrics = learner.iterate(shuffled)
    assert found.iteration == expected.state.iteration == 1
    assert list(found.meta) == list(state.meta)
    for name, value in found.meta.items():
        assert torch.equal(value, expected.state.meta[name])
    assert metrics.values.keys() == expected.metrics.keys()
    assert metrics.values["return/after_1_steps"] == expected.metrics["return/after_1_steps"]
    assert metrics.by_task.keys() == expected.by_task.keys()


def test_an_evaluation_has_a_curve_of_the_run_and_one_of_the_random_policy_of_its_seed(learner: RLLearner) -> None:
    trained = learner.iterate(learner.initial())[0]
    shares: list[float] = []
    curves = learner.evaluate(trained, EVALUATION, shares.append)
    tasks = evaluation_tasks(learner.task_space, 4, 7)
    random = parameters(build_policy(learner.envs, CONFIG.network, CONFIG.seed))
    assert [curve.of for curve in curves] == [THIS_RUN, RANDOM]
    for curve, theta in zip(curves, (trained.meta, random), strict=True):
        path = adaptation(
            learner.policy, theta, learner.envs, SeededTasks(tasks), CONFIG.meta, EVALUATION, learner.threads
        )
        np.testing.assert_array_equal(curve.values, [task_returns(sampled) for _, sampled in path])
        assert (curve.quantity, curve.inner_lr) == ("return", (0.5, 0.25))
        assert curve.tasks == tuple(task.tolist() for task in tasks)
        assert curve.validation is None
    assert sum(shares) == pytest.approx(1)
    assert evaluation_episodes(CONFIG, EVALUATION, 4) == 2 * 4 * 3 * 3  # policies, tasks, episodes, 0 to 2 steps


def test_some_tasks_adapt_as_in_the_evaluation_by_their_indices_there(learner: RLLearner) -> None:
    state, tasks = learner.initial(), evaluation_tasks(learner.task_space, 4, 7)
    (whole, _) = learner.evaluate(state, EVALUATION)
    some = [tasks[m] for m in (3, 1)]
    found = [task_returns(sampled) for _, sampled in learner.adaptation(state, some, EVALUATION, indices=[3, 1])]
    np.testing.assert_allclose(found, whole.values[:, [3, 1]], rtol=1e-5)
    elsewhere = [task_returns(sampled) for _, sampled in learner.adaptation(state, some)]  # the run's own settings
    assert not np.allclose(elsewhere, found, rtol=1e-3)


def test_a_run_without_inner_updates_gets_the_best_step_size_on_validation_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_rl(WITHOUT_UPDATES, ONE_THREAD) as learner:
        state, shares = learner.initial(), list[float]()
        curves = learner.evaluate(state, EVALUATION, shares.append)
        validation = curves[0].validation
        assert validation is not None
        tasks = evaluation_tasks(learner.task_space, 2, 7, Phase.VALIDATION)
        for inner_lr, score in zip((0.1, 0.5), validation.scores, strict=True):
            meta = replace(learner.config.meta, inner_lr=inner_lr)
            path = learner.adaptation(state, tasks, EVALUATION, meta, phase=Phase.VALIDATION)
            assert score == pytest.approx(np.mean([task_returns(sampled) for _, sampled in path][1:]))
        assert curves[0].inner_lr == (validation.best, validation.best / 2)
        assert sum(shares) == pytest.approx(1)
        monkeypatch.setattr(reinforcement, "with_step_size", None)  # nothing is chosen again
        again = learner.evaluate(state, EVALUATION, validation=validation)
        np.testing.assert_array_equal(again[0].values, curves[0].values)
        given = Validation(2, (0.3, 0.4), [1.0, 2.0], higher_is_better=True)
        assert learner.with_step_size(state, EVALUATION, validation=given)[0].inner_lr == 0.4


def test_learned_step_sizes_are_not_shown_as_one() -> None:
    assert step_sizes(CONFIG.meta, EVALUATION) == [0.5, 0.25]
    assert step_sizes(replace(CONFIG.meta, learned_lr="parameter"), EVALUATION) == []


@pytest.mark.parametrize(
    ("inner_steps", "expected"), [(0, [0.5, 0.25, 0.25]), (1, [0.5, 0.25, 0.25]), (2, [0.5, 0.5, 0.25])]
)
def test_step_sizes_shown_fall_after_the_steps_that_were_trained(inner_steps: int, expected: list[float]) -> None:
    assert step_sizes(replace(CONFIG.meta, inner_steps=inner_steps), replace(EVALUATION, gradient_steps=3)) == expected


def test_a_summary_has_the_returns_and_the_speed_if_it_is_known(learner: RLLearner) -> None:
    values = {"return/after_0_steps": -3.0, "return/after_1_steps": -1.25}
    assert learner.summary(values) == "return -3.0 before, -1.2 after adaptation"
    assert learner.summary(values | {"time/env_steps_per_second": 1234.5}).endswith(", 1,234 env steps/s")


def test_it_closes_what_it_opened() -> None:
    with open_rl(CONFIG, ONE_THREAD) as learner:
        assert not learner.envs.closed
    assert learner.envs.closed
    alone = open_rl(CONFIG, ONE_THREAD, episodes=2)
    assert alone.envs.num_envs == 2
    alone.close()
    assert alone.envs.closed


def test_a_report_of_episodes_counts_them_and_what_it_raises_ends_the_sampling(learner: RLLearner) -> None:
    begun: list[int] = []
    counted = Counted(learner.envs, begun.append)
    state, tasks = learner.initial(), evaluation_tasks(task_space(counted), 4, 7)
    threads = learner.threads
    list(adaptation(learner.policy, state.meta, counted, SeededTasks(tasks), CONFIG.meta, EVALUATION, threads))
    assert sum(begun) == 4 * 3 * 3

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    stopping = Counted(learner.envs, stop)
    with pytest.raises(KeyboardInterrupt):
        next(adaptation(learner.policy, state.meta, stopping, SeededTasks(tasks), CONFIG.meta, EVALUATION, threads))


def test_too_few_episodes_for_the_baseline_cause_a_warning() -> None:
    """Its 8 weights of 2 observed numbers; 5 steps an episode: 3 episodes have 15 rows."""
    learner = open_rl(replace(CONFIG, max_episode_steps=5))
    (line,) = learner.few_episodes(3)
    assert "3 episodes of at most 5 steps for the 8 weights of the baseline" in line
    enough = int(line.rpartition("at least ")[2].split()[0])
    assert learner.few_episodes(enough) == []
    assert learner.few_episodes(enough - 1) != []
    learner.close()


def test_rl_learner_refuses_a_supervised_learner(learner: RLLearner) -> None:
    assert rl_learner(learner) is learner
    with pytest.raises(InputError, match="the run is supervised"):
        rl_learner(object())


def test_each_number_of_episodes_used_has_a_curve_on_the_same_tasks_and_episodes(learner: RLLearner) -> None:
    state, shares = learner.initial(), list[float]()
    both = replace(EVALUATION, episodes_used=(1, 3))
    one, three = learner.evaluate(state, both, shares.append)
    assert [curve.condition for curve in (one, three)] == ["1 episode", "3 episodes"]
    assert one.of == three.of == THIS_RUN
    assert one.tasks == three.tasks
    np.testing.assert_array_equal(one.values[0], three.values[0])
    assert not np.allclose(one.values[1], three.values[1])
    whole, random = learner.evaluate(state, EVALUATION)  # which uses all three
    np.testing.assert_array_equal(three.values, whole.values)
    assert random.of == RANDOM
    assert sum(shares) == pytest.approx(1)
    assert evaluation_episodes(CONFIG, both, 4) == 2 * 4 * 3 * 3  # numbers, tasks, episodes, 0 to 2 steps
