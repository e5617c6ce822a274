import functools
import gc
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maml_rl.advantages import advantage_batch
from maml_rl.config import SGD, Adam, ProMP, RLMeta
from maml_rl.envs.batched import Array, TaskMDP
from maml_rl.errors import InputError, NonFiniteEnvironmentError, NonFiniteError
from maml_rl.gradient_filter import is_statistic
from maml_rl.inner import inner_update
from maml_rl.meta_gradient import TaskData, meta_objective
from maml_rl.meta_rl import Iteration, Sampled, adapt_each, initial_state, meta_iteration, sample
from maml_rl.objectives import PolicyLoss, reinforce
from maml_rl.parallel import TaskThreads
from maml_rl.policies import CategoricalMLP, GaussianMLP, policy_rates
from maml_rl.rates import InnerUpdate, theta
from maml_rl.sampling_credit import episode_credits
from maml_rl.seeding import Draw, Phase
from maml_rl.step import MetaGradient
from maml_rl.tasks import TaskVectorEnv, task_space, training_tasks, vectorize
from maml_rl.types import Params, State, Trajectories, flatten, repeat, select

NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
TINY = RLMeta(meta_batch_size=3, episodes=4)


class Line(TaskMDP):
    """A point on a line that is rewarded for moving in one direction, the task, which it does not observe.

    Ten steps of at most 0.1, each rewarded with its share of the largest step: the best return is 10.
    """

    def __init__(self, reward_after: float = np.inf, far_reward: float = 0.0) -> None:
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)
        self.task_space = Discrete(2)
        self.reward_after, self.far_reward = reward_after, far_reward

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        return np.zeros((len(generators), 1))

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        return states + 0.1 * np.clip(actions, -1.0, 1.0)

    def observation(self, states: Array) -> Array:
        return states

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        progress = (2 * tasks - 1) * (next_states - states)[:, 0] / 0.1
        return {"reward_progress": np.where(np.abs(next_states[:, 0]) > self.reward_after, self.far_reward, progress)}


