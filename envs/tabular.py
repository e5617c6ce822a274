"""Finite Markov decision processes drawn at random (Duan et al. 2016, section 3.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import Error
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maml_rl.envs.batched import Array, TaskMDP


class TabularMDPs(Box):
    """Distribution over processes of S states and A actions: Dirichlet(1, ..., 1) transitions, N(1, 1) mean rewards.

    An element is an array `[S, A, S + 1]` float64. Its entry `[s, a, :S]` holds the probabilities P(. | s, a) of the
    next state and `[s, a, S]` the mean reward of action a in state s.

    Args:
        states: Number of states, S.
        actions: Number of actions, A.
        seed: Seed of the samples.
    """

    def __init__(self, states: int, actions: int, seed: int | np.random.Generator | None = None) -> None:
        low, high = np.zeros((states, actions, states + 1)), np.ones((states, actions, states + 1))
        low[..., -1], high[..., -1] = -np.inf, np.inf
        super().__init__(low, high, dtype=np.float64, seed=seed)

    def sample(self, mask: None = None, probability: None = None) -> NDArray[np.float64]:
        """A process: each P(. | s, a) uniform on the simplex, each mean reward N(1, 1), all independent.

        Raises:
            gymnasium.error.Error: If a mask is given; there is none for this space, as for Box.
        """
        if mask is not None or probability is not None:
            raise Error(f"{self}.sample takes no mask, got {mask if probability is None else probability}")
        states, actions, _ = self.shape
        transitions = self.np_random.dirichlet(np.ones(states), (states, actions))
        rewards = self.np_random.normal(1.0, 1.0, (states, actions, 1))
        return np.concatenate([transitions, rewards], axis=-1)

    def contains(self, x: Any) -> bool:
        """Whether x has the shape of an element, distributions that sum to 1 within 1e-6, and finite mean rewards."""
        if not super().contains(x):
            return False
        process = np.asarray(x)
        sums_to_one = np.abs(process[..., :-1].sum(-1) - 1) < 1e-6
        return bool(sums_to_one.all() and np.isfinite(process[..., -1]).all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TabularMDPs) and self.shape == other.shape

    def __repr__(self) -> str:
        return f"TabularMDPs({self.shape[0]}, {self.shape[1]})"


class TabularMDP(TaskMDP):
    """A random process with S states: the action sets the probabilities of the next state and the mean reward.

    ## Description

    The random processes of Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016, "RL^2" (arXiv 1611.02779, section
    3.2), with its sizes: S = 10, A = 5, 10 steps. What a policy returns on average follows by linear algebra: with
    r the mean rewards and P the transition matrix under the policy, V_t = r + P V_{t+1} and V_10 = 0.

    ## Action space

    `Discrete(A)`.

    ## Observation space

    `Box(0, 1, (S,), float64)`: 1 at the index of the state, else 0.

    ## Task

    `TabularMDPs(S, A)`: transition probabilities and mean rewards.

    ## Rewards

    `reward_action` = r(s, a) + N(0, 1), s the state before the step; `info` holds it.

    ## Starting state

    State 0.

    ## Episode end

    Never terminates; truncated after 10 steps.

    ## Arguments

    - `states`, `actions`: S and A.
    - `steps`: number of steps for which an episode draws random numbers; the time limit must not be longer.

    ## Version history

    - v0: as published in 2016.
    """

    reward_std = 1.0

    def __init__(self, states: int = 10, actions: int = 5, steps: int = 10) -> None:
        self.states = states
        self.steps = steps
        self.action_space = Discrete(actions)
        self.observation_space = Box(0.0, 1.0, (states,), np.float64)
        self.task_space = TabularMDPs(states, actions)

    # A state is (s, t), s the process's own and t the steps so far, with two random numbers for each step of the
    # episode, first all that choose next states and then all of the rewards: a transition cannot draw.

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """State 0 before the first step, with uniform and standard normal numbers for the steps to come."""
        draws = [np.concatenate([g.random(self.steps), g.standard_normal(self.steps)]) for g in generators]
        return np.column_stack([np.zeros((len(generators), 2)), np.stack(draws)])

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """The next state, by inversion of its cumulative distribution.

        Raises:
            ValueError: After as many steps as the episode drew random numbers for.
        """
        if (states[:, 1] >= self.steps).any():
            raise ValueError(f"an episode has {self.steps} steps; for a longer time limit, make it with steps=...")
        rows, state, step = self._indices(states)
        cumulative = tasks[rows, state, actions, :-1].cumsum(axis=1)
        cumulative /= cumulative[:, -1:]  # ends with 1 exactly, which no uniform number reaches
        next_states = states.copy()
        next_states[:, 0] = (cumulative > states[rows, 2 + step][:, None]).argmax(axis=1)
        next_states[:, 1] += 1
        return next_states

    def observation(self, states: Array) -> Array:
        """The state as a unit vector."""
        return np.eye(self.states)[states[:, 0].astype(np.int64)]

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Mean reward of the action in the state, with noise."""
        rows, state, step = self._indices(states)
        means = tasks[rows, state, actions, -1]
        return {"reward_action": means + self.reward_std * states[rows, 2 + self.steps + step]}

    def _indices(self, states: Array) -> tuple[Array, Array, Array]:
        """Row, state and step of each state vector, for indexing."""
        return np.arange(len(states)), states[:, 0].astype(np.int64), states[:, 1].astype(np.int64)

    def render(self, pose: Array, task: Any) -> Array:
        """Mean rewards of the actions (columns) in the states (rows), lighter for more; blue in the current state."""
        cell = 24
        means = np.asarray(task)[..., -1]
        shades = 255 * np.clip((means + 2) / 6, 0, 1)  # black at 3 standard deviations below the mean, white above
        picture = np.repeat(shades.astype(np.uint8)[..., None], 3, axis=-1)
        picture[int(pose[0]), :, 2] = 255
        return np.kron(picture, np.ones((cell, cell, 1), np.uint8))
