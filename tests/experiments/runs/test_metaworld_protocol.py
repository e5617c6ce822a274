"""The agent behind Meta-World's protocol against the method's own adaptation; the protocol where it is installed."""

import importlib.util
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

from maml_rl.config import PolicyConfig, RLConfig, RLMeta
from maml_rl.errors import InputError
from maml_rl.experiments.runs.metaworld_protocol import (
    AdaptingAgent,
    MetaWorldEvaluation,
    Protocol,
    Success,
    evaluate_metaworld,
)
from maml_rl.initial import build_policy, parameters
from maml_rl.machine import Machine
from maml_rl.meta_rl import adapt_each, advantage_batches
from maml_rl.policies import policy_rates
from maml_rl.reinforcement import RLLearner
from maml_rl.rollouts import collect
from maml_rl.run import Run, save_run
from maml_rl.seeding import Draw, Phase
from maml_rl.tasks import vectorize
from maml_rl.types import repeat, select

REACH = "maml_rl.envs:mclean2025/ML1-reach-v3"
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
META = RLMeta(inner_lr=0.3)
M, K, T = 3, 4, 6
with_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs the extra metaworld")


class Timestep(NamedTuple):
    """As Meta-World's."""

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    aux_policy_outputs: dict[str, np.ndarray]


def untrained(directory: Path, env_id: str) -> Path:
    """A run without training."""
    config = RLConfig(env_id=env_id, meta=META, network=PolicyConfig(hidden_sizes=(8,)))
    with closing(vectorize(env_id, 1)) as envs:
        learner = RLLearner(config, envs, build_policy(envs, config.network, seed=0))
        save_run(directory, Run(config, learner.initial(), learner.constants))
    return directory


@pytest.fixture(scope="module")
def sampled():
    """A learner, and episodes of its policy as `collect` samples them: without ends other than the time limit."""
    tasks = [np.array(goal, np.float32) for goal in ((0.5, 0.5), (-0.5, 0.5), (0.5, -0.5))]
    with closing(vectorize(NAVIGATION, M * K, max_episode_steps=T)) as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8,), initial_std=2.0), seed=0)
        params = repeat(parameters(policy), M)
        trajectories = collect(envs, policy, params, tasks, K, Draw(0, Phase.TRAINING))
        return RLLearner(RLConfig(env_id=NAVIGATION, meta=META), envs, policy, Machine(threads=1)), trajectories


def agent_for(learner, on_task=lambda: None) -> AdaptingAgent:
    agent = AdaptingAgent(learner, learner.initial(), M, 0, on_task)
    agent.init()
    return agent


def feed(agent: AdaptingAgent, trajectories) -> None:
    """Hands the agent the steps of episodes in the order in which Meta-World's environments make them."""
    for k in range(K):
        for t in range(T):
            observations, actions, log_probs, rewards = (field[:, k, t].numpy() for field in trajectories[:4])
            truncated = np.full(M, t == T - 1)
            aux = {"actions": actions, "log_probs": log_probs}
            clipped, ended = actions.clip(-1, 1), np.zeros(M, bool)
            agent.step(Timestep(observations.astype(float), clipped, rewards, ended, truncated, aux))


def test_adapting_is_one_inner_update_for_each_task(sampled):
    learner, trajectories = sampled
    policy, theta = learner.policy, parameters(learner.policy)
    agent = agent_for(learner)
    feed(agent, trajectories)
    agent.adapt()
    batches, _ = advantage_batches(policy, trajectories, META, learner.threads)
    rates = policy_rates(policy, theta, META).at(theta, 0)
    adapted = adapt_each(policy, repeat(theta, M), batches, META, rates, learner.threads)
    observations = np.random.default_rng(0).uniform(-1, 1, (M, 2))
    actions = agent.eval_action(observations)
    for m in range(M):
        mean = policy(select(adapted, m), torch.from_numpy(observations[m].astype(np.float32))).mean
        np.testing.assert_allclose(actions[m], mean.detach().clamp(-1, 1), rtol=1e-5, atol=1e-6)
    assert (actions != agent_for(learner).eval_action(observations)).any()


def test_a_new_task_starts_from_the_unadapted_policy(sampled):
    learner, trajectories = sampled
    begun = []
    agent = agent_for(learner, lambda: begun.append(1))
    observations = np.ones((M, 2))
    before = agent.eval_action(observations)
    feed(agent, trajectories)
    agent.adapt()
    agent.init()
    np.testing.assert_array_equal(agent.eval_action(observations), before)
    assert len(begun) == 2


def test_actions_are_clipped_and_the_log_probability_is_of_the_unclipped(sampled):
    learner, _ = sampled
    policy = learner.policy
    actions, aux = agent_for(learner).adapt_action(np.zeros((M, 2)))
    assert actions.shape == (M, 2)
    np.testing.assert_array_equal(actions, aux["actions"].clip(-1, 1))
    assert (actions != aux["actions"]).any()  # with a standard deviation of 2
    distribution = policy(parameters(policy), torch.zeros(M, 2))
    expected = distribution.log_prob(torch.from_numpy(aux["actions"])).detach()
    np.testing.assert_allclose(aux["log_probs"], expected, rtol=1e-5)


