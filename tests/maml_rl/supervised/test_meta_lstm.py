"""The meta-learner LSTM: steps by hand, what it has in common with gradient descent, and its meta-gradient."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maml_rl.config import SGD, Adam
from maml_rl.errors import InputError
from maml_rl.inner import inner_step
from maml_rl.parallel import TaskThreads
from maml_rl.rates import LSTM, InnerUpdate
from maml_rl.step import MetaGradient, meta_step
from maml_rl.supervised.adaptation import losses_by_step, predictions
from maml_rl.supervised.meta_learning import initial_state, loss_and_accuracy, meta_gradient, meta_iteration
from maml_rl.supervised.meta_lstm import beginning, gate_metrics, initial_lstm, lstm_steps, next_cells, preprocessed
from maml_rl.supervised.networks import Network, build_network
from maml_rl.supervised.settings import LSTMConfig, NetworkConfig, SupervisedMeta
from maml_rl.supervised.task_batches import TaskBatch
from maml_rl.types import Params, State, flatten, unflatten

THREADS = TaskThreads(1)
CONFIG = SupervisedMeta(inner_steps=3, algorithm="meta-lstm", lstm=LSTMConfig(units=3, divided_gradient=False))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perceptron() -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double())


def regression(count: int = 2) -> TaskBatch:
    shapes = [(6, 2), (6, 1), (4, 2), (4, 1)]
    return TaskBatch(*(random(count, *shape, seed=seed) for seed, shape in enumerate(shapes)))


def images(support_classes: int = 3) -> TaskBatch:
    labels = torch.arange(support_classes).repeat(1, 2)
    return TaskBatch(*(part for seed in (1, 2) for part in (random(1, 6, 1, 8, 8, seed=seed).float(), labels)))


def weights(units: int, scale: float, seed: int = 0) -> Params:
    """An LSTM of weights that are all large enough to matter."""
    names = initial_lstm(LSTMConfig(units=units), np.random.default_rng(0))
    return {name: scale * random(*value.shape, seed=seed + i) for i, (name, value) in enumerate(names.items())}


def fixed_gates(forget: float, entry: float, units: int = 3) -> Params:
    """An LSTM whose gates are constant, given before the sigmoid."""
    lstm = {name: torch.zeros_like(value) for name, value in weights(units, 1.0).items()}
    return lstm | {
        f"{LSTM}forget_gate_bias": torch.tensor(forget, dtype=torch.float64),
        f"{LSTM}input_gate_bias": torch.tensor(entry, dtype=torch.float64),
    }


def one_task(tasks: TaskBatch) -> TaskBatch:
    return TaskBatch(*(examples[0] for examples in tasks))


def test_large_numbers_are_seen_by_size_and_sign_and_small_ones_as_they_are():
    # With p = 10: log(e^5) / 10 = 0.5; log(e^-9) / 10 = -0.9; below e^-10 it is (-1, e^10 x).
    values = torch.tensor([math.e**5, -(math.e**-9), 0.5 * math.e**-10, 0.0], dtype=torch.float64)
    expected = torch.tensor([[0.5, 1.0], [-0.9, -1.0], [-1.0, 0.5], [-1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(preprocessed(values, 10.0), expected)


def test_two_steps_of_one_number_by_hand():
    # One unit. Gradient e^-5 and loss e^5 are (-0.5, 1) and (0.5, 1), so the first layer sees [0.5, 1, -0.5, 1].
    lstm = {
        "input_weight": torch.tensor(
            [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [-0.1, -0.2, -0.3, -0.4], [0.3, 0.1, -0.1, -0.3]]
        ),
        "hidden_weight": torch.tensor([[0.2, -0.4, 0.6, -0.8]]),
        "bias": torch.tensor([0.05, 0.06, 0.07, 0.08]),
        "forget_gate_weight": torch.tensor([0.5, 0.25, -0.3]),
        "forget_gate_bias": torch.tensor(2.0),
        "input_gate_weight": torch.tensor([-0.7, 0.1, 0.4]),
        "input_gate_bias": torch.tensor(-1.0),
    }
    lstm = {name: value.double() for name, value in lstm.items()}

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    gradient, loss = math.exp(-5), math.exp(5)
    memory = hidden = forget = entry = 0.0
    theta = 0.8
    cells = beginning(torch.tensor([theta], dtype=torch.float64), units=1)
    for _ in range(2):
        seen = [
            0.5 * lstm["input_weight"][0, k] + lstm["input_weight"][1, k] - 0.5 * lstm["input_weight"][2, k]
            + lstm["input_weight"][3, k] + lstm["hidden_weight"][0, k] * hidden + lstm["bias"][k]
            for k in range(4)
        ]  # fmt: skip
        i, f, o, candidate = (float(value) for value in seen)
        memory = sigmoid(f) * memory + sigmoid(i) * math.tanh(candidate)
        hidden = sigmoid(o) * math.tanh(memory)
        # The gates see themselves before the sigmoid.
        forget = 0.5 * hidden + 0.25 * theta - 0.3 * forget + 2.0
        entry = -0.7 * hidden + 0.1 * theta + 0.4 * entry - 1.0
        theta = sigmoid(forget) * theta - sigmoid(entry) * gradient
        cells = next_cells(lstm, 10.0, cells, torch.tensor([gradient]).double(), torch.tensor(loss).double())
    found = [cells.memory[0, 0], cells.hidden[0, 0], cells.forget[0], cells.input[0], cells.theta[0]]
    assert [float(value) for value in found] == pytest.approx([memory, hidden, forget, entry, theta])


@pytest.mark.parametrize("divided", [False, True])
def test_with_fixed_gates_it_is_gradient_descent_on_weights_that_decay(divided):
    # sigmoid(-2) = 0.119 is the step size, and sigmoid(3) = 0.953 the share of a weight that stays.
    network, task = perceptron(), one_task(regression())
    names, theta = network.names(), network.parameters()
    config = replace(CONFIG.lstm, divided_gradient=divided)

    def loss(params: Params) -> tuple[Tensor, Tensor]:
        return loss_and_accuracy(network(params, task.support_x), task.support_y)

    meta = theta | fixed_gates(3.0, -2.0)
    steps = lstm_steps(loss, meta, names, config, 2, examples=6)
    step_size = 1 / (1 + math.exp(2)) / (6 if divided else 1)
    params, kept = theta, 1 / (1 + math.exp(-3))
    for found in steps:
        expected = inner_step(loss, params, InnerUpdate(dict.fromkeys(names, step_size)))
        decayed = {name: (kept - 1) * value for name, value in params.items()}
        params = {name: value + decayed[name] for name, value in expected.params.items()}
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(flatten(found.params), flatten(params))
    # A forget gate of 1 leaves gradient descent alone.
    (found,) = lstm_steps(loss, theta | fixed_gates(50.0, -2.0), names, config, 1, examples=6)
    expected = inner_step(loss, theta, InnerUpdate(dict.fromkeys(names, step_size)))
    torch.testing.assert_close(flatten(found.params), flatten(expected.params), rtol=1e-12, atol=0)


def test_each_number_has_its_own_state():
    lstm = {name.removeprefix(LSTM): value for name, value in weights(2, 1.0).items()}
    theta, gradient, loss = random(3, seed=20), random(3, seed=21), torch.tensor(0.7).double()
    order = [2, 0, 1]
    cells, others = beginning(theta, 2), beginning(theta[order], 2)
    for _ in range(3):
        cells = next_cells(lstm, 10.0, cells, gradient, loss)
        others = next_cells(lstm, 10.0, others, gradient[order], loss)
    for value, permuted in zip(cells, others, strict=True):
        torch.testing.assert_close(permuted, value[order])


def constant_gradient_loss(
    network: Network, config: SupervisedMeta, meta: Params, state: State, task: TaskBatch
) -> Tensor:
    """The outer loss of one task where losses and gradients of the inner steps are those at `state`: constants."""
    theta = network.parameters()
    names = list(theta)
    seen = []
    support = lambda p: loss_and_accuracy(network(p, task.support_x), task.support_y)[0]  # noqa: E731
    params = {name: state.meta[name] for name in names}
    for step in lstm_steps(lambda p: (support(p), torch.zeros(())), state.meta, names, config.lstm, 3, 6):
        seen.append((flatten(torch.func.grad(support)(params)), step.loss))
        params = {name: step.params[name] for name in names}
    lstm = {name.removeprefix(LSTM): value for name, value in meta.items() if name.startswith(LSTM)}
    cells = beginning(flatten({name: meta[name] for name in names}), config.lstm.units)
    for gradient, loss in seen:
        cells = next_cells(lstm, config.lstm.preprocessing, cells, gradient.detach(), loss.detach())
    adapted = unflatten(cells.theta, theta)
    return loss_and_accuracy(network(adapted, task.query_x), task.query_y)[0]


def test_the_meta_gradient_is_that_of_central_differences_with_gradients_as_constants():
    # Step 1e-5 in float64: truncation 1e-10, rounding 1e-16 / 1e-5.
    network, tasks = perceptron(), regression()
    state = initial_state(network, CONFIG)
    state = state._replace(meta=network.parameters() | weights(3, 0.5))
    gradient, _ = meta_gradient(network, CONFIG)(state, tasks, THREADS)
    base = flatten(state.meta)
    expected = torch.zeros_like(base)
    for task in (TaskBatch(*(x[m] for x in tasks)) for m in range(2)):
        for i in range(len(base)):
            step = 1e-5 * torch.eye(len(base), dtype=base.dtype)[i]
            after, before = (
                constant_gradient_loss(network, CONFIG, unflatten(base + sign * step, state.meta), state, task)
                for sign in (1, -1)
            )
            expected[i] += (after - before) / 2e-5 / 2
    assert (expected.abs() > 1e-6).float().mean() > 0.9
    torch.testing.assert_close(flatten(gradient), expected, rtol=1e-5, atol=1e-8)


def test_every_parameter_of_network_and_lstm_is_learned_from_a_seeded_start():
    network = build_network(NetworkConfig("strided-conv", filters=4), images(), 3, 0)
    config = replace(CONFIG, batch_norm="support")
    state = initial_state(network, config, seed=3)
    assert all(torch.equal(value, initial_state(network, config, 3).meta[name]) for name, value in state.meta.items())
    assert not torch.equal(state.meta[f"{LSTM}bias"], initial_state(network, config, 4).meta[f"{LSTM}bias"])
    bounds = {"forget_gate_bias": (4, 5), "input_gate_bias": (-5, -4)}
    for name, value in state.meta.items():
        if name.startswith(LSTM):
            low, high = bounds.get(name.removeprefix(LSTM), (-0.01, 0.01))
            assert low <= value.min() <= value.max() <= high
    assert gate_metrics(state.meta)["inner/forget_gate"] == pytest.approx(0.9874, abs=0.006)
    gradient, _ = meta_gradient(network, config)(state, images(), THREADS)
    assert gradient.keys() == state.meta.keys()
    assert all(value.isfinite().all() for value in gradient.values())
    assert all(value.any() for name, value in gradient.items() if "hidden" not in name)


def test_statistics_of_the_support_examples_do_not_depend_on_other_query_examples():
    network = build_network(NetworkConfig("strided-conv", filters=4), images(), 3, 0)
    config, tasks = replace(CONFIG, batch_norm="support"), images()
    state = initial_state(network, config)
    every = predictions(network, config, state.meta, tasks, tasks.query_x[0], 2)
    alone = predictions(network, config, state.meta, tasks, tasks.query_x[0, :1], 2)
    np.testing.assert_allclose(alone, every[:, :1], rtol=1e-4, atol=1e-6)
    own = replace(config, batch_norm="transductive")
    transductive = predictions(network, own, state.meta, tasks, tasks.query_x[0], 2)
    assert not np.allclose(transductive, every, atol=1e-3)


def test_tracing_does_not_change_a_bit_and_a_resumed_run_is_the_same():
    tasks = TaskBatch(*(x.float() for x in regression(4)))
    config = replace(CONFIG, chunk_size=2, step=Adam(norm_clip=0.25))
    plain, replayed = (Network(perceptron().module.float(), trace) for trace in (False, True))
    start = initial_state(plain, config)
    first, _ = meta_iteration(meta_gradient(replayed, config), start, tasks, config, THREADS)
    gradient, whole = meta_gradient(replayed, config), start
    for _ in range(2):
        whole = meta_iteration(gradient, whole, tasks, config, THREADS)[0]
    resumed = meta_iteration(meta_gradient(replayed, config), first, tasks, config, THREADS)[0]
    by_plain = meta_iteration(meta_gradient(plain, config), first, tasks, config, THREADS)[0]
    for state in (resumed, by_plain):
        assert torch.equal(flatten(state.meta), flatten(whole.meta))
        assert torch.equal(flatten(state.optimizer), flatten(whole.optimizer))


def test_it_learns_to_regress():
    # Lines through 0 of slope +-1: theta_0 can only answer 0, with an error of E[x^2] = 1.
    def lines(start: int) -> TaskBatch:
        signs = torch.tensor([1.0, -1.0]).repeat(10).view(-1, 1, 1)
        x = random(20, 5, 1, seed=start).float()
        return TaskBatch(x, signs * x, x, signs * x)

    network = Network(nn.Linear(1, 1), trace=True)
    config = SupervisedMeta(
        inner_steps=3, algorithm="meta-lstm", lstm=LSTMConfig(8, divided_gradient=False), step=Adam(lr=0.05)
    )
    gradient, state = meta_gradient(network, config), initial_state(network, config)
    for iteration in range(60):
        state, _ = meta_iteration(gradient, state, lines(iteration), config, THREADS)
    errors = losses_by_step(network, config, state.meta, lines(1000), 3, THREADS).losses.mean(1)
    assert errors[0] > 0.8
    assert errors[3] < 0.2


def test_the_meta_gradient_is_shortened_to_its_bound():
    # (3, 4) has the length 5; cut at 2.5 it is (1.5, 2).
    state = State({"a": torch.zeros(2)}, {}, 0)
    given = MetaGradient({"a": torch.tensor([3.0, 4.0])}, torch.tensor(0.0))
    for bound, expected in ((2.5, [-1.5, -2.0]), (6.0, [-3.0, -4.0])):
        after, _ = meta_step(SGD(lr=1.0, norm_clip=bound), state, given)
        assert after.meta["a"].tolist() == pytest.approx(expected)
    at_zero, _ = meta_step(SGD(lr=1.0, norm_clip=1.0), state, given._replace(gradient={"a": torch.zeros(2)}))
    assert at_zero.meta["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "inner_steps must be at least 1 for meta-lstm"),
        ({"first_order": True}, "meta-lstm always treats gradients as constants"),
        ({"learned_lr": "parameter"}, "meta-lstm has gates in place of step sizes"),
        ({"algorithm": "maml"}, "lstm has settings of the algorithm meta-lstm, not of maml"),
    ],
)
def test_settings_that_an_lstm_cannot_have_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "units must be at least 1"),
        ({"preprocessing": 0.0}, "preprocessing must be above 0"),
        ({"input_bias": (1.0, 0.0)}, "input_bias must be a lower bound and a higher one, got 1 0"),
    ],
)
def test_invalid_settings_of_an_lstm_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LSTMConfig(**settings)
