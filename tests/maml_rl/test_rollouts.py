"""Sampling, with a process whose every number is known, and against a plain loop over single environments."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv, TaskMDP
from maml_rl.errors import NonFiniteEnvironmentError, NonFiniteError
from maml_rl.policies import CategoricalMLP, GaussianMLP, Policy
from maml_rl.rollouts import collect
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.tasks import groups, sample_tasks, task_space, vectorize
from maml_rl.types import Params, Trajectories, repeat, select, stack

NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
COUNTDOWN, CHOICES = "CountdownForTests-v0", "ChoicesForTests-v0"
LIMIT = 6
DRAW = Draw(seed=3, phase=Phase.TRAINING, iteration=2)


class Countdown(TaskMDP):
    """Ends after as many steps as the task says. A state is (1 + steps taken, noise of the reset, last action).

    The reward is the action plus the noise of the reset. So every number of a trajectory is known, none is zero by
    chance, and mixing up two tasks, episodes or steps shows.
    """

    def __init__(self, action_space: Space | None = None) -> None:
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32) if action_space is None else action_space
        self.task_space = Discrete(9, start=1)

    def initial(self, generators: Sequence[np.random.Generator]) -> NDArray:
        return np.array([[1.0, generator.standard_normal(), 0.0] for generator in generators])

    def transition(self, states: NDArray, actions: NDArray, tasks: NDArray) -> NDArray:
        return np.stack([states[:, 0] + 1, states[:, 1], actions.reshape(len(states))], axis=1)

    def observation(self, states: NDArray) -> NDArray:
        return states

    def reward_terms(self, states: NDArray, actions: NDArray, next_states: NDArray, tasks: NDArray) -> dict:
        return {"reward": next_states[:, 1] + next_states[:, 2]}

    def terminated(self, states: NDArray, tasks: NDArray) -> NDArray:
        return states[:, 0] > tasks


class BrokenReward(Countdown):
    """The reward of task 3 is not a number in its second step."""

    def reward_terms(self, states: NDArray, actions: NDArray, next_states: NDArray, tasks: NDArray) -> dict:
        return {"reward": np.where((tasks == 3) & (states[:, 0] == 2), np.nan, 1.0)}


class BrokenState(Countdown):
    """Ends in a state that is not finite, as an unstable simulation does; task 8 breaks after two steps and runs on."""

    def transition(self, states: NDArray, actions: NDArray, tasks: NDArray) -> NDArray:
        following = super().transition(states, actions, tasks)
        broken = (following[:, 0] > tasks) | ((following[:, 0] == 3) & (tasks == 8))
        following[broken, 2] = np.inf
        return following

    def reward_terms(self, states: NDArray, actions: NDArray, next_states: NDArray, tasks: NDArray) -> dict:
        return {"reward": np.ones(len(states))}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Registers the small environments of this module while it runs."""
    gymnasium.register(
        COUNTDOWN, TaskEnv, max_episode_steps=LIMIT, vector_entry_point=BatchedTaskEnv, kwargs={"mdp": Countdown()}
    )
    gymnasium.register(
        CHOICES,
        TaskEnv,
        max_episode_steps=LIMIT,
        vector_entry_point=BatchedTaskEnv,
        kwargs={"mdp": Countdown(Discrete(3))},
    )
    yield
    for name in (COUNTDOWN, CHOICES):
        del gymnasium.registry[name]


def policy_for(envs: gymnasium.vector.VectorEnv, seed: int = 0) -> GaussianMLP | CategoricalMLP:
    size = envs.single_observation_space.shape[0]
    settings = {"hidden_sizes": (8,), "activation": "tanh", "generator": np.random.default_rng(seed)}
    if isinstance(envs.single_action_space, Discrete):
        return CategoricalMLP(size, int(envs.single_action_space.n), **settings)
    return GaussianMLP(size, envs.single_action_space.shape[0], initial_std=0.7, **settings)


def different_params(envs: gymnasium.vector.VectorEnv, count: int) -> Params:
    """Parameters that differ between tasks."""
    return stack([{name: p.detach() for name, p in policy_for(envs, m).named_parameters()} for m in range(count)])


def sample(envs: gymnasium.vector.VectorEnv, tasks: list, episodes: int, draw: Draw = DRAW) -> Trajectories:
    """Trajectories of tasks that each act with their own parameters."""
    return collect(envs, policy_for(envs), different_params(envs, len(tasks)), tasks, episodes, draw)


