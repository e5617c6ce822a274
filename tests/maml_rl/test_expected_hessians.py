"""Expectation and spread of the inner objectives' Hessians, over all episodes of problems small enough to list them.

The estimate of an objective is the Hessian of its loss on sampled steps, and the truth is that of the expected return.
"""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from maml_rl.config import RLMeta
from maml_rl.objectives import Loss, inner_loss
from maml_rl.policies import CategoricalMLP, GaussianMLP, Policy
from maml_rl.types import Batch, Params, flatten, split, unflatten

OBJECTIVES = {
    "reinforce": ("reinforce", 0.5),
    "lvc": ("lvc", 0.5),
    "dice 0": ("dice", 0.0),
    "dice 0.5": ("dice", 0.5),
    "dice 1": ("dice", 1.0),
}


def objective(policy: Policy, name: str) -> Loss:
    kind, dice_lambda = OBJECTIVES[name]
    return inner_loss(policy, RLMeta(inner_objective=kind, dice_lambda=dice_lambda))


class Process(NamedTuple):
    """A process that begins in state 0 and lasts T steps, a policy, and all episodes that there can be, E of them."""

    policy: CategoricalMLP
    params: Params
    learned: tuple[str, ...]  # names of the parameters that derivatives are taken by
    features: Tensor  # [S, obs]   observation of each state
    rewards: Tensor  # [S, A]
    transitions: Tensor  # [S, A, S]   probability of the next state
    states: Tensor  # [E, T]
    actions: Tensor  # [E, T]

    @property
    def vector(self) -> Tensor:
        """The learned parameters, `[P]`."""
        return flatten(split(self.params, self.learned)[0])

    def with_vector(self, vector: Tensor) -> "Process":
        learned, rest = split(self.params, self.learned)
        return self._replace(params=rest | unflatten(vector, learned))

    def values(self) -> Tensor:
        """Value of each state at each time, `[T, S]`: V_t = sum_a pi_a (r_a + P_a V_{t+1}), V_T = 0."""
        probabilities = self.policy(self.params, self.features).logits.softmax(-1)  # [S, A]
        values = [torch.zeros_like(self.rewards[:, 0])]
        for _ in range(self.states.shape[1]):
            values.append((probabilities * (self.rewards + self.transitions @ values[-1])).sum(-1))
        return torch.stack(values[:0:-1])

    def expected_return(self, vector: Tensor) -> Tensor:
        return self.with_vector(vector).values()[0, 0]

    def log_probs(self) -> Tensor:
        """Log-probability of each action, `[E, T]`."""
        return self.policy(self.params, self.features[self.states]).log_prob(self.actions)

    def likelihoods(self) -> Tensor:
        """Probability of each episode, `[E]`."""
        chances = self.transitions[self.states[:, :-1], self.actions[:, :-1], self.states[:, 1:]].prod(1)
        return chances * self.log_probs().sum(1).exp()

    def returns(self) -> Tensor:
        """Sum of the rewards from each step on, `[E, T]`."""
        return self.rewards[self.states, self.actions].flip(1).cumsum(1).flip(1)

    def advantages(self) -> Tensor:
        """Return minus the exact value, `[E, T]`."""
        return self.returns() - self.values()[torch.arange(self.states.shape[1]), self.states]

    def estimate(self, name: str, vector: Tensor, batch: Batch) -> Tensor:
        """Minus the inner loss, a mean over steps, times T: what estimates the return of an episode."""
        horizon = self.states.shape[1]
        return -horizon * objective(self.policy, name)(self.with_vector(vector).params, batch)


def every_episode(states: int, actions: int, length: int) -> tuple[Tensor, Tensor]:
    """States and actions `[E, T]` of all episodes that begin in state 0."""
    later = itertools.product(range(states), range(actions))
    steps = [[(0, action) for action in range(actions)], *[list(later)] * (length - 1)]
    return torch.tensor(list(itertools.product(*steps))).unbind(-1)


def table(seed: int = 52) -> Process:
    """Three states, two actions, five steps; a softmax table. 2 (3 2)^4 = 2592 episodes."""
    generator = np.random.default_rng(seed)
    transitions = torch.tensor(generator.dirichlet(np.ones(3), (3, 2)))
    rewards = torch.tensor(1 + generator.standard_normal((3, 2)))
    params = {"weight_0": torch.tensor(generator.standard_normal((2, 3))), "bias_0": torch.zeros(2).double()}
    policy = CategoricalMLP(3, 2, hidden_sizes=(), activation="tanh", generator=generator).double()
    return Process(policy, params, ("weight_0",), torch.eye(3).double(), rewards, transitions, *every_episode(3, 2, 5))


