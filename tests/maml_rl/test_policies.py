import numpy as np
import pytest
import torch

from maml_rl.config import RLMeta
from maml_rl.errors import InputError
from maml_rl.policies import CategoricalMLP, GaussianMLP, Standardisation, StandardisedMLP, policy_rates
from maml_rl.types import Params, select, stack

TASKS, OBSERVATION, ACTION = 3, 5, 2
SHAPES = [(TASKS,), (TASKS, 4), (TASKS, 4, 6)]


def gaussian_mlp(seed: int = 0, **settings) -> GaussianMLP:
    defaults = {"hidden_sizes": (7, 6), "activation": "tanh"}
    return GaussianMLP(OBSERVATION, ACTION, generator=np.random.default_rng(seed), **(defaults | settings))


def categorical_mlp(seed: int = 0, **settings) -> CategoricalMLP:
    defaults = {"hidden_sizes": (7, 6), "activation": "relu"}
    return CategoricalMLP(OBSERVATION, ACTION, generator=np.random.default_rng(seed), **(defaults | settings))


def random_params(policy: StandardisedMLP, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in policy.named_parameters()}


def observations(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, OBSERVATION, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [gaussian_mlp, categorical_mlp])
def test_stacked_parameters_equal_a_loop_over_tasks(make, shape: tuple[int, ...]) -> None:
    policy = make()
    params = stack([random_params(policy, m) for m in range(TASKS)])
    obs = observations(*shape)
    together = policy(params, obs).parameters()
    for m in range(TASKS):
        alone = policy(select(params, m), obs[m]).parameters()
        for all_tasks, one_task in zip(together, alone, strict=True):
            torch.testing.assert_close(all_tasks[m], one_task)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_task_keeps_its_own_log_std_for_all_its_observations(shape: tuple[int, ...]) -> None:
    policy = gaussian_mlp()
    params = stack([random_params(policy, m) for m in range(TASKS)])
    log_std = policy(params, observations(*shape)).log_std
    assert log_std.shape == (*shape, ACTION)
    for m in range(TASKS):
        assert torch.equal(log_std[m], params["log_std"][m].expand(*shape[1:], ACTION))


def test_one_parameter_set_serves_observations_of_any_shape() -> None:
    policy = gaussian_mlp()
    params = random_params(policy, 0)
    for shape in [(), (3,), (3, 4), (3, 4, 5)]:
        distribution = policy(params, observations(*shape))
        assert distribution.mean.shape == distribution.log_std.shape == (*shape, ACTION)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_mean_is_the_perceptron_written_out(activation: str) -> None:
    policy = gaussian_mlp(activation=activation)
    params = random_params(policy, 0)
    obs = observations(4)
    function = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    hidden = function(obs @ params["weight_0"].T + params["bias_0"])
    hidden = function(hidden @ params["weight_1"].T + params["bias_1"])
    torch.testing.assert_close(policy(params, obs).mean, hidden @ params["weight_2"].T + params["bias_2"])


@pytest.mark.parametrize("make", [gaussian_mlp, categorical_mlp])
def test_standardising_inside_equals_doing_it_by_hand(make) -> None:
    mean, std = torch.tensor([1.0, -2.0, 0.0, 5.0, 0.5]), torch.tensor([0.1, 2.0, 1.0, 3.0, 10.0])
    inside, plain = make(standardisation=Standardisation(mean, std)), make()
    params = random_params(plain, 0)
    obs = observations(4)
    for ours, by_hand in zip(
        inside(params, obs).parameters(), plain(params, (obs - mean) / std).parameters(), strict=True
    ):
        assert torch.equal(ours, by_hand)


def test_the_clip_bounds_standardised_and_not_raw_observations() -> None:
    mean, std = torch.full((OBSERVATION,), 100.0), torch.full((OBSERVATION,), 10.0)
    clipped, plain = gaussian_mlp(standardisation=Standardisation(mean, std, 2.0)), gaussian_mlp()
    params = random_params(plain, 0)
    # (105 - 100) / 10 = 0.5 stays; (140 - 100) / 10 = 4 becomes 2; (60 - 100) / 10 = -4 becomes -2.
    raw = torch.tensor([[105.0, 140.0, 60.0, 100.0, 120.0]])
    by_hand = torch.tensor([[0.5, 2.0, -2.0, 0.0, 2.0]])
    torch.testing.assert_close(clipped(params, raw).mean, plain(params, by_hand).mean)


