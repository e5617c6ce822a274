"""Random finite processes, against linear algebra and the moments of their distributions."""

import pickle
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium.error import Error
from gymnasium.spaces import Box, Discrete, flatdim, flatten, unflatten
from gymnasium.vector import VectorEnv
from scipy import stats

from maml_rl.envs.tabular import TabularMDP, TabularMDPs

ID = "maml_rl.envs:duan2016/TabularMDP-v0"
S, A, STEPS = 10, 5, 10


def process(seed: int = 0) -> np.ndarray:
    """One process of the distribution."""
    return TabularMDPs(S, A, seed=seed).sample()


def walk() -> np.ndarray:
    """Action a moves from state s to (s + a) mod S with certainty, for a mean reward of 10 s + a."""
    states, actions = np.meshgrid(np.arange(S), np.arange(A), indexing="ij")
    task = np.zeros((S, A, S + 1))
    task[states, actions, (states + actions) % S] = 1.0
    task[..., -1] = 10 * states + actions
    return task


def started(task: np.ndarray, count: int) -> VectorEnv:
    """Copies of one process at the start of an episode."""
    batch = gymnasium.make_vec(ID, count)
    batch.set_attr("task", task)
    batch.reset(seed=0)
    return batch


def follow(task: np.ndarray, policies: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """States `[STEPS + 1, count]` and rewards `[STEPS, count]` under the probabilities `policies` `[STEPS, S, A]`."""
    batch, generator = started(task, count), np.random.default_rng(1)
    states, rewards = [np.zeros(count, np.int64)], []
    for policy in policies:
        chosen = (policy[states[-1]].cumsum(1) > generator.random((count, 1))).argmax(1)
        observations, reward, *_ = batch.step(chosen)
        states.append(observations.argmax(1))
        rewards.append(reward)
    return np.array(states), np.array(rewards)


def random_policy() -> np.ndarray:
    return np.repeat(np.random.default_rng(2).dirichlet(np.ones(A), S)[None], STEPS, axis=0)


def best_policy(task: np.ndarray) -> np.ndarray:
    """By backward induction: the best action depends on state and steps left."""
    values, policies = np.zeros(S), []
    for _ in range(STEPS):
        actions_values = task[..., -1] + task[..., :-1] @ values
        policies.append(np.eye(A)[actions_values.argmax(1)])
        values = actions_values.max(1)
    return np.array(policies[::-1])


def exact_value(task: np.ndarray, policies: np.ndarray) -> float:
    """Expected return from state 0: V_t = r + P V_{t+1} under the policy of each step."""
    values = np.zeros(S)
    for policy in policies[::-1]:
        values = (policy * (task[..., -1] + task[..., :-1] @ values)).sum(1)
    return values[0]


def test_spaces_are_those_of_the_definition():
    env = gymnasium.make(ID).unwrapped
    assert env.observation_space == Box(0.0, 1.0, (S,), np.float64)
    assert env.action_space == Discrete(A)
    assert env.task_space == TabularMDPs(S, A)


def test_an_episode_starts_in_the_first_state_whatever_the_seed():
    env = gymnasium.make(ID)
    for seed in range(3):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], np.eye(S)[0])


def test_a_certain_walk_is_observed_as_unit_vectors():
    env = gymnasium.make(ID)
    env.unwrapped.task = walk()
    env.reset(seed=0)
    # 0 + 3 = 3, + 4 = 7, + 0 = 7, + 4 = 11 = 1 mod 10
    for action, state in ((3, 3), (4, 7), (0, 7), (4, 1)):
        np.testing.assert_array_equal(env.step(action)[0], np.eye(S)[state])


def test_the_reward_is_that_of_the_action_in_the_state_before_the_step_with_unit_noise():
    batch, noise = started(walk(), 1000), []
    # In state 0 action 3 pays 3, in state 3 action 4 pays 34, in state 7 action 1 pays 71.
    for action, mean in ((3, 3), (4, 34), (1, 71)):
        noise.append(batch.step(np.full(1000, action))[1] - mean)
    assert stats.kstest(np.ravel(noise), stats.norm(0, 1).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(noise)[np.triu_indices(3, 1)]).max() < 4 / 1000**0.5


