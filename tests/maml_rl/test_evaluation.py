"""Evaluation on held-out tasks: against a plain loop, and what its result must not depend on."""

from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces

from maml_rl import evaluation
from maml_rl.config import PolicyConfig, RLEvaluation, RLMeta
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.evaluation import SeededTasks, adaptation, task_returns, with_step_size
from maml_rl.initial import build_policy, parameters
from maml_rl.learner import Validation
from maml_rl.meta_rl import adapt_each, initial_state, meta_iteration, sample
from maml_rl.parallel import TaskThreads
from maml_rl.rates import InnerUpdate
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import evaluation_tasks, task_space, vectorize
from maml_rl.types import State, Trajectories, repeat

NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
META = RLMeta(meta_batch_size=5, episodes=7, inner_lr=0.5)  # sizes of the training, which evaluation ignores
CONFIG = RLEvaluation(tasks=3, gradient_steps=3, episodes=4, later_lr_factor=0.2, seed=6)
LIMIT = 20


def make(num_envs: int = 12):
    return closing(vectorize(NAVIGATION, num_envs, max_episode_steps=LIMIT))


def run(num_envs: int = 12, threads: int = 1, meta: RLMeta = META, config: RLEvaluation = CONFIG):
    """Trajectories by gradient step of a small policy, whose weights are always the same."""
    with make(num_envs) as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        tasks = evaluation_tasks(task_space(envs), config.tasks, config.seed)
        start = initial_state(policy, meta).meta
        return [
            sampled
            for _, sampled in adaptation(policy, start, envs, SeededTasks(tasks), meta, config, TaskThreads(threads))
        ]


@pytest.fixture(scope="module")
def reference() -> list[Trajectories]:
    return run()


def same(left: list[Trajectories], right: list[Trajectories]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_there_are_episodes_of_each_task_before_and_after_each_gradient_step(reference):
    assert len(reference) == 4
    for trajectories in reference:
        assert trajectories.rewards.shape == (3, 4, LIMIT)
        assert trajectories.observations.shape == (3, 4, LIMIT, 2)


def test_without_gradient_steps_the_policy_is_only_sampled(reference):
    assert same(run(config=replace(CONFIG, gradient_steps=0)), reference[:1])


def test_fewer_gradient_steps_are_the_first_of_more(reference):
    assert same(run(config=replace(CONFIG, gradient_steps=2)), reference[:3])


def test_it_equals_a_plain_loop_of_sampling_and_adapting(reference):
    threads = TaskThreads(1)
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        tasks = evaluation_tasks(task_space(envs), 3, 6)
        params = repeat(parameters(policy), 3)
        expected = []
        for step, inner_lr in enumerate([0.5, 0.1, 0.1, 0.1]):  # 0.5, then 0.5 x 0.2
            draw = Draw(6, Phase.EVALUATION, step=step)
            sampled = sample(envs, policy, params, tasks, replace(META, episodes=4), draw, threads)
            expected.append(sampled.trajectories)
            update = InnerUpdate(dict.fromkeys(params, inner_lr))
            params = adapt_each(policy, params, sampled.batches, META, update, threads)
    assert same(reference, expected)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, [0.5, 0.25, 0.25]), (1.0, [0.5] * 3), (3.0, [0.5, 1.5, 1.5])])
def test_the_step_size_is_multiplied_once_after_the_steps_that_were_trained(monkeypatch, factor, expected):
    taken = []

    def watched(policy, params, batches, config, update, threads):
        taken.append(update)
        return adapt_each(policy, params, batches, config, update, threads)

    monkeypatch.setattr(evaluation, "adapt_each", watched)
    run(config=replace(CONFIG, later_lr_factor=factor))
    assert [list(update.rates.values()) for update in taken] == [pytest.approx([lr] * 7) for lr in expected]
    taken.clear()
    run(meta=replace(META, learned_lr="parameter"), config=replace(CONFIG, later_lr_factor=factor))
    assert [update.rates["bias_0"].tolist() for update in taken] == [pytest.approx([lr] * 8) for lr in expected]
    taken.clear()
    run(meta=replace(META, inner_steps=2), config=replace(CONFIG, later_lr_factor=factor))
    trained = [expected[0], *expected[:2]]  # two steps were trained with the whole step size
    assert [list(update.rates.values()) for update in taken] == [pytest.approx([lr] * 7) for lr in trained]


def test_each_gradient_step_changes_the_actions(reference):
    for before, after in pairwise(reference):
        assert not torch.equal(before.actions, after.actions)


def test_episodes_are_fresh_for_each_gradient_step():
    # With a step size of almost nothing the policy stays, so only the noise can make the episodes differ.
    before, after = run(meta=replace(META, inner_lr=1e-30), config=replace(CONFIG, gradient_steps=1))
    assert not torch.isclose(before.actions, after.actions).any()


