"""Algorithm 2: meta-gradients against central differences, and its relatives on problems solved by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maml_rl.config import SGD, Adam
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.parallel import TaskThreads
from maml_rl.supervised import tracing
from maml_rl.supervised.adaptation import losses_by_step, predictions
from maml_rl.supervised.meta_learning import (
    adapt_task,
    initial_state,
    loss_and_accuracy,
    meta_gradient,
    meta_iteration,
    multi_step_weights,
    network_rates,
    outer_loss,
)
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import LSTMConfig, NetworkConfig, SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params, State, flatten, unflatten

THREADS = TaskThreads(1)
RATE = "inner_lr."  # before the name of a parameter: its learned step size


class Number(nn.Module):
    """The network that answers theta whatever it is asked: on a target t its loss is (theta - t)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), 1)


def number_tasks(*targets: tuple[float, float]) -> TaskBatch:
    """One example each of support and query; targets are (support, query) by task."""
    x = torch.zeros(len(targets), 1, 1, dtype=torch.float64)
    support, query = (
        torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1) for values in zip(*targets, strict=True)
    )
    return TaskBatch(x, support, x, query)


def number_gradient(config: SupervisedMeta, tasks: TaskBatch, meta: Params | None = None, iteration: int = 0) -> Params:
    network = Network(Number())
    state = initial_state(network, config)
    state = state._replace(meta=meta or state.meta, iteration=iteration)
    return meta_gradient(network, config)(state, tasks, THREADS)[0]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp() -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double())


def convolution() -> Network:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Softplus(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(4 * 9, 3),
    ]
    return Network(nn.Sequential(*layers).double())


def strided() -> Network:
    """The paper's network for Omniglot, whose layers have derivatives written by hand."""
    return build_network(NetworkConfig("strided-conv", filters=4), image_tasks(), 3, 0)


def regression_tasks(count: int = 3) -> TaskBatch:
    return TaskBatch(
        *(random(count, n, size, seed=seed) for seed, (n, size) in enumerate([(6, 2), (6, 1), (4, 2), (4, 1)]))
    )


def image_tasks(count: int = 2) -> TaskBatch:
    labels = torch.arange(3).repeat(count, 2)
    return TaskBatch(random(count, 6, 1, 6, 6, seed=1), labels, random(count, 6, 1, 6, 6, seed=2), labels)


def central_differences(network: Network, config: SupervisedMeta, tasks: TaskBatch, state: State) -> Tensor:
    """Gradient of the mean outer loss by its values alone. Step 1e-5: truncation 1e-10, rounding 1e-16 / 1e-5."""
    weights, base = multi_step_weights(config, state.iteration).double(), flatten(state.meta)

    def loss(vector: Tensor) -> Tensor:
        meta = unflatten(vector, state.meta)
        losses = [
            outer_loss(network, config, False, meta, weights, TaskBatch(*(x[m] for x in tasks)))[0]
            for m in range(len(tasks.support_x))
        ]
        return torch.stack(losses).mean()

    steps = torch.eye(len(base), dtype=base.dtype) * 1e-5
    after, before = torch.vmap(loss)(torch.cat([base + steps, base - steps])).chunk(2)
    return ((after - before) / 2e-5).detach()


SECOND_ORDER = SupervisedMeta(inner_steps=2, inner_lr=0.3)


@pytest.mark.parametrize(
    "config",
    [
        SECOND_ORDER,
        replace(SECOND_ORDER, learned_lr="parameter"),
        replace(SECOND_ORDER, learned_lr="tensor-and-step"),
        replace(SECOND_ORDER, multi_step_iterations=10),
        replace(SECOND_ORDER, adapted="last-layer"),
        replace(SECOND_ORDER, inner_steps=0),
    ],
    ids=["maml", "meta-sgd", "tensor-and-step", "multi-step", "anil", "pretrained"],
)
def test_the_meta_gradient_of_a_perceptron_is_that_of_central_differences(config):
    network, tasks = mlp(), regression_tasks()
    state = initial_state(network, config)
    gradient, _ = meta_gradient(network, config)(state, tasks, THREADS)
    expected = central_differences(network, config, tasks, state)
    assert gradient.keys() == state.meta.keys()
    torch.testing.assert_close(flatten(gradient), expected, rtol=1e-6, atol=1e-8)