@pytest.mark.parametrize("action", range(A))
def test_next_states_are_distributed_as_the_task_says(action):
    task = process()
    observations, *_ = started(task, 10000).step(np.full(10000, action))
    counts = observations.sum(0)
    assert stats.chisquare(counts, 10000 * task[0, action, :-1]).pvalue > 1e-3


def test_states_of_probability_zero_are_never_reached():
    task = process()
    task[..., [0, 4, 9]] = 0.0
    task[..., :-1] /= task[..., :-1].sum(-1, keepdims=True)
    states, _ = follow(task, random_policy(), 2000)
    assert set(np.unique(states[1:])) == {1, 2, 3, 5, 6, 7, 8}


def test_the_distribution_of_states_is_the_power_of_the_transition_matrix():
    task, policies = process(), random_policy()
    states, _ = follow(task, policies, 10000)
    matrix = (policies[0][..., None] * task[..., :-1]).sum(1)
    for t in (1, 2, STEPS):
        expected = np.linalg.matrix_power(matrix, t)[0]
        assert stats.chisquare(np.bincount(states[t], minlength=S), 10000 * expected).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("best", [False, True])
def test_a_policy_returns_its_exact_value(seed, best):
    # Returns have a standard deviation of about 4, so the standard error of 5000 of them is about 0.06.
    task = process(seed)
    policies = best_policy(task) if best else random_policy()
    _, rewards = follow(task, policies, 5000)
    returns = rewards.sum(0)
    assert returns.mean() == pytest.approx(exact_value(task, policies), abs=4 * returns.std() / 5000**0.5)


def test_random_actions_return_one_a_step_over_tasks():
    # Every mean reward has mean 1, whatever the state: 10 in an episode, as the column "Random" of Duan et al.'s
    # Table 2 (100.1 in 10 episodes). The standard deviation over tasks and episodes is about 5.
    count = 4000
    batch = gymnasium.make_vec(ID, count)
    batch.task_space.seed(1)
    batch.set_attr("task", [batch.task_space.sample() for _ in range(count)])
    batch.reset(seed=0)
    actions = np.random.default_rng(0).integers(A, size=(STEPS, count))
    returns = sum(batch.step(action)[1] for action in actions)
    assert returns.mean() == pytest.approx(STEPS, abs=4 * returns.std() / count**0.5)


def test_a_time_limit_beyond_the_steps_that_were_drawn_is_refused():
    longer = gymnasium.make(ID, max_episode_steps=12)
    longer.reset(seed=0)
    for _ in range(STEPS):
        longer.step(0)
    with pytest.raises(ValueError, match=r"10 steps.*steps="):
        longer.step(0)
    longer = gymnasium.make(ID, max_episode_steps=12, steps=12)
    longer.reset(seed=0)
    assert [longer.step(0)[3] for _ in range(12)] == [False] * 11 + [True]


def test_the_numbers_of_states_and_actions_can_be_chosen():
    env = gymnasium.make(ID, states=3, actions=2).unwrapped
    assert env.observation_space.shape == (3,)
    assert env.action_space == Discrete(2)
    assert env.task_space == TabularMDPs(3, 2)
    assert env.reset(seed=0)[0].shape == env.step(1)[0].shape == (3,)


# The distribution over tasks


def test_transitions_have_the_moments_of_a_flat_dirichlet_distribution():
    # With S states: mean 1 / S, variance (S - 1) / (S^2 (S + 1)), covariance -1 / (S^2 (S + 1)); each probability
    # alone is Beta(1, S - 1).
    space = TabularMDPs(S, A, seed=0)
    rows = np.array([space.sample()[..., :-1] for _ in range(400)]).reshape(-1, S)
    assert len(rows) == 400 * S * A
    np.testing.assert_allclose(rows.sum(1), 1.0, rtol=0, atol=1e-12)
    # Standard errors of 20000 rows: of the mean sqrt(0.0082 / 20000) = 0.0006; of a (co)variance about 0.0001.
    np.testing.assert_allclose(rows.mean(0), 1 / S, rtol=0, atol=4 * 0.0006)
    covariance = (np.eye(S) * S - 1) / (S**2 * (S + 1))
    np.testing.assert_allclose(np.cov(rows.T), covariance, rtol=0, atol=5 * 0.0001)
    for column in rows.T:
        assert stats.kstest(column, stats.beta(1, S - 1).cdf).pvalue > 1e-3


