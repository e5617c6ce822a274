"""RL^2: returns by episode of known policies, learning, and what is stored."""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from maml_rl.checkpoint import load_checkpoint, save_checkpoint
from maml_rl.envs.batched import TaskMDP
from maml_rl.errors import InputError
from maml_rl.experiments.runs.recurrent_ppo import (
    _new_model,
    evaluate_rl2,
    load_rl2,
    resume_rl2,
    train_rl2,
    trial_envs,
)
from maml_rl.experiments.runs.rl2_files import POLICY
from maml_rl.experiments.runs.rl2_settings import RL2Config, Schedule
from maml_rl.tasks import assign_tasks, evaluation_tasks, task_space

ROOT = Path(__file__).parents[3]
BANDIT = "maml_rl.envs:duan2016/BernoulliBandit-v0"
NAVIGATION = "maml_rl.envs:finn2017/Navigation2D-v0"
SMALL = RL2Config(BANDIT, episodes=3, max_episode_steps=1, units=8, num_envs=20)


class Memory:
    """A hand-written policy with a memory: it stays with an arm that paid, and otherwise takes the next one."""

    def predict(self, observations, memory, starts, _greedy):
        """Observations are 1, the last arm one-hot, the reward and the end."""
        if memory is None:
            assert starts.all()
            return np.zeros(len(observations), np.int64), 0
        assert not starts.any()  # the memory is kept over the episodes of a trial
        arms, rewards = observations[:, 1:6].argmax(1), observations[:, 6]
        return np.where(rewards > 0, arms, (arms + 1) % 5), memory + 1


def test_returns_are_counted_by_episode_of_the_trial():
    # Arm 1 first: p = 1/2. It stays after a success, of probability p: E[p^2] = 1/3; else the next arm:
    # (1 - 1/2) / 2 = 1/4. Together 7/12. Standard error of 3000 tasks: 0.009.
    returns = evaluate_rl2(Memory(), RL2Config(BANDIT, episodes=2, max_episode_steps=1), tasks=3000)
    assert returns.shape == (3000, 2)
    assert returns.mean(0) == pytest.approx([1 / 2, 7 / 12], abs=0.03)
    one_episode = evaluate_rl2(Memory(), RL2Config(BANDIT, episodes=2), tasks=10)  # of ten pulls each
    assert one_episode.max() > 1


class Arms(TaskMDP):
    """Two arms, of which one always pays: the first pull shows which."""

    observation_space = Box(0.0, 1.0, (1,), np.float64)
    action_space = Discrete(2)
    task_space = Discrete(2)

    def initial(self, generators):
        return np.zeros((len(generators), 1))

    def transition(self, states, actions, tasks):
        return states

    def observation(self, states):
        return np.ones((len(states), 1))

    def __init__(self, unit):
        self.unit = unit

    def reward_terms(self, states, actions, next_states, tasks):
        return {"reward_pull": (actions == tasks) * self.unit}


def registered(monkeypatch, unit=1.0):
    entry = {"entry_point": "maml_rl.envs.batched:TaskEnv", "vector_entry_point": "maml_rl.envs.batched:BatchedTaskEnv"}
    spec = EnvSpec("test/Arms-v0", **entry, max_episode_steps=1, kwargs={"mdp": Arms(unit)})
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    return spec.id


def test_it_learns_to_use_what_the_first_pull_has_shown(tmp_path, monkeypatch):
    config = RL2Config(registered(monkeypatch), episodes=3, units=8, num_envs=50, epochs=4, lr=0.03, entropy=0.0)
    points = list(train_rl2(config, Schedule(4500, 4500, 400), tmp_path))
    assert [point.env_steps for point in points] == [0, 4500]
    before, after = (point.returns.mean(0) for point in points)
    assert before == pytest.approx([0.5] * 3, abs=0.1)  # four standard errors
    assert after[0] == pytest.approx(0.5, abs=0.1)  # nothing is known yet
    assert after[1:].min() > 0.9  # nearly always right from then on