def test_the_meta_gradient_of_a_convolution_with_batch_normalisation_is_that_of_central_differences():
    network, tasks = convolution(), image_tasks()
    state = initial_state(network, SECOND_ORDER)
    gradient, _ = meta_gradient(network, SECOND_ORDER)(state, tasks, THREADS)
    torch.testing.assert_close(
        flatten(gradient), central_differences(network, SECOND_ORDER, tasks, state), rtol=1e-5, atol=1e-8
    )


def test_first_order_differs_from_second_by_the_term_of_the_hessian():
    # L = (theta - t)^2 has gradient 2 (theta - t) and Hessian 2. theta = 1, alpha = 0.1, support 3, query 2:
    # theta' = 1 + 0.1 * 4 = 1.4; first order 2 (1.4 - 2) = -1.2; second order (1 - 0.1 * 2) times that.
    tasks, config = number_tasks((3.0, 2.0)), SupervisedMeta(inner_lr=0.1)
    assert number_gradient(config, tasks)["theta"].item() == pytest.approx(-0.96)
    assert number_gradient(replace(config, first_order=True), tasks)["theta"].item() == pytest.approx(-1.2)


def test_derivative_order_annealing_leaves_the_term_out_at_first():
    tasks, config = number_tasks((3.0, 2.0)), SupervisedMeta(inner_lr=0.1, first_order_iterations=5)
    assert number_gradient(config, tasks, iteration=4)["theta"].item() == pytest.approx(-1.2)
    assert number_gradient(config, tasks, iteration=5)["theta"].item() == pytest.approx(-0.96)


def test_meta_sgd_learns_its_step_size_by_hand():
    # As above, and d L(theta') / d alpha = 2 (theta' - 2) * -2 (theta - 3) = -1.2 * 4.
    config = SupervisedMeta(inner_lr=0.1, learned_lr="parameter")
    gradient = number_gradient(config, number_tasks((3.0, 2.0)))
    assert gradient["theta"].item() == pytest.approx(-0.96)
    assert gradient[RATE + "theta"].item() == pytest.approx(-4.8)


def test_a_learned_step_size_of_each_step_has_the_gradient_of_its_step():
    # theta_1 = 1.4; theta_2 = 1.4 + 0.1 * 3.2 = 1.72; dL/d theta_2 = 2 (1.72 - 2) = -0.56.
    # alpha_2: -0.56 * -2 (1.4 - 3) = -0.56 * 3.2; alpha_1: -0.56 * (1 - 0.2) * 4.
    config = SupervisedMeta(inner_steps=2, inner_lr=0.1, learned_lr="tensor-and-step")
    gradient = number_gradient(config, number_tasks((3.0, 2.0)))
    assert gradient[RATE + "theta"].tolist() == pytest.approx([-0.56 * 0.8 * 4, -0.56 * 3.2])


def test_steps_after_the_last_trained_one_keep_its_learned_step_size():
    config = SupervisedMeta(inner_steps=2, learned_lr="tensor-and-step")
    network = Network(Number())
    meta = initial_state(network, config).meta | {RATE + "theta": torch.tensor([0.1, 0.2])}
    rates = [network_rates(network, config).at(meta, step).rates["theta"].item() for step in range(4)]
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.2])


def test_the_multi_step_loss_weighs_the_query_losses_of_all_steps():
    # Weights at half of the annealing: 1/2 * 1/2 for the first step, the rest, 3/4, for the last.
    # theta_1 = 1.4 -> loss 0.36; theta_2 = 1.72 -> loss 0.0784.
    config = SupervisedMeta(inner_steps=2, inner_lr=0.1, multi_step_iterations=10)
    weights = multi_step_weights(config, 5).double()
    network, tasks = Network(Number()), number_tasks((3.0, 2.0))
    one = TaskBatch(*(x[0] for x in tasks))
    loss, _ = outer_loss(network, config, False, network.parameters(), weights, one)
    assert loss.item() == pytest.approx(0.25 * 0.36 + 0.75 * 0.0784)


@pytest.mark.parametrize(("iteration", "expected"), [(0, [0.25] * 4), (5, [0.125] * 3 + [0.625]), (10, [1.0])])
def test_multi_step_weights_go_from_equal_to_the_last_alone(iteration, expected):
    config = SupervisedMeta(inner_steps=4, multi_step_iterations=10)
    assert multi_step_weights(config, iteration).tolist() == pytest.approx(expected)