class Choice(Line):
    """The same with two actions, left and right."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Discrete(2)

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        return states + 0.1 * (2 * actions[:, None] - 1)


class Lost(Line):
    """The same without a sign of the goal: each step costs 1, whatever the action."""

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        return {"reward_time": np.full(len(states), -1.0)}


MDPS: dict[str, TaskMDP] = {
    "Line": Line(),
    "Lost": Lost(),
    "Choice": Choice(),
    "NaNFarAway": Line(reward_after=0.25, far_reward=np.nan),
    "InfinityFarAway": Line(reward_after=0.25, far_reward=np.inf),
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for name, mdp in MDPS.items():
        gymnasium.register(
            id=f"meta_rl_tests/{name}-v0",
            entry_point="maml_rl.envs.batched:TaskEnv",
            vector_entry_point="maml_rl.envs.batched:BatchedTaskEnv",
            max_episode_steps=10,
            kwargs={"mdp": mdp},
        )
    yield
    for name in MDPS:
        del gymnasium.registry[f"meta_rl_tests/{name}-v0"]


def make_policy(envs: TaskVectorEnv, seed: int = 0) -> GaussianMLP | CategoricalMLP:
    settings = {"hidden_sizes": (8, 8), "activation": "tanh", "generator": np.random.default_rng(seed)}
    size = envs.single_observation_space.shape[0]
    if isinstance(envs.single_action_space, Discrete):
        return CategoricalMLP(size, int(envs.single_action_space.n), **settings)
    return GaussianMLP(size, envs.single_action_space.shape[0], **settings)


def start(policy: GaussianMLP | CategoricalMLP) -> Params:
    return {name: value.detach() for name, value in policy.named_parameters()}


def run(
    env_id: str,
    config: RLMeta = TINY,
    *,
    seed: int = 0,
    iterations: range = range(1),
    threads: int = 1,
    num_envs: int = 12,
    state: State | None = None,
) -> Iteration:
    """The last of some meta-iterations, from a state or from the same initial parameters whatever the seed."""
    envs, pool = vectorize(env_id, num_envs), TaskThreads(threads)
    policy = make_policy(envs)
    result = Iteration(state or initial_state(policy, config)._replace(iteration=iterations.start), {}, {})
    for _ in iterations:
        result = meta_iteration(policy, result.state, envs, config, seed, pool)
    envs.close()
    return result


@functools.cache
def reference(env_id: str, count: int = 1) -> Iteration:
    """The last of the first few meta-iterations with the settings as they are, computed once for all tests."""
    return run(env_id, iterations=range(count))


def vector(result: Iteration) -> torch.Tensor:
    return flatten(result.state.meta)


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


@pytest.mark.parametrize("env_id", [NAVIGATION, "meta_rl_tests/Choice-v0"])
class TestDeterminism:
    def test_the_same_seed_gives_the_same_result(self, env_id: str) -> None:
        first, second = reference(env_id), run(env_id)
        assert torch.equal(vector(first), vector(second))
        assert untimed(first.metrics) == untimed(second.metrics)

    @pytest.mark.parametrize("threads", [2, 4])
    def test_the_number_of_threads_changes_nothing(self, env_id: str, threads: int) -> None:
        alone, together = reference(env_id, 2), run(env_id, iterations=range(2), threads=threads)
        assert torch.equal(vector(alone), vector(together))
        assert untimed(alone.metrics) == untimed(together.metrics)

    @pytest.mark.parametrize("num_envs", [1, 5, 8, 17])
    def test_the_number_of_sub_environments_changes_nothing(self, env_id: str, num_envs: int) -> None:
        whole, other = reference(env_id), run(env_id, num_envs=num_envs)
        assert torch.equal(vector(whole), vector(other))
        assert untimed(whole.metrics) == untimed(other.metrics)

    def test_another_seed_gives_another_result(self, env_id: str) -> None:
        assert not torch.equal(vector(reference(env_id)), vector(run(env_id, seed=1)))

    def test_another_iteration_gives_another_result(self, env_id: str) -> None:
        assert not torch.equal(vector(reference(env_id)), vector(run(env_id, iterations=range(1, 2))))

    def test_iterations_that_resume_from_a_state_are_those_of_an_uninterrupted_run(self, env_id: str) -> None:
        resumed = run(env_id, iterations=range(1), state=reference(env_id).state)
        assert torch.equal(vector(reference(env_id, 2)), vector(resumed))

    def test_global_random_state_changes_nothing(self, env_id: str) -> None:
        first = reference(env_id)
        torch.manual_seed(123)
        np.random.seed(123)  # noqa: NPY002
        assert torch.equal(vector(run(env_id)), vector(first))


FILTER = {"inner/filter_floor", "inner/signal_share"}


def documented_metrics(inner_steps: int, first_order: bool = False) -> set[str]:
    names = {
        "sampling/env_steps",
        "meta/loss_before",
        "meta/loss_after",
        "meta/kl",
        "meta/gradient_norm",
        "meta/step_norm",
        "meta/backtracks",
        "meta/accepted",
        "policy/entropy",
        "time/sampling_seconds",
        "time/update_seconds",
    }
    for step in range(inner_steps + 1):
        names |= {f"return/after_{step}_steps", f"return/relative_spread_{step}"}
        names |= {f"baseline/explained_variance_{step}", f"baseline/explained_variance_left_out_{step}"}
        names.add(f"advantage/deviation_{step}")
    if inner_steps:
        names |= {"inner/kl"} if first_order else {"inner/kl", "inner/curvature"}
    return names


@pytest.mark.parametrize("env_id", [NAVIGATION, "meta_rl_tests/Line-v0", "meta_rl_tests/Choice-v0"])
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_any_number_of_inner_steps_gives_the_documented_metrics(env_id: str, inner_steps: int) -> None:
    metrics = run(env_id, replace(TINY, inner_steps=inner_steps)).metrics
    assert set(metrics) == documented_metrics(inner_steps)
    assert {name: value for name, value in metrics.items() if not np.isfinite(value)} == {}
    assert all(type(value) is float for value in metrics.values())
    assert metrics["meta/kl"] <= TINY.step.max_kl


@pytest.mark.parametrize("inner_steps", [0, 2])
def test_values_by_task_average_to_the_metric(inner_steps: int) -> None:
    config = replace(TINY, inner_steps=inner_steps)
    result = run(NAVIGATION, config)
    by_hand = sample_first(NAVIGATION, config)
    assert torch.equal(result.by_task["return/after_0_steps"], by_hand.trajectories.returns.mean(1))
    for name, values in by_hand.measured.items():
        assert torch.equal(result.by_task[f"{name}_0"], values)
    of_update = {name for name in documented_metrics(inner_steps) if name.startswith(("meta/", "sampling/", "time/"))}
    assert set(result.by_task) == documented_metrics(inner_steps) - of_update - {"inner/curvature"}
    for name, values in result.by_task.items():
        assert values.shape == (TINY.meta_batch_size,)
        if name != "policy/entropy" or inner_steps:  # it depends on the parameters alone
            assert len(set(values.tolist())) == TINY.meta_batch_size  # no task's value is another's
        assert float(values.mean()) == pytest.approx(result.metrics[name], rel=1e-6)


def sample_first(env_id: str, config: RLMeta) -> Sampled:
    """The first episodes of the first meta-iteration, sampled separately."""
    envs = vectorize(env_id, 12)
    policy = make_policy(envs)
    draw = Draw(0, Phase.TRAINING, 0)
    tasks = training_tasks(task_space(envs), config.meta_batch_size, draw)
    sampled = sample(envs, policy, repeat(start(policy), len(tasks)), tasks, config, draw, TaskThreads(1))
    envs.close()
    return sampled


def test_every_metric_is_in_the_glossary() -> None:
    glossary = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    names = documented_metrics(inner_steps=2) | {"meta/support_kl", "meta/clipped"} | FILTER
    assert {
        name for name in names if f"`{name}`" not in glossary and f"`{re.sub(r'[0-9]+', 'k', name)}`" not in glossary
    } == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"first_order": True},
        {"inner_objective": "lvc"},
        {"inner_objective": "dice"},
        {"gae_lambda": 0.9},
        {"sampling_credit": 1.0},
        {"adapted": "last-layer"},
        {"learned_lr": "parameter"},
        {"learned_lr": "tensor-and-step"},
    ],
)
def test_other_settings_work_and_change_the_result(settings: dict[str, object]) -> None:
    plain, other = reference(NAVIGATION), run(NAVIGATION, replace(TINY, **settings))
    assert not torch.equal(vector(plain), vector(other))
    learned = {f"inner/lr_{name}" for name in ("mean", "lowest", "negative")} if "learned_lr" in settings else set()
    assert set(other.metrics) == documented_metrics(1, first_order="first_order" in settings) | learned


@pytest.mark.parametrize("rule", [Adam(), SGD(), ProMP(epochs=2)])
def test_other_meta_steps_work_and_have_no_metrics_of_a_trust_region(rule: Adam | SGD | ProMP) -> None:
    config = replace(TINY, step=rule, inner_objective="lvc")
    plain, other = reference(NAVIGATION), run(NAVIGATION, config, iterations=range(2))
    assert not torch.equal(vector(plain), vector(other))
    region = {"meta/loss_after", "meta/kl", "meta/backtracks", "meta/accepted"}
    proximal = {"meta/loss_after", "meta/kl", "meta/support_kl", "meta/clipped"} if isinstance(rule, ProMP) else set()
    assert set(other.metrics) == documented_metrics(1) - region | proximal
    assert bool(other.state.optimizer) is isinstance(rule, Adam | ProMP)


def test_the_credit_to_the_sampling_is_in_the_units_of_the_outer_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    # Line's episodes have 10 steps, over which the outer loss takes its mean.
    seen = list[TaskData]()

    def spy(policy, meta, tasks, *others) -> MetaGradient:
        seen.extend(tasks)
        return meta_objective(policy, meta, tasks, *others)

    monkeypatch.setattr("maml_rl.meta_rl.meta_objective", spy)
    by_task = run("meta_rl_tests/Line-v0", replace(TINY, sampling_credit=0.5)).by_task
    before = sample_first("meta_rl_tests/Line-v0", TINY).trajectories.returns
    credit = episode_credits(by_task["return/after_1_steps"], 10 * by_task["advantage/deviation_1"], before)
    assert credit.abs().min() > 1e-3
    for task, expected in zip(seen, credit, strict=True):
        torch.testing.assert_close(task.credit, [0.5 * expected.float()])


def test_anil_adapts_the_last_layer_and_learns_the_others() -> None:
    config = replace(TINY, adapted="last-layer", inner_lr=1.0)
    before, sampled = start(make_policy(vectorize(NAVIGATION, 1))), sample_first(NAVIGATION, config)
    policy = make_policy(vectorize(NAVIGATION, 1))
    rates = policy_rates(policy, before, config).at(before, 0)
    adapted = adapt_each(policy, repeat(before, 3), sampled.batches, config, rates, TaskThreads(1))
    moved = {name for name, value in adapted.items() if not torch.equal(value[0], before[name])}
    assert moved == {"weight_2", "bias_2", "log_std"}
    after = run(NAVIGATION, config).state.meta
    assert all(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("learned_lr", "shape"), [("parameter", (8, 2)), ("tensor-and-step", (2,))])
def test_step_sizes_are_learned_and_used(learned_lr: str, shape: tuple[int, ...]) -> None:
    config = replace(TINY, learned_lr=learned_lr, inner_steps=2, inner_lr=0.5)
    result = run(NAVIGATION, config)
    rate = result.state.meta["inner_lr.weight_0"]
    assert rate.shape == shape
    assert (rate != 0.5).all()
    assert list(theta(result.state.meta)) == list(start(make_policy(vectorize(NAVIGATION, 1))))
    # Step sizes of 0 leave every policy where it was; those that begin equal adapt as a single number does.
    still = {name: torch.zeros_like(v) if name.startswith("inner_lr.") else v for name, v in result.state.meta.items()}
    assert run(NAVIGATION, config, state=State(still, {}, 0)).metrics["inner/kl"] == pytest.approx(0, abs=1e-6)
    plain = run(NAVIGATION, replace(config, learned_lr="no"))
    assert result.metrics["inner/kl"] == plain.metrics["inner/kl"]
    assert result.metrics["inner/curvature"] == pytest.approx(plain.metrics["inner/curvature"], rel=1e-4)


def test_the_adapted_deviation_begins_at_its_factor_and_is_learned() -> None:
    config = replace(TINY, adapted_std_factor=0.5)
    before = initial_state(make_policy(vectorize(NAVIGATION, 1)), config)
    assert before.meta["inner_shift.log_std"].tolist() == pytest.approx([math.log(0.5)] * 2)
    plain, result = run(NAVIGATION, TINY), run(NAVIGATION, config)
    # At the start the standard deviations differ by the factor alone, so the entropies by log 0.5 for each dimension.
    fall = plain.metrics["policy/entropy"] - result.metrics["policy/entropy"]
    assert fall == pytest.approx(2 * math.log(2), abs=1e-4)
    assert result.metrics["return/after_0_steps"] == plain.metrics["return/after_0_steps"]
    after = result.state.meta["inner_shift.log_std"]
    assert (after != before.meta["inner_shift.log_std"]).all()
    assert result.metrics["inner/shift_log_std"] == pytest.approx(after.mean().item())


def test_a_shift_needs_a_standard_deviation() -> None:
    with pytest.raises(InputError, match="adapted_std_factor needs a standard deviation: actions must be a Box"):
        run("meta_rl_tests/Choice-v0", replace(TINY, adapted_std_factor=0.5))


def test_the_filter_is_measured_on_the_support_gradients_and_used_from_the_next_iteration_on() -> None:
    config = replace(TINY, filtered_lr=True)
    plain, first = run(NAVIGATION, TINY), run(NAVIGATION, config)
    assert first.metrics["inner/kl"] == plain.metrics["inner/kl"]
    learned = {name: value for name, value in first.state.meta.items() if not is_statistic(name)}
    torch.testing.assert_close(learned, plain.state.meta, rtol=1e-4, atol=1e-5)
    power = first.state.meta["inner_power.weight_0"]
    assert (power > 0).any()
    assert set(first.metrics) - set(plain.metrics) == FILTER
    assert 0 <= first.metrics["inner/filter_floor"] < 1
    both = run(NAVIGATION, config, iterations=range(2))
    unfiltered = run(NAVIGATION, TINY, iterations=range(2))
    assert both.metrics["return/after_0_steps"] == pytest.approx(unfiltered.metrics["return/after_0_steps"], rel=1e-4)
    assert both.metrics["inner/kl"] != pytest.approx(unfiltered.metrics["inner/kl"], rel=1e-2)


def test_every_sampling_draws_its_own_noise() -> None:
    # With so small an inner step the policy is the same each time, so only the noise can make the returns differ.
    metrics = run("meta_rl_tests/Line-v0", replace(TINY, inner_steps=2, inner_lr=1e-12)).metrics
    assert len({metrics[f"return/after_{step}_steps"] for step in range(3)}) == 3


def test_the_first_inner_steps_do_not_depend_on_how_many_follow() -> None:
    one, two, three = (
        run("meta_rl_tests/Line-v0", replace(TINY, inner_steps=steps, inner_lr=0.5)).metrics for steps in (1, 2, 3)
    )
    for name in ("return/after_0_steps", "return/after_1_steps", "baseline/explained_variance_1"):
        assert one[name] == two[name] == three[name]
    assert two["return/after_2_steps"] == three["return/after_2_steps"]


def test_metrics_of_sampling_by_hand() -> None:
    # 3 tasks, 4 episodes of 10 steps, before and after the inner step: 240 steps.
    metrics = run("meta_rl_tests/Line-v0").metrics
    assert metrics["sampling/env_steps"] == 3 * 4 * 10 * 2
    assert -10 <= metrics["return/after_0_steps"] <= 10
    # Entropy of a standard normal distribution: 1/2 log(2 pi e) = 1.42 nats, little moved by one inner step.
    assert metrics["policy/entropy"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.3)
    assert metrics["inner/kl"] > 0


def test_an_accepted_step_moves_theta_by_its_norm_and_nothing_in_place() -> None:
    envs = vectorize(NAVIGATION, 12)
    policy = make_policy(envs)
    params = start(policy)
    before = flatten(params).clone()
    result = meta_iteration(policy, State(params, {}, 0), envs, TINY, 0, TaskThreads(1))
    envs.close()
    assert result.metrics["meta/accepted"] == 1
    assert torch.equal(flatten(params), before)
    assert (vector(result) - before).norm().item() == pytest.approx(result.metrics["meta/step_norm"])


@pytest.mark.parametrize("episodes", [1, 2, 20])
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_rewards_that_no_action_changes_leave_theta_where_it_is(inner_steps: int, episodes: int) -> None:
    config = replace(TINY, inner_steps=inner_steps, episodes=episodes, inner_lr=1.0)
    envs = vectorize("meta_rl_tests/Lost-v0", 12)
    before = flatten(start(make_policy(envs)))
    envs.close()
    result = run("meta_rl_tests/Lost-v0", config, iterations=range(2))
    assert torch.equal(vector(result), before)
    assert (result.metrics["meta/accepted"], result.metrics["meta/step_norm"]) == (0, 0)
    assert result.metrics.get("inner/kl", 0) == 0
    spreads = [value for name, value in result.metrics.items() if name.startswith("return/relative_spread")]
    assert len(spreads) == (0 if episodes == 1 else inner_steps + 1)  # one episode can be compared with no other
    assert all(spread < 1e-6 for spread in spreads)


def test_a_divergence_is_reported_with_the_largest_input_of_the_network() -> None:
    with pytest.raises(NonFiniteError, match=r"^iteration 1: .* with observations of up to 0\.\d+ at the network"):
        run("meta_rl_tests/Line-v0", replace(TINY, inner_lr=1e38))


def trajectory_arrays(trajectories: Trajectories) -> list[NDArray[np.generic]]:
    return [field.numpy() for field in trajectories]


def test_sampled_batches_are_those_of_each_tasks_own_episodes() -> None:
    envs = vectorize("meta_rl_tests/Line-v0", 12)
    policy = make_policy(envs)
    params = repeat(start(policy), 3)
    sampled = sample(envs, policy, params, [0, 1, 0], TINY, Draw(0, Phase.TRAINING), TaskThreads(2))
    envs.close()
    arrays = trajectory_arrays(sampled.trajectories)
    assert all(values.shape == (3,) for values in sampled.measured.values())
    for m in range(3):
        of_task = Trajectories(*(torch.from_numpy(array[m]) for array in arrays))
        batch, measured = advantage_batch(of_task, TINY.discount, TINY.gae_lambda)
        assert all(torch.equal(ours, other) for ours, other in zip(sampled.batches[m], batch, strict=True))
        assert {name: values[m] for name, values in sampled.measured.items()} == measured


def test_adapt_each_is_one_inner_update_of_every_task() -> None:
    envs = vectorize("meta_rl_tests/Line-v0", 12)
    policy = make_policy(envs)
    params = repeat(start(policy), 3)
    sampled = sample(envs, policy, params, [0, 1, 0], TINY, Draw(0, Phase.TRAINING), TaskThreads(1))
    envs.close()
    update = InnerUpdate(dict.fromkeys(params, 0.7))
    adapted = adapt_each(policy, params, sampled.batches, TINY, update, TaskThreads(2))
    for m, batch in enumerate(sampled.batches):
        expected = inner_update(lambda p, batch=batch: PolicyLoss(policy, reinforce)(p, batch), start(policy), update)
        torch.testing.assert_close(select(adapted, m), expected)


@pytest.mark.parametrize("name", ["NaNFarAway", "InfinityFarAway"])
@pytest.mark.parametrize("iteration", [0, 17])
def test_a_reward_that_is_not_finite_is_an_error_that_names_iteration_and_quantity(name: str, iteration: int) -> None:
    with pytest.raises(
        NonFiniteEnvironmentError, match=rf"iteration {iteration + 1}: the environment returned a reward"
    ):
        run(f"meta_rl_tests/{name}-v0", iterations=range(iteration, iteration + 1))


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_memory_is_flat_over_fifteen_iterations() -> None:
    envs, threads = vectorize("meta_rl_tests/Line-v0", 4), TaskThreads(2)
    policy = make_policy(envs)
    config = RLMeta(meta_batch_size=2, episodes=2)
    state, counts = initial_state(policy, config), []
    for iteration in range(20):
        state = meta_iteration(policy, state, envs, config, 0, threads).state
        if iteration in (4, 19):
            counts.append(live_tensors())
    envs.close()
    assert counts[1] <= counts[0]


@pytest.mark.parametrize("inner_steps", [0, 1])
def test_no_graph_grows_where_theta_is_the_modules_own_parameters(inner_steps: int) -> None:
    envs, config = vectorize("meta_rl_tests/Line-v0", 12), replace(TINY, inner_steps=inner_steps)
    policy = make_policy(envs)
    own = dict(policy.named_parameters())
    result = meta_iteration(policy, State(own, {}, 0), envs, config, 0, TaskThreads(2))
    envs.close()
    assert not any(value.requires_grad for value in result.state.meta.values())


def test_meta_training_learns_to_adapt_in_one_step() -> None:
    envs, threads = vectorize("meta_rl_tests/Line-v0", 60), TaskThreads(2)
    policy = make_policy(envs, seed=0)
    config, curve = RLMeta(meta_batch_size=6, episodes=10, inner_lr=0.1), []
    state = initial_state(policy, config)
    for _ in range(25):
        state, metrics, _ = meta_iteration(policy, state, envs, config, 0, threads)
        curve.append([metrics["return/after_0_steps"], metrics["return/after_1_steps"]])
    envs.close()
    before, after = np.array(curve).T
    gain = after - before
    # Measured with seeds 0 to 4, means over five iterations. The unadapted policy cannot know the direction:
    #   return before, last five:   0.40   0.16   0.16   0.33  -0.10
    #   return after, last five:    4.66   4.02   3.80   5.95   8.65
    #   gain, first five:           1.37   1.43   1.54   1.87   3.38
    #   gain, last five:            4.26   3.86   3.64   5.62   8.75
    assert abs(before[-5:].mean()) < 2
    assert after[-5:].mean() > 2.5
    assert gain[-5:].mean() > 2.5
    assert gain[-5:].mean() > 1.7 * gain[:5].mean()


class InThisThread(TaskThreads):
    """Runs tasks in this thread, where PyTorch's operations can be watched."""

    def imap(self, function, *arguments):
        return map(function, *arguments)