def test_the_same_seed_gives_the_same_curve_and_a_loaded_policy_the_same_returns(tmp_path):
    schedule = Schedule(120, 60, 50)
    first, second = (list(train_rl2(SMALL, schedule, tmp_path / name)) for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.env_steps == other.env_steps
        np.testing.assert_array_equal(one.returns, other.returns)
    model, config = load_rl2(tmp_path / "a")
    assert config == SMALL
    assert model.num_timesteps == 120
    state = torch.random.get_rng_state()
    np.testing.assert_array_equal(evaluate_rl2(model, config, 50), first[-1].returns)
    assert torch.equal(torch.random.get_rng_state(), state)  # the evaluation leaves the generator of the training alone
    for other in ({"seed": 1}, {"greedy": True}):
        assert not np.array_equal(evaluate_rl2(model, config, 50, **other), first[-1].returns)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalise_rewards": True, "standardise": True, "minibatches": 4},
        {"shared_lstm": True, "entropy_decay": 180, "lr_decay": 180},
    ],
    ids=str,
)
def test_a_resumed_training_is_the_one_that_was_not_stopped(settings, tmp_path):
    config = replace(SMALL, **settings)
    *_, whole = train_rl2(config, Schedule(180, 60, 30), tmp_path / "whole")
    assert [point.env_steps for point in train_rl2(config, Schedule(60, 60, 30), tmp_path / "parts")] == [0, 60]
    rest = list(resume_rl2(tmp_path / "parts", Schedule(180, 60, 30)))
    assert [point.env_steps for point in rest] == [120, 180]
    np.testing.assert_array_equal(rest[-1].returns, whole.returns)
    stored, resumed = (load_checkpoint(tmp_path / name / POLICY) for name in ("whole", "parts"))
    assert stored.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in stored.tensors.items())
    with pytest.raises(InputError, match="has been trained for 180 env steps, 180 were requested"):
        next(resume_rl2(tmp_path / "parts", Schedule(180, 60, 30)))


@pytest.mark.parametrize("begins", [(0, 0), (0,), (0, 2)], ids=["two trials", "one of two", "within a sequence"])
def test_sequences_are_what_the_lstm_makes_of_them_step_by_step(begins):
    with closing(trial_envs(SMALL, 2)) as envs:
        policy = _new_model(replace(SMALL, num_envs=2), envs).policy
    lstm, generator = policy.lstm_actor, torch.Generator().manual_seed(0)
    rows = torch.randn((2, 4, lstm.input_size), generator=generator)
    states = tuple(torch.randn((1, 2, 8), generator=generator) for _ in range(2))
    starts = torch.zeros(2, 4)
    for sequence, step in enumerate(begins):
        starts[sequence, step] = 1.0
    output, _ = policy._process_sequence(rows.reshape(8, -1), states, starts.reshape(-1), lstm)
    expected = []
    for row, hidden, cell, begun in zip(rows, states[0][0], states[1][0], starts, strict=True):
        state = (hidden[None], cell[None])
        for one, start in zip(row, begun, strict=True):
            out, state = lstm(one[None], tuple(part * (1 - start) for part in state))
            expected.append(out)
    torch.testing.assert_close(output, torch.cat(expected))


def test_a_shared_lstm_learns_from_the_losses_of_policy_and_values():
    config = replace(SMALL, num_envs=2, shared_lstm=True)
    with closing(trial_envs(config, 2)) as envs:
        policy = _new_model(config, envs).policy
    assert policy.lstm_critic is None
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((6, policy.lstm_actor.input_size), generator=generator)
    states = tuple(torch.zeros(1, 2, 8) for _ in range(2))
    arguments = rows, torch.tensor([0, 1, 2, 3, 4, 0]), RNNStates(states, states), torch.tensor([1.0, 0, 0, 1, 0, 0])
    ours = policy.evaluate_actions(*arguments)
    theirs = RecurrentActorCriticPolicy.evaluate_actions(policy, *arguments)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    weights = policy.lstm_actor.weight_ih_l0
    for output in ours:
        (gradient,) = torch.autograd.grad(output.sum(), weights, retain_graph=True)
        assert gradient.abs().max() > 0
    (gradient,) = torch.autograd.grad(theirs[0].sum(), weights, allow_unused=True)
    assert gradient is None  # sb3-contrib leaves the values out