def test_two_evaluations_are_equal(reference):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002, the point is that nothing reads it
    assert same(run(), reference)


def test_another_seed_gives_other_tasks_and_other_episodes(reference):
    other = run(config=replace(CONFIG, seed=7))
    assert not torch.equal(other[0].actions, reference[0].actions)
    assert not torch.equal(other[0].returns, reference[0].returns)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_does_not_matter(reference, threads):
    assert same(run(threads=threads), reference)


@pytest.mark.parametrize("num_envs", [1, 5, 30])
def test_the_number_of_sub_environments_does_not_matter(reference, num_envs):
    assert same(run(num_envs), reference)


def test_the_sizes_of_the_training_do_not_matter(reference):
    assert same(run(meta=replace(META, meta_batch_size=2, episodes=3)), reference)


def test_training_before_it_does_not_matter(reference):
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        theta = parameters(policy)
        meta_iteration(policy, State(theta, {}, 0), envs, replace(META, episodes=4), seed=6, threads=TaskThreads(1))
        tasks = evaluation_tasks(task_space(envs), 3, 6)
        assert same(
            [
                sampled
                for _, sampled in adaptation(policy, theta, envs, SeededTasks(tasks), META, CONFIG, TaskThreads(1))
            ],
            reference,
        )


def test_it_shares_no_noise_with_training(reference):
    """The training of the same seed, with the same tasks and parameters, samples other episodes."""
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        tasks, params = evaluation_tasks(task_space(envs), 3, 6), repeat(parameters(policy), 3)
        for phase in (Phase.TRAINING, Phase.STANDARDISATION, Phase.INITIALISATION):
            draw = Draw(6, phase)
            sampled = sample(envs, policy, params, tasks, replace(META, episodes=4), draw, TaskThreads(1))
            assert not torch.isclose(sampled.trajectories.actions, reference[0].actions).any()


def test_some_tasks_with_their_own_indices_have_the_same_episodes_alone(reference):
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        tasks = evaluation_tasks(task_space(envs), 3, 6)[1:]
        steps = adaptation(
            policy, parameters(policy), envs, SeededTasks(tasks, range(1, 3)), META, CONFIG, TaskThreads(1)
        )
        for (_, alone), together in zip(steps, reference, strict=True):
            for field, whole in zip(alone, together, strict=True):
                torch.testing.assert_close(field, whole[1:], rtol=1e-4, atol=1e-4)


def test_the_parameters_given_are_not_changed():
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        theta = parameters(policy)
        before = {name: value.clone() for name, value in theta.items()}
        tasks = evaluation_tasks(task_space(envs), 3, 6)
        list(adaptation(policy, theta, envs, SeededTasks(tasks), META, CONFIG, TaskThreads(1)))
        assert all(torch.equal(theta[name], value) for name, value in before.items())
        assert all(torch.equal(value, before[name]) for name, value in policy.named_parameters())


@pytest.mark.parametrize("env_id", [NAVIGATION, "maml_rl.envs:finn2017/HalfCheetahVel-v0"])
def test_held_out_tasks_are_fixed_by_their_seed(env_id):
    with closing(vectorize(env_id, 2)) as envs, closing(vectorize(env_id, 5)) as others:
        others.reset(seed=9)
        tasks = evaluation_tasks(task_space(envs), 40, 2)
        np.testing.assert_array_equal(tasks, evaluation_tasks(task_space(others), 40, 2))
        assert not np.array_equal(tasks, evaluation_tasks(task_space(envs), 40, 3))
        assert len(np.unique(tasks, axis=0)) == 40


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_two_directions_are_held_out_equally_often(seed):
    assert sum(int(task) for task in evaluation_tasks(spaces.Discrete(2), 40, seed)) == 20


def test_a_tasks_return_is_the_mean_over_its_episodes_without_padding():
    # Task 0: episodes of 1 + 2 and 3 (padding 100 left out): mean 3. Task 1: 4 + 5 and 6 + 7: mean 11.
    rewards = torch.tensor([[[1.0, 2.0], [3.0, 100.0]], [[4.0, 5.0], [6.0, 7.0]]])
    mask = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    empty = torch.zeros(2, 2, 2)
    returns = task_returns(Trajectories(empty[..., None], empty[..., None], empty, rewards, mask, empty[..., 0].bool()))
    np.testing.assert_array_equal(returns, [3.0, 11.0])
    assert returns.dtype == np.float64


