import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from maml_rl.errors import InputError
from maml_rl.inner import inner_update
from maml_rl.parallel import TaskThreads
from maml_rl.rates import InnerUpdate
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import NetworkConfig
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params

SMALL = {"strided-conv": (1, 6, 6), "pooled-conv": (2, 16, 16), "fully-connected": (1, 4, 4)}
PAPER = NetworkConfig("fully-connected")


def tasks(shape: tuple[int, ...], count: int = 3, ways: int = 3, seed: int = 0) -> TaskBatch:
    """Tasks of random inputs, two examples of each class, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, count, 2 * ways, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways).repeat_interleave(2).repeat(count, 1)
    return TaskBatch(x[0], labels, x[1], labels)


def small(architecture: str, shape: tuple[int, ...] | None = None) -> Network:
    config = NetworkConfig(architecture, (7, 6), filters=4)  # type: ignore[arg-type]
    return build_network(config, tasks(shape or SMALL[architecture]), 3, seed=1)


def double(network: Network) -> Params:
    """Initial parameters in float64, with shifts of normalisation that are not 0."""
    generator = torch.Generator().manual_seed(3)
    params = {name: value.double() for name, value in network.parameters().items()}
    return {
        name: value if value.any() else 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in params.items()
    }


def task_loss(network: Network, params: Params, *task: Tensor) -> Tensor:
    """The query loss after one inner update, of one task."""
    support_x, support_y, query_x, query_y = task
    rates = InnerUpdate(dict.fromkeys(params, 0.5))
    adapted = inner_update(lambda p: cross_entropy(network(p, support_x), support_y), params, rates)
    return cross_entropy(network(adapted, query_x), query_y)


def meta_loss(network: Network, params: Params, batch: TaskBatch) -> Tensor:
    return torch.func.vmap(lambda *task: task_loss(network, params, *task))(*batch).mean()


@pytest.mark.parametrize(
    ("config", "shape", "ways", "count"),
    [
        # 1 x 40 + 40, 40 x 40 + 40, 40 x 1 + 1
        (NetworkConfig(), (1,), None, 80 + 1640 + 41),
        # 9 x 64 + 3 x (9 x 64 x 64), four shifts of 64, 64 x 5 + 5
        (NetworkConfig("strided-conv"), (1, 28, 28), 5, 576 + 110_592 + 256 + 325),
        # 9 x 3 x 32 + 3 x (9 x 32 x 32), four shifts of 32, 800 x 5 + 5
        (NetworkConfig("pooled-conv", filters=32), (3, 84, 84), 5, 864 + 27_648 + 128 + 4005),
        # 784 x 256 + 256 x 128 + 128 x 64 + 64 x 64, a shift for each unit, 64 x 5 + 5
        (PAPER, (1, 28, 28), 5, 200_704 + 32_768 + 8192 + 4096 + 512 + 325),
    ],
)
def test_the_papers_networks_have_the_papers_sizes(
    config: NetworkConfig, shape: tuple[int, ...], ways: int | None, count: int
) -> None:
    x = torch.randn(1, 4, *shape)
    batch = TaskBatch(x, torch.zeros(1, 4, 1), x, torch.zeros(1, 4, 1))
    network = build_network(config, batch, ways, 0)
    params = network.parameters()
    assert sum(value.numel() for value in params.values()) == count
    assert network(params, x[0]).shape == (4, ways or 1)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (
        build_network(NetworkConfig("strided-conv"), tasks((1, 8, 8)), 3, seed).parameters() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["weights.1"], other["weights.1"])
    # Glorot-uniform: within sqrt(6 / (9 x 64 + 9 x 64)) = 0.0722, of standard deviation 0.0722 / sqrt(3).
    assert first["weights.1"].abs().max() == pytest.approx(0.0722, abs=1e-4)
    assert first["weights.1"].std() == pytest.approx(0.0722 / 3**0.5, rel=0.02)
    assert not first["head.bias"].any()


def test_the_fully_connected_network_begins_with_a_truncated_normal() -> None:
    weights = build_network(PAPER, tasks((1, 28, 28)), 5, 0).parameters()["weights.0"]
    assert weights.abs().max() <= 0.02
    assert weights.std() == pytest.approx(0.0088, rel=0.01)  # of the normal cut off at 2: 0.880 of it


def test_the_strided_network_equals_one_of_torch_layers() -> None:
    network = small("strided-conv")
    params, x = double(network), tasks((1, 6, 6)).query_x[0]
    y = x
    for i, (a, b) in enumerate(pairwise([1, 4, 4, 4, 4])):
        kernel = params[f"weights.{i}"].view(3, 3, a, b).permute(3, 2, 0, 1)
        y = torch.nn.functional.conv2d(y, kernel, stride=2, padding=1)
        y = torch.nn.functional.batch_norm(y, None, None, None, params[f"norms.{i}.bias"], training=True, eps=1e-3)
        y = torch.relu(y)
    expected = y.mean((2, 3)) @ params["head.weight"].T + params["head.bias"]
    torch.testing.assert_close(network(params, x), expected)


def test_the_pooled_network_equals_one_of_torch_layers() -> None:
    network = small("pooled-conv")
    params, x = double(network), tasks((2, 16, 16)).query_x[0]
    y = x
    for i in range(4):
        y = torch.nn.functional.conv2d(y, params[f"weights.{i}"], padding=1)
        y = torch.nn.functional.batch_norm(y, None, None, None, params[f"norms.{i}.bias"], training=True, eps=1e-3)
        y = torch.nn.functional.max_pool2d(torch.relu(y), 2)
    expected = y.flatten(1) @ params["head.weight"].T + params["head.bias"]
    torch.testing.assert_close(network(params, x), expected)


@pytest.mark.parametrize("architecture", list(SMALL))
def test_tasks_mapped_and_one_by_one_have_the_same_meta_gradient(architecture: str) -> None:
    network, batch = small(architecture), tasks(SMALL[architecture])
    params = double(network)
    mapped = torch.func.grad(lambda p: meta_loss(network, p, batch))(params)
    alone = [
        torch.func.grad(lambda p, i=i: task_loss(network, p, *(part[i] for part in batch)))(params) for i in range(3)
    ]
    for name, gradient in mapped.items():
        torch.testing.assert_close(gradient, torch.stack([one[name] for one in alone]).mean(0))


@pytest.mark.parametrize("architecture", list(SMALL))
def test_the_meta_gradient_is_that_of_central_differences(architecture: str) -> None:
    network, batch = small(architecture), tasks(SMALL[architecture])
    params = double(network)
    gradient = torch.func.grad(lambda p: meta_loss(network, p, batch))(params)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        along = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in params.items()}
        # The gradient of a rectified network jumps where a unit begins to fire, and so does the loss after adaptation:
        # the step has to be so small that no unit does. Rounding, 1e-16 / 1e-7, leaves nine digits.
        ends = [
            meta_loss(network, {name: v + sign * 1e-7 * along[name] for name, v in params.items()}, batch)
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / 2e-7
        found = torch.stack([(gradient[name] * along[name]).sum() for name in params]).sum()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


class Residual(nn.Module):
    """A user's module: running statistics, scales, a layer used twice, one that a plain list refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.again = nn.Conv2d(3, 3, 3, padding=1)
        self.stages = [self.again, self.norm]
        self.head = nn.Linear(3, 3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv(x)))
        for stage in self.stages:
            x = x + torch.tanh(stage(x))
        return self.head(self.scale * x.mean((2, 3)))  # type: ignore[no-any-return,operator]


