"""Walker and hopper in the plane: the task is a direction, or the robot's dynamics (Rothfuss et al. 2019)."""

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import mujoco
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maml_rl.envs.batched import Array
from maml_rl.envs.mujoco.mdp import DIRECTION, MujocoMDP, direction_name, small_uniform_noise
from maml_rl.envs.mujoco.model import gymnasium_model

_CONTROL_COST = 0.001
_SPEED_LIMIT = 10.0  # of observed velocities


class Robot(NamedTuple):
    """One of the two robots."""

    xml: str
    frame_skip: dict[str, int]  # by goal
    heights: tuple[float, float]  # of the torso in m; outside, the episode ends
    max_pitch: float  # rad
    max_state: float  # of all but the torso's place


ROBOTS = {
    "walker": Robot("walker2d.xml", {"direction": 8, "dynamics": 5}, (0.8, 2.0), 1.0, np.inf),
    "hopper": Robot("hopper.xml", {"dynamics": 4}, (0.7, np.inf), 0.2, 100.0),
}


class Walker(MujocoMDP):
    """A planar robot with one or two legs that runs forward or backward, or forward with dynamics set by the task.

    ## Description

    The robots are Gymnasium's `walker2d.xml` and `hopper.xml`; the tasks are those of Rothfuss et al. 2019 (ProMP) and
    the environments with random parameters that it uses. An action is divided by 10 before it is clipped, so that the
    standard deviation 1 of a new policy is a torque of a tenth of the largest.

    ## Action space

    `Box(-10, 10, (6,), float32)`: thigh, leg and foot of the right and of the left leg; the hopper has one leg,
    `Box(-10, 10, (3,), float32)`. Control 1, action 10, is a torque of 100 N m, or 200 N m for the hopper.

    ## Observation space

    `Box(-inf, inf, (17,), float64)`, for the hopper `(11,)`.

    | walker | hopper | quantity                                                               | unit       |
    |--------|--------|------------------------------------------------------------------------|------------|
    | 0      | 0      | height of the torso                                                    | m          |
    | 1      | 1      | pitch of the torso                                                     | rad        |
    | 2-7    | 2-4    | angles of the joints                                                   | rad        |
    | 8-9    | 5-6    | velocity of the torso in x and z, clipped to ±10                       | m/s        |
    | 10-16  | 7-10   | angular velocity of the torso and of the joints, clipped to ±10        | rad/s      |

    ## Task

    - goal `"direction"`: `Discrete(2)`, 0 to run backward (d = -1) and 1 to run forward (d = +1);
    - goal `"dynamics"`: `Box(-3, 3, (n,), float32)`, exponents e. Each parameter is the model's own, multiplied by
      1.5^e, or by 1.3^e for damping. In this order: mass of each body, its three moments of inertia, damping of each
      joint, three coefficients of friction of each geometry, that of the floor first (n = 58 for the walker, 34 for the
      hopper). Parameters that are 0 in the model are left out.

    ## Rewards

    With v the change of the torso's x over the control step by its duration, and a the control:

    - `reward_direction` = d v, or `reward_forward` = v;
    - `reward_alive` = 1;
    - `reward_control` = -0.001 |a|^2.

    `info` holds all terms.

    ## Starting state

    The standing pose, with noise U(-0.005, 0.005) on each position and velocity.

    ## Episode end

    Terminates when the torso's height is not between 0.8 and 2 m or its pitch not between -1 and 1 rad; for the hopper,
    when the height is below 0.7 m, the pitch beyond ±0.2 rad or another number of the state beyond ±100. Truncated
    after 200 steps.

    ## Arguments

    - `robot`: `"walker"` or `"hopper"`.
    - `goal`: `"direction"` (walker) or `"dynamics"`.
    - `threads`: number of threads that step a batch; all cores if None. It does not change any result.

    ## Version history

    - v0: as published in 2019. The pose of the torso is Gymnasium's, in which the height is that above the floor.
      Episodes had 100 steps before; now they have the 200 of the source's scripts.
    """

    def __init__(
        self,
        robot: Literal["walker", "hopper"],
        goal: Literal["direction", "dynamics"],
        threads: int | None = None,
    ) -> None:
        if robot not in ROBOTS:
            raise ValueError(f"robot must be one of {', '.join(ROBOTS)}, got {robot!r}")
        self.robot, self.goal = ROBOTS[robot], goal
        if goal not in self.robot.frame_skip:
            raise ValueError(f"goal of the {robot} must be one of {', '.join(self.robot.frame_skip)}, got {goal!r}")
        model = gymnasium_model(self.robot.xml)
        super().__init__(model, model.qpos0, small_uniform_noise, self.robot.frame_skip[goal], 0.1, threads=threads)
        self.observation_space = Box(-np.inf, np.inf, (model.nq - 1 + model.nv,), np.float64)
        self._parameters = RandomParameters(model)
        exponents = Box(-3.0, 3.0, (self._parameters.size,), np.float32)
        self.task_space = Discrete(2) if goal == "direction" else exponents
        self.task_quantity = DIRECTION if goal == "direction" else "dynamics"

    def models(self, tasks: Array) -> mujoco.MjModel | list[mujoco.MjModel]:
        """The model with each task's dynamics."""
        return self.model if self.goal == "direction" else [self._parameters.model(task) for task in tasks]

    def observation(self, states: Array) -> Array:
        """Positions without the torso's x, and clipped velocities."""
        return np.concatenate(
            [self.qpos(states)[:, 1:], np.clip(self.qvel(states), -_SPEED_LIMIT, _SPEED_LIMIT)], axis=1
        )

    def task_name(self, task: Any) -> str | None:
        """The direction; None for dynamics, which are many numbers."""
        return direction_name(task) if self.goal == "direction" else None

    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Speed in the right direction, the reward for being alive, and the cost of control."""
        velocity = (self.qpos(next_states)[:, 0] - self.qpos(states)[:, 0]) / self.dt
        speed = (
            {"reward_direction": (2 * tasks - 1) * velocity}
            if self.goal == "direction"
            else {"reward_forward": velocity}
        )
        return speed | {
            "reward_alive": np.ones(len(states)),
            "reward_control": -_CONTROL_COST * np.square(self.controls(actions)).sum(axis=1),
        }

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the robot has fallen, or a number is not finite."""
        qpos, (lowest, highest) = self.qpos(states), self.robot.heights
        upright = (qpos[:, 1] > lowest) & (qpos[:, 1] < highest) & (np.abs(qpos[:, 2]) < self.robot.max_pitch)
        others = np.abs(np.concatenate([qpos[:, 2:], self.qvel(states)], axis=1))
        fine: Array = upright & np.isfinite(states).all(axis=1) & (others < self.robot.max_state).all(axis=1)
        return ~fine


