"""Policies of any module: their derivatives against explicit ones, tasks side by side against one at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from maml_rl.actions import action_kind
from maml_rl.config import RLMeta
from maml_rl.derivatives import derivatives
from maml_rl.linear_policy import fisher_product, linear_policy, task_loss
from maml_rl.module_policy import ModulePolicy, Seen
from maml_rl.objectives import inner_loss
from maml_rl.observations import Parts, observation_parts
from maml_rl.picture_network import PictureNetwork, convolution
from maml_rl.policies import LOG_STD, policy_rates
from maml_rl.types import Batch, Params, flatten, select, stack, unflatten

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
PICTURE = spaces.Box(0, 255, (8, 9, 2), np.uint8)
BOTH = spaces.Dict(view=PICTURE, speed=VECTOR)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
ACTIONS = [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)]


class Smooth(nn.Module):
    """Features of three numbers, with a normalisation that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3), nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Alike(Smooth):
    """The same, which its author declares safe to map over tasks."""

    rounds_alike = True


class Branching(Alike):
    """The same, with a step that no `vmap` can take."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) > -1e9 else x


def pictures(parts: Parts, activation: str = "tanh", context_size: int = 0) -> PictureNetwork:
    return PictureNetwork(parts, (2, 3), (4,), activation, np.random.default_rng(1), context_size)


def policy_for(
    make: Callable[[Parts], nn.Module],
    observations: spaces.Space,
    actions: spaces.Space = BOX,
    features: int = 3,
) -> ModulePolicy:
    torch.manual_seed(0)
    parts, generator = observation_parts(observations), np.random.default_rng(0)
    return ModulePolicy(make(parts), parts, features, action_kind(actions), generator).double()


def own(actions: spaces.Space = BOX, kind: type[Smooth] = Smooth) -> ModulePolicy:
    return policy_for(lambda _: kind(), VECTOR, actions)


def of_pictures(observations: spaces.Space = PICTURE, actions: spaces.Space = BOX, **settings: object) -> ModulePolicy:
    return policy_for(lambda parts: pictures(parts, **settings), observations, actions, features=4)


def point(policy: ModulePolicy, seed: int = 1) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.5 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in policy.named_parameters()
    }


def seen_by(policy: ModulePolicy, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.rand(*shape, len(policy.observation_mean), generator=generator, dtype=torch.float64)
        * policy.observation_std
    )


def batch_of(policy: ModulePolicy, count: int = 6) -> Batch:
    observations, index = seen_by(policy, count), torch.arange(count)
    acting = policy(point(policy, seed=2), observations)
    noise = torch.from_numpy(acting.noise(np.random.default_rng(0), (count,), policy.noise_size)).double()
    actions = acting.sample(noise).detach()
    log_probs = acting.log_prob(actions).detach()
    return Batch(observations, actions, log_probs, torch.linspace(-1, 1, count).double(), index // 2, index % 2)


POLICIES = {
    **{f"own, {actions}": (lambda actions=actions: own(actions)) for actions in ACTIONS},
    "picture": of_pictures,
    "picture and numbers": lambda: of_pictures(BOTH, spaces.Discrete(3)),
    "context": lambda: of_pictures(context_size=2),
}
every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)


@every_policy
@pytest.mark.parametrize("objective", ["reinforce", "lvc", "dice"])
def test_gradient_and_hessian_of_the_inner_loss_are_the_explicit_ones(make, objective) -> None:
    """In float64 to 1e-9: a wrong second derivative, as PyTorch's layer norm has under vmap, is off by its size."""
    policy = make()
    params, batch = point(policy), batch_of(policy)
    loss = inner_loss(policy, RLMeta(inner_objective=objective))

    def of_vector(vector: Tensor) -> Tensor:
        return loss(unflatten(vector, params), batch)

    found = derivatives(task_loss(loss, batch), params).linear_gradient(list(params), list(params))
    vector = flatten(point(policy, seed=3))
    hessian = torch.autograd.functional.hessian(of_vector, flatten(params))
    torch.testing.assert_close(
        flatten(found.hessian(unflatten(vector, params))), hessian @ vector, rtol=1e-9, atol=1e-9
    )
    gradient = torch.autograd.functional.jacobian(of_vector, flatten(params))
    torch.testing.assert_close(flatten(found.gradient), gradient, rtol=1e-9, atol=1e-9)
    assert (hessian @ vector).abs().max() > 1e-4


@every_policy
def test_the_fisher_product_is_that_of_the_hessian_of_the_kl(make) -> None:
    policy = make()
    params, observations = point(policy), seen_by(policy, 5)
    old = policy(params, observations)

    def kl(vector: Tensor) -> Tensor:
        return old.kl(policy(unflatten(vector, params), observations)).mean()

    vector = flatten(point(policy, seed=3))
    product = fisher_product(linear_policy(policy, params, observations))(unflatten(vector, params))
    hessian = torch.autograd.functional.hessian(kl, flatten(params))
    torch.testing.assert_close(flatten(product), hessian @ vector, rtol=1e-8, atol=1e-9)