def test_a_users_module_is_normalised_by_the_batch_and_not_changed() -> None:
    torch.manual_seed(0)
    module = Residual()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    network = Network(module)
    x = tasks((1, 5, 5)).query_x[0].float()
    plain = Residual()
    plain.load_state_dict(state)
    torch.testing.assert_close(network(network.parameters(), x), plain.train()(x))
    assert isinstance(module.norm, nn.BatchNorm2d)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def layer_normalised() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))


def instance_normalised() -> nn.Module:
    norm = nn.InstanceNorm2d(3, affine=True)
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(27, 3))


@pytest.mark.parametrize("make", [layer_normalised, instance_normalised])
def test_other_normalisations_of_a_users_module_have_pytorchs_values(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = tasks((1, 5, 5)).query_x[0]
    torch.testing.assert_close(Network(module)(dict(module.named_parameters()), x), module(x))


@pytest.mark.parametrize("make", [Residual, layer_normalised, instance_normalised])
def test_a_users_module_has_the_right_meta_gradient_mapped_over_tasks(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, batch = Network(make().double()), tasks((1, 5, 5))
    params = network.parameters()
    mapped = torch.func.grad(lambda p: meta_loss(network, p, batch))(params)
    generator = torch.Generator().manual_seed(0)
    along = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in params.items()}
    ends = [meta_loss(network, {n: v + s * 1e-6 * along[n] for n, v in params.items()}, batch) for s in (1, -1)]
    found = torch.stack([(mapped[name] * along[name]).sum() for name in params]).sum()
    torch.testing.assert_close(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", [lambda: small("strided-conv"), lambda: Network(Residual().double())])
def test_a_query_example_depends_on_the_others_only_when_transductive(make: Callable[[], Network]) -> None:
    torch.manual_seed(0)
    network = make()
    params = double(network)
    support, query = (x[0] for x in (tasks((1, 6, 6)).support_x, tasks((1, 6, 6)).query_x))
    changed = torch.cat([query[:1], 3 * query[1:]])
    for mode, alike in (("transductive", False), ("support", True)):
        before, after = (network.query(params, support, x, mode)[0] for x in (query, changed))  # type: ignore[arg-type]
        assert torch.allclose(before, after) == alike
    alone = torch.cat([network.query(params, support, query[i : i + 1], "support") for i in range(len(query))])
    torch.testing.assert_close(network.query(params, support, query, "support"), alone)


def test_support_statistics_are_those_of_every_layer() -> None:
    network = Network(
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    )
    params = network.parameters()
    support, query = (
        torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (5, 4)
    )
    layers = network.module

    def normalised(known: Tensor, x: Tensor) -> Tensor:
        return (x - known.mean(0)) / (known.var(0, unbiased=False) + 1e-5).sqrt()

    first, first_query = layers[0](support), layers[0](query)
    hidden, hidden_query = torch.tanh(normalised(first, first)), torch.tanh(normalised(first, first_query))
    expected = normalised(layers[3](hidden), layers[3](hidden_query))
    torch.testing.assert_close(network.query(params, support, query, "support"), expected)
    # Support examples given as query examples are normalised as they were.
    torch.testing.assert_close(network.query(params, support, support, "support"), network(params, support))


@pytest.mark.parametrize("architecture", SMALL)
def test_support_statistics_are_those_of_all_support_examples(architecture: str) -> None:
    network, batch = small(architecture), tasks(SMALL[architecture])
    params, support, query = double(network), batch.support_x[0], batch.query_x[0]
    # Support examples given as query examples are normalised as they were, and their order does not matter.
    torch.testing.assert_close(network.query(params, support, support, "support"), network(params, support))
    torch.testing.assert_close(
        network.query(params, support.flip(0), query, "support"), network.query(params, support, query, "support")
    )


def test_without_batch_normalisation_the_modes_agree() -> None:
    network = build_network(NetworkConfig(), tasks((2,)), 3, 0)
    params = {name: value.double() for name, value in network.parameters().items()}
    support, query = tasks((2,)).support_x[0], tasks((2,)).query_x[0]
    assert not network.has_batch_norm
    assert torch.equal(
        network.query(params, support, query, "support"), network.query(params, support, query, "transductive")
    )
    assert network.norm_parameters() == []


def test_a_label_permutation_permutes_predictions() -> None:
    network, batch = small("strided-conv"), tasks((1, 6, 6))
    params = double(network)
    order = torch.tensor([2, 0, 1])
    permuted = {**params, "head.weight": params["head.weight"][order], "head.bias": params["head.bias"][order]}

    def predictions(theta: Params, labels: Tensor) -> Tensor:
        x = batch.support_x[0]
        rates = InnerUpdate(dict.fromkeys(theta, 0.5))
        return network(inner_update(lambda p: cross_entropy(network(p, x), labels), theta, rates), batch.query_x[0])

    labels = batch.support_y[0]
    found = predictions(permuted, torch.argsort(order)[labels])
    torch.testing.assert_close(found, predictions(params, labels)[:, order])


def test_parameters_are_named_by_what_they_are_for() -> None:
    network = small("strided-conv")
    assert network.last_layer() == ["head.weight", "head.bias"]
    assert network.norm_parameters() == [f"norms.{i}.bias" for i in range(4)]
    assert network.has_batch_norm
    assert Network(Residual()).norm_parameters() == ["norm.weight", "norm.bias"]
    assert Network(Residual()).last_layer() == ["head.weight", "head.bias"]
    assert Network(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).last_layer() == ["0.weight", "0.bias"]


def test_threads_do_not_see_each_others_parameters() -> None:
    network, batch = small("strided-conv"), tasks((1, 6, 6), count=16)
    params = [{name: (1 + 0.1 * i) * value for name, value in double(network).items()} for i in range(16)]
    together = threading.Barrier(2)

    def gradient(index: int) -> Params:
        if index < 2:
            together.wait()  # both threads make their copy of the module at the same time
        task = [part[index] for part in batch]
        return torch.func.grad(lambda p: task_loss(network, p, *task))(params[index])

    threaded = TaskThreads(2).map(gradient, range(16))
    for index in range(2, 16):
        for name, value in gradient(index).items():
            assert torch.equal(threaded[index][name], value)


def test_a_module_without_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="no parameters to learn"):
        Network(nn.ReLU())


@pytest.mark.parametrize(
    ("architecture", "shape"), [("strided-conv", (4,)), ("pooled-conv", (3, 15, 16)), ("pooled-conv", (16, 16))]
)
def test_inputs_that_an_architecture_cannot_take_are_refused(architecture: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{architecture} takes images"):
        small(architecture, shape)


def test_a_layer_without_units_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 unit"):
        NetworkConfig(hidden_sizes=(40, 0))


@pytest.mark.parametrize("architecture", ["mlp", "fully-connected"])
def test_other_hidden_layers_replace_the_papers(architecture: str) -> None:
    network = build_network(NetworkConfig(architecture, (7, 6, 5)), tasks((4,)), 3, 0)  # type: ignore[arg-type]
    sizes = {tuple(sorted(value.shape)) for value in network.parameters().values() if value.ndim == 2}
    assert sizes == {(4, 7), (6, 7), (5, 6), (3, 5)}


def test_the_network_moves_with_its_buffers() -> None:
    network = Network(Residual())
    assert network.to(torch.device("meta")).module.scale.device.type == "meta"
    assert network.module.scale.device.type == "cpu"
    np.testing.assert_allclose(network.parameters()["head.bias"], network.module.head.bias.detach())


def test_the_papers_networks_are_traced_and_a_users_module_only_if_asked() -> None:
    assert build_network(NetworkConfig(), tasks((4,)), 3, 0).trace
    assert not Network(Residual()).trace
    for trace in (False, True):
        assert Network(Residual(), trace).to(torch.device("meta")).trace == trace
