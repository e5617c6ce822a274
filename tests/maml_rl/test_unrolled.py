"""Picture policies as perceptrons, for files: the same distribution, with matrices instead of convolutions."""

import gymnasium
import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium import spaces

from maml_rl.actions import action_kind
from maml_rl.config import Activation
from maml_rl.errors import InputError
from maml_rl.logged import numpy_policy
from maml_rl.module_policy import ModulePolicy, plain_standardisation
from maml_rl.observations import Part, observation_parts
from maml_rl.onnx_export import to_onnx
from maml_rl.picture_network import PictureNetwork
from maml_rl.policies import perceptron_for
from maml_rl.sb3 import from_ppo, to_ppo
from maml_rl.types import Params
from maml_rl.unrolled import as_perceptron, check_perceptron

SHAPES = [(8, 9, 3), (3, 8, 9), (8, 9)]
ACTIONS = {
    "Box": spaces.Box(-2.0, 2.0, (2,), np.float32),
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
}
every_kind = pytest.mark.parametrize("actions", ACTIONS.values(), ids=ACTIONS)


class Seen(gymnasium.Env):
    """An environment that only has spaces."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return self.observation_space.sample(), {}

    def step(self, action: object) -> tuple:
        return self.observation_space.sample(), 0.0, False, False, {}


def of_pictures(
    space: spaces.Space,
    actions: spaces.Space,
    context_size: int = 0,
    activation: Activation = "relu",
    clip: float | None = None,
) -> tuple[ModulePolicy, Params]:
    parts, generator = observation_parts(space), np.random.default_rng(0)
    network = PictureNetwork(parts, (2, 3), (5,), activation, generator, context_size)
    standardisation = plain_standardisation(parts, clip)
    policy = ModulePolicy(
        network, parts, network.features, action_kind(actions), generator, standardisation=standardisation
    )
    drawn = torch.Generator().manual_seed(1)
    return policy, {n: 0.5 * torch.randn(v.shape, generator=drawn) for n, v in policy.named_parameters()}


@pytest.mark.parametrize("context_size", [0, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_policy_of_a_picture_equals_its_perceptron(shape, context_size) -> None:
    policy, params = of_pictures(spaces.Box(0, 255, shape, np.uint8), ACTIONS["Box"], context_size)
    mlp, own = as_perceptron(policy, params)
    assert own.keys() == dict(mlp.named_parameters()).keys()
    seen = torch.randint(0, 256, (6, len(policy.observation_mean)), generator=torch.Generator().manual_seed(2)).float()
    for found, expected in zip(mlp(own, seen).parameters(), policy(params, seen).parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_stable_baselines3_numpy_and_onnx_have_its_actions(actions, shape) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    policy, params = of_pictures(space, actions)
    space.seed(0)
    pictures = np.stack([space.sample() for _ in range(8)])
    rows = pictures.reshape(8, -1).astype(np.float32)
    alone = numpy_policy(policy, params, actions)
    model = to_ppo(policy, params, Seen(space, actions))
    in_numpy = np.stack([alone.act(row) for row in rows])
    [in_onnx] = onnxruntime.InferenceSession(to_onnx(alone)).run(["action"], {"observation": rows})
    in_sb3, _ = model.predict(pictures, deterministic=True)
    expected = policy(params, torch.from_numpy(rows))
    if isinstance(actions, spaces.Box):
        likeliest = expected.mean.clamp(-2, 2).detach().numpy()
    else:
        likeliest = expected.sample(torch.zeros(8, policy.noise_size)).numpy()
    for found in (in_numpy, in_onnx, in_sb3):
        np.testing.assert_allclose(found.reshape(likeliest.shape), likeliest, atol=1e-3)


def test_the_critic_of_a_picture_has_the_hidden_layers_without_convolutions() -> None:
    space = spaces.Box(0, 255, SHAPES[0], np.uint8)
    policy, params = of_pictures(space, ACTIONS["Discrete"])  # two convolutions, one hidden layer of 5
    model = to_ppo(policy, params, Seen(space, ACTIONS["Discrete"]))
    sizes = [tuple(value.shape) for value in model.policy.mlp_extractor.value_net.parameters()]
    assert sizes == [(5, 8 * 9 * 3), (5,)]


def test_a_policy_in_numpy_is_printed_as_its_sizes() -> None:
    space = spaces.Box(0, 255, SHAPES[0], np.uint8)
    alone = numpy_policy(*of_pictures(space, ACTIONS["Discrete"]), ACTIONS["Discrete"])
    # 8 x 9 x 3 numbers; 2 filters at 4 x 5 places, 3 filters at 2 x 3; 5 hidden units; 3 actions
    assert repr(alone) == "NumpyPolicy(216 -> 40 -> 18 -> 5 -> 3, relu, choices)"


@pytest.mark.parametrize(("activation", "clip"), [("relu", 0.5), ("tanh", 10.0)])
def test_a_bound_on_pictures_is_the_same_in_stable_baselines3(activation, clip) -> None:
    space, actions = spaces.Box(0, 255, SHAPES[0], np.uint8), ACTIONS["Box"]
    policy, params = of_pictures(space, actions, activation=activation, clip=clip)
    space.seed(0)
    pictures = np.stack([space.sample() for _ in range(4)])
    found, _ = to_ppo(policy, params, Seen(space, actions)).predict(pictures, deterministic=True)
    expected = policy(params, torch.from_numpy(pictures.reshape(4, -1)).float()).mean.clamp(-2, 2)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-3)


def test_a_bound_on_pictures_that_needs_rectifiers_is_refused_with_tanh() -> None:
    space, actions = spaces.Box(0, 255, SHAPES[0], np.uint8), ACTIONS["Box"]
    policy, params = of_pictures(space, actions, activation="tanh", clip=0.5)
    with pytest.raises(InputError, match=r"clips standardised observations to \+-0\.5"):
        to_ppo(policy, params, Seen(space, actions))


@every_kind
def test_a_perceptron_with_any_actions_goes_to_stable_baselines3_and_back(actions) -> None:
    generator, numbers = np.random.default_rng(0), spaces.Box(-1.0, 1.0, (4,), np.float32)
    policy = perceptron_for(action_kind(actions), 4, hidden_sizes=(5,), activation="relu", generator=generator)
    params = {n: v.detach() for n, v in policy.named_parameters()}
    back, own = from_ppo(to_ppo(policy, params, Seen(numbers, actions)))
    seen = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(back(own, seen).parameters(), policy(params, seen).parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_samples_in_numpy_have_the_probabilities_of_switches_and_choices() -> None:
    for actions in (spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3], start=[5, -1])):
        policy = perceptron_for(
            action_kind(actions), 1, hidden_sizes=(), activation="relu", generator=np.random.default_rng(3)
        )
        params = {n: v.detach() for n, v in policy.named_parameters()}
        alone, generator = numpy_policy(policy, params, actions), np.random.default_rng(0)
        drawn = np.stack([alone.sample(np.ones(1), generator) for _ in range(4000)])
        assert all(actions.contains(row.astype(actions.dtype)) for row in drawn)
        logits = policy(params, torch.ones(1)).parameters()[0]
        # 5 standard errors of a frequency, at most 5 / 2 / sqrt(4000) = 0.04.
        on = torch.sigmoid(logits) if isinstance(actions, spaces.MultiBinary) else logits[:2].softmax(0)[1:]
        first = drawn[:, : len(on)] - alone.low[: len(on)]
        np.testing.assert_allclose(first.mean(0), on, atol=0.04)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "network", torch.nn.Linear(1, 1)), "has its own, Linear"),
        (lambda p: setattr(p, "parts", (Part("eye", SHAPES[0], True), Part("task", (2,)))), "observes eye, task"),
        (lambda p: setattr(p, "parts", (Part("", (500, 500, 3), True),)), "of at most 20,000,000"),
    ],
)
def test_a_policy_that_is_not_a_perceptron_is_refused_in_one_line(change, message) -> None:
    policy, params = of_pictures(spaces.Box(0, 255, SHAPES[0], np.uint8), ACTIONS["Box"])
    change(policy)
    with pytest.raises(InputError, match=message):
        check_perceptron(policy)
    with pytest.raises(InputError, match=r"docs/own_network\.md"):
        as_perceptron(policy, params)