def test_reptile_goes_towards_the_adapted_parameters_by_hand():
    # Inner steps of 0.25 halve the distance to the target: support 3, then query 2.
    # 1 -> 2 -> 2 and, of the second task, 1 -> 0 (support -1) -> 2 (query 4). Mean theta' = 2; a step of half the way.
    config = SupervisedMeta(algorithm="reptile", inner_steps=2, inner_lr=0.25, step=SGD(lr=0.5))
    network, tasks = Network(Number()), number_tasks((3.0, 2.0), (-1.0, 4.0))
    state, metrics = meta_iteration(
        meta_gradient(network, config), initial_state(network, config), tasks, config, THREADS
    )
    assert state.meta["theta"].item() == pytest.approx(1.5)
    assert metrics["loss/before"] == pytest.approx((4 + 4) / 2)  # (1 - 3)^2 and (1 + 1)^2
    assert metrics["loss/after"] == pytest.approx((0 + 4) / 2)


def test_reptile_learns_all_parameters_of_batch_normalisation_too():
    config = SupervisedMeta(algorithm="reptile", inner_steps=3, inner_lr=0.3)
    network = convolution()
    gradient, _ = meta_gradient(network, config)(initial_state(network, config), image_tasks(2), THREADS)
    moved = {name for name, value in gradient.items() if value.abs().max() > 1e-9}
    assert moved >= {*network.norm_parameters(), *network.last_layer()}
    with pytest.raises(InputError, match="Reptile learns only what it adapts"):
        SupervisedMeta(algorithm="reptile", adapted="last-layer")


def test_outputs_that_do_not_fit_their_targets_are_refused():
    with pytest.raises(InputError, match=r"outputs of shape \[3\] do not fit targets of shape \[3, 1\]"):
        loss_and_accuracy(torch.zeros(3), torch.zeros(3, 1))


def test_anil_adapts_the_last_layer_alone():
    config = SupervisedMeta(inner_steps=1, inner_lr=0.3, adapted="last-layer")
    network, tasks = mlp(), regression_tasks(1)
    state = initial_state(network, config)
    assert network_rates(network, config).names == ("4.weight", "4.bias")
    gradient, _ = meta_gradient(network, config)(state, tasks, THREADS)
    assert all(value.abs().max() > 0 for value in gradient.values())  # but all are meta-learned


