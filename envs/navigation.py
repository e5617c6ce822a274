"""A point in the plane that must move to a goal it cannot see (Finn, Abbeel, Levine 2017, section 5.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from maml_rl.envs.batched import Array, TaskMDP


class Navigation2D(TaskMDP):
    """A point that moves in the plane towards a goal which is the task and is not observed.

    ## Description

    Definition and constants are those of the code behind Figure 4 of Finn, Abbeel, Levine 2017. The reward is the
    distance itself, although the paper's text says its square: only the distance agrees with the published returns.

    ## Action space

    `Box(-1, 1, (2,), float32)`, clipped; times 0.1 it is the displacement in x and y.

    ## Observation space

    `Box(-inf, inf, (2,), float64)`: the position (x, y).

    ## Task

    `Box(-0.5, 0.5, (2,), float32)`: the goal (x, y).

    ## Rewards

    `reward_distance` = -|p - g|, with p the position after the step; `info` holds it.

    ## Starting state

    The origin.

    ## Episode end

    Terminates when both coordinates are within 0.01 of the goal's; truncated after 100 steps.

    ## Arguments

    None.

    ## Version history

    - v0: as published in 2017.
    """

    step_size = 0.1
    goal_tolerance = 0.01
    task_quantity = "goal"

    def __init__(self) -> None:
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.task_space = Box(-0.5, 0.5, (2,), np.float32)

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """The origin."""
        return np.zeros((len(generators), 2))

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """The position moved by the clipped, scaled action."""
        return states + self.step_size * np.clip(actions, -1.0, 1.0)

    def observation(self, states: Array) -> Array:
        """The position."""
        return states

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Minus the distance from the goal."""
        return {"reward_distance": -np.linalg.norm(next_states - tasks, axis=1)}

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the point has reached the goal."""
        reached: Array = (np.abs(states - tasks) < self.goal_tolerance).all(axis=1)
        return reached

    def task_name(self, task: Any) -> str:
        """The goal."""
        return f"goal ({task[0]:.2f}, {task[1]:.2f})"

    def render(self, pose: Array, task: Any) -> Array:
        """The square of goals with the start (grey), the goal (green) and the point (blue); x to the right, y up."""
        size, extent = 240, 0.75
        coordinates = np.linspace(-extent, extent, size)
        x, y = coordinates[None, :], -coordinates[:, None]
        picture: NDArray[np.uint8] = np.full((size, size, 3), 255, np.uint8)
        picture[(np.abs(x) <= 0.5) & (np.abs(y) <= 0.5)] = (240, 240, 240)
        for centre, radius, colour in (((0, 0), 0.015, "808080"), (task, 0.03, "2ca02c"), (pose, 0.02, "1f77b4")):
            picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = tuple(bytes.fromhex(colour))
        return picture