@every_policy
def test_tasks_side_by_side_are_each_task_alone(make) -> None:
    policy = make()
    params = stack([point(policy, seed) for seed in (1, 2, 3)])
    observations = seen_by(policy, 3, 4, 5)
    together = policy(params, observations)
    for m in range(3):
        alone = policy(select(params, m), observations[m])
        for joint, single in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(joint[m], single)


def test_a_module_that_cannot_be_mapped_is_applied_to_one_task_after_the_other() -> None:
    policy, mapped = own(kind=Branching), own(kind=Alike)
    assert not policy.is_mapped
    assert mapped.is_mapped
    params = stack([point(policy, seed) for seed in (1, 2)])
    observations = seen_by(policy, 2, 4)
    torch.testing.assert_close(policy(params, observations).mean, mapped(params, observations).mean)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_number_of_tasks_side_by_side_changes_no_bit(count) -> None:
    """So the number of sub-environments and of ranks changes no sample. Softplus under vmap rounds differently."""
    assert of_pictures().is_mapped
    assert not own().is_mapped
    for policy in (own().float(), of_pictures().float(), policy_for(lambda _: Strided(), PICTURE).float()):
        params = stack([{n: v.float() for n, v in point(policy, seed).items()} for seed in range(8)])
        observations = seen_by(policy, 8, 5).float()
        everywhere = policy(params, observations).mean
        few = policy({name: value[:count] for name, value in params.items()}, observations[:count]).mean
        assert torch.equal(few, everywhere[:count])


class Strided(nn.Module):
    """PyTorch's own convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_the_picture_network_convolves_as_pytorch_does() -> None:
    parts = observation_parts(PICTURE)
    network = pictures(parts, "relu").double()
    x = torch.rand(5, 2, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = x
    for i in range(2):
        weight = getattr(network, f"filters_0_{i}")  # [9 channels, out], a pixel after the other
        kernels = weight.T.reshape(weight.shape[1], 3, 3, -1).permute(0, 3, 1, 2)
        hidden = torch.relu(nn.functional.conv2d(hidden, kernels, getattr(network, f"filter_biases_0_{i}"), 2, 1))
    flat = hidden.movedim(1, -1).flatten(1)
    torch.testing.assert_close(network(x), torch.relu(nn.functional.linear(flat, network.weight_0, network.bias_0)))
    assert convolution(x.movedim(1, -1), network.filters_0_0).shape == (5, 4, 5, 2)


def test_pictures_are_scaled_and_numbers_standardised_and_each_is_seen_under_its_name() -> None:
    given = {}

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, seen: Seen) -> Tensor:
            given.update(seen)
            return self.layer(seen["speed"]) + seen["view"].mean((1, 2, 3))[:, None]

    policy = policy_for(lambda _: Looks(), BOTH)
    policy.clip = 2.0
    view = np.arange(8 * 9 * 2).reshape(8, 9, 2)
    row = torch.from_numpy(np.concatenate([view.ravel(), [0.5, -1.0, 9.0]]))[None]
    policy({name: value.detach() for name, value in policy.named_parameters()}, row)
    assert given["view"].shape == (1, 2, 8, 9)
    assert given["view"][0, 1, 3, 4] == view[3, 4, 1] / 255
    assert given["speed"].tolist() == [[0.5, -1.0, 2.0]]  # within the bound


def test_the_baseline_sees_means_over_cells_of_a_picture() -> None:
    policy = of_pictures(BOTH)
    view = torch.zeros(8, 9, 2, dtype=torch.float64)
    view[:2, :, 0] = 255.0  # the upper row of cells of the first channel
    seen = policy.of_baseline(
        torch.cat([view.reshape(-1), torch.tensor([20.0, 0.0, 1.0], dtype=torch.float64)]), raw=True
    )
    assert seen.tolist() == [*[1.0] * 4, *[0.0] * 28, 20.0, 0.0, 1.0]
    assert policy.of_baseline_size == 35


def test_anil_adapts_the_head_and_cavia_the_context() -> None:
    policy = of_pictures(context_size=2)
    params = point(policy)
    assert {*policy_rates(policy, params, RLMeta(adapted="last-layer")).names} == {LOG_STD, "head_weight", "head_bias"}
    assert policy_rates(policy, params, RLMeta(adapted="context")).names == ("network.context",)
    moved = params | {"network.context": params["network.context"] + 1}
    observations = seen_by(policy, 3)
    assert not torch.allclose(policy(params, observations).mean, policy(moved, observations).mean)


def test_frozen_parameters_of_a_module_take_no_part() -> None:
    policy = own()
    policy.network.layers[0].requires_grad_(False)
    names = policy_rates(policy, point(policy), RLMeta()).names
    assert "network.layers.0.weight" not in names
    assert "network.layers.3.weight" in names


def test_a_policy_of_another_type_moves_its_buffers() -> None:
    class Shifted(Smooth):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + self.shift)

    policy = own(kind=Shifted)
    assert policy(point(policy), seen_by(policy, 2)).mean.dtype == torch.float64
    assert "network.shift" in dict(policy.named_buffers())