class NumberWithContext(Number):
    """Answers theta + 2 c with a context number c: on a target t its loss is (theta + 2 c - t)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 2.0, dtype=torch.float64))
        self.context = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.theta + self.weight * self.context).expand(len(x), 1)


def test_cavia_adapts_the_context_alone_and_does_not_learn_it():
    # theta = 1, support 3: c' = -0.1 * 2 (1 - 3) * 2 = 0.8, output 1 + 2 * 0.8 = 2.6; query 2: dL = 2 (2.6 - 2) = 1.2.
    # Output = theta - 0.2 w^2 (theta - 3): by theta 1 - 0.2 * 4 = 0.2, by w -0.4 w (theta - 3) = 1.6.
    config = SupervisedMeta(inner_lr=0.1, adapted="context")
    network, tasks = Network(NumberWithContext()), number_tasks((3.0, 2.0))
    state = initial_state(network, config)
    gradient, _ = meta_gradient(network, config)(state, tasks, THREADS)
    assert {name: value.item() for name, value in gradient.items()} == pytest.approx({"theta": 0.24, "weight": 1.92})
    after, _ = meta_iteration(meta_gradient(network, config), state, tasks, config, THREADS)
    assert after.meta["context"] == 0
    assert sorted(after.optimizer) == [f"adam.{m}.{n}" for m in ("first", "second") for n in ("theta", "weight")]
    (adapted,) = adapt_task(
        network, network_rates(network, config), after.meta, TaskBatch(*(x[0] for x in tasks)), 1, False
    )
    assert {name for name, value in adapted.params.items() if value != after.meta[name]} == {"context"}


def test_a_permutation_of_the_labels_permutes_the_predictions():
    # The last layer starts at 0, so that classes differ by their labels only.
    config = SupervisedMeta(inner_steps=2, inner_lr=0.5)
    network = convolution()
    meta = network.parameters()
    meta |= {name: torch.zeros_like(meta[name]) for name in network.last_layer()}
    tasks, permutation = image_tasks(1), torch.tensor([2, 0, 1])
    permuted = tasks._replace(support_y=permutation[tasks.support_y])
    outputs, others = (
        torch.from_numpy(predictions(network, config, meta, t, tasks.query_x[0], 2)[-1]) for t in (tasks, permuted)
    )
    assert outputs.std() > 0.01
    torch.testing.assert_close(others[:, permutation], outputs)


@pytest.mark.parametrize("chunk_size", [2, 7])
@pytest.mark.parametrize("algorithm", ["maml", "reptile"])
def test_chunks_of_tasks_do_not_change_the_meta_gradient(chunk_size, algorithm):
    network, tasks = mlp(), regression_tasks(5)
    config = SupervisedMeta(algorithm=algorithm, inner_steps=2, inner_lr=0.3)
    state = initial_state(network, config)
    whole, metrics = meta_gradient(network, config)(state, tasks, THREADS)
    parts, others = meta_gradient(network, replace(config, chunk_size=chunk_size))(state, tasks, THREADS)
    torch.testing.assert_close(flatten(parts), flatten(whole), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(others, metrics)


def test_the_number_of_threads_does_not_change_a_bit():
    network, tasks, config = mlp(), regression_tasks(6), SupervisedMeta(inner_lr=0.3, chunk_size=1)
    state = initial_state(network, config)
    one, three = (meta_gradient(network, config)(state, tasks, TaskThreads(n))[0] for n in (1, 3))
    assert torch.equal(flatten(one), flatten(three))


@pytest.mark.parametrize(("build", "inner_steps"), [(mlp, 2), (convolution, 1), (strided, 1)])
@pytest.mark.parametrize("algorithm", ["maml", "reptile"])
def test_tracing_does_not_change_a_bit_of_the_meta_gradient(build, inner_steps, algorithm):
    module = build().module.float()
    tasks = regression_tasks() if build is mlp else image_tasks()
    tasks = TaskBatch(*(x.float() if x.is_floating_point() else x for x in tasks))
    config = SupervisedMeta(algorithm=algorithm, inner_steps=inner_steps, inner_lr=0.3)
    plain, replayed = (meta_gradient(Network(module, trace), config) for trace in (False, True))
    start = initial_state(Network(module), config)
    moved = start._replace(meta={name: value + 0.1 for name, value in start.meta.items()})
    at_first = replayed(start, tasks, THREADS)[0]
    (expected, metrics), (gradient, others) = (function(moved, tasks, THREADS) for function in (plain, replayed))
    assert torch.equal(flatten(gradient), flatten(expected))
    assert torch.equal(metrics, others)
    assert not torch.equal(flatten(at_first), flatten(expected))


def test_the_metrics_are_losses_and_accuracies_before_and_after():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    loss, accuracy = loss_and_accuracy(outputs, torch.tensor([0, 1, 1]))
    assert accuracy.item() == pytest.approx(2 / 3)
    assert loss.item() == pytest.approx(torch.tensor([2.0, 1.0, -2.0]).neg().exp().log1p().mean().item())
    network, config = convolution(), SupervisedMeta(inner_steps=3, inner_lr=0.5)
    state = initial_state(network, config)
    _, metrics = meta_iteration(meta_gradient(network, config), state, image_tasks(), config, THREADS)
    of_step = {"meta/gradient_norm", "meta/step_norm"}
    assert metrics.keys() == {"loss/before", "loss/after", "accuracy/before", "accuracy/after"} | of_step
    assert 0 <= metrics["accuracy/before"] <= 1


def test_a_gradient_is_clipped_element_by_element():
    # Plain gradient descent by 1 from 1: the gradient -0.96 is cut to -0.5.
    config = SupervisedMeta(inner_lr=0.1, step=SGD(lr=1.0, gradient_clip=0.5))
    network = Network(Number())
    state, metrics = meta_iteration(
        meta_gradient(network, config), initial_state(network, config), number_tasks((3.0, 2.0)), config, THREADS
    )
    assert state.meta["theta"].item() == pytest.approx(1.5)
    assert metrics["meta/gradient_norm"] == pytest.approx(0.96)
    assert metrics["meta/step_norm"] == pytest.approx(0.5)
    assert state.optimizer == {}


def test_a_loss_that_is_not_finite_is_reported_with_its_iteration():
    config, network = SupervisedMeta(), Network(Number())
    state = initial_state(network, config)._replace(iteration=41)
    with pytest.raises(NonFiniteError, match=r"iteration 42: loss/before is not finite"):
        meta_iteration(meta_gradient(network, config), state, number_tasks((float("inf"), 1.0)), config, THREADS)


def test_an_iteration_changes_nothing_in_place():
    network, config = mlp(), SupervisedMeta(inner_lr=0.3)
    state = initial_state(network, config)
    before = flatten(state.meta).clone()
    assert all(not value.any() for value in state.optimizer.values())
    new, _ = meta_iteration(meta_gradient(network, config), state, regression_tasks(), config, THREADS)
    assert torch.equal(flatten(state.meta), before)
    assert all(not value.any() for value in state.optimizer.values())
    assert all(value.any() for value in new.optimizer.values())
    assert new.iteration == 1
    assert not torch.equal(flatten(new.meta), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_lr": 0.0}, "inner_lr must be above 0"),
        ({"inner_steps": -1}, "inner_steps must be at least 0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1 or None"),
        ({"multi_step_iterations": 9}, "multi_step_iterations needs inner_steps of at least 2, got 1"),
        ({"learned_lr": "parameter", "inner_steps": 0}, "learned_lr needs inner_steps of at least 1"),
        ({"algorithm": "reptile", "inner_steps": 0}, "inner_steps must be at least 1 for Reptile"),
        ({"algorithm": "reptile", "first_order": True}, "first_order has no meaning for Reptile"),
        ({"algorithm": "reptile", "learned_lr": "parameter"}, "Reptile learns no step sizes"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SupervisedMeta(**settings)


# Bit for bit: what an iteration computes depends on values alone, not on where they lie


def float_batch_norm() -> Network:
    return Network(convolution().module.float(), trace=True)


def float_perceptron() -> Network:
    return Network(mlp().module.float(), trace=True)


def perceptron_with_context() -> Network:
    tasks = TaskBatch(*(x.float() for x in regression_tasks()))
    return build_network(NetworkConfig(hidden_sizes=(5, 4), context_size=3), tasks, None, 0)


VARIANTS = {
    "adam": (float_perceptron, SupervisedMeta(inner_lr=0.1, chunk_size=2)),
    "meta-sgd": (float_perceptron, SupervisedMeta(inner_lr=0.1, learned_lr="parameter")),
    "maml++": (
        float_perceptron,
        SupervisedMeta(
            inner_steps=2,
            inner_lr=0.1,
            learned_lr="tensor-and-step",
            multi_step_iterations=3,
            first_order_iterations=2,
            step=Adam(cosine_iterations=4),
        ),
    ),
    "reptile": (
        float_perceptron,
        SupervisedMeta(algorithm="reptile", inner_steps=2, inner_lr=0.1, step=SGD(lr=0.1)),
    ),
    "meta-lstm": (
        float_perceptron,
        SupervisedMeta(algorithm="meta-lstm", inner_steps=2, lstm=LSTMConfig(units=3), step=Adam(norm_clip=0.25)),
    ),
    "cavia": (perceptron_with_context, SupervisedMeta(inner_lr=1.0, adapted="context")),
    "support": (float_batch_norm, SupervisedMeta(inner_lr=0.1, batch_norm="support")),
}


class InThisThread(TaskThreads):
    """Runs tasks in this thread, where PyTorch's operations can be watched."""

    def imap(self, function, *arguments):
        return map(function, *arguments)


