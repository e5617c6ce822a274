"""Adaptation of real runs to one task, and training continued by Stable-Baselines3's PPO."""

import json
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import maml_rl
from maml_rl import reinforcement
from maml_rl.checkpoint import write_json
from maml_rl.config import PolicyConfig, RLConfig, RLEvaluation, RLMeta
from maml_rl.experiments.runs.adapting import AdaptedPolicy, adapt_run, make_task_env, next_steps
from maml_rl.experiments.runs.evaluating import evaluate
from maml_rl.experiments.runs.evaluations import EVALUATION
from maml_rl.experiments.runs.exporting import save
from maml_rl.experiments.runs.training import train
from maml_rl.machine import Machine
from maml_rl.run import load_run
from maml_rl.sb3 import from_ppo, sb3_vec_env
from maml_rl.tasks import vectorize
from maml_rl.types import select

ONE_THREAD = Machine(threads=1)
FORKING = Machine(threads=1, processes=1, start_method="fork")
TRAINED = Path(__file__).parents[3] / "trained"
NAVIGATION, CHEETAH = TRAINED / "navigation", TRAINED / "half-cheetah-dir"
SMALL = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    iterations=1,
    meta=RLMeta(meta_batch_size=2, episodes=3),
    network=PolicyConfig(hidden_sizes=(8,)),
    evaluation=RLEvaluation(tasks=2, gradient_steps=1, episodes=3, validation_tasks=2, inner_lrs=(0.1, 0.5)),
)


@pytest.fixture
def small_run(tmp_path) -> Callable[..., Path]:
    """Trains a small run with these settings."""

    def run(**settings: object) -> Path:
        out = tmp_path / "run"
        train(RLConfig(**{**SMALL.__dict__, **settings}), out, machine=ONE_THREAD)
        return out

    return run


@pytest.fixture(scope="module")
def forward() -> AdaptedPolicy:
    """The trained half-cheetah, adapted to running forward by one gradient step on 20 episodes."""
    return adapt_run(CHEETAH, np.int64(1), gradient_steps=1, episodes=20, machine=ONE_THREAD)


def evaluated(model: PPO, adapted: AdaptedPolicy, episodes: int = 40) -> tuple[float, float]:
    """Mean return of a model on its task, and the standard error, by Stable-Baselines3's own evaluation."""
    envs = sb3_vec_env(vectorize(adapted.run.config.env_id, 20))
    envs.set_attr("task", adapted.task)
    envs.seed(11)
    returns, _ = evaluate_policy(model, envs, episodes, deterministic=False, return_episode_rewards=True)
    return float(np.mean(returns)), float(np.std(returns, ddof=1) / episodes**0.5)


# From a run to Stable-Baselines3


@pytest.mark.usefixtures("quick_critic")
def test_the_adaptation_is_that_of_the_evaluation():
    adapted = adapt_run(NAVIGATION, "0.3,-0.2", gradient_steps=2, episodes=5, seed=3, machine=ONE_THREAD)
    run = load_run(NAVIGATION)
    config = RLEvaluation(gradient_steps=2, episodes=5, seed=3, later_lr_factor=0.3)  # the last: that of the run
    with run.open(ONE_THREAD) as learner:
        stages = list(learner.adaptation(run.state, [adapted.task], config))
    np.testing.assert_array_equal(adapted.returns, [sampled.returns[0] for _, sampled in stages])
    for name, value in select(stages[-1][0], 0).items():
        assert torch.equal(adapted.params[name], value)
    assert adapted.inner_lrs == pytest.approx([0.5, 0.15])


def test_the_model_is_the_adapted_policy(forward):
    """Means in units of the action, which is about 1: float32 of a network with standardised inputs."""
    with forward.run.open(ONE_THREAD) as learner:
        policy = learner.policy
    obs = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    obs = policy.observation_mean + 2 * obs * policy.observation_std
    ours = policy(forward.params, obs)
    actions, _ = forward.model.predict(obs.double().numpy(), deterministic=True)
    np.testing.assert_allclose(actions, ours.mean.clamp(-1, 1), atol=1e-5)
    assert not np.allclose(actions, policy(forward.run.state.meta, obs).mean.clamp(-1, 1), atol=0.1)
    torch.testing.assert_close(forward.model.policy.log_std.data, forward.params["log_std"])
    assert (forward.model.gamma, forward.model.gae_lambda) == (0.99, 0.97)


