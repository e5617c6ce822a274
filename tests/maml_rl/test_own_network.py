"""Custom networks: trained, stored by name, or refused in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gymnasium import spaces

from maml_rl.config import PolicyConfig, ProMP, RLConfig, RLEvaluation, RLMeta, TrustRegion
from maml_rl.errors import InputError
from maml_rl.initial import build_policy
from maml_rl.machine import Machine
from maml_rl.module_policy import ModulePolicy
from maml_rl.observations import observation_parts
from maml_rl.own_network import own_network
from maml_rl.rates import theta
from maml_rl.reinforcement import rl_learner
from maml_rl.run import load_run, save_run, train
from maml_rl.tasks import vectorize
from maml_rl.types import flatten

ENVIRONMENTS = Path(__file__).parents[1] / "environments"  # holds own_networks.py
ONE_THREAD = Machine(threads=1)
OWN = PolicyConfig(module="own_networks:Layered", arguments='{"width": 5}')
CONFIG = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    max_episode_steps=5,
    iterations=1,
    meta=RLMeta(meta_batch_size=2, episodes=3, inner_lr=0.5, step=TrustRegion(cg_iterations=2)),
    network=OWN,
    evaluation=RLEvaluation(tasks=2, gradient_steps=1, episodes=2),
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ENVIRONMENTS)


def built(seed: int = 0, **settings: str) -> ModulePolicy:
    envs = vectorize(CONFIG.env_id, 1)
    policy = build_policy(envs, PolicyConfig(**settings), seed)
    assert isinstance(policy, ModulePolicy)
    return policy


def test_it_is_trained_and_restored_by_its_name_and_arguments(tmp_path) -> None:
    run = train(CONFIG, machine=ONE_THREAD)
    assert run.state.meta["network.second.weight"].shape == (5, 5)
    assert run.state.meta["head_weight"].shape == (2, 5)
    save_run(tmp_path, run)
    there = load_run(tmp_path)
    assert there.config.network == OWN
    assert there.config.modules == ("maml_rl.envs", "own_networks")
    start = train(replace(CONFIG, iterations=0), machine=ONE_THREAD).state.meta
    assert all(not torch.equal(start[name], value) for name, value in there.state.meta.items())
    with there.open(ONE_THREAD) as learner:
        assert [len(curve.values) for curve in learner.evaluate(there.state, CONFIG.evaluation)] == [2, 2]


@pytest.mark.parametrize("rule", ["trust-region", "promp"])
def test_threads_and_sub_environments_change_no_bit(rule) -> None:
    meta = replace(CONFIG.meta, meta_batch_size=3, inner_objective="lvc")
    config = replace(CONFIG, meta=meta if rule == "trust-region" else replace(meta, step=ProMP(epochs=2)))
    first = train(config, machine=ONE_THREAD).state.meta
    second = train(replace(config, num_envs=4), machine=Machine(threads=2)).state.meta
    assert torch.equal(flatten(first), flatten(second))


def test_weights_and_buffers_are_a_function_of_the_seed_and_leave_pytorchs_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (built(seed, module="own_networks:Fourier").state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name in ("network.frequencies", "network.layer.weight", "head_weight"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_buffers_of_a_run_are_restored_where_another_run_starts_from_it(tmp_path) -> None:
    config = replace(CONFIG, network=PolicyConfig(module="own_networks:Fourier"), iterations=0)
    run = train(config, machine=ONE_THREAD)
    save_run(tmp_path, run)
    further = train(replace(config, seed=1, start_from=str(tmp_path)), machine=ONE_THREAD)
    assert torch.equal(further.constants["network.frequencies"], run.constants["network.frequencies"])
    seen = torch.tensor([[0.1, -0.2]])
    with run.open(ONE_THREAD) as first, further.open(ONE_THREAD) as second:
        policies = [rl_learner(learner).policy for learner in (first, second)]
        means = [policy(theta(run.state.meta), seen).parameters()[0] for policy in policies]
        assert torch.equal(*means)


def test_a_run_is_resumed_bit_for_bit(tmp_path) -> None:
    config = replace(CONFIG, network=PolicyConfig(module="own_networks:Fourier"))
    save_run(tmp_path, train(config, machine=ONE_THREAD))
    saved = load_run(tmp_path)
    with saved.open(ONE_THREAD) as learner:
        resumed, _ = learner.iterate(saved.state)
    straight = train(config, 2, ONE_THREAD).state
    assert torch.equal(flatten(resumed.meta), flatten(straight.meta))


def test_another_network_does_not_start_from_a_run(tmp_path) -> None:
    save_run(tmp_path, train(replace(CONFIG, iterations=0), machine=ONE_THREAD))
    network = PolicyConfig(module="own_networks:Fourier")
    with pytest.raises(InputError, match="has the module own_networks:Layered, this one own_networks:Fourier"):
        train(replace(CONFIG, network=network, start_from=str(tmp_path)), machine=ONE_THREAD)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("own_networks:WithPart", '{"part": "gru"}', "its layer part (GRU) is recurrent"),
        ("own_networks:WithPart", '{"part": "cell"}', "its layer part (LSTMCell) is recurrent"),
        ("own_networks:WithPart", '{"part": "norm"}', "its layer part (BatchNorm1d) normalises by statistics"),
        ("own_networks:WithPart", '{"part": "dropout"}', "layer part (Dropout) has dropout"),
        ("own_networks:Counting", "{}", "changes its buffer calls"),
        ("own_networks:Centring", "{}", "returns different features for the same observation"),
        ("own_networks:Flat", "{}", "must return features of shape (N, features)"),
        ("own_networks:Deaf", "{}", "do not depend on its parameters"),
        ("own_networks:Failing", "{}", "failed on observations of shape (3, 2) (RuntimeError: out of luck"),
        ("own_networks:Empty", "{}", "has no parameters"),
        ("own_networks:bare", "{}", "is not a torch.nn.Module class"),
        ("own_networks:Missing", "{}", "own_networks.py has no class Missing"),
        ("own_networks:Layered", '{"depth": 2}', "cannot be made (TypeError"),
        ("nowhere:Layered", "{}", "no module nowhere"),
    ],
)
def test_a_network_that_cannot_be_meta_trained_is_refused_in_one_line(module, arguments, message) -> None:
    with pytest.raises(InputError) as refusal:
        built(module=module, arguments=arguments)
    assert "network.module" in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"module": "Layered"}, "module must be module:Class or None"),
        ({"module": "a:B", "arguments": "[1]"}, "arguments must be a JSON object"),
        ({"module": "a:B", "arguments": "{"}, "arguments must be a JSON object"),
        ({"module": "a:B", "arguments": "[" * 100_000}, "arguments must be a JSON object"),
        ({"arguments": '{"width": 1}'}, "set network.module"),
        ({"module": "a:B", "context_size": 2}, "a parameter named context"),
        ({"filters": (0,)}, "filters must be all at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        PolicyConfig(**settings)


def test_arguments_that_are_one_value_are_one_setting() -> None:
    written = PolicyConfig(module="a:B", arguments='{"width":5,"depth": 2}')
    assert written == PolicyConfig(module="a:B", arguments='{ "depth": 2, "width": 5 }')


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"": spaces.Discrete(2), "goal": spaces.Discrete(3)}),
        spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)})}),
    ],
)
def test_parts_without_a_name_of_their_own_are_refused(space) -> None:
    with pytest.raises(InputError, match="empty or not unique: rename the keys"):
        own_network(OWN, observation_parts(space), seed=0)
