"""Means of RL^2's returns by episode."""

import pytest

from maml_rl.experiments.runs.measured_trials import episode_means, episode_table

RETURNS = [[0.0, 1.0], [2.0, 5.0], [0.0, 1.0], [2.0, 5.0]]  # of two tasks, each twice


def test_means_are_of_each_episode_and_of_the_trial():
    assert [mean.value for mean in episode_means(RETURNS)] == [1.0, 3.0, 4.0]
    lines = episode_table(episode_means(RETURNS)).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["1", "1.000"], ["2", "3.000"], ["trial", "4.000"]]


def test_where_the_tasks_are_all_there_are_only_returns_of_the_same_task_vary():
    assert all(mean.low < mean.value for mean in episode_means(RETURNS))
    for mean in episode_means(RETURNS, [0, 1, 0, 1]):
        assert (mean.low, mean.high) == pytest.approx((mean.value, mean.value))