@pytest.mark.parametrize(("run", "task"), [(NAVIGATION, "0.3,-0.2"), (CHEETAH, "1"), (CHEETAH, "0")])
def test_ppo_continues_from_the_adapted_return_without_losing_it(tmp_path, run, task):
    adapted = adapt_run(run, task, gradient_steps=1, machine=ONE_THREAD)
    save(tmp_path / "policy.zip", adapted.policy, adapted.model)
    envs = sb3_vec_env(vectorize(adapted.run.config.env_id, 10))
    envs.set_attr("task", adapted.task)
    model = PPO.load(tmp_path / "policy.zip", envs, n_steps=200, batch_size=200)

    returns = adapted.returns[1]
    error = returns.std(ddof=1) / len(returns) ** 0.5
    first, first_error = evaluated(model, adapted)
    assert abs(first - returns.mean()) < 3 * np.hypot(error, first_error)
    assert returns.mean() > adapted.returns[0].mean() + 10 * error  # there is something to lose

    for _ in range(3):
        model.learn(2000, reset_num_timesteps=False)
        later, later_error = evaluated(model, adapted)
        assert later > first - 3 * np.hypot(first_error, later_error)
        buffer = model.rollout_buffer
        assert abs(buffer.values.mean() - buffer.returns.mean()) < buffer.returns.std()


@pytest.mark.usefixtures("quick_critic")
def test_the_same_seed_gives_the_same_policy_and_another_seed_another_task():
    first, same, other = (
        adapt_run(NAVIGATION, gradient_steps=1, episodes=4, seed=seed, machine=ONE_THREAD) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.task, same.task)
    np.testing.assert_array_equal(first.returns, same.returns)
    for ours, theirs in zip(first.model.policy.parameters(), same.model.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not np.array_equal(first.task, other.task)


@pytest.mark.usefixtures("quick_critic")
def test_a_step_size_is_that_of_the_evaluation_whatever_the_seed(small_run, monkeypatch):
    run = small_run(meta=RLMeta(meta_batch_size=2, episodes=3, inner_steps=0))
    before = [adapt_run(run, "0.3,-0.2", seed=seed, machine=ONE_THREAD).inner_lrs[0] for seed in (0, 1, 2)]
    evaluation = evaluate(run, machine=ONE_THREAD)
    chosen = evaluation.curves[0].inner_lr[0]
    assert before == [chosen] * 3
    write_json(run / EVALUATION, evaluation.to_json())
    monkeypatch.setattr(reinforcement, "with_step_size", None)  # nothing is chosen again
    assert adapt_run(run, "0.3,-0.2", seed=3, machine=ONE_THREAD).inner_lrs[0] == chosen


@pytest.mark.usefixtures("quick_critic")
def test_an_oracle_keeps_the_task_in_its_observation(small_run, tmp_path):
    run = small_run(observe_task=True, meta=RLMeta(meta_batch_size=2, episodes=3, inner_steps=0))
    adapted = adapt_run(run, "0.3,-0.2", machine=ONE_THREAD)
    assert adapted.inner_lrs[0] in (0.1, 0.5)  # training had none: chosen on validation tasks
    env = make_task_env(adapted.run.config)
    assert adapted.model.observation_space == env.observation_space
    save(tmp_path / "policy.zip", adapted.policy, adapted.model)
    code = next_steps(adapted, tmp_path / "policy.zip").replace("100_000", "64").replace("env)", "env, n_steps=32)")
    exec(code, names := {})
    assert names["env"].unwrapped.task.tolist() == adapted.task.tolist()


@pytest.mark.usefixtures("quick_critic")
@pytest.mark.parametrize(
    "observations",
    [
        spaces.Dict(place=spaces.Discrete(5), load=spaces.Box(0.0, 1.0, (1,), np.float32)),
        spaces.Box(0, 255, (8, 8, 1), np.uint8),
        spaces.Box(-1.0, 1.0, (2,), np.float64),
    ],
    ids=["Dict", "picture", "float64"],
)
def test_the_printed_code_acts_in_the_environments_own_observations(small_run, tmp_path, monkeypatch, observations):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "environments")
    env_id = f"Printed{type(observations).__name__}{observations.dtype or ''}-v0"
    gymnasium.register(env_id, "space_environments:Spaces", max_episode_steps=5, kwargs={"observations": observations})
    adapted = adapt_run(small_run(env_id=env_id), "0.5", machine=FORKING, extras=())
    env, actions = gymnasium.make(env_id), []
    observation, _ = env.reset(seed=0)
    for name in ("policy.npz", "policy.onnx"):
        save(tmp_path / name, adapted.policy, None)
        exec(next_steps(adapted, tmp_path / name), names := {"env": env, "observation": observation})
        actions.append(np.ravel(names["action"]))
    row = spaces.flatten(env.observation_space, observation)
    np.testing.assert_allclose(actions, [adapted.policy.act(row)] * 2, atol=1e-5)