@pytest.mark.parametrize("name", ["entropy", "lr"])
def test_what_decays_stays_for_half_of_its_steps_and_then_falls_to_0(name):
    decaying = replace(SMALL, **{name: 0.1, f"{name}_decay": 100})
    after = getattr(decaying, f"{name}_after")
    assert [after(steps) for steps in (0, 50, 75, 100, 120)] == pytest.approx([0.1, 0.1, 0.05, 0, 0])
    constant = replace(decaying, **{f"{name}_decay": None})
    assert getattr(constant, f"{name}_after")(10**9) == 0.1


def test_step_size_and_weight_of_the_entropy_decay_from_one_evaluation_to_the_next(tmp_path, monkeypatch):
    seen, train = [], RecurrentPPO.train

    def trained(model):
        train(model)
        seen.append((model.num_timesteps, model.policy.optimizer.param_groups[0]["lr"], model.ent_coef))

    monkeypatch.setattr(RecurrentPPO, "train", trained)
    config = replace(SMALL, lr=0.01, lr_decay=200, entropy=0.1, entropy_decay=160)
    list(train_rl2(config, Schedule(180, 60, 2), tmp_path))
    assert [steps for steps, *_ in seen] == [60, 120, 180]
    assert [lr for _, lr, _ in seen] == pytest.approx([0.01, 0.01, 0.008])
    assert [weight for *_, weight in seen] == pytest.approx([0.1, 0.1, 0.05])


def test_training_beyond_the_decay_of_the_step_size_is_refused(tmp_path):
    config, message = (
        replace(SMALL, lr_decay=60),
        "env_steps must be at most 60, after which lr_decay leaves no step size, got 61",
    )
    with pytest.raises(InputError, match=message):
        next(train_rl2(config, Schedule(61, 60, 2), tmp_path))
    list(train_rl2(config, Schedule(60, 60, 2), tmp_path))
    with pytest.raises(InputError, match=message):
        next(resume_rl2(tmp_path, Schedule(61, 60, 2)))


@pytest.mark.parametrize("shared", [False, True])
def test_chrono_initialisation_lets_the_lstm_remember_for_as_many_steps_as_it_says(shared):
    config = replace(SMALL, units=1000, chrono=100, shared_lstm=shared)
    with closing(trial_envs(config, 20)) as envs:
        policy = _new_model(config, envs).policy
    for lstm in [policy.lstm_actor] if shared else [policy.lstm_actor, policy.lstm_critic]:
        # Without input and with a hidden state of 0, a cell is multiplied by its forget gate, u / (1 + u) with u
        # uniform between 1 and 99: 1 / 2 to 99 / 100. The input gate is what is missing to 1.
        zero = torch.zeros(1, 1, 1000)
        with torch.no_grad():
            _, (hidden, cell) = lstm(torch.zeros(1, 1, lstm.input_size), (zero, zero + 1))
        steps = 1 / (1 - cell.flatten()) - 1
        assert steps.min() == pytest.approx(1, abs=0.5)
        assert steps.max() == pytest.approx(99, abs=0.5)
        assert steps.mean() == pytest.approx(50, abs=4)  # four standard errors
        torch.testing.assert_close(hidden, 0.5 * cell.tanh())
        entered, kept, _, _ = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().sigmoid().chunk(4)
        torch.testing.assert_close(entered + kept, torch.ones(1000))


def test_without_memory_a_step_depends_on_its_observation_only_and_no_trial_can_be_learned(tmp_path, monkeypatch):
    settings = {"units": 8, "num_envs": 50, "epochs": 4, "lr": 0.03, "entropy": 0.0, "memory": False}
    config = RL2Config(registered(monkeypatch), episodes=3, **settings)
    *_, last = train_rl2(config, Schedule(4500, 4500, 400), tmp_path)
    assert last.returns.mean(0) == pytest.approx([0.5] * 3, abs=0.1)  # four standard errors

    policy, config = load_rl2(tmp_path)[0].policy, load_rl2(tmp_path)[1]
    assert not config.memory
    lstm, generator = policy.lstm_actor, torch.Generator().manual_seed(0)
    rows = torch.randn((6, lstm.input_size), generator=generator)
    states = tuple(torch.randn((1, 2, 8), generator=generator) for _ in range(2))
    output, kept = policy._process_sequence(rows, states, torch.zeros(6), lstm)
    torch.testing.assert_close(output, torch.cat([lstm(row[None])[0] for row in rows]))
    assert kept is states