def test_there_is_one_return_for_each_task(reference):
    for trajectories in reference:
        returns = task_returns(trajectories)
        assert returns.shape == (3,)
        np.testing.assert_allclose(returns, trajectories.rewards.double().sum(-1).mean(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks", 1),
        ("tasks", 0),
        ("gradient_steps", -1),
        ("episodes", 0),
        ("later_lr_factor", 0.0),
        ("later_lr_factor", -0.5),
        ("later_lr_factor", float("nan")),
        ("seed", -1),
    ],
)
def test_a_setting_outside_its_range_is_refused_and_named(name, value):
    with pytest.raises(InputError, match=rf"^{name} must be .*{value}$"):
        RLEvaluation(**{name: value})


def test_the_smallest_settings_are_accepted():
    RLEvaluation(tasks=2, gradient_steps=0, episodes=1, later_lr_factor=1e-9, seed=0)


def test_the_defaults_are_the_papers():
    assert RLEvaluation() == RLEvaluation(tasks=40, gradient_steps=3, episodes=20, later_lr_factor=0.5, seed=0)


# The choice of a step size


PRETRAINED = replace(META, inner_steps=0)


def chosen(config: RLEvaluation, meta: RLMeta = PRETRAINED) -> tuple[RLMeta, Validation | None]:
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        return with_step_size(policy, parameters(policy), envs, meta, config, TaskThreads(1))


def test_a_policy_that_was_trained_to_adapt_keeps_its_step_size():
    assert chosen(CONFIG, META) == (META, None)
    assert chosen(replace(CONFIG, gradient_steps=0)) == (PRETRAINED, None)


def test_validation_is_the_mean_return_after_the_gradient_steps_on_validation_tasks():
    config = replace(CONFIG, gradient_steps=2, validation_tasks=4, inner_lrs=(0.1, 0.5))
    meta, validation = chosen(config)
    assert validation is not None
    assert meta == replace(PRETRAINED, inner_lr=validation.best)
    with make() as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8, 8)), seed=0)
        task_set = SeededTasks(evaluation_tasks(task_space(envs), 4, 6, Phase.VALIDATION), phase=Phase.VALIDATION)
        for inner_lr, mean in zip((0.1, 0.5), validation.scores, strict=True):
            meta = replace(META, inner_lr=inner_lr)
            theta = parameters(policy)
            steps = [sampled for _, sampled in adaptation(policy, theta, envs, task_set, meta, config, TaskThreads(1))]
            assert mean == pytest.approx((task_returns(steps[1]).mean() + task_returns(steps[2]).mean()) / 2)


def test_validation_does_not_depend_on_the_step_size_of_the_training():
    config = replace(CONFIG, gradient_steps=1, validation_tasks=2, inner_lrs=(0.1, 0.5))
    assert chosen(config) == chosen(config, replace(PRETRAINED, inner_lr=7.0))


def test_a_step_size_after_which_nothing_is_finite_is_not_chosen():
    meta, validation = chosen(replace(CONFIG, gradient_steps=1, validation_tasks=2, inner_lrs=(1e40, 0.1)))
    assert validation is not None
    assert validation.scores[0] is None
    assert meta.inner_lr == validation.best == 0.1


def test_the_best_step_size_has_the_best_score():
    assert Validation(2, (0.1, 0.3, 1.0, 3.0), [-5.0, -4.0, None, -4.5], higher_is_better=True).best == 0.3
    assert Validation(2, (0.1, 0.3, 1.0), [5.0, 4.0, None], higher_is_better=False).best == 0.3
    with pytest.raises(NonFiniteError, match="no result is finite"):
        _ = Validation(2, (0.1, 0.3), [None, None], higher_is_better=True).best


@pytest.mark.parametrize("lrs", [(), (0.1, 0.0), (-1.0,)])
def test_step_sizes_to_choose_from_are_positive(lrs):
    with pytest.raises(InputError, match=r"^inner_lrs must be"):
        RLEvaluation(inner_lrs=lrs)


def test_a_gradient_step_uses_the_first_episodes_and_the_return_is_that_of_all(reference):
    """Episodes have the same noise however many there are, so four of seven are the four alone."""
    seven = run(config=replace(CONFIG, episodes=7, episodes_used=(4,)))
    assert [trajectories.rewards.shape[1] for trajectories in seven] == [7] * 4
    for four, of_seven in zip(reference, seven, strict=True):
        torch.testing.assert_close(of_seven.actions[:, :4], four.actions, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(run(config=replace(CONFIG, episodes=7))[1].actions[:, :4], reference[1].actions)


@pytest.mark.parametrize("used", [(0,), (2, 5), (3, 3)])
def test_numbers_of_episodes_used_must_be_different_and_available(used):
    with pytest.raises(InputError, match=r"^episodes_used must be different numbers from 1 to episodes, 4"):
        RLEvaluation(episodes=4, episodes_used=used)
