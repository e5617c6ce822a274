"""Meta-World's environments against Meta-World where it is installed, and the message where it is not."""

import importlib.util
import subprocess
import sys
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import maml_rl.envs
from maml_rl.errors import InputError
from maml_rl.tasks import assign_tasks, episode_limit, resets_itself, task_space, vectorize

REACH = "maml_rl.envs:mclean2025/ML1-reach-v3"
ML10 = "maml_rl.envs:mclean2025/ML10-v3"
with_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs the extra metaworld")


def rollout(env: gymnasium.Env, steps: int = 30, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Observations and rewards of the first steps of an episode, under fixed actions."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 4)).astype(np.float32) * scale
    observations, rewards = [env.reset(seed=3)[0]], []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        assert not truncated
        assert info["success"] in (0.0, 1.0)
        observations.append(observation)
        rewards.append(reward)
    return np.array(observations), np.array(rewards)


def rollout_of(env: gymnasium.Env, task: int) -> tuple[np.ndarray, np.ndarray]:
    env.unwrapped.task = task
    return rollout(env)


def metaworlds_own(benchmark, task_index: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The same rollout by Meta-World's class for the task with this index in Meta-World's list."""
    task = getattr(benchmark, f"{split}_tasks")[task_index]
    env = getattr(benchmark, f"{split}_classes")[task.env_name]()
    env.set_task(task)
    return rollout(env)


@pytest.fixture(scope="module")
def ml10() -> gymnasium.Env:
    return gymnasium.make(ML10)


# Without Meta-World


@pytest.mark.parametrize("env_id", [REACH, ML10])
def test_without_metaworld_one_line_says_what_to_install(env_id, monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "maml_rl.envs.metaworld", raising=False)
    with pytest.raises(InputError) as raised:
        vectorize(env_id, 2)
    message = str(raised.value)
    assert "\n" not in message
    assert env_id in message
    assert "pip install 'maml-rl[metaworld]'" in message
    assert "nearest" not in message


def test_registration_does_not_import_metaworld():
    program = (
        "import sys, maml_rl.envs; sys.exit('metaworld' in sys.modules or 'maml_rl.envs.metaworld' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_message_for_a_misspelt_manipulation_names_the_nearest():
    with pytest.raises(InputError, match=REACH):
        vectorize("maml_rl.envs:mclean2025/ML1-raech-v3", 1)


# With Meta-World


@with_metaworld
def test_every_manipulation_is_registered():
    import metaworld

    assert sorted(f"{name}-v3" for name in maml_rl.envs.MANIPULATIONS) == sorted(metaworld.ML1.ENV_NAMES)


@with_metaworld
@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")  # the hidden goal's zeros; objects
def test_gymnasiums_environment_checker_finds_no_fault():
    check_env(gymnasium.make(REACH).unwrapped, skip_render_check=True)


@with_metaworld
def test_an_episode_is_metaworlds_own():
    import metaworld

    env = gymnasium.make(REACH)
    for task in (0, 49):
        ours, theirs = rollout_of(env, task), metaworlds_own(metaworld.ML1("reach-v3", seed=0), task)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@with_metaworld
def test_the_test_tasks_of_ml1_are_other_goals():
    import metaworld

    train, test = gymnasium.make(REACH), gymnasium.make(REACH, split="test")
    rewards = rollout_of(test, 7)[1]
    np.testing.assert_array_equal(rewards, metaworlds_own(metaworld.ML1("reach-v3", seed=0), 7, "test")[1])
    assert all((rollout_of(train, task)[1] != rewards).any() for task in range(5))


@with_metaworld
def test_tasks_of_ml10_cycle_through_the_manipulations(ml10):
    import metaworld

    benchmark = metaworld.ML10(seed=0)
    assert ml10.unwrapped.task_space.n == 500
    for task in (3, 21, 487):  # goal i // 10 of manipulation i % 10; Meta-World lists 50 goals of each in a row
        observations, rewards = metaworlds_own(benchmark, 50 * (task % 10) + task // 10)
        ours = rollout_of(ml10, task)
        np.testing.assert_array_equal(ours[0], observations)
        np.testing.assert_array_equal(ours[1], rewards)


@with_metaworld
def test_an_episode_does_not_depend_on_those_before(ml10):
    first = rollout_of(ml10, 14)
    for task in (4, 5, 14):  # another goal of the same manipulation, another manipulation, the same again
        again = rollout_of(ml10, task)
    np.testing.assert_array_equal(again[0], first[0])
    np.testing.assert_array_equal(again[1], first[1])


@with_metaworld
def test_an_assigned_task_waits_for_the_next_reset():
    env = gymnasium.make(REACH)
    expected = rollout_of(env, 1)[1]
    env.reset(seed=3)
    env.unwrapped.task = 2
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 4)).astype(np.float32)
    np.testing.assert_array_equal([env.step(action)[1] for action in actions], expected)
    assert env.unwrapped.task == 2
    assert (rollout(env)[1] != expected).any()


@with_metaworld
def test_the_goal_is_not_observed():
    env = gymnasium.make(REACH)
    assert all((rollout_of(env, task)[0][:, -3:] == 0).all() for task in range(3))


@with_metaworld
def test_actions_are_clipped_to_the_action_space():
    env = gymnasium.make(REACH)
    actions = np.random.default_rng(1).normal(0, 2, (20, 4)).astype(np.float32)
    results = []
    for given in (actions, np.clip(actions, -1, 1)):
        env.reset()
        results.append([env.step(action)[0] for action in given])
    np.testing.assert_array_equal(*results)


@with_metaworld
def test_the_time_limit_truncates():
    env = gymnasium.make(REACH)
    env.reset()
    flags = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(500)]
    assert flags == [(False, False)] * 499 + [(False, True)]


@with_metaworld
@pytest.mark.parametrize("task", [-1, 50, 1.0, "reach-v3"])
def test_a_task_outside_the_task_space_is_refused(task):
    env = gymnasium.make(REACH).unwrapped
    with pytest.raises(ValueError, match="not in the task space"):
        env.task = task
    assert env.task == 0


@with_metaworld
@pytest.mark.parametrize("settings", [{"benchmark": "reach-v2"}, {"split": "validation"}])
def test_an_unknown_benchmark_or_split_is_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings.values()))):
        vectorize(REACH, 1, **settings)


@with_metaworld
def test_each_sub_environment_has_its_own_task():
    with closing(vectorize(REACH, 2)) as batch:
        assert task_space(batch) == gymnasium.spaces.Discrete(50)
        assert episode_limit(batch) == 500
        assert resets_itself(batch)
        assign_tasks(batch, [4, 9])
        observations, _ = batch.reset(seed=[1, 2])
        for row, task in enumerate((4, 9)):
            np.testing.assert_array_equal(observations[row], rollout_of(gymnasium.make(REACH), task)[0][0])