@pytest.mark.parametrize("normalise", [True, False])
def test_the_unit_of_normalised_rewards_does_not_matter(normalise, tmp_path, monkeypatch):
    config = RL2Config("", episodes=3, units=8, num_envs=50, normalise_rewards=normalise)
    learned = []
    for unit in (1.0, 1024.0):
        env_id = registered(monkeypatch, unit)
        *_, last = train_rl2(
            replace(config, env_id=env_id, reward_scale=1 / unit), Schedule(600, 600, 100), tmp_path / str(unit)
        )
        assert last.returns.max() == unit  # of the environment itself
        learned.append(load_rl2(tmp_path / str(unit))[0].policy.state_dict())
    first, second = learned
    assert all(torch.allclose(value, second[name], atol=1e-4) for name, value in first.items()) == normalise


def test_observations_are_standardised_by_the_statistics_of_random_actions(tmp_path):
    config = replace(SMALL, env_id=NAVIGATION, episodes=2, max_episode_steps=5, num_envs=200, standardise=True)
    next(train_rl2(config, Schedule(1, 1, 2), tmp_path))
    model, there = load_rl2(tmp_path)
    assert there == config
    with closing(trial_envs(config, 200)) as envs:
        assign_tasks(envs, evaluation_tasks(task_space(envs), 200))
        envs.action_space.seed(1)
        observations, _ = envs.reset(seed=list(range(200)))
        seen = [observations]
        while (envs.episode < 2).all():
            seen.append(envs.step(envs.action_space.sample())[0])
    rows = model.policy.features_extractor(torch.as_tensor(np.concatenate(seen)))
    assert rows.mean(0).numpy() == pytest.approx(np.zeros(rows.shape[1]), abs=0.2)
    assert rows.std(0).numpy() == pytest.approx(np.ones(rows.shape[1]), abs=0.2)
    far = model.policy.features_extractor(torch.full((1, rows.shape[1]), 1e6))
    assert far.tolist() == [[10.0] * rows.shape[1]]


def test_actions_of_robots_and_episodes_of_many_steps_work_too(tmp_path):
    config = RL2Config(NAVIGATION, episodes=2, max_episode_steps=5, units=4, num_envs=3, n_steps=20, minibatches=3)
    *_, last = train_rl2(config, Schedule(60, 60, 4), tmp_path)
    assert last.returns.shape == (4, 2)
    assert (last.returns < 0).all()


def test_without_sb3_contrib_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(InputError, match=r"RL\^2 needs the package sb3-contrib: pip install 'maml-rl\[rl2\]'"):
        next(train_rl2(SMALL, Schedule(60, 60, 4), tmp_path))


def test_a_directory_without_a_policy_of_rl2_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"there is no {POLICY}"):
        load_rl2(tmp_path)
    next(train_rl2(SMALL, Schedule(60, 60, 4), tmp_path))
    whole = load_checkpoint(tmp_path / POLICY)
    for record, message in (
        ({"kind": "supervised"}, "is not an RL"),
        ({"kind": "rl2", "env_steps": 0, "config": {"units": 8}}, "cannot be read"),
        (
            whole.record | {"config": whole.record["config"] | {"units": 9}},
            "has tensors that do not match its settings",
        ),
    ):
        save_checkpoint(tmp_path / POLICY, whole._replace(record=record))
        with pytest.raises(InputError, match=message):
            load_rl2(tmp_path)


def test_fewer_than_two_tasks_for_evaluation_are_refused(tmp_path):
    with pytest.raises(InputError, match="tasks must be at least 2, got 1"):
        next(train_rl2(SMALL, Schedule(60, 60, 1), tmp_path))