def network(seed: int) -> Process:
    """Two states, two actions, three steps; a network. 2 (2 2)^2 = 32 episodes."""
    generator = np.random.default_rng(seed)
    transitions = torch.tensor(generator.dirichlet([1.0, 1.0], (2, 2)))
    rewards, features = (torch.tensor(generator.standard_normal((2, 2))) for _ in range(2))
    policy = CategoricalMLP(2, 2, hidden_sizes=(3,), activation="tanh", generator=generator).double()
    params = {name: torch.tensor(generator.standard_normal(v.shape)) for name, v in policy.named_parameters()}
    return Process(policy, params, tuple(params), features, rewards, transitions, *every_episode(2, 2, 3))


def ascended(process: Process, steps: int) -> Process:
    """The same process, with the policy after steps of size 0.5 along the exact gradient."""
    for _ in range(steps):
        gradient = torch.func.grad(process.expected_return)(process.vector)
        process = process.with_vector(process.vector + 0.5 * gradient)
    return process


def every_step(process: Process, advantages: Tensor) -> Batch:
    """All steps of all episodes, with advantages `[E, T]` weighted so that a mean over episodes is the expectation."""
    likelihoods = process.likelihoods()
    torch.testing.assert_close(likelihoods.sum(), torch.ones((), dtype=torch.float64))
    weighted = advantages * likelihoods[:, None] * len(likelihoods)
    flat = (x.flatten() for x in (process.actions, process.log_probs(), weighted))
    observations = process.features[process.states].flatten(0, 1)
    return Batch(observations, *flat, *torch.ones_like(process.actions).nonzero(as_tuple=True))