def assert_equal(a: Trajectories, b: Trajectories, atol: float = 0.0) -> None:
    for name, x, y in zip(Trajectories._fields, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def plain_loop(
    env_id: str, policy: Policy, params: Params, tasks: Sequence[object], episodes: int, horizon: int, draw: Draw
) -> list[list[dict[str, NDArray]]]:
    """The same episodes, one step of one single environment at a time: what `collect` has to equal."""
    results = []
    for m, task in enumerate(tasks):
        env = gymnasium.make(env_id)
        seeds = draw.integers(Purpose.RESETS, episodes, m)
        noise = policy.distribution.noise(draw.generator(Purpose.ACTIONS, m), (episodes, horizon), policy.noise_size)
        results.append([])
        for k in range(episodes):
            env.unwrapped.task = task
            observation, _ = env.reset(seed=seeds[k])
            steps, terminated, truncated = [], False, False
            while not (terminated or truncated):
                with torch.no_grad():
                    inputs = torch.tensor(observation, dtype=torch.float32)
                    action = policy(select(params, m), inputs).sample(torch.from_numpy(noise[k, len(steps)])).numpy()
                before, space = observation, env.action_space
                taken = np.clip(action, space.low, space.high) if isinstance(space, Box) else action
                observation, reward, terminated, truncated, _ = env.step(taken)
                steps.append((before, action, reward))
            observations, actions, rewards = (np.array(column) for column in zip(*steps, strict=True))
            results[m].append(
                {"observations": observations, "actions": actions, "rewards": rewards, "terminated": terminated}
            )
    return results


@pytest.mark.parametrize("env_id", [COUNTDOWN, CHOICES, NAVIGATION])
def test_each_task_acts_with_its_own_parameters_as_in_a_plain_loop(env_id):
    envs, episodes = vectorize(env_id, 5), 3
    tasks = sample_tasks(task_space(envs), 4, seed=0)
    trajectories = sample(envs, tasks, episodes)
    horizon = trajectories.mask.shape[-1]
    expected = plain_loop(env_id, policy_for(envs), different_params(envs, 4), tasks, episodes, horizon, DRAW)
    for m in range(4):
        for k in range(episodes):
            length = len(expected[m][k]["rewards"])
            assert trajectories.mask[m, k].tolist() == [1.0] * length + [0.0] * (horizon - length)
            for name in ("observations", "actions", "rewards"):
                got = getattr(trajectories, name)[m, k, :length].numpy()
                np.testing.assert_allclose(got, expected[m][k][name], rtol=0, atol=1e-5, err_msg=name)
            assert bool(trajectories.terminated[m, k]) is expected[m][k]["terminated"]


def test_the_half_cheetah_moves_as_in_a_plain_loop():
    # Rounding grows with time in contacts, so the first 20 steps are compared.
    env_id = "maml_rl.envs:finn2017/HalfCheetahVel-v0"
    envs = vectorize(env_id, 4)
    tasks = sample_tasks(task_space(envs), 2, seed=0)
    trajectories = sample(envs, tasks, 2)
    expected = plain_loop(env_id, policy_for(envs), different_params(envs, 2), tasks, 2, 200, DRAW)
    for m in range(2):
        for k in range(2):
            assert len(expected[m][k]["rewards"]) == 200
            for name in ("observations", "actions", "rewards"):
                got = getattr(trajectories, name)[m, k, :20].numpy()
                np.testing.assert_allclose(got, expected[m][k][name][:20], rtol=0, atol=1e-3, err_msg=name)
    assert trajectories.mask.all()
    assert not trajectories.terminated.any()


@pytest.mark.parametrize("num_envs", [2, 5, 40])  # 3 x 4 episodes: many waves, cut within a task; more than enough
def test_groups_of_sub_environments_side_by_side_give_the_same_as_one(num_envs):
    env_id = "maml_rl.envs:finn2017/HalfCheetahVel-v0"
    alone = vectorize(env_id, 12, threads=1, max_episode_steps=50)
    grouped = vectorize(env_id, num_envs, threads=2, max_episode_steps=50)
    assert len(groups(alone)) == 1
    assert [group.num_envs for group in groups(grouped)] == [num_envs // 2, num_envs - num_envs // 2]
    tasks = sample_tasks(task_space(alone), 3, seed=0)
    for one, other in zip(sample(alone, tasks, 4), sample(grouped, tasks, 4), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_an_error_in_one_group_of_sub_environments_is_raised():
    envs = vectorize("maml_rl.envs:finn2017/HalfCheetahVel-v0", 4, threads=2)
    tasks = sample_tasks(task_space(envs), 2, seed=0)
    params = different_params(envs, 2)
    params["log_std"][1] = torch.nan
    with pytest.raises(NonFiniteError, match="actions"):
        collect(envs, policy_for(envs), params, tasks, 2, DRAW)


def test_every_task_gets_exactly_its_episodes_whatever_their_length():
    lengths = [1, 4, 2, 9]  # the last is cut at the time limit
    trajectories = sample(vectorize(COUNTDOWN, 3), lengths, 5)
    assert trajectories.observations.shape == (4, 5, LIMIT, 3)
    assert trajectories.actions.shape == (4, 5, LIMIT, 1)
    assert trajectories.log_probs.shape == trajectories.rewards.shape == trajectories.mask.shape == (4, 5, LIMIT)
    assert trajectories.mask.sum(-1).tolist() == [[min(length, LIMIT)] * 5 for length in lengths]
    # Whole episodes from the first step on: the first observation component counts 1, 2, ..., length.
    for m, length in enumerate(lengths):
        count = [t + 1.0 if t < length else 0.0 for t in range(LIMIT)]
        assert trajectories.observations[m, :, :, 0].tolist() == [count] * 5
    # Five different episodes: the noise of their resets differs, and is constant within an episode.
    assert len(trajectories.observations[:, :, 0, 1].unique()) == 4 * 5


def test_terminations_and_time_limits_are_distinguished():
    trajectories = sample(vectorize(COUNTDOWN, 4), [5, 6, 7], 2)
    # 5 terminates; 6 terminates in the very step of the time limit; 7 is only cut off.
    assert trajectories.terminated.tolist() == [[True] * 2, [True] * 2, [False] * 2]
    assert trajectories.mask.sum(-1).tolist() == [[5.0] * 2, [6.0] * 2, [6.0] * 2]


def test_padding_is_zero():
    trajectories = sample(vectorize(COUNTDOWN, 2), [1, 3, 9], 3)
    padding = trajectories.mask == 0
    assert padding.any()
    for name in ("observations", "actions", "log_probs", "rewards"):
        assert (getattr(trajectories, name)[padding] == 0).all(), name
    for name in ("actions", "log_probs", "rewards"):
        assert (getattr(trajectories, name)[~padding] != 0).all(), name  # and nothing else is


def test_the_observation_after_an_action_is_the_real_one_up_to_the_end():
    # The third component is the last action as the environment took it, so a reset observation, where it is 0, would
    # show. The policy's own, unclipped action is what is stored: its log-probability is what the gradient needs.
    trajectories = sample(vectorize(COUNTDOWN, 2), [2, 4, 9], 3)
    following = trajectories.mask[:, :, 1:] == 1
    torch.testing.assert_close(
        trajectories.observations[:, :, 1:, 2][following],
        trajectories.actions[:, :, :-1, 0][following].clamp(-1, 1),
    )
    noise = trajectories.observations[:, :, :1, 1].expand(-1, -1, LIMIT)
    expected = (trajectories.actions[..., 0].clamp(-1, 1) + noise) * trajectories.mask
    torch.testing.assert_close(trajectories.rewards, expected)


@pytest.mark.parametrize("env_id", [COUNTDOWN, CHOICES, NAVIGATION])
@pytest.mark.parametrize("num_envs", [1, 3, 7, 12, 17])
def test_trajectories_do_not_depend_on_the_number_of_sub_environments(env_id, num_envs):
    envs = vectorize(env_id, 4)
    tasks = sample_tasks(task_space(envs), 4, seed=1)
    assert_equal(sample(vectorize(env_id, num_envs), tasks, 3), sample(envs, tasks, 3))


@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("env_id", [COUNTDOWN, CHOICES, NAVIGATION])
@pytest.mark.parametrize("num_envs", [2, 5, 14])
def test_environments_that_reset_themselves_give_the_same_trajectories(env_id, num_envs, autoreset):
    envs = vectorize(env_id, 4)
    tasks = sample_tasks(task_space(envs), 4, seed=1)
    others = vectorize(env_id, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": autoreset})
    assert_equal(sample(others, tasks, 3), sample(envs, tasks, 3), atol=1e-6)


def test_navigation_that_reaches_its_goal_ends_and_is_padded():
    # Nearly without noise, and with the mean at (1, 0) whatever the state: the point walks 0.1 to the right each step
    # and is at the goal (0.3, 0) after 3 steps, at (-0.3, 0) never.
    envs = vectorize(NAVIGATION, 4)
    policy = policy_for(envs)
    params = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}
    params["bias_1"] = torch.tensor([1.0, 0.0])
    params["log_std"] = torch.full((2,), -12.0)
    tasks = [np.array([0.3, 0.0], np.float32), np.array([-0.3, 0.0], np.float32)]
    trajectories = collect(envs, policy, repeat(params, 2), tasks, 3, DRAW)
    assert trajectories.mask.sum(-1).tolist() == [[3.0] * 3, [100.0] * 3]
    assert trajectories.terminated.tolist() == [[True] * 3, [False] * 3]
    # Distances after the steps: 0.2 + 0.1 + 0 from the first goal, and 0.4 + 0.5 + ... + 10.3 = 100 * 5.35 from the
    # second. (A component is clipped at 1, so noise of standard deviation 6e-6 adds about 1e-5 to a step.)
    torch.testing.assert_close(trajectories.returns[0], torch.full((3,), -0.3), rtol=0, atol=1e-3)
    torch.testing.assert_close(trajectories.returns[1], torch.full((3,), -535.0), rtol=0, atol=0.2)


def test_what_an_episode_draws_does_not_depend_on_other_tasks_or_episodes():
    envs = vectorize(COUNTDOWN, 4)
    everything = sample(envs, [3, 9, 5], 4)
    fewer_tasks, fewer_episodes = sample(envs, [3, 9], 4), sample(envs, [3, 9, 5], 2)
    assert_equal(fewer_tasks, Trajectories(*(value[:2] for value in everything)), atol=1e-6)
    assert_equal(fewer_episodes, Trajectories(*(value[:, :2] for value in everything)), atol=1e-6)


@pytest.mark.parametrize("chosen", [[1, 3], [0, 2, 3], [3, 1], [2]])
@pytest.mark.parametrize("env_id", [COUNTDOWN, CHOICES, NAVIGATION])
def test_some_tasks_with_their_own_indices_have_the_same_episodes_alone(env_id, chosen):
    envs = vectorize(env_id, 5)
    tasks = sample_tasks(task_space(envs), 4, seed=1)
    params = different_params(envs, 4)
    everything = collect(envs, policy_for(envs), params, tasks, 16, DRAW)
    some = {name: value[chosen] for name, value in params.items()}
    alone = collect(envs, policy_for(envs), some, [tasks[m] for m in chosen], 16, DRAW, indices=chosen)
    # With several tasks, bit for bit where a task's rows begin at a boundary of memory, as with 16 episodes; a batched
    # product of one matrix is rounded differently.
    assert_equal(alone, Trajectories(*(value[chosen] for value in everything)), 0.0 if len(chosen) > 1 else 1e-5)


def action_noise(trajectories: Trajectories) -> torch.Tensor:
    """The noise `[M, K, T]` in the actions of a policy that is the same for all tasks and ignores its observations."""
    return trajectories.actions[..., 0]


def test_action_noise_differs_between_tasks_episodes_and_steps():
    envs = vectorize(COUNTDOWN, 4)
    policy = policy_for(envs)
    params = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}  # mean 0, standard deviation 1
    places = [DRAW, DRAW._replace(step=1), DRAW._replace(iteration=3), DRAW._replace(seed=4)]
    noise = torch.stack([action_noise(collect(envs, policy, repeat(params, 3), [9, 9, 9], 4, d)) for d in places])
    assert noise.shape == (4, 3, 4, LIMIT)
    assert len(noise.unique()) == noise.numel()  # also between gradient steps, iterations and seeds
    # 288 numbers of N(0, 1): standard errors 1 / sqrt(288) of the mean and 1 / sqrt(576) of the standard deviation
    assert abs(noise.mean()) < 3 / 288**0.5
    assert abs(noise.std() - 1) < 3 / 576**0.5


def test_reset_noise_differs_between_tasks_episodes_and_gradient_steps():
    envs = vectorize(COUNTDOWN, 4)
    trajectories = [sample(envs, [9, 9, 9], 4, draw) for draw in (DRAW, DRAW._replace(step=1))]
    noise = torch.stack([t.observations[:, :, 0, 1] for t in trajectories])
    assert len(noise.unique()) == 2 * 3 * 4


def test_the_same_place_in_a_run_gives_the_same_trajectories_whatever_the_global_generators():
    envs = vectorize(COUNTDOWN, 4)
    first = sample(envs, [3, 9], 3)
    sample(envs, [5, 5], 2, DRAW._replace(iteration=7))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert_equal(first, sample(envs, [3, 9], 3))


def test_sampling_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    sample(vectorize(COUNTDOWN, 4), [3, 9], 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_two_samplers_in_one_process_give_the_same_as_alone():
    places = [DRAW._replace(iteration=i) for i in range(3)]
    alone = {i: [sample(vectorize(i, 5), tasks, 3, d) for d in places] for i, tasks in interleaved().items()}
    envs = {env_id: vectorize(env_id, 5) for env_id in interleaved()}
    for j, draw in enumerate(places):
        for env_id, tasks in interleaved().items():
            assert_equal(sample(envs[env_id], tasks, 3, draw), alone[env_id][j])


def test_two_samplers_in_two_threads_give_the_same_as_alone():
    def run(env_id: str, tasks: list) -> list[Trajectories]:
        envs = vectorize(env_id, 5)
        return [sample(envs, tasks, 3, DRAW._replace(iteration=i)) for i in range(3)]

    alone = [run(env_id, tasks) for env_id, tasks in interleaved().items()]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, interleaved().keys(), interleaved().values()))
    for expected, got in zip(alone, together, strict=True):
        for x, y in zip(expected, got, strict=True):
            assert_equal(x, y)


def interleaved() -> dict[str, list]:
    """Environments and tasks of two samplers."""
    goals = sample_tasks(Box(-0.5, 0.5, (2,), np.float32), 2, seed=0)
    return {COUNTDOWN: [3, 9], NAVIGATION: goals}


@pytest.mark.parametrize("env_id", [COUNTDOWN, CHOICES])
def test_log_probs_are_those_of_torch_distributions(env_id):
    envs = vectorize(env_id, 4)
    policy, params = policy_for(envs), different_params(envs, 3)
    trajectories = collect(envs, policy, params, [3, 9, 5], 4, DRAW)
    for m in range(3):
        steps = trajectories.mask[m] == 1
        distribution = policy(select(params, m), trajectories.observations[m][steps])
        if env_id == CHOICES:
            reference = torch.distributions.Categorical(logits=distribution.logits)
        else:
            normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
            reference = torch.distributions.Independent(normal, 1)
        torch.testing.assert_close(trajectories.log_probs[m][steps], reference.log_prob(trajectories.actions[m][steps]))


def test_log_probs_of_several_action_dimensions_are_summed():
    envs = vectorize(NAVIGATION, 4)
    policy, params = policy_for(envs), different_params(envs, 2)
    trajectories = collect(envs, policy, params, sample_tasks(task_space(envs), 2, seed=0), 2, DRAW)
    distribution = policy(params, trajectories.observations)
    expected = torch.distributions.Normal(distribution.mean, distribution.log_std.exp()).log_prob(trajectories.actions)
    torch.testing.assert_close(trajectories.log_probs, expected.sum(-1) * trajectories.mask, rtol=1e-5, atol=1e-5)


def test_actions_are_kept_as_sampled_although_the_environment_clips_them():
    envs = vectorize(NAVIGATION, 4)
    trajectories = sample(envs, sample_tasks(task_space(envs), 2, seed=0), 4)
    assert trajectories.actions.abs().max() > 1
    moves = trajectories.observations[:, :, 1:] - trajectories.observations[:, :, :-1]
    both = (trajectories.mask[:, :, 1:] == 1)[..., None].expand_as(moves)
    expected = 0.1 * trajectories.actions[:, :, :-1].clamp(-1, 1)
    torch.testing.assert_close(moves[both], expected[both], rtol=0, atol=1e-6)


def test_discrete_actions_are_integers_that_follow_the_policys_probabilities():
    envs = vectorize(CHOICES, 40)
    policy = policy_for(envs)
    params = {name: torch.zeros_like(p) for name, p in policy.named_parameters()}
    params["bias_1"] = torch.tensor([0.2, 0.3, 0.5]).log()
    trajectories = collect(envs, policy, repeat(params, 4), [9] * 4, 50, DRAW)
    assert trajectories.actions.dtype == torch.int64
    assert trajectories.actions.shape == (4, 50, LIMIT)
    frequencies = trajectories.actions.flatten().bincount(minlength=3) / trajectories.actions.numel()
    # 1200 draws: the largest standard error is 0.5 / sqrt(1200) = 0.0144
    torch.testing.assert_close(frequencies, torch.tensor([0.2, 0.3, 0.5]), rtol=0, atol=3 * 0.0144)
    # The environment received these very choices: the next observation's third component is the choice.
    torch.testing.assert_close(trajectories.observations[:, :, 1:, 2], trajectories.actions[:, :, :-1].float())


def batch_of(mdp: TaskMDP, num_envs: int) -> BatchedTaskEnv:
    """A batch that is not in the registry, with what `collect` reads of a spec."""
    envs = BatchedTaskEnv(mdp, num_envs, max_episode_steps=LIMIT)
    envs.spec = gymnasium.spec(COUNTDOWN)
    return envs


def test_discrete_actions_start_where_the_space_starts():
    envs = batch_of(Countdown(Discrete(3, start=-1)), 4)
    sent = []
    step = envs.step
    envs.step = lambda actions: sent.extend(actions.tolist()) or step(actions)
    sample(envs, [9, 9], 6)
    assert set(sent) == {-1, 0, 1}


def test_a_reward_that_is_not_finite_is_an_error_that_names_it():
    message = r"a reward that is not finite \(task 3, step 2 of an episode after 2 gradient steps\)"
    with pytest.raises(NonFiniteEnvironmentError, match=message):
        sample(batch_of(BrokenReward(), 4), [2, 3], 2, DRAW._replace(step=2))


def test_an_observation_that_is_not_finite_is_an_error_that_names_its_task():
    message = r"an observation that is not finite \(task 8, step 2 of an episode after 1 gradient step\)"
    with pytest.raises(NonFiniteEnvironmentError, match=message):
        sample(batch_of(BrokenState(), 4), [2, 8], 2, DRAW._replace(step=1))


def test_a_reward_that_is_not_finite_only_after_the_end_is_not_an_error():
    trajectories = sample(batch_of(BrokenReward(), 4), [1, 2], 2)
    assert trajectories.returns.tolist() == [[1.0] * 2, [2.0] * 2]


def test_the_state_in_which_an_episode_ends_is_not_part_of_it_and_need_not_be_finite():
    trajectories = sample(batch_of(BrokenState(), 4), [2, 4], 2)  # task 2 has ended while task 4 runs on
    assert trajectories.mask.sum(-1).tolist() == [[2.0] * 2, [4.0] * 2]
    for value in trajectories:
        assert value.isfinite().all()


def test_parameters_are_not_changed_and_no_graph_is_kept():
    envs = vectorize(COUNTDOWN, 4)
    params = {name: value.clone().requires_grad_() for name, value in different_params(envs, 2).items()}
    before = {name: value.detach().clone() for name, value in params.items()}
    trajectories = collect(envs, policy_for(envs), params, [3, 9], 2, DRAW)
    assert not any(value.requires_grad for value in trajectories)
    for name, value in params.items():
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0)


