"""Trials by hand: what the agent observes, when the task and the random numbers change, and when a trial ends."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv

from maml_rl.envs.batched import BatchedTaskEnv, TaskMDP
from maml_rl.errors import InputError
from maml_rl.sb3 import sb3_vec_env
from maml_rl.tasks import assign_tasks, vectorize
from maml_rl.trials import Trial

BANDIT = "maml_rl.envs:duan2016/BernoulliBandit-v0"


class Line(TaskMDP):
    """A point that moves by its action, pays its task times the place, and ends beyond 1."""

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = Box(-0.5, 0.5, (1,), np.float32)
        self.task_space = Discrete(4)

    def initial(self, generators):
        return np.zeros((len(generators), 1))

    def transition(self, states, actions, tasks):
        return states + actions

    def observation(self, states):
        return states

    def reward_terms(self, states, actions, next_states, tasks):
        return {"reward_place": tasks * next_states[:, 0]}

    def terminated(self, states, tasks):
        return states[:, 0] > 1


def line_trial(episodes: int = 2, limit: int = 2, **settings: Any) -> Trial:
    trial = Trial(BatchedTaskEnv(Line(), 2, max_episode_steps=limit), episodes, **settings)
    assign_tasks(trial, [2, 3])
    return trial


def test_a_trial_by_hand():
    # Observation, last action (clipped to 0.5), last reward, whether it ended an episode.
    trial = line_trial()
    assert (trial.steps, trial.single_observation_space.shape) == (4, (4,))
    observations, _ = trial.reset(seed=0)
    assert observations.dtype == np.float32
    assert observations.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    observations, rewards, terminated, truncated, info = trial.step(np.array([[0.25], [0.75]], np.float32))
    assert observations.tolist() == [[0.25, 0.25, 0.5, 0], [0.75, 0.5, 2.25, 0]]
    assert rewards.tolist() == info["reward_place"].tolist() == [0.5, 2.25]
    # The second step ends the first episode of both: the next one begins at 0, with the same task.
    observations, rewards, terminated, truncated, _ = trial.step(np.array([[0.25], [0.5]], np.float32))
    assert observations.tolist() == [[0, 0.25, 1.0, 1], [0, 0.5, 3.75, 1]]
    assert trial.episode.tolist() == [1, 1]
    assert not terminated.any()
    assert not truncated.any()
    trial.step(np.array([[0.25], [0.5]], np.float32))
    observations, rewards, terminated, truncated, _ = trial.step(np.array([[0.25], [0.25]], np.float32))
    assert observations.tolist() == [[0.5, 0.25, 1.0, 1], [0.75, 0.25, 2.25, 1]]
    assert terminated.all()  # though a time limit ended the last episode
    assert not truncated.any()
    assert trial.episode.tolist() == [2, 2]


def test_a_trial_that_has_ended_waits_and_the_others_run_on():
    trial = line_trial(episodes=1, limit=3)
    trial.reset(seed=0)
    trial.step(np.array([[0.5], [0.75]], np.float32))
    *_, terminated, _, _ = trial.step(np.array([[0.25], [0.5]], np.float32))
    assert terminated.tolist() == [False, True]  # 1.25 is beyond 1
    _, rewards, terminated, _, _ = trial.step(np.array([[0.25], [0.5]], np.float32))
    assert rewards.tolist() == [2.0, 0.0]
    assert terminated.all()
    assign_tasks(trial, [1, 1])
    observations, _ = trial.reset(options={"reset_mask": np.array([False, True])})
    assert trial.episode.tolist() == [1, 0]
    assert observations[1].tolist() == [0, 0, 0, 0]


def test_only_the_observed_reward_is_scaled():
    trial = line_trial(reward_scale=0.1)
    trial.reset(seed=0)
    observations, rewards, *_ = trial.step(np.full((2, 1), 0.5, np.float32))
    assert observations[:, 2].tolist() == pytest.approx([0.1, 0.15])
    assert rewards.tolist() == [1.0, 1.5]


def test_without_signals_the_observation_is_the_environments_own():
    trial = line_trial(signals=False)
    assert trial.single_observation_space.shape == (1,)
    trial.reset(seed=0)
    observations, *_ = trial.step(np.array([[0.25], [0.75]], np.float32))
    assert observations.dtype == np.float32
    assert observations.tolist() == [[0.25], [0.75]]
    trial.step(np.array([[0.25], [0.5]], np.float32))
    assert trial.episode.tolist() == [1, 1]


def test_each_pull_of_a_bandit_is_an_episode_with_its_own_random_numbers():
    trial = Trial(vectorize(BANDIT, 400, max_episode_steps=1), episodes=6)
    assert trial.steps == 6
    assign_tasks(trial, [np.full(5, 0.5, np.float32)] * 400)
    trial.reset(seed=0)
    arm = np.tile(np.arange(5), 80)
    pulls = []
    for _ in range(6):
        observations, rewards, *_ = trial.step(arm)
        assert (observations[:, 1:6] == np.eye(5)[arm]).all()
        assert (observations[:, 6] == rewards).all()
        assert (observations[:, 7] == 1).all()
        pulls.append(rewards)
    # 2400 fair coins: standard error 0.01; of neighbouring pulls half agree.
    assert np.mean(pulls) == pytest.approx(0.5, abs=0.04)
    assert np.mean(np.array(pulls[1:]) == np.array(pulls[:-1])) == pytest.approx(0.5, abs=0.05)


def test_stable_baselines3_draws_a_task_for_each_trial_and_keeps_it():
    envs = sb3_vec_env(Trial(BatchedTaskEnv(Line(), 1, max_episode_steps=1), 3), new_tasks=True)
    envs.seed(0)
    envs.reset()
    tasks = []
    for _ in range(40):
        for step in range(3):
            _, rewards, dones, infos = envs.step(np.array([[0.5]], np.float32))
            tasks.append(2 * rewards[0])
            assert dones[0] == (step == 2)
        assert infos[0]["TimeLimit.truncated"] is False  # so that no value is added to the last reward
        assert infos[0]["episode"]["l"] == 3
    by_trial = np.array(tasks).reshape(40, 3)
    assert (by_trial == by_trial[:, :1]).all()
    assert set(by_trial[:, 0]) == {0, 1, 2, 3}


def test_an_invalid_trial_is_refused():
    with pytest.raises(InputError, match="a trial needs at least 1 episode, got 0"):
        line_trial(episodes=0)
    with pytest.raises(InputError, match=r"resets itself: use maml_rl\.tasks\.vectorize with processes"):
        Trial(SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")]), 2)
    with pytest.raises(InputError, match="there is no time limit"):
        _ = Trial(BatchedTaskEnv(Line(), 1), 2).steps