def test_actions_are_a_function_of_the_seed(sampled):
    first, second = (agent_for(sampled[0]) for _ in range(2))
    for _ in range(2):
        np.testing.assert_array_equal(*(agent.adapt_action(np.zeros((M, 2)))[0] for agent in (first, second)))


@pytest.mark.parametrize("setting", ["goals", "adaptation_steps", "adaptation_episodes", "evaluation_episodes"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(InputError, match=setting):
        Protocol(**{setting: 0})


def test_there_are_no_more_than_fifty_goals():
    with pytest.raises(InputError, match="from 1 to 50"):
        Protocol(goals=51)


def test_the_table_has_a_row_for_each_manipulation_and_one_for_all():
    before, after = (Success(rate, 100.0, {"push-v3": 0.0, "drawer-open-v3": 2 * rate}) for rate in (0.05, 0.25))
    table = MetaWorldEvaluation(REACH, Protocol(), before, after).table()
    assert table.splitlines() == [
        "manipulation    before   after",
        "drawer-open-v3   10.0%   50.0%",
        "push-v3           0.0%    0.0%",
        "all               5.0%   25.0%",
    ]


def test_a_run_of_another_environment_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a Meta-World environment"):
        evaluate_metaworld(untrained(tmp_path, NAVIGATION), Protocol())


@pytest.mark.parametrize("preset", ["metaworld-ml1-reach", "metaworld-ml10"])
def test_without_metaworld_the_command_says_in_one_line_what_to_install(preset, monkeypatch, run_command, tmp_path):
    monkeypatch.setitem(sys.modules, "metaworld", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "maml_rl.envs.metaworld", raising=False)
    result = run_command("train", preset, "--out=run", "--processes=1", "--start-method=fork")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert "pip install 'maml-rl[metaworld]'" in result.err
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_protocols_result(monkeypatch, run_command):
    success = Success(0.5, 100.0, {"reach-v3": 0.5})
    run, asked = Path(__file__).parents[3] / "trained" / "navigation", []

    def evaluate(directory: Path, protocol: Protocol) -> MetaWorldEvaluation:
        asked.append((directory, protocol))
        return MetaWorldEvaluation(REACH, protocol, success, success)

    monkeypatch.setattr("maml_rl.experiments.commands.evaluate_metaworld.evaluate_metaworld", evaluate)
    shown = run_command("evaluate-metaworld", run, "--goals", "7").out
    assert "7 test goals" in shown
    assert "reach-v3       50.0%   50.0%" in shown
    printed = run_command("evaluate-metaworld", run, "--goals", "7", "--json").out
    assert json.loads(printed)["after_adaptation"]["by_manipulation"] == {"reach-v3": 0.5}
    assert asked == [(run, Protocol(goals=7))] * 2


@with_metaworld
def test_the_protocol_measures_a_run_before_and_after_adaptation(tmp_path):
    run = untrained(tmp_path, REACH)
    evaluation = evaluate_metaworld(run, Protocol(goals=1, adaptation_episodes=1, evaluation_episodes=1))
    record = evaluation.to_json()
    assert (record["env_id"], record["goals"], record["adaptation_episodes"]) == (REACH, 1, 1)
    for success in (evaluation.before, evaluation.after):
        assert success.by_manipulation.keys() == {"reach-v3"}
        assert success.success_rate == success.by_manipulation["reach-v3"]
        assert success.success_rate in (0.0, 1.0)  # one episode
        assert 0 < success.mean_return < 10 * 500
    assert evaluation.before.mean_return != evaluation.after.mean_return


@with_metaworld
def test_the_evaluated_tasks_are_the_test_tasks_of_the_environment(tmp_path):
    run = untrained(tmp_path, REACH)
    measured = evaluate_metaworld(run, Protocol(goals=1, adaptation_episodes=1, evaluation_episodes=1)).before
    env = gymnasium.make(REACH, split="test")
    with closing(vectorize(REACH, 1)) as envs:
        policy = build_policy(envs, PolicyConfig(hidden_sizes=(8,)), seed=0)

    def mean_action_return(task: int) -> float:
        env.unwrapped.task = task
        (observation, _), total, ended = env.reset(), 0.0, False
        while not ended:
            with torch.no_grad():
                mean = policy(parameters(policy), torch.from_numpy(observation.astype(np.float32))).mean
            observation, reward, _, truncated, info = env.step(mean.numpy())
            total, ended = total + reward, truncated or info["success"] == 1.0
        return total

    # Goals differ by 0.1 or more; batched and single actions by rounding, which physics enlarge over 500 steps.
    assert any(mean_action_return(task) == pytest.approx(measured.mean_return, abs=0.01) for task in range(50))