def test_float_and_integer_types_are_those_of_the_losses():
    trajectories = sample(vectorize(COUNTDOWN, 4), [3, 9], 2)
    assert {value.dtype for value in trajectories[:5]} == {torch.float32}
    assert trajectories.terminated.dtype == torch.bool


def test_spare_sub_environments_stay_idle():
    envs = vectorize(COUNTDOWN, 10)
    stepped = []
    transition = envs.mdp.transition
    envs.mdp.transition = lambda states, *rest: stepped.append(len(states)) or transition(states, *rest)
    sample(envs, [2, 4], 2)
    assert sum(stepped) == 2 * (2 + 4)


@pytest.mark.parametrize("episodes", [1, 3, 4])
def test_a_tasks_rows_begin_at_the_same_place_in_any_wave(episodes):
    places: dict[float, set[int]] = {}

    class Watched(GaussianMLP):
        def forward(self, params: Params, observations: torch.Tensor):
            for m, task in enumerate(params["log_std"][:, 0].tolist()):
                places.setdefault(task, set()).add(observations[m].data_ptr() % 64)
            return super().forward(params, observations)

    policy = Watched(3, 1, hidden_sizes=(8,), activation="tanh", generator=np.random.default_rng(0))
    params = repeat({name: value.detach() for name, value in policy.named_parameters()}, 20)
    params["log_std"] = -0.01 * torch.arange(20.0)[:, None]  # which identifies the tasks
    for num_envs in (1, 7, 60):
        collect(vectorize(COUNTDOWN, num_envs), policy, params, [9] * 20, episodes, DRAW)
    assert len(places) == 20
    assert all(len(found) == 1 for found in places.values())