@pytest.mark.parametrize("env_id", ["meta_rl_tests/Line-v0", "meta_rl_tests/Choice-v0"])
def test_an_iteration_sees_its_operands_in_the_same_places_wherever_its_inputs_lie(
    env_id, operands, displaced, monkeypatch
):
    # Inputs are parameters as the last iteration left them, those of a file, and arrays of NumPy.
    envs, threads = vectorize(env_id, 5), InThisThread(1)
    policy, config = make_policy(envs), RLMeta(meta_batch_size=3, episodes=3)
    state = meta_iteration(policy, initial_state(policy, config), envs, config, 0, threads).state
    results, seen, zeros, stack = [], [], np.zeros, np.stack

    def elsewhere(array: NDArray) -> NDArray:
        return displaced(torch.from_numpy(array)).numpy()

    for moved in (False, True):
        if moved:
            state = state._replace(meta={name: displaced(value) for name, value in state.meta.items()})
            monkeypatch.setattr(np, "zeros", lambda *shape, **dtype: elsewhere(zeros(*shape, **dtype)))
            monkeypatch.setattr(np, "stack", lambda *arrays, **axis: elsewhere(stack(*arrays, **axis)))
        with operands() as watched:
            results.append(meta_iteration(policy, state, envs, config, 0, threads))
        monkeypatch.undo()
        seen.append(watched.seen)
    assert len(seen[0]) > 100
    assert seen[0] == seen[1]
    assert torch.equal(vector(results[0]), vector(results[1]))


