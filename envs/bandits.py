"""Multi-armed bandits: one state, k actions, and rewards whose means are the task (Duan et al. 2016, section 3.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maml_rl.envs.batched import Array, TaskMDP


class Bandit(TaskMDP):
    """k arms, each of which pays a random reward with its own mean when it is pulled.

    ## Description

    The bandits of Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016, "RL^2" (arXiv 1611.02779, section 3.1), at
    the smallest size of its Table 1: k = 5 arms and n = 10 pulls. There, an agent with a memory gets n pulls
    in total; here they are one episode.

    The exact returns are known: a policy that pulls arm a with probability q_a returns n sum_a q_a p_a on average.
    A uniform policy returns n / 2 over tasks, the best arm n k / (k + 1).

    ## Action space

    `Discrete(k)`: the arm to pull.

    ## Observation space

    `Box(0, 1, (1,), float64)`, always 1. The process has one state, and a policy without a memory, as MAML adapts,
    can learn about the arms through its gradient steps only. (A policy with a memory is given its last action and
    reward as well, which it gets from the loop that acts.) It is 1 and not 0 so that the weights of a policy's first
    layer have gradients.

    ## Task

    `Box(0, 1, (k,), float32)`: the arms' mean rewards p, independent and uniform.

    ## Rewards

    `reward_pull`, which `info` holds, by the argument `rewards`:

    - `"bernoulli"`: 1 with probability p_a, else 0, as published;
    - `"gaussian"`: p_a + N(0, 1). It is not in the paper; the arms' means are distributed as there. The same
      distributions are those of `GaussianBanditEnv` in `tristandeleu/pytorch-maml-rl`.

    The random numbers of all pulls are drawn at the start of an episode, one for each pull, whichever arm is pulled.

    ## Starting state

    The only one.

    ## Episode end

    Never terminates; truncated after 10 pulls.

    ## Arguments

    - `rewards`: `"bernoulli"` or `"gaussian"`.
    - `arms`: number of arms, k.
    - `pulls`: number of pulls for which an episode draws, n; the time limit must not be longer.

    ## Version history

    - v0: as published in 2016, and the variant with normal rewards.
    """

    reward_std = 1.0  # of normal rewards

    def __init__(self, rewards: Literal["bernoulli", "gaussian"], arms: int = 5, pulls: int = 10) -> None:
        if rewards not in ("bernoulli", "gaussian"):
            raise ValueError(f"rewards must be 'bernoulli' or 'gaussian', got {rewards!r}")
        self.rewards = rewards
        self.pulls = pulls
        self.action_space = Discrete(arms)
        self.observation_space = Box(0.0, 1.0, (1,), np.float64)
        self.task_space = Box(0.0, 1.0, (arms,), np.float32)

    # A state is the number of pulls so far and the random number of each pull of the episode: a transition, a function
    # of arrays, cannot draw.

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """No pulls so far, and the random numbers of those to come: uniform or standard normal."""
        bernoulli = self.rewards == "bernoulli"
        draws = [g.random(self.pulls) if bernoulli else g.standard_normal(self.pulls) for g in generators]
        return np.column_stack([np.zeros(len(generators)), np.stack(draws)])

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """One more pull.

        Raises:
            ValueError: After as many pulls as the episode drew random numbers for.
        """
        if (states[:, 0] >= self.pulls).any():
            raise ValueError(f"an episode has {self.pulls} pulls; for a longer time limit, make it with pulls=...")
        next_states = states.copy()
        next_states[:, 0] += 1
        return next_states

    def observation(self, states: Array) -> Array:
        """The constant 1."""
        return np.ones((len(states), 1))

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Reward of the arm pulled."""
        rows = np.arange(len(states))
        means = tasks[rows, actions]
        draws = states[rows, 1 + states[:, 0].astype(np.int64)]
        if self.rewards == "bernoulli":
            return {"reward_pull": (draws < means).astype(np.float64)}
        return {"reward_pull": means + self.reward_std * draws}

    def task_name(self, task: Any) -> str:
        """The best arm and what it pays on average."""
        return f"best arm {np.argmax(task) + 1} ({np.max(task):.2f})"

    def render(self, pose: Array, task: Any) -> Array:
        """A bar for each arm, as high as its mean reward; the picture's height is 1."""
        height, width = 120, 24
        bars = np.arange(height)[::-1, None] < height * np.asarray(task)
        picture: NDArray[np.uint8] = np.full((height, width * len(task), 3), 255, np.uint8)
        picture[np.repeat(bars, width, axis=1)] = tuple(bytes.fromhex("1f77b4"))
        picture[:, ::width] = 255
        return picture
