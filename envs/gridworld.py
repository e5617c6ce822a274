"""A room of cells with a visible goal (after Parisotto, Ba, Salakhutdinov 2016): small enough to be solved exactly."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maml_rl.envs.batched import Array, TaskMDP

Goals = Literal["sources", "targets"]
_MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # up, down, left, right, as (row, column)


class GridWorld(TaskMDP):
    """A walk through a square room to a visible goal, with four moves that sometimes slip.

    ## Description

    A small stand-in for the games of Parisotto, Ba, Salakhutdinov 2016, "Actor-Mimic" (arXiv 1511.06342), where a
    student learns from the experts of several games. As there, the observation shows which task it is. The goals are
    split like a chessboard: 13 cells are the *sources*, whose experts a student imitates, and the 12 others the
    *targets*, new goals in rows and columns that are known. `optimal_values` has the exact values.

    ## Action space

    `Discrete(4)`: up, down, left, right. With probability 0.1 the move is any of the four instead. A move into a wall
    leaves the walker where it is.

    ## Observation space

    `Box(0, 1, (4 size,), float64)`: row and column of the walker, then of the goal, each as a unit vector.

    ## Task

    `Discrete(n)`: the goal, numbered from the first row on. Of 25 cells there are 13 sources and 12 targets.

    ## Rewards

    `reward_step` = -1; `info` holds it.

    ## Starting state

    Any cell but the goal, each with the same probability.

    ## Episode end

    Terminates when the walker reaches the goal; truncated after 50 steps.

    ## Arguments

    - `goals`: `"sources"`, cells whose row and column have an even sum, or `"targets"`, the others.
    - `size`: number of rows and of columns.
    - `steps`: number of steps for which an episode draws random numbers; the time limit must not be longer.

    ## Version history

    - v0: first version.
    """

    slip = 0.1
    task_quantity = "goal cell"

    def __init__(self, goals: Goals = "sources", size: int = 5, steps: int = 50) -> None:
        self.size, self.steps = size, steps
        parity = 0 if goals == "sources" else 1
        self.goals = np.array([(r, c) for r in range(size) for c in range(size) if (r + c) % 2 == parity])  # [n, 2]
        self.action_space = Discrete(len(_MOVES))
        self.observation_space = Box(0.0, 1.0, (4 * size,), np.float64)
        self.task_space = Discrete(len(self.goals))

    # A state is (row, column, row and column of the goal, t), with a random number for each step of the episode, since
    # a transition cannot draw.

    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """First states with goal 0."""
        return self.initial_for(generators, np.zeros(len(generators), np.int64))

    def initial_for(self, generators: Sequence[np.random.Generator], tasks: Array) -> Array:
        """Any cell but the goal, and uniform numbers for the steps to come."""
        goals = self.goals[np.asarray(tasks, np.int64)]
        others = np.array([generator.integers(self.size**2 - 1) for generator in generators], np.int64)
        cells = others + (others >= goals[:, 0] * self.size + goals[:, 1])
        draws = np.stack([generator.random(self.steps) for generator in generators])
        return np.column_stack([cells // self.size, cells % self.size, goals, np.zeros(len(cells)), draws])

    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """The walker one cell further, or where a wall stops it.

        Raises:
            ValueError: After as many steps as the episode drew random numbers for.
        """
        if (states[:, 4] >= self.steps).any():
            raise ValueError(f"an episode has {self.steps} steps; for a longer time limit, make it with steps=...")
        draws = states[np.arange(len(states)), 5 + states[:, 4].astype(np.int64)]
        slipped = (draws / self.slip * len(_MOVES)).astype(np.int64)  # one of the moves, where draws are below slip
        moves = _MOVES[np.where(draws < self.slip, slipped % len(_MOVES), actions)]
        next_states = states.copy()
        next_states[:, :2] = np.clip(states[:, :2] + moves, 0, self.size - 1)
        next_states[:, 4] += 1
        return next_states

    def observation(self, states: Array) -> Array:
        """Row and column of walker and goal as unit vectors."""
        return np.eye(self.size)[states[:, :4].astype(np.int64)].reshape(len(states), -1)

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Minus one for each step."""
        return {"reward_step": np.full(len(states), -1.0)}

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the walker is at the goal."""
        reached: Array = (states[:, :2] == states[:, 2:4]).all(axis=1)
        return reached

    def cells(self, task: int) -> Array:
        """Observations of every cell with a goal, `[size^2, 4 size]`, from the first row on."""
        rows, columns = np.divmod(np.arange(self.size**2), self.size)
        goals = np.broadcast_to(self.goals[int(task)], (self.size**2, 2))
        return self.observation(np.column_stack([rows, columns, goals]))

    def poses(self, states: Array) -> Array:
        """The cell of the walker."""
        return states[:, :2]

    def task_name(self, task: Any) -> str:
        """The goal's row and column."""
        row, column = self.goals[int(task)]
        return f"goal in row {row}, column {column}"

    def render(self, pose: Array, task: Any) -> Array:
        """The room with the goal (green) and the walker (blue); row 0 at the top."""
        picture: NDArray[np.uint8] = np.full((self.size, self.size, 3), 240, np.uint8)
        picture[::2, ::2] = picture[1::2, 1::2] = 225
        picture[tuple(self.goals[int(task)])] = (44, 160, 44)
        picture[tuple(pose.astype(np.int64))] = (31, 119, 180)
        return np.kron(picture, np.ones((48, 48, 1), np.uint8))


def optimal_values(
    world: GridWorld, task: int, discount: float = 0.99, tolerance: float = 1e-10
) -> NDArray[np.float64]:
    """Q*(s, a) of every cell and move, `[size^2, 4]`, by value iteration; 0 at the goal, where an episode has ended.

    Args:
        world: The room.
        task: Its goal.
        discount: Discount factor of a step.
        tolerance: Largest change of a value with which the iteration ends.
    """
    size = world.size
    row, column = world.goals[int(task)]
    goal = row * size + column
    rows, columns = np.divmod(np.arange(size**2), size)
    places = np.stack([rows, columns], axis=1)[:, None] + _MOVES  # [cells, moves, 2]
    reached = np.clip(places, 0, size - 1) @ np.array([size, 1])  # [cells, moves]
    q: NDArray[np.float64] = np.zeros((size**2, len(_MOVES)))
    while True:
        after = q.max(axis=1)[reached]  # the value that a move leads to, if it is made
        new: NDArray[np.float64] = -1 + discount * (
            (1 - world.slip) * after + world.slip * after.mean(axis=1, keepdims=True)
        )
        new[goal] = 0.0
        if np.abs(new - q).max() < tolerance:
            return new
        q = new