@pytest.mark.parametrize(("build", "config"), VARIANTS.values(), ids=VARIANTS)
def test_an_iteration_resumed_anywhere_sees_its_operands_in_the_same_places(
    build, config, operands, displaced, monkeypatch
):
    monkeypatch.setattr(tracing, "_checked_replay", lambda trace, _, arguments: trace.replay(tree_leaves(arguments)))
    network, threads = build(), InThisThread(1)
    make = image_tasks if network.has_batch_norm else regression_tasks
    tasks = TaskBatch(*(x.float() if x.is_floating_point() else x for x in make(3)))
    gradient, states, seen = meta_gradient(network, config), [initial_state(network, config)], []
    for iteration in (0, 2, 3):  # trace what differs with the iteration
        meta_iteration(gradient, states[0]._replace(iteration=iteration), tasks, config, threads)
    for _ in range(4):
        with operands() as watched:
            states.append(meta_iteration(gradient, states[-1], tasks, config, threads)[0])
        seen.append(watched.seen)
    others = TaskBatch(*map(displaced, tasks))
    for k, state in enumerate(states[:-1]):
        meta = {name: displaced(value) for name, value in state.meta.items()}
        loaded = State(meta, {n: displaced(value) for n, value in state.optimizer.items()}, state.iteration)
        with operands() as watched:
            resumed = meta_iteration(gradient, loaded, others, config, threads)[0]
        assert watched.seen == seen[k]
        assert same_bits(resumed, states[k + 1])
    new = meta_gradient(network, config)  # of a new process, which traces first
    assert same_bits(meta_iteration(new, loaded, others, config, threads)[0], states[-1])