def test_standardisation_and_clip_hold_for_stacked_parameters() -> None:
    mean, std = torch.arange(5.0), torch.arange(1.0, 6.0)
    policy = gaussian_mlp(standardisation=Standardisation(mean, std, 0.5))
    params = stack([random_params(policy, m) for m in range(TASKS)])
    obs = observations(TASKS, 4)
    together = policy(params, obs).mean
    for m in range(TASKS):
        torch.testing.assert_close(together[m], policy(select(params, m), obs[m]).mean)


def test_statistics_are_kept_with_the_policy_and_are_not_parameters() -> None:
    mean, std = torch.ones(OBSERVATION), torch.full((OBSERVATION,), 2.0)
    policy = gaussian_mlp(standardisation=Standardisation(mean, std))
    state = policy.state_dict()
    assert torch.equal(state["observation_mean"], mean)
    assert torch.equal(state["observation_std"], std)
    assert not any("observation" in name for name, _ in policy.named_parameters())


def test_initial_weights_fill_the_glorot_interval_and_biases_are_zero() -> None:
    policy = StandardisedMLP(30, 40, (50,), "relu", np.random.default_rng(0))
    for name, fans in {"weight_0": 30 + 50, "weight_1": 50 + 40}.items():
        bound = (6 / fans) ** 0.5
        weight = policy.get_parameter(name).detach()
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.99 * bound
        # A uniform distribution on (-b, b) has standard deviation b / sqrt(3).
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all((policy.get_parameter(name) == 0).all() for name in ("bias_0", "bias_1"))


def test_initial_standard_deviation_is_the_given_one() -> None:
    std = gaussian_mlp(initial_std=0.3).log_std.detach().exp()
    torch.testing.assert_close(std, torch.full((ACTION,), 0.3))
    assert torch.equal(gaussian_mlp().log_std.detach(), torch.zeros(ACTION))


def test_initial_parameters_are_a_function_of_the_generator() -> None:
    first, same, other = (dict(gaussian_mlp(seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["weight_0"], other["weight_0"])


def test_the_order_of_parameters_is_layer_by_layer_with_log_std_where_registered() -> None:
    layers = ["weight_0", "bias_0", "weight_1", "bias_1", "weight_2", "bias_2"]
    assert [name for name, _ in categorical_mlp().named_parameters()] == layers
    assert [name for name, _ in gaussian_mlp().named_parameters()] == [*layers, "log_std"]


def test_applying_a_policy_uses_the_given_parameters_and_changes_none_of_its_own() -> None:
    policy = gaussian_mlp()
    before = {name: value.detach().clone() for name, value in policy.named_parameters()}
    first, second = (policy(random_params(policy, seed), observations(4)).mean for seed in (0, 1))
    assert not torch.allclose(first, second)
    assert all(torch.equal(value.detach(), before[name]) for name, value in policy.named_parameters())


@pytest.mark.parametrize("make", [gaussian_mlp, categorical_mlp])
def test_noise_size_is_the_number_of_action_dimensions_or_choices(make) -> None:
    assert make().noise_size == ACTION


@pytest.mark.parametrize(
    ("make", "expected"), [(gaussian_mlp, ["weight_2", "bias_2", "log_std"]), (categorical_mlp, ["weight_2", "bias_2"])]
)
def test_the_last_layer_is_what_turns_the_last_features_into_a_distribution(make, expected) -> None:
    policy = make()
    params = dict(policy.named_parameters())
    rates = policy_rates(policy, params, RLMeta(adapted="last-layer", inner_lr=0.5))
    assert sorted(rates.at(params, 0).rates) == sorted(expected)
    assert policy_rates(policy, params, RLMeta()).names == tuple(params)


def test_frozen_parameters_have_no_step_size() -> None:
    policy = gaussian_mlp()
    policy.bias_2.requires_grad_(False)
    params = dict(policy.named_parameters())
    assert set(policy_rates(policy, params, RLMeta()).names) == set(params) - {"bias_2"}
    policy.requires_grad_(False).weight_0.requires_grad_(True)
    with pytest.raises(InputError, match=r"nothing to change \(adapted is last-layer\)"):
        policy_rates(policy, params, RLMeta(adapted="last-layer"))