def test_mean_rewards_are_normal_with_mean_and_standard_deviation_one():
    space = TabularMDPs(S, A, seed=0)
    rewards = np.array([space.sample()[..., -1] for _ in range(200)])
    assert stats.kstest(rewards.ravel(), stats.norm(1, 1).cdf).pvalue > 1e-3


def changed(index: tuple, value: float) -> np.ndarray:
    task = process()
    task[index] = value
    return task


def test_a_valid_process_is_contained():
    assert TabularMDPs(S, A).contains(process())
    assert TabularMDPs(S, A).contains(process().astype(np.float32))  # sums to 1 as exactly as its type allows
    assert TabularMDPs(S, A).contains(walk())


@pytest.mark.parametrize(
    "task",
    [
        changed((0, 0, 0), 0.9),  # the row does not sum to 1
        changed((3, 1, slice(0, 2)), (-0.1, 0.1)),
        changed((3, 1, 2), np.nan),
        changed((3, 1, S), np.nan),
        changed((3, 1, S), np.inf),
        process()[..., :-1],
        process()[:-1],
        process() > 0,
    ],
)
def test_an_invalid_process_is_not_contained(task):
    assert not TabularMDPs(S, A).contains(task)
    with pytest.raises(ValueError, match=r"not in the task space TabularMDPs\(10, 5\)"):
        gymnasium.make(ID).unwrapped.task = task


def test_samples_are_a_function_of_the_seed():
    first, second = process(3), process(3)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, process(4))
    space = TabularMDPs(S, A, seed=3)
    space.sample()
    assert not np.array_equal(space.sample(), first)
    space.seed(3)
    np.testing.assert_array_equal(space.sample(), first)


@pytest.mark.parametrize("copied", [deepcopy, lambda space: pickle.loads(pickle.dumps(space))])
def test_a_copy_continues_the_draws_of_the_space(copied):
    space = TabularMDPs(S, A, seed=3)
    space.sample()
    copy = copied(space)
    assert copy == space
    np.testing.assert_array_equal(copy.sample(), space.sample())


def test_spaces_of_this_distribution_are_equal_if_their_sizes_are():
    space = TabularMDPs(S, A)
    assert space == TabularMDPs(S, A)
    assert space != TabularMDPs(S, A + 1)
    assert space != Box(space.low, space.high, dtype=np.float64)
    assert Box(space.low, space.high, dtype=np.float64) != space


def test_elements_survive_json_and_flattening():
    space, task = TabularMDPs(S, A), process()
    np.testing.assert_array_equal(space.from_jsonable(space.to_jsonable([task]))[0], task)
    assert flatdim(space) == S * A * (S + 1)
    np.testing.assert_array_equal(unflatten(space, flatten(space, task)), task)


@pytest.mark.parametrize("name", ["mask", "probability"])
def test_a_mask_is_refused(name):
    with pytest.raises(Error, match="takes no mask"):
        TabularMDPs(S, A).sample(**{name: np.ones(3)})


def test_the_picture_shows_the_mean_rewards_and_the_current_state():
    mdp, task = TabularMDP(), process()
    task[3, 1, -1], task[3, 2, -1], task[4, 0, -1] = -9.0, 9.0, 9.0
    state = np.zeros(2 + 2 * STEPS)
    state[0] = 3
    picture = mdp.render(state, task)
    height, width = picture.shape[0] // S, picture.shape[1] // A

    def cell(s: int, a: int) -> list[int]:
        return picture[s * height + height // 2, a * width + width // 2].tolist()

    assert cell(3, 1) == [0, 0, 255]
    assert cell(3, 2) == [255, 255, 255]
    assert cell(4, 0) == [255, 255, 255]
    assert cell(2, 0)[0] == cell(2, 0)[2]