class RandomParameters:
    """Models whose parameters are a base model's, multiplied by powers that a task gives.

    What MuJoCo derives from the parameters when it compiles a model, such as the inverse weights that scale the
    constraint solver, stays that of the base model, as in the original code.

    Args:
        model: The base model, which is not changed.
    """

    _BASES: tuple[tuple[str, float], ...] = (
        ("body_mass", 1.5),
        ("body_inertia", 1.5),
        ("dof_damping", 1.3),
        ("geom_friction", 1.5),
    )

    def __init__(self, model: mujoco.MjModel) -> None:
        self._base = model
        self._varied = [(name, base, np.flatnonzero(getattr(model, name))) for name, base in self._BASES]
        self.size = sum(len(places) for _, _, places in self._varied)
        self._model = lru_cache(maxsize=256)(self._build)  # half a MB each

    def model(self, exponents: NDArray[np.float32]) -> mujoco.MjModel:
        """The model for exponents `[size]`; usually the same object for the same exponents."""
        return self._model(exponents.tobytes())

    def _build(self, exponents: bytes) -> mujoco.MjModel:
        left = np.frombuffer(exponents, np.float32).astype(np.float64)
        model = copy(self._base)
        for name, base, places in self._varied:
            powers, left = left[: len(places)], left[len(places) :]
            getattr(model, name).reshape(-1)[places] *= base**powers
        return model