def hessian(function, vector: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(function, vector)


def relative_error(process: Process, name: str, advantages: Tensor) -> float:
    """|E[H] - H| / |H|, H the Hessian of the expected return and E[H] the expectation of its estimate."""
    batch = every_step(process, advantages)
    exact = hessian(process.expected_return, process.vector)
    expected = hessian(lambda vector: process.estimate(name, vector, batch), process.vector)
    return ((expected - exact).norm() / exact.norm()).item()


# Gradient steps along an ascent path, expected return there, and relative errors of lvc and of dice 0.5, as measured.
ASCENT = [(0, 6.24, 1.113, 0.400), (3, 12.42, 0.0657, 0.0322), (100, 13.14, 0.0030, 0.0015)]


@pytest.mark.parametrize(("steps", "reached", "of_lvc", "of_half"), ASCENT)
def test_the_bias_of_each_inner_objective_along_an_ascent_path(
    steps: int, reached: float, of_lvc: float, of_half: float
) -> None:
    process = ascended(table(), steps)
    advantages = process.advantages()
    errors = {name: relative_error(process, name, advantages) for name in OBJECTIVES}
    assert process.expected_return(process.vector).item() == pytest.approx(reached, abs=0.01)
    # The Hessian of log pi is the same for both actions of a state, and advantages have mean 0: nothing is left.
    assert errors["reinforce"] == pytest.approx(1, abs=1e-9)
    # It leaves out how an action changes the probability of later ones: as much as there is, far from an optimum, and
    # little near one, where actions of high probability have advantages near 0 (Rothfuss et al. 2019, section 5).
    assert errors["lvc"] == pytest.approx(of_lvc, rel=0.02)
    assert errors["dice 0"] == errors["lvc"]
    assert errors["dice 0.5"] == pytest.approx(of_half, rel=0.04)
    assert errors["dice 1"] < 1e-9


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_baseline_changes_only_the_expectation_of_reinforce(name: str) -> None:
    process = table()
    with_baseline, without = (relative_error(process, name, a) for a in (process.advantages(), process.returns()))
    if name == "reinforce":
        assert without == pytest.approx(17.9, abs=0.1)
    else:
        assert without == pytest.approx(with_baseline, abs=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("process", [table(), *map(network, range(4))], ids=["table", *map(str, range(4))])
def test_every_inner_objective_has_the_gradient_of_the_expected_return(process: Process, name: str) -> None:
    batch, vector = every_step(process, process.advantages()), process.vector
    gradient = torch.func.grad(lambda v: process.estimate(name, v, batch))(vector)
    torch.testing.assert_close(gradient, torch.func.grad(process.expected_return)(vector))


@pytest.mark.parametrize("seed", range(4))
def test_the_curvature_of_a_network_is_in_the_hessian_of_every_objective(seed: int) -> None:
    process = network(seed)
    errors = {name: relative_error(process, name, process.advantages()) for name in OBJECTIVES}
    # Measured: reinforce 0.34 to 0.86, lvc 0.07 to 0.37. The table above has nothing but the curvature of the softmax.
    assert 0.3 < errors["reinforce"] < 0.9
    assert 0.05 < errors["lvc"] < 0.4
    assert errors["reinforce"] > errors["lvc"] > errors["dice 0.5"] > errors["dice 1"]
    assert errors["dice 1"] < 1e-9


def spread(process: Process, name: str, advantages: Tensor) -> float:
    """Standard deviation of the estimate of one episode, sqrt(E |H_1 - E H_1|^2) / |H|."""
    states, actions = process.states, process.actions
    horizon, weights = states.shape[1], process.likelihoods()

    def of_episode(vector: Tensor, *fields: Tensor) -> Tensor:
        times = torch.arange(horizon)
        return process.estimate(name, vector, Batch(*fields, episodes=0 * times, times=times))

    fields = process.features[states], actions, process.log_probs(), advantages
    of_each = torch.func.vmap(torch.func.jacrev(torch.func.grad(of_episode)), (None, 0, 0, 0, 0))
    hessians = of_each(process.vector, *fields)
    mean = (weights[:, None, None] * hessians).sum(0)
    variance = (weights * (hessians - mean).square().sum((1, 2))).sum()
    return (variance.sqrt() / hessian(process.expected_return, process.vector).norm()).item()


def test_more_credit_for_later_actions_adds_noise_and_a_baseline_in_all_terms_reduces_it() -> None:
    process = table()
    spreads = {name: spread(process, name, process.advantages()) for name in ("lvc", "dice 0.5", "dice 1")}
    spreads["dice 1, returns"] = spread(process, "dice 1", process.returns())
    measured = {"lvc": 4.09, "dice 0.5": 7.67, "dice 1": 20.96, "dice 1, returns": 26.79}
    assert spreads == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reinforce", [[0.0, -2.8], [-2.8, 2.681280]]),
        *((n, [[-2.0, 0.0], [0.0, -2.681280]]) for n in ("lvc", "dice 1")),
    ],
)
def test_the_expected_hessian_of_a_bandit_with_normal_actions(name: str, expected: list[list[float]]) -> None:
    # Reward -(a - 1)^2 of a ~ N(mu, sigma^2), mu = 0.3, log sigma = -0.2: expected reward J = -(mu - 1)^2 - sigma^2, so
    # d2 J = diag(-2, -4 sigma^2), sigma^2 = e^-0.4 = 0.670320. REINFORCE has E[(r - J) d2 log pi], with z = (a - mu) /
    # sigma and d2 log pi = -[[1 / sigma^2, 2 z / sigma], [2 z / sigma, 2 z^2]]: 0, -2 dJ/dmu = 4 (mu - 1) = -2.8 off
    # the diagonal, and -2 dJ/dlog sigma = 4 sigma^2 in its place, of the wrong sign.
    policy = GaussianMLP(1, 1, hidden_sizes=(), activation="tanh", generator=np.random.default_rng(0)).double()
    still = {"weight_0": torch.zeros(1, 1).double()}
    at = {"bias_0": torch.tensor([0.3]).double(), "log_std": torch.tensor([-0.2]).double()}
    # Ten nodes integrate polynomials up to degree 19 exactly against the normal density; here it is at most 6.
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(10))
    actions = 0.3 + float(np.exp(-0.2)) * nodes
    rewards = -((actions - 1) ** 2)
    advantages = (rewards - (-(0.7**2) - float(np.exp(-0.4)))) * weights / weights.sum() * len(weights)
    observations, each = torch.zeros(len(nodes), 1).double(), torch.arange(len(nodes))
    log_probs = policy(still | at, observations).log_prob(actions[:, None])
    batch = Batch(observations, actions[:, None], log_probs, advantages, episodes=each, times=0 * each)
    loss = objective(policy, name)
    found = hessian(lambda vector: -loss(still | unflatten(vector, at), batch), flatten(at))
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-5)