def test_a_run_resumed_anywhere_is_the_uninterrupted_one(displaced):
    env_id = "meta_rl_tests/Line-v0"
    config = replace(TINY, learned_lr="parameter", step=Adam(lr=0.01))
    path = [run(env_id, config, iterations=range(n)) for n in range(1, 6)]
    for n in range(1, 5):
        meta, optimizer, iteration = path[n - 1].state
        moved = ({name: displaced(value) for name, value in tensors.items()} for tensors in (meta, optimizer))
        resumed = run(env_id, config, iterations=range(5 - n), state=State(*moved, iteration))
        assert torch.equal(vector(resumed), vector(path[-1]))
        assert torch.equal(flatten(resumed.state.optimizer), flatten(path[-1].state.optimizer))


def test_the_number_of_pytorchs_own_threads_does_not_change_a_bit():
    # 256-256 units: 67,000 parameters, of which PyTorch shares a sum among its threads.
    envs = vectorize(NAVIGATION, 4)
    policy = GaussianMLP(2, 2, hidden_sizes=(256, 256), activation="tanh", generator=np.random.default_rng(0))
    config, results = RLMeta(meta_batch_size=2, episodes=2), []
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            results.append(vector(meta_iteration(policy, State(start(policy), {}, 0), envs, config, 0, TaskThreads(1))))
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("config", [TINY, replace(TINY, first_order=True), replace(TINY, inner_steps=0)])
def test_frozen_parameters_of_a_policy_stay_in_the_inner_and_in_the_meta_update(config):
    envs, threads = vectorize(NAVIGATION, 12), TaskThreads(1)
    policy = make_policy(envs)
    frozen = ["weight_0", "log_std"]  # a layer, and a standard deviation that stays what it is
    for name in frozen:
        policy.get_parameter(name).requires_grad_(False)
    params = start(policy)
    result = meta_iteration(policy, initial_state(policy, config), envs, config, 0, threads)
    assert result.metrics["meta/accepted"]
    assert list(result.state.meta) == list(params)
    moved = {name for name, value in result.state.meta.items() if not torch.equal(value, params[name])}
    assert moved == set(params) - set(frozen)
    tasks, draw = training_tasks(task_space(envs), 3, Draw(0, Phase.TRAINING)), Draw(0, Phase.TRAINING)
    sampled = sample(envs, policy, repeat(params, 3), tasks, config, draw, threads)
    rates = policy_rates(policy, params, config).at(params, 0)
    adapted = adapt_each(policy, repeat(params, 3), sampled.batches, config, rates, threads)
    moved = {name for name, value in adapted.items() if not torch.equal(value[0], params[name])}
    assert moved == set(params) - set(frozen)


def test_a_policy_that_is_all_frozen_is_refused():
    envs = vectorize(NAVIGATION, 12)
    policy = make_policy(envs).requires_grad_(False)
    with pytest.raises(InputError, match="all parameters of the GaussianMLP are frozen"):
        meta_iteration(policy, State(start(policy), {}, 0), envs, TINY, 0, TaskThreads(1))