def same_bits(left: State, right: State) -> bool:
    (a, b) = (state.meta | state.optimizer for state in (left, right))
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("build", [float_perceptron, float_batch_norm])
def test_an_evaluation_sees_its_operands_in_the_same_places(build, operands, displaced):
    network, config = build(), SupervisedMeta(inner_lr=0.1)
    make = image_tasks if network.has_batch_norm else regression_tasks
    tasks, meta = TaskBatch(*(x.float() if x.is_floating_point() else x for x in make(3))), network.parameters()
    elsewhere = {name: displaced(value) for name, value in meta.items()}, TaskBatch(*map(displaced, tasks))
    seen = []
    for params, examples in ((meta, tasks), elsewhere):
        with operands() as watched:
            losses_by_step(network, config, params, examples, 2, InThisThread(1))
        seen.append(watched.seen)
    assert seen[0] == seen[1]


# Frozen parameters


def partly_frozen() -> Network:
    """A convolution with batch normalisation whose first convolution and first normalisation are frozen."""
    module = convolution().module
    module[:2].requires_grad_(False)
    return Network(module)


FROZEN = {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize(
    "config",
    [
        SECOND_ORDER,
        replace(SECOND_ORDER, first_order=True, step=Adam(gradient_clip=0.01)),
        replace(SECOND_ORDER, adapted="last-layer"),
        replace(SECOND_ORDER, learned_lr="parameter"),
        replace(SECOND_ORDER, learned_lr="tensor-and-step", multi_step_iterations=10),
        replace(SECOND_ORDER, batch_norm="support", chunk_size=1),
        replace(SECOND_ORDER, inner_steps=0, step=SGD()),
        SupervisedMeta(algorithm="reptile", inner_steps=2, inner_lr=0.3),
    ],
    ids=["maml", "first-order", "anil", "meta-sgd", "maml++", "support", "pretrained", "reptile"],
)
def test_frozen_parameters_stay_and_the_others_learn(config):
    network, tasks = partly_frozen(), image_tasks()
    assert network.frozen == FROZEN
    state = start = initial_state(network, config)
    assert not FROZEN & set(network_rates(network, config).names)
    assert not any(name.removeprefix(RATE) in FROZEN for name in start.meta if name.startswith(RATE))
    learned = {name for name in start.meta if name not in FROZEN}
    moments = ("adam.first.", "adam.second.") if isinstance(config.step, Adam) else ()
    assert start.optimizer.keys() == {moment + name for moment in moments for name in learned}
    gradient = meta_gradient(network, config)
    for _ in range(3):
        assert set(gradient(state, tasks, THREADS)[0]) == learned
        state = meta_iteration(gradient, state, tasks, config, THREADS)[0]
    assert list(state.meta) == list(start.meta)  # what a checkpoint holds
    moved = {name for name, value in state.meta.items() if not torch.equal(value, start.meta[name])}
    assert moved <= learned
    assert moved >= {"3.weight", "4.weight", "4.bias", "7.weight", "7.bias"}  # 4 cancels 3.bias


@pytest.mark.parametrize("config", [SECOND_ORDER, replace(SECOND_ORDER, learned_lr="parameter")])
def test_the_meta_gradient_next_to_frozen_parameters_is_that_of_central_differences(config):
    network, tasks = mlp(), regression_tasks()
    network.module[2].requires_grad_(False)
    network = Network(network.module)
    state = initial_state(network, config)
    gradient, _ = meta_gradient(network, config)(state, tasks, THREADS)
    every = unflatten(central_differences(network, config, tasks, state), state.meta)
    expected = {name: value for name, value in every.items() if name not in {"2.weight", "2.bias"}}
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def test_the_adapted_parameters_keep_what_is_frozen():
    network, tasks = partly_frozen(), image_tasks(1)
    meta, one = network.parameters(), TaskBatch(*(x[0] for x in tasks))
    adapted = adapt_task(network, network_rates(network, SECOND_ORDER), meta, one, 2, first_order=False)[-1].params
    assert all(torch.equal(adapted[name], meta[name]) for name in FROZEN)


def test_a_network_or_an_inner_update_without_anything_to_change_is_refused():
    module = mlp().module
    with pytest.raises(InputError, match=r"^all parameters of the Sequential are frozen.*requires_grad_\(True\)"):
        Network(module.requires_grad_(False))
    module[0].requires_grad_(True)
    with pytest.raises(InputError, match=r"inner update \(adapted = last-layer\) has nothing to change"):
        initial_state(Network(module), replace(SECOND_ORDER, adapted="last-layer"))