@pytest.mark.usefixtures("quick_critic")
def test_adaptation_works_with_an_environment_in_processes(small_run, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "environments")
    run = small_run(env_id="plain_environments:WalkForTests-v0")
    adapted = adapt_run(run, "0.5", machine=Machine(threads=1, processes=2))
    assert adapted.returns.shape == (2, 3)
    policy, _ = from_ppo(adapted.model)
    assert policy.noise_size == 1


# The command


def test_the_command_saves_a_policy_and_its_last_lines_continue_the_training(run_command, tmp_path):
    result = run_command(
        "adapt", NAVIGATION, "--task", "-0.3,0.2", "--gradient-steps=2", "--episodes=5", "--out=policy.zip"
    )
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "maml_rl.envs:finn2017/Navigation2D-v0, goal (-0.30, 0.20): return of 5 episodes"
    assert [line.split()[0] for line in lines[4:7]] == ["0", "1", "2"]
    assert "policy: policy.zip" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["policy.zip"]
    code = "\n".join(line.strip() for line in lines[lines.index("next, in Python:") + 2 :])
    exec(code.replace("100_000", "128").replace("env)", "env, n_steps=64)"), names := {})
    np.testing.assert_array_equal(names["env"].unwrapped.task, np.array([-0.3, 0.2], np.float32))


def test_the_command_prints_one_json_object(run_command):
    result = run_command(
        "adapt", NAVIGATION, "--task=[0.3, 0.2]", "--gradient-steps=1", "--episodes=5", "--out=p.zip", "--json"
    )
    assert result.code == 0
    assert result.err == ""
    assert result.out.count("\n") == 1
    record = json.loads(result.out)
    assert record["task"] == pytest.approx([0.3, 0.2])
    assert record["gradient_steps"] == [0, 1]
    assert len(record["mean_return"]) == len(record["standard_deviation"]) == 2
    assert record["inner_lr"] == [0.5]
    assert (record["episodes"], record["policy"]) == (5, "p.zip")
    assert PPO.load("p.zip").predict(np.zeros(2))[0].shape == (2,)


def test_the_command_adapts_to_logged_episodes_and_exports(run_command):
    log, generator = maml_rl.EpisodeLog(), np.random.default_rng(0)
    policy = maml_rl.explorer(load_run(NAVIGATION))
    env = gymnasium.make("maml_rl.envs:finn2017/Navigation2D-v0")
    env.unwrapped.task = np.array([0.3, -0.2], np.float32)
    for episode in range(20):
        observation, is_over = env.reset(seed=episode)[0], False
        while not is_over:
            action = policy.sample(observation, generator)
            after, reward, *ends, _ = env.step(policy.within(action))
            log.add(observation, action, reward, *ends)
            observation, is_over = after, any(ends)
    log.steps().save("log.npz")
    records = []
    for out in ("p.zip", "p.npz", "p.onnx"):
        result = run_command("adapt", NAVIGATION, "--episodes-from", "log.npz", f"--out={out}", "--json")
        assert (result.code, result.err) == (0, "")
        records.append(json.loads(result.out))
    assert records[0] == records[1] | {"policy": "p.zip"}
    assert (records[0]["episodes"], records[0]["gradient_steps"], records[0]["inner_lr"]) == ([20], [0], [0.5])
    assert abs(records[0]["excess_likelihood"][0]) < 0.1
    adapted = maml_rl.load_policy("p.npz")
    observation = np.array([0.1, 0.1], np.float32)
    by_sb3, _ = PPO.load("p.zip").predict(observation, deterministic=True)
    session = onnxruntime.InferenceSession("p.onnx")
    [[by_onnx]] = session.run(["action"], {"observation": observation[None]})
    np.testing.assert_allclose(by_sb3, adapted.act(observation), atol=1e-5)
    np.testing.assert_allclose(by_onnx, adapted.act(observation), atol=1e-5)
    goal = np.array([0.3, -0.2])
    assert (adapted.output(goal / 2) - policy.output(goal / 2)) @ goal > 0  # it moves towards the goal

    result = run_command("adapt", NAVIGATION, "--episodes-from", "log.npz", "log.npz", "--out=q.onnx")
    assert "log 2: the actions are" in result.err  # which the policy after the first gradient step did not collect
    assert "session.run" in result.out.splitlines()[-1]


