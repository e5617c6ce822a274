"""The preset for custom environments: what it learns does not depend on units."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from maml_rl.config import PolicyConfig, RLConfig
from maml_rl.envs.batched import TaskMDP
from maml_rl.errors import NonFiniteError
from maml_rl.experiments.presets import CUSTOM, PRESETS
from maml_rl.initial import BuiltPolicy, initial_policy, parameters
from maml_rl.meta_rl import initial_state, meta_iteration
from maml_rl.parallel import TaskThreads
from maml_rl.tasks import vectorize
from maml_rl.types import Params, flatten

_PRESET = PRESETS[CUSTOM].config
SMALL = replace(
    _PRESET,
    meta=replace(_PRESET.meta, meta_batch_size=4, episodes=6),
    network=replace(_PRESET.network, hidden_sizes=(16,)),
)
NAME = "CustomPresetForTests-v0"


class Rod(TaskMDP):
    """A point on a line that has to reach a goal it does not observe, and a sensor that feels contact beyond 3.

    Args:
        unit: Factor on the observation.
        offset: Added to the position, before that factor.
        start: Mean of the first positions.
    """

    def __init__(self, unit: float = 1.0, offset: float = 0.0, start: float = 0.0) -> None:
        self.unit, self.offset, self.start = unit, offset, start
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space, self.task_space = Box(-1.0, 1.0, (1,), np.float32), Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.array([[self.start + 0.3 * generator.normal(), generator.normal()] for generator in generators])

    def transition(self, states: np.ndarray, actions: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        return np.stack([states[:, 0] + 0.1 * np.clip(actions[:, 0], -1, 1), np.sin(7919 * states[:, 1])], 1)

    def observation(self, states: np.ndarray) -> np.ndarray:
        felt = 1.0 * (states[:, 0] > 3) + 1e-5 * states[:, 1]  # a contact, with the noise of its electronics
        return self.unit * np.stack([self.offset + states[:, 0], felt], 1)

    def reward_terms(
        self, states: np.ndarray, actions: np.ndarray, next_states: np.ndarray, tasks: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        return {"reward_distance": -np.abs(next_states[:, 0] - self.start - tasks[:, 0])}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(
        NAME,
        entry_point="maml_rl.envs.batched:TaskEnv",
        vector_entry_point="maml_rl.envs.batched:BatchedTaskEnv",
        max_episode_steps=15,
        kwargs={"mdp": Rod()},
    )
    yield
    del gymnasium.registry[NAME]


def environments(**settings: float):
    gymnasium.registry[NAME].kwargs["mdp"] = Rod(**settings)
    return closing(vectorize(NAME, 24))


def policy_at_the_start(config: RLConfig = SMALL, **settings: float) -> BuiltPolicy:
    with environments(**settings) as envs:
        return initial_policy(envs, config.network, config.meta, config.seed)


def trained(policy: BuiltPolicy, iterations: int, config: RLConfig = SMALL, **settings: float) -> tuple[Params, float]:
    """Parameters after some meta-iterations, and the mean return after adaptation in the last of them."""
    state, metrics = initial_state(policy, config.meta), {}
    with environments(**settings) as envs:
        for _ in range(iterations):
            state, metrics, _ = meta_iteration(policy, state, envs, config.meta, config.seed, TaskThreads(1))
    return state.meta, metrics["return/after_1_steps"]


@pytest.mark.parametrize("unit", [2.0**-10, 2.0**10])
def test_another_unit_of_the_observations_gives_the_same_bits(unit):
    theta, mean_return = trained(policy_at_the_start(), 3)
    scaled, scaled_return = trained(policy_at_the_start(unit=unit), 3, unit=unit)
    assert torch.equal(flatten(scaled), flatten(theta))
    assert scaled_return == mean_return


@pytest.mark.parametrize("settings", [{"unit": 1e-3}, {"unit": 1e3}, {"offset": 1e3}, {"unit": 1e3, "offset": -20.0}])
def test_other_units_and_offsets_give_nearly_the_same(settings):
    policy = policy_at_the_start()
    theta, mean_return = trained(policy, 2)
    scaled, scaled_return = trained(policy_at_the_start(**settings), 2, **settings)
    moved = (flatten(theta) - flatten(parameters(policy))).norm()
    assert (flatten(scaled) - flatten(theta)).norm() < 0.05 * moved
    assert scaled_return == pytest.approx(mean_return, rel=0.01)


def test_an_observation_that_hardly_varied_at_first_is_clipped_when_it_does():
    policy = policy_at_the_start()
    assert policy.observation_std[1] == pytest.approx(1e-5, rel=0.5)
    inputs = policy.standardised(torch.tensor([[0.1, 1.0], [1e30, -1e30]]))
    assert inputs[0].tolist() == [pytest.approx(0.3, abs=0.3), 10.0]
    assert inputs[1].tolist() == [10.0, -10.0]
    # From here on the contact is felt half of the time: its standardised value would be 1e5.
    theta, _ = trained(policy, 3, start=3.0)
    assert flatten(theta).isfinite().all()


def test_without_clipping_it_ends_the_training_and_the_message_says_how_large_it_was():
    unbounded = replace(SMALL, network=replace(SMALL.network, observation_clip=None))
    policy = policy_at_the_start(unbounded)
    with pytest.raises(NonFiniteError, match=r"iteration \d: .* with observations of up to 1\.\d+e\+05 at the network"):
        trained(policy, 3, unbounded, start=3.0)


def test_raw_observations_are_not_clipped():
    policy = policy_at_the_start(replace(SMALL, network=PolicyConfig(hidden_sizes=(16,), standardise=False)))
    observations = torch.tensor([[500.0, -500.0]])
    assert torch.equal(policy.standardised(observations), observations)
