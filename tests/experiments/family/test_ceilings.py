"""Planners that know the distribution of tasks, against known answers and dynamic programming."""

import numpy as np
import pytest

from maml_rl.envs.tabular import TabularMDPs
from maml_rl.experiments.family.ceilings import planned_returns
from maml_rl.statistics import mean_with_interval
from maml_rl.tasks import make, sample_tasks

BANDIT, PROCESS = "maml_rl.envs:duan2016/BernoulliBandit-v0", "maml_rl.envs:duan2016/TabularMDP-v0"
EPISODES = (1, 5, 10, 20, 40)


def drawn(env_id: str, count: int) -> list:
    return sample_tasks(make(env_id).unwrapped.task_space, count, seed=3)


def check(returns: np.ndarray, expected: list[float], error: float) -> None:
    """Means over tasks, and their differences, whose standard errors are smaller since the tasks are the same."""
    for values in (returns, np.diff(returns, axis=0)):
        reference = expected if values is returns else np.diff(expected)
        for row, value in zip(values, reference, strict=True):
            mean = mean_with_interval(row)
            assert mean.value == pytest.approx(value, abs=3 * np.hypot(mean.standard_error, error))


def test_the_best_posterior_mean_of_a_bandit_after_random_episodes():
    """By simulation of five arms, U(0, 1) each, without an environment: two digits."""
    returns = planned_returns(BANDIT, drawn(BANDIT, 800), EPISODES)
    assert returns is not None
    check(returns, [7.22, 8.01, 8.17, 8.25, 8.29], error=0.005)


def test_the_planner_on_posterior_means_of_processes_after_random_episodes():
    """By simulation of 400 processes without an environment, with a standard error of 0.12."""
    returns = planned_returns(PROCESS, drawn(PROCESS, 400), EPISODES)
    assert returns is not None
    check(returns, [12.6, 16.8, 18.8, 19.95, 20.8], error=0.12)


def test_a_winning_arm_is_pulled_once_it_has_been_seen():
    """Arm 0 always pays, the others never. One win has the posterior mean 2/3, an arm that was never pulled 1/2."""
    tasks = [np.array([1, 0, 0, 0, 0], np.float32)] * 50
    returns = planned_returns(BANDIT, tasks, (0, 1, 10))
    assert returns is not None
    assert (returns[0] == 10).all()  # of five equal means the first: by chance the right one
    missed = 0.8**10  # chance that ten pulls miss it; then another arm that was not pulled may be taken
    assert (returns[1] == 10).mean() >= 1 - missed - 0.2
    assert (returns[2] == 10).all()


def test_no_plan_returns_more_than_the_best_and_many_episodes_come_close():
    tasks = sample_tasks(TabularMDPs(10, 5), 20, seed=1)
    optimum = [best_return(task) for task in tasks]
    returns = planned_returns(PROCESS, tasks, (0, 5, 400))
    assert returns is not None
    assert (returns <= np.array(optimum) + 1e-9).all()
    assert (np.array(optimum) - returns[-1]).mean() < 0.3
    assert (np.array(optimum) - returns[0]).mean() > 5


def best_return(process: np.ndarray) -> float:
    values = np.zeros(len(process))
    for _ in range(10):
        values = (process[..., -1] + process[..., :-1] @ values).max(1)
    return float(values[0])


@pytest.mark.parametrize("env_id", ["maml_rl.envs:duan2016/GaussianBandit-v0", "maml_rl.envs:finn2017/Navigation2D-v0"])
def test_without_a_known_posterior_there_is_no_planner(env_id):
    assert planned_returns(env_id, drawn(env_id, 2), (1,)) is None