def test_the_standard_deviation_of_one_episode_is_null(run_command):
    result = run_command("adapt", NAVIGATION, "--episodes=1", "--gradient-steps=0", "--out=p.zip", "--json")
    assert json.loads(result.out)["standard_deviation"] == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-run", "--out=p.zip"], "no checkpoint at no-run"),
        ([NAVIGATION, "--task=0.3", "--out=p.zip"], "task 0.3 is not in the task space, Box(-0.5, 0.5, (2,), float32)"),
        ([NAVIGATION, "--task=9,9", "--out=p.zip"], "task 9,9 is not in the task space"),
        ([NAVIGATION, "--task", "north", "--out=p.zip"], "task 'north' cannot be read"),
        ([CHEETAH, "--task", "2", "--out=p.zip"], "task 2 is not in the task space, Discrete(2)"),
        ([NAVIGATION, "--out=there.zip"], "there.zip exists"),
        ([NAVIGATION, "--out=nowhere/p.zip"], "there is no directory nowhere"),
        ([NAVIGATION, "--out=p.pt"], "p.pt must end in one of .zip (for Stable-Baselines3), .npz (for NumPy alone)"),
        ([NAVIGATION, "--out=p.onnx", "--opset=7"], "opset must be from 13"),
        ([NAVIGATION, "--out=p.npz", "--opset=17"], "--opset is for ONNX models, but p.npz is not one"),
        ([NAVIGATION, "--out=p.npz", "--episodes-from=none.npz"], "there is no file none.npz: expected an npz archive"),
        ([NAVIGATION, "--out=p.npz", "--episodes-from", "a", "--task=1"], "--task is for sampled episodes"),
        ([NAVIGATION, "--out=p.npz", "--episodes-from=minari:a/b-v0"], "Minari cannot read the data set a/b-v0"),
        ([NAVIGATION, "--out=p.npz", "--episodes-from=there.zip"], "there.zip is not an npz archive of plain arrays"),
        ([NAVIGATION], "--out"),
        ([NAVIGATION, "--out=p.zip", "--gradient-steps=-1"], "gradient_steps must be at least 0"),
        ([NAVIGATION, "--out=p.zip", "--episodes=0"], "episodes must be at least 1"),
        ([NAVIGATION, "--out=p.zip", "--seed=-1"], "seed must be at least 0"),
        ([NAVIGATION, "--out=p.zip", "--device=toaster"], "toaster"),
    ],
)
def test_unusable_input_is_reported_in_one_line(run_command, tmp_path, arguments, message):
    (tmp_path / "there.zip").write_text("something")
    result = run_command("adapt", *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("maml-rl: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["there.zip"]
    assert (tmp_path / "there.zip").read_text() == "something"


def test_a_tanh_policy_that_clips_is_refused_before_it_is_adapted(run_command, small_run):
    run = small_run(network=PolicyConfig(hidden_sizes=(8,), activation="tanh", observation_clip=5.0))
    result = run_command("adapt", run, "--out=p.zip")
    assert result.code == 2
    assert "clips standardised observations" in result.err
    assert "network.activation relu" in result.err
    assert result.err.splitlines()[-1].startswith("maml-rl: ")
