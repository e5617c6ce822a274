"""CAVIA (Zintgraf et al. 2019): only the context parameters are adapted, and no meta-step learns them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.config import SGD, Adam, PolicyConfig, RLConfig, RLEvaluation, RLMeta, TrustRegion
from maml_rl.errors import InputError
from maml_rl.inner import inner_path, inner_update
from maml_rl.jacobian import adaptation_jacobian
from maml_rl.meta_gradient import inner_losses
from maml_rl.meta_rl import initial_state
from maml_rl.objectives import inner_loss
from maml_rl.policies import CategoricalMLP, GaussianMLP, Standardisation, StandardisedMLP, policy_rates
from maml_rl.rates import fixed_names
from maml_rl.run import load_run, new_run, open_learner, save_run, train
from maml_rl.supervised.meta_learning import initial_state as supervised_state
from maml_rl.supervised.networks import Network
from maml_rl.supervised.settings import NetworkConfig, SupervisedConfig, SupervisedMeta, TasksConfig
from maml_rl.types import Batch, Params, flatten, select, split, stack, unflatten

OBSERVATION, ACTION, CONTEXT = 3, 2, 2
CONFIG = RLMeta(adapted="context", inner_lr=0.7)
NAVIGATION = RLConfig(
    env_id="maml_rl.envs:finn2017/Navigation2D-v0",
    max_episode_steps=10,
    iterations=2,
    meta=RLMeta(meta_batch_size=3, episodes=4, inner_lr=1.0, adapted="context"),
    network=PolicyConfig(hidden_sizes=(6,), context_size=2),
    evaluation=RLEvaluation(tasks=3, gradient_steps=2, episodes=4),
)


def make_policy(kind: type = GaussianMLP, context_size: int = CONTEXT, **settings) -> StandardisedMLP:
    network = {"hidden_sizes": (4,), "activation": "tanh", "generator": np.random.default_rng(0)}
    return kind(OBSERVATION, ACTION, context_size=context_size, **network, **settings).double()


def some_params(policy: StandardisedMLP, seed: int = 1) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in policy.named_parameters()
    }


def episodes_of(policy: StandardisedMLP, params: Params, lengths: tuple[int, ...], seed: int = 2) -> Batch:
    """Steps of episodes of these lengths, sampled by these parameters."""
    generator, count = np.random.default_rng(seed), sum(lengths)
    observations = torch.from_numpy(generator.standard_normal((count, OBSERVATION)))
    acting = policy(params, observations)
    actions = acting.sample(torch.from_numpy(policy.distribution.noise(generator, (count,), ACTION))).detach()
    advantages = torch.from_numpy(generator.standard_normal(count))
    episodes = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    times = torch.cat([torch.arange(length) for length in lengths])
    return Batch(observations, actions, acting.log_prob(actions).detach(), advantages, episodes, times)


# The network.


def test_the_context_adds_inputs_that_are_neither_standardised_nor_clipped() -> None:
    seen = Standardisation(torch.full((OBSERVATION,), 5.0), torch.full((OBSERVATION,), 2.0), clip=0.5)
    policy = make_policy(standardisation=seen)
    params = some_params(policy) | {"context": torch.tensor([7.0, -3.0], dtype=torch.float64)}
    observations = torch.randn(6, OBSERVATION, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([((observations - 5) / 2).clamp(-0.5, 0.5), params["context"].expand(6, -1)], -1)
    hidden = torch.tanh(inputs @ params["weight_0"].T + params["bias_0"])
    expected = hidden @ params["weight_1"].T + params["bias_1"]
    torch.testing.assert_close(policy(params, observations).mean, expected)


def test_each_task_of_a_stack_has_its_own_context() -> None:
    policy = make_policy()
    params = stack([some_params(policy, seed) for seed in range(3)])
    observations = torch.randn(3, 4, 5, OBSERVATION, dtype=torch.float64)
    together = policy(params, observations).mean
    for m in range(3):
        torch.testing.assert_close(together[m], policy(select(params, m), observations[m]).mean)


def test_the_context_begins_at_0_and_its_weights_are_part_of_the_first_layers() -> None:
    policy = make_policy()
    assert torch.equal(policy.get_parameter("context").detach(), torch.zeros(CONTEXT, dtype=torch.float64))
    assert policy.get_parameter("weight_0").shape == (4, OBSERVATION + CONTEXT)
    bound = (6 / (OBSERVATION + CONTEXT + 4)) ** 0.5
    assert policy.get_parameter("weight_0").abs().max() <= bound
    assert policy.get_parameter("weight_0")[:, OBSERVATION:].abs().min() > 0
    assert "context" not in dict(make_policy(context_size=0).named_parameters())


# The inner update and its derivative.


def adapted(policy: StandardisedMLP, params: Params, batches: list[Batch], config: RLMeta = CONFIG) -> Params:
    loss = inner_loss(policy, config)
    rates = policy_rates(policy, params, config)
    steps = [rates.at(params | rates.initial(params), step) for step in range(len(batches))]
    return inner_path(inner_losses(loss, batches), params, steps)[-1]


@pytest.mark.parametrize("kind", [GaussianMLP, CategoricalMLP])
def test_adaptation_changes_only_the_context(kind) -> None:
    policy = make_policy(kind)
    params = some_params(policy)
    after = adapted(policy, params, [episodes_of(policy, params, (4, 2))])
    assert {name for name in params if not torch.equal(after[name], params[name])} == {"context"}


def test_a_context_that_reaches_no_unit_is_not_adapted() -> None:
    policy = make_policy()
    params = some_params(policy)
    params["weight_0"][:, OBSERVATION:] = 0
    after = adapted(policy, params, [episodes_of(policy, params, (4, 2))])
    assert torch.equal(flatten(after), flatten(params))


def test_a_step_of_the_context_is_one_of_the_first_bias_through_the_contexts_weights() -> None:
    # The context c enters as W c next to the bias b, so dL/dc = W^T dL/db: c' = c - a W^T g is b' = b - a W W^T g.
    policy, plain = make_policy(), make_policy(context_size=0)
    params = some_params(policy)
    weight, batch = params["weight_0"][:, OBSERVATION:], episodes_of(policy, params, (5, 3))
    shift = weight @ params["context"]
    without = {name: value for name, value in params.items() if name != "context"}
    without |= {"weight_0": params["weight_0"][:, :OBSERVATION], "bias_0": params["bias_0"] + shift}
    gradient = torch.func.grad(lambda p: inner_loss(plain, CONFIG)(p, batch))(without)["bias_0"]
    expected = without | {"bias_0": without["bias_0"] - 0.7 * weight @ (weight.T @ gradient)}
    after = adapted(policy, params, [batch])
    torch.testing.assert_close(after["context"], params["context"] - 0.7 * weight.T @ gradient)
    torch.testing.assert_close(
        policy(after, batch.observations).mean, plain(expected, batch.observations).mean, rtol=1e-10, atol=1e-12
    )


def test_with_all_adapted_the_context_is_adapted_and_learned() -> None:
    policy = make_policy()
    params = some_params(policy)
    names = policy_rates(policy, params, RLMeta()).names
    assert "context" in names
    assert len(names) == len(params)
    assert fixed_names(policy, params, "all") == frozenset()
    assert "adam.first.context" in initial_state(policy, RLMeta(step=Adam())).optimizer
    assert "adam.first.context" not in initial_state(policy, replace(CONFIG, step=Adam())).optimizer


OBJECTIVES = ["reinforce", "lvc", "dice"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("learned_lr", ["no", "parameter", "tensor-and-step"])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_jacobian_is_that_of_the_adaptation_from_a_fixed_context(objective, learned_lr, inner_steps: int) -> None:
    policy = make_policy()
    config = replace(CONFIG, inner_objective=objective, learned_lr=learned_lr, inner_steps=inner_steps)
    params = some_params(policy) | {"context": torch.zeros(CONTEXT, dtype=torch.float64)}
    rates = policy_rates(policy, params, config)
    meta = params | {name: 0.9 * value for name, value in rates.initial(params).items()}
    fixed, learned = split(meta, fixed_names(policy, meta, "context"))
    assert list(fixed) == ["context"]
    loss, path, losses = inner_loss(policy, config), [params], []
    for step, lengths in enumerate([(4, 1, 3), (2, 5)][:inner_steps]):
        batch = episodes_of(policy, path[-1], lengths, seed=step)
        losses += inner_losses(loss, [batch])
        path.append(inner_update(losses[-1], path[-1], rates.at(meta, step)))

    def adapt(vector: Tensor) -> Tensor:
        start = fixed | unflatten(vector, learned)
        steps = [rates.at(start, step) for step in range(inner_steps)]
        return flatten(inner_path(losses, {name: start[name] for name in params}, steps)[-1])

    dense = torch.func.jacrev(adapt)(flatten(learned))  # [adapted, learned]
    jacobian = adaptation_jacobian(losses, path, rates, meta)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        right = torch.randn(dense.shape[1], generator=generator, dtype=torch.float64)
        left = torch.randn(dense.shape[0], generator=generator, dtype=torch.float64)
        still = {"context": torch.zeros(CONTEXT, dtype=torch.float64)}
        change = jacobian.product(still | unflatten(right, learned))
        torch.testing.assert_close(flatten({name: change[name] for name in params}), dense @ right)
        back = jacobian.transposed_product(unflatten(left, params))
        torch.testing.assert_close(flatten({name: back[name] for name in learned}), left @ dense)


# Settings and training.


@pytest.mark.parametrize(("adapted", "size"), [("context", 0), ("last-layer", 2)])
def test_a_context_exists_exactly_where_the_inner_update_changes_it(adapted: str, size: int) -> None:
    network, of_supervised = PolicyConfig(context_size=size), NetworkConfig(context_size=size)
    with pytest.raises(InputError, match=r"^(adapted is context, but the network has none|context_size of 2 is for)"):
        replace(NAVIGATION, network=network, meta=replace(NAVIGATION.meta, adapted=adapted))
    with pytest.raises(InputError, match=r"^(adapted is context, but the network has none|context_size of 2 is for)"):
        SupervisedConfig(tasks=TasksConfig(), network=of_supervised, meta=SupervisedMeta(adapted=adapted))


def test_the_method_is_called_cavia() -> None:
    assert NAVIGATION.method == "cavia"
    assert replace(NAVIGATION, meta=replace(NAVIGATION.meta, adapted="all")).method == "maml"


def test_only_the_perceptron_of_supervised_learning_has_a_context() -> None:
    with pytest.raises(InputError, match="context_size is a setting of the architecture mlp, not of pooled-conv"):
        NetworkConfig(architecture="pooled-conv", context_size=2)


def test_a_policy_without_a_context_and_one_with_nothing_else_to_learn_are_refused() -> None:
    policy = make_policy(context_size=0)
    with pytest.raises(InputError, match=r"nothing to change \(adapted is context\)"):
        initial_state(policy, CONFIG)
    alone = make_policy()
    for name, value in alone.named_parameters():
        value.requires_grad_(name == "context")
    with pytest.raises(InputError, match=r"only the context is not frozen"):
        initial_state(alone, CONFIG)


@pytest.mark.parametrize(("adapted", "start"), [("context", 0.0), ("all", 0.5)])
def test_a_learned_context_is_reset_where_only_the_context_is_adapted(adapted, start: float, tmp_path) -> None:
    learning = replace(NAVIGATION, meta=replace(NAVIGATION.meta, adapted="all"))
    with open_learner(learning) as learner:
        other = new_run(learner, learning)
    learned = other.state.meta | {"context": torch.full((2,), 0.5), "bias_0": torch.full((6,), 0.25)}
    save_run(tmp_path, other._replace(state=other.state._replace(meta=learned)))
    config = replace(NAVIGATION, start_from=str(tmp_path), meta=replace(NAVIGATION.meta, adapted=adapted))
    with open_learner(config) as learner:
        begun = new_run(learner, config).state.meta
    assert begun["context"].tolist() == [start] * 2
    assert begun["bias_0"].tolist() == [0.25] * 6


@pytest.mark.parametrize(("adapted", "start"), [("context", 0.0), ("all", 0.5)])
def test_so_is_the_context_of_a_custom_policy_or_network(adapted, start: float) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.get_parameter("context").fill_(0.5)
    assert initial_state(policy, replace(CONFIG, adapted=adapted)).meta["context"].tolist() == [start] * CONTEXT
    module = torch.nn.Linear(1, 1)
    module.register_parameter("context", torch.nn.Parameter(torch.full((2,), 0.5)))
    state = supervised_state(Network(module), SupervisedMeta(adapted=adapted))
    assert state.meta["context"].tolist() == [start] * 2


@pytest.mark.parametrize("rule", [TrustRegion(), Adam(), SGD()])
def test_no_meta_step_changes_the_context_and_training_resumes_bit_for_bit(rule, tmp_path) -> None:
    config = replace(NAVIGATION, meta=replace(NAVIGATION.meta, step=rule, learned_lr="parameter"))
    whole = train(config)
    assert torch.equal(whole.state.meta["context"], torch.zeros(2))
    with open_learner(config) as learner:
        first = new_run(learner, config)
        state, _ = learner.iterate(first.state)
        save_run(tmp_path, first._replace(state=state))
    loaded = load_run(tmp_path)
    with loaded.open() as learner:
        resumed, _ = learner.iterate(loaded.state)
    for before, after in ((whole.state.meta, resumed.meta), (whole.state.optimizer, resumed.optimizer)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(resumed.meta["weight_0"], state.meta["weight_0"])
    assert (resumed.meta["inner_lr.context"] != 1.0).all()
